"""Attempts as Ray tasks: where they run, in which environment, and what is left of them."""

from __future__ import annotations

import shlex
import shutil
import sys
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import ray
from ray._private import worker as ray_worker
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from rayml._ray.capacity import ray_resources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from rayml.config import Resources

# Ray ends a worker cleanly when it has served this many calls of a function; `retire_worker`
# raises the counter to it, because it is only known after a call whether a worker may be reused.
_MAX_CALLS = 1_000_000_000

# Not in the placement group of a job that starts it and needs that for itself.
OUTSIDE = PlacementGroupSchedulingStrategy(PlacementGroup.empty())


@dataclass(frozen=True)
class Place:
    """Where an attempt runs.

    Attributes:
        demand: What it takes of a worker, under Ray's names.
        group: The placement group that holds all its workers; None for a single one, for which
            its task asks by itself.
        is_borrowed: The group is another's, which goes on to need it.
    """

    demand: Mapping[str, float]
    group: PlacementGroup | None = None
    is_borrowed: bool = False

    @property
    def own_group(self) -> str:
        """The group that is the job's alone, as `held_together` takes it; empty without one."""
        is_own = self.group is not None and not self.is_borrowed
        return f"{self.group.id.hex()}@{this_cluster()}" if is_own else ""  # type: ignore[union-attr]

    def ready(self) -> Future[Any]:
        """Return what is done when all workers of its group are held."""
        return cast("Future[Any]", self.group.ready().future())  # type: ignore[union-attr]

    def is_held(self) -> bool:
        """Tell whether all workers of its group are held."""
        found = placement_group_table(self.group) if self.group is not None else {}
        return bool(found.get("state") == "CREATED")

    def nodes(self) -> list[str]:
        """Return the ids of the nodes that its workers are on."""
        table = placement_group_table(self.group) if self.group is not None else {}
        return list(dict.fromkeys(table.get("bundles_to_node_id", {}).values()))

    def release(self) -> None:
        """Give its workers back."""
        if self.group is not None and not self.is_borrowed:
            remove_placement_group(self.group)


def start_attempt(
    execute: Callable[..., tuple[bytes, bool]],
    args: tuple[object, ...],
    place: Place,
    demand: Mapping[str, float],
    runtime_env: dict[str, object],
    name: str,
) -> ray.ObjectRef[Any]:
    """Start `execute(*args, node)` as a Ray task that takes so much of its place.

    It returns (outcome, is_clean).
    """
    group = place.group
    options = {**demand_options(demand), "name": name}
    if runtime_env:
        options["runtime_env"] = runtime_env
    options["scheduling_strategy"] = OUTSIDE
    if group is not None:
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
        )
    task = _attempt_function().options(**options).remote(execute, *args)
    return cast("ray.ObjectRef[Any]", task)


def demand_options(demand: Mapping[str, float]) -> dict[str, object]:
    """Return what a task or actor takes of a worker as the options that Ray wants it in."""
    accelerator = {k: v for k, v in demand.items() if k.startswith("accelerator_type")}
    return {
        "num_cpus": demand.get("CPU", 0),
        "num_gpus": demand.get("GPU", 0),
        "memory": int(demand["memory"]) if "memory" in demand else None,
        "resources": accelerator or None,
    }


@cache
def _attempt_function() -> ray.remote_function.RemoteFunction:
    function = ray.remote(max_calls=_MAX_CALLS, max_retries=0)(_attempt)
    return cast("ray.remote_function.RemoteFunction", function)


def _attempt(execute: Callable[..., tuple[bytes, bool]], *args: object) -> bytes:
    outcome, is_clean = execute(*args, this_node())
    if not is_clean:
        retire_worker()
    return outcome


def retire_worker() -> None:
    """Let this worker end after the task that it executes: user code has left something behind."""
    manager: Any = ray_worker.global_worker.function_actor_manager
    for function_id, info in list(manager._function_execution_info.items()):
        if info.max_calls == _MAX_CALLS:
            manager._num_task_executions[function_id] = _MAX_CALLS - 1


def find_place(resources: Resources, *, is_group: bool) -> Place:
    """Ask for all of a job's workers at once, wherever there is room for them.

    Args:
        resources: What it asks for.
        is_group: Hold a single worker in a placement group too.
    """
    demand = ray_resources(resources)
    if resources.workers == 1 and not is_group:
        return Place(demand)
    bundles = [demand or {"CPU": 0.001} for _ in range(resources.workers)]
    return Place(demand, placement_group(bundles, strategy="PACK"))


def take_workers(workers: int, bundle: dict[str, float], selector: dict[str, str]) -> Place:
    """Ask for whole workers of one shape, which are known to be there.

    Args:
        workers: How many.
        bundle: What there is of one.
        selector: The label that tells their shape.
    """
    group = placement_group(
        [bundle] * workers, strategy="PACK", bundle_label_selector=[selector] * workers
    )
    demand = {name: amount for name, amount in bundle.items() if name in ("CPU", "GPU")}
    return Place(demand, group)


def run_on_node(
    node_id: str, function: Callable[..., object], *args: object
) -> ray.ObjectRef[Any]:
    """Run a function on one node without waiting for free CPUs."""
    task = ray.remote(num_cpus=0, max_retries=0)(function)
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return cast("ray.ObjectRef[Any]", task.options(scheduling_strategy=strategy).remote(*args))


def this_node() -> str:
    """Return the id of the node that this process is on; empty outside Ray."""
    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


def this_cluster() -> str:
    """Return the id of the Ray that this process is connected to."""
    return str(ray_worker.global_worker.current_cluster_and_job[0].hex())


def node_is_alive(node_id: str) -> bool:
    """Tell whether a node is still part of the cluster."""
    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


def wait_for_any(futures: list[Future[Any]], timeout_s: float) -> set[Future[Any]]:
    """Return those of the futures that are done, as soon as there is one.

    Futures, because a thread inside `ray.wait` never returns when another one shuts Ray down.
    """
    return wait(futures, max(0.0, timeout_s), FIRST_COMPLETED).done


def uv_executable(requirements: list[str]) -> list[str]:
    """Return the words that start Python with packages on top of this environment's.

    Raises:
        FileNotFoundError: There is no uv: neither the package, nor the program on PATH.
    """
    words = [_find_uv(), "run", "--quiet", "--no-project", "--python", sys.executable]
    for requirement in requirements:
        words += ["--with", requirement]
    return [*words, "python"]


def uv_compiler(constraints: str) -> list[str]:
    """Return the words that read requirements, and print them with all that they need.

    Args:
        constraints: A file with the versions of whatever that turns out to be.

    Raises:
        FileNotFoundError: As `uv_executable`.
    """
    words = [_find_uv(), "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    return [*words, "--python", sys.executable, "--constraints", constraints, "-"]


def _find_uv() -> str:
    try:
        import uv  # noqa: PLC0415 - only jobs with requirements need it

        return str(uv.find_uv_bin())
    except ImportError:
        if (program := shutil.which("uv")) is None:
            raise FileNotFoundError("uv") from None
        return program


def quote(word: str) -> str:
    """Return a word as the shell that starts Ray's workers reads it."""
    return shlex.quote(word)
