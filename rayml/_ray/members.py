"""The ranks of a job as actors, one on each of the workers that it holds."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psutil
import ray
from ray._raylet import PlacementGroupID
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rayml import processes
from rayml._ray.deaths import rank_failure
from rayml._ray.tasks import demand_options, this_node
from rayml.memory import oom_kills
from rayml.ranks import RankFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from typing import TypeAlias

    from rayml.ranks import Rank
    from rayml.tracker.records import Problem

# Those that wait for a rank which died or hangs fail a moment after each other.
SETTLE_S = 1.0
# How often somebody looks whether all is well.
LOOK_S = 0.25

_T = TypeVar("_T")
Actor: TypeAlias = Any  # ray.actor.ActorHandle of a _Member, of which mypy makes nothing


@dataclass(frozen=True)
class Seat:
    """Where a rank is.

    Attributes:
        node: Ray's id of its machine.
        interface: Which of that machine's network interfaces has the address that Ray uses; empty
            if none has, as behind a translation of addresses.
        gpus: The machine's numbers of those that are the rank's.
    """

    node: str
    interface: str
    gpus: tuple[str, ...]


class _Member:
    def __init__(self) -> None:
        processes.listen()

    def locate(self) -> Seat:
        gpus = tuple(map(str, ray.get_gpu_ids()))
        return Seat(this_node(), _interface_of(ray.util.get_node_ip_address()), gpus)

    def call(self, main: Callable[[Rank], _T], rank: Rank, variables: dict[str, str]) -> _T:
        os.environ |= variables
        return main(rank)


def _interface_of(address: str) -> str:
    for name, addresses in psutil.net_if_addrs().items():
        if any(a.family == socket.AF_INET and a.address == address for a in addresses):
            return name
    return ""


def held_group() -> PlacementGroup:
    """Return the placement group of the job that calls this.

    Raises:
        RuntimeError: It has none.
    """
    group = get_current_placement_group()
    if group is None:
        raise RuntimeError("the job's workers are not held")
    return group


def group_id() -> str:
    """Return by which `find_group` finds the placement group of the job that calls this."""
    return held_group().id.hex()


def job_variables() -> dict[str, str]:
    """Return the variables that the job which calls this was given for its environment."""
    given: dict[str, str] = ray.get_runtime_context().runtime_env.get("env_vars") or {}
    return dict(given)


def find_group(identity: str) -> PlacementGroup:
    """Return a job's placement group in any of its processes."""
    return PlacementGroup(PlacementGroupID(bytes.fromhex(identity)))


def run_on_each(count: int, function: Callable[..., object], *args: object) -> None:
    """Call a function on each of the first workers that the job of this caller holds."""
    task = ray.remote(num_cpus=0)(function)
    places = [PlacementGroupSchedulingStrategy(held_group(), bundle) for bundle in range(count)]
    ray.get([task.options(scheduling_strategy=place).remote(*args) for place in places])


def hire(group: PlacementGroup, bundle: int, share: Mapping[str, float]) -> Actor:
    """Start a rank's process on one of the workers that a group holds."""
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
    options: dict[str, Any] = {**demand_options(share), "scheduling_strategy": place}
    member: Any = ray.remote(_Member)
    return cast("Actor", member.options(**options).remote())


def locate(actors: Iterable[Actor]) -> list[Seat]:
    """Return where ranks are, once they are."""
    seats: list[Seat] = ray.get([actor.locate.remote() for actor in actors])
    return seats


def await_all(
    tasks: Mapping[ray.ObjectRef[Any], int], look: Callable[[Collection[int]], None]
) -> tuple[dict[int, Any], dict[int, Problem]]:
    """Return what ranks have returned, and the problems of those that failed, by rank.

    Once one has failed, the others are given a moment to fail of it, and no more. The problems
    are in the order in which they came.

    Args:
        tasks: The rank of each call that is waited for.
        look: What is called now and then with the ranks that still run.
    """
    before = oom_kills()
    ended: dict[int, object] = {}
    pending = list(tasks)
    while pending and not _failures(ended):
        ready, pending = ray.wait(pending, timeout=LOOK_S)
        look([tasks[task] for task in pending])
        ended |= {tasks[task]: _end_of(task, before) for task in ready}
    if pending:
        ready, _ = ray.wait(pending, num_returns=len(pending), timeout=SETTLE_S)
        ended |= {tasks[task]: _end_of(task, before) for task in ready}
    failed = _failures(ended)
    returned = {rank: end for rank, end in ended.items() if rank not in failed}
    return returned, problems_in_order(failed)


def problems_in_order(failures: Mapping[int, RankFailed]) -> dict[int, Problem]:
    """Return the problems of ranks, the first to fail first."""
    in_order = sorted(failures.items(), key=lambda item: item[1].at)
    return {rank: failure.problem for rank, failure in in_order}


def _end_of(task: ray.ObjectRef[Any], oom_kills_before: int) -> object:
    try:
        return cast("object", ray.get(task))
    except RayError as exc:
        return rank_failure(exc, oom_kills_before)


def _failures(ended: Mapping[int, object]) -> dict[int, RankFailed]:
    return {rank: end for rank, end in ended.items() if isinstance(end, RankFailed)}
