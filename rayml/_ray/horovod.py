"""Horovod's ranks on workers that a job holds already, and what makes them one group."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from horovod.runner.common.util import codec
from horovod.runner.common.util.hosts import HostInfo, get_host_assignments
from horovod.runner.gloo_run import create_slot_env_vars
from horovod.runner.http.http_client import put_data_into_kvstore, read_data_from_kvstore
from horovod.runner.http.http_server import RendezvousServer

from rayml._ray.members import await_all, held_group, hire, locate
from rayml.culprit import hang
from rayml.ranks import Rank, RankFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from horovod.runner.common.util.hosts import SlotInfo

    from rayml._ray.members import Seat
    from rayml.tracker.records import Problem

# Under which name ranks tell that they wait.
_WAITS = "rayml-waits"
# Under which they find their numbers, those of an elastic job.
_NUMBERS = "rayml-numbers"
# For how much longer than ranks may wait Gloo does: in `hvd.init()` it then ends the process that
# waits, before the one that did not come could be named.
_LEEWAY_S = 10


def fit(
    main: Callable[[Rank], bytes], world_size: int, share: Mapping[str, float], timeout_s: float
) -> tuple[dict[int, bytes], dict[int, Problem]]:
    """Call `main` on each rank, in the current placement group, one in each of its bundles.

    Returns what it returned, by rank; and, once one has failed and all have ended, the problems of
    those that had failed by then, in the order in which they did.
    """
    group = held_group()
    actors = [hire(group, bundle, share) for bundle in range(world_size)]
    try:
        seats = locate(actors)
        order = by_node(seats)
        slots = assign_slots([seats[bundle].node for bundle in order])
        with _rendezvous(slots) as (server, port):
            tasks: dict[ray.ObjectRef[Any], int] = {}
            for slot, bundle in zip(slots, order, strict=True):
                seat = seats[bundle]
                variables = meeting_variables(port, seat, timeout_s) | slot_variables(slot)
                variables |= gpu_variables(seats, seat.node)
                rank = Rank(slot.rank, slot.size, slot.local_rank, seat.node)
                tasks[actors[bundle].call.remote(main, rank, variables)] = slot.rank
            return await_all(tasks, partial(_check, server, timeout_s))
    finally:
        for actor in actors:
            ray.kill(actor)


def by_node(seats: Sequence[Seat]) -> list[int]:
    """Return the indexes of seats, those on the same machine next to each other."""
    nodes = list(dict.fromkeys(seat.node for seat in seats))
    return sorted(range(len(seats)), key=lambda index: nodes.index(seats[index].node))


def assign_slots(nodes: Sequence[str]) -> list[SlotInfo]:
    """Return Horovod's numbering of ranks that are on these machines, in this order."""
    counts = {node: nodes.count(node) for node in dict.fromkeys(nodes)}
    hosts = [HostInfo(node, count) for node, count in counts.items()]
    slots: list[SlotInfo] = get_host_assignments(hosts, len(nodes), len(nodes))
    return slots


def _check(server: RendezvousServer, timeout_s: float, running: Collection[int]) -> None:
    """Raise RankFailed if ranks wait for others in vain."""
    waits = read_waits(server)
    if (absent := find_absent(waits, running, timeout_s)) is not None:
        raise RankFailed(hang(absent, [rank for rank in waits if waits[rank]], timeout_s))


def find_absent(
    waits: Mapping[int, float], running: Collection[int], timeout_s: float
) -> list[int] | None:
    """Return the ranks that others wait for in vain; None if nobody does.

    Args:
        waits: For how many seconds each one has waited; one that does not wait may be missing.
        running: Those that have not ended.
        timeout_s: For how long it may be.
    """
    if max(waits.values(), default=0.0) < timeout_s:
        return None
    return [rank for rank in running if not waits.get(rank)]


def report_wait(rank: int, seconds: float) -> None:
    """Tell where the ranks meet for how long this one waits for the others; 0 if it does not."""
    put_data_into_kvstore(*_meeting_place(), _WAITS, str(rank), seconds)


def read_waits(server: RendezvousServer) -> dict[int, float]:
    """Return what the ranks have told by `report_wait` since they met last."""
    with server._httpd.cache_lock:
        found = dict(server._httpd.cache.get(_WAITS, {}))
    return {int(rank): codec.loads_base64(seconds) for rank, seconds in found.items()}


def tell_numbers(server: RendezvousServer, numbers: Mapping[int, int]) -> None:
    """Let ranks that meet here look up their numbers in the newest group, also after its end."""
    told = {str(rank): codec.dumps_base64(n, to_ascii=False) for rank, n in numbers.items()}
    with server._httpd.cache_lock:
        server._httpd.cache[_NUMBERS] = told


def find_number(rank: int) -> int:
    """Return which one a rank is in the newest group, as `tell_numbers` has told.

    Raises:
        RuntimeError: It is in none, or where they meet is closed.
    """
    return int(read_data_from_kvstore(*_meeting_place(), _NUMBERS, str(rank)))


def _meeting_place() -> tuple[str, int]:
    port = int(os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"])
    return os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"], port


@contextmanager
def _rendezvous(slots: Sequence[SlotInfo]) -> Iterator[tuple[RendezvousServer, int]]:
    server = RendezvousServer()
    port: int = server.start()
    server.init(slots)
    try:
        yield server, port
    finally:
        server.stop()


def slot_variables(slot: SlotInfo) -> dict[str, str]:
    """Return the variables that tell a rank which one it is."""
    variables: dict[str, str] = create_slot_env_vars(slot)
    return variables


def meeting_variables(port: int, seat: Seat, timeout_s: float) -> dict[str, str]:
    """Return the variables that tell a rank where to meet the others, and how long to wait.

    Args:
        port: Of the rendezvous server in this process.
        seat: Where the rank is.
        timeout_s: For how long ranks wait for each other.
    """
    interface = {"HOROVOD_GLOO_IFACE": seat.interface} if seat.interface else {}
    return {
        **interface,
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": ray.util.get_node_ip_address(),
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(round(timeout_s) + _LEEWAY_S),
    }


def gpu_variables(seats: Sequence[Seat], node: str) -> dict[str, str]:
    """Return what lets ranks see the job's GPUs on a machine: `hvd.local_rank()` tells which."""
    # Ranks may share one, and CUDA shows none at all where one is named twice.
    gpus = dict.fromkeys(gpu for seat in seats if seat.node == node for gpu in seat.gpus)
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
