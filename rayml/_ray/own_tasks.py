"""What a job's code starts on Ray by itself runs on the workers that the job holds.

Ray sees to that for what a task in a placement group starts, but not for another process that
connects to it, as a script does; nor where a library says itself where its tasks are to run, as
Ray Data and Ray Tune do. They would wait for CPUs that jobs hold already.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial, wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any

import ray
from ray._private.auto_init_hook import auto_init_ray
from ray._private.state import available_resources_per_node
from ray._private.worker import Worker
from ray.actor import ActorClass
from ray.remote_function import RemoteFunction
from ray.util.placement_group import PlacementGroup, placement_group_table
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from rayml._ray.members import find_group
from rayml._ray.tasks import this_cluster
from rayml.launch import ImportWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SCALER = "ray.data._internal.cluster_autoscaler.placement_group_cluster_autoscaler"
_TUNE = "ray.tune.execution.tune_controller"
_TRAIN = "ray.train.v2.api.data_parallel_trainer"
_STORE = "object_store_memory"
_ANYWHERE = (None, "DEFAULT", "SPREAD")


@contextmanager
def held_together(own_group: str) -> Iterator[None]:
    """In the block, let what this process starts on one Ray run in a placement group there.

    What Ray says of its resources is then said of the group's.

    Args:
        own_group: The group's id in hexadecimal digits, `@`, and which Ray has it, as
            `this_cluster` tells: user code may connect to another one.
    """
    identity, _, cluster = own_group.partition("@")
    held = _Held(find_group(identity), cluster)
    with ExitStack() as stack:
        stack.callback(held.end)
        for kind in (RemoteFunction, ActorClass):
            _change(stack, kind, "_remote", held.placing(vars(kind)["_remote"]))
        for name, value in (
            ("placement_group_id", held.group.id),
            ("should_capture_child_tasks_in_placement_group", True),
        ):
            _change(stack, Worker, name, held.being(value, vars(Worker)[name]))
        for name, tell in (("cluster_resources", held.all), ("available_resources", held.free)):
            _change(stack, ray, name, held.telling(vars(ray)[name], tell))
        _once_imported(stack, "ray.data", partial(held.hold_data, stack))
        _once_imported(stack, _TUNE, partial(held.hold_tune, stack))
        _once_imported(stack, _TRAIN, partial(held.hold_train, stack))
        yield


def _change(stack: ExitStack, owner: object, name: str, value: object) -> None:
    """Set an attribute until the stack is closed."""
    stack.callback(setattr, owner, name, vars(owner)[name])
    setattr(owner, name, value)


def _once_imported(stack: ExitStack, module: str, change: Callable[[], None]) -> None:
    def try_to() -> None:
        try:
            change()
        except Exception as exc:  # noqa: BLE001 - another Ray than this is written for
            sys.stderr.write(f"rayml: {module} may find no CPUs in this job: {exc!r}\n")

    if module in sys.modules:
        try_to()
    else:
        stack.callback(ImportWatch(module, try_to).stop)


class _Held:
    """A job's placement group, and which Ray has it."""

    def __init__(self, group: PlacementGroup, cluster: str) -> None:
        self.group = group
        self._cluster = cluster
        self._detached: list[Any] = []

    def end(self) -> None:
        """Change nothing any more, whoever has kept what was changed; end what would not end."""
        self._cluster = ""
        for actor in self._detached:
            with suppress(Exception):  # it has ended
                ray.kill(actor)

    def _is_here(self) -> bool:
        auto_init_ray()  # as all do that ask for this
        return ray.is_initialized() and this_cluster() == self._cluster

    def placing(self, start: Callable[..., Any]) -> Callable[..., Any]:
        """Return what starts a task or actor: in the group, wherever else it was to run."""

        @wraps(start)
        def start_here(
            what: object, args: object = None, kwargs: object = None, **options: object
        ) -> object:
            if not self._is_here():
                return start(what, args, kwargs, **options)
            place = options["scheduling_strategy"] = self._place(**options)
            if getattr(place, "placement_group", None) != self.group:  # rayml's own, for example
                return start(what, args, kwargs, **options)
            if self._has_no_memory:
                options["memory"] = None  # Ray Data asks for some, and would be refused
            if options.get("lifetime") != "detached":
                return start(what, args, kwargs, **options)
            self._detached.append(start(what, args, kwargs, **self._attached(options)))
            return self._detached[-1]

        return start_here

    def _attached(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return an actor's options with which it ends with the job, as its worker does.

        What a library has one of in a cluster is then one in the job: others cannot count on it.
        """
        if options.get("get_if_exists") and options.get("namespace"):
            options["namespace"] += f"-{self.group.id.hex()}"
        return {**options, "lifetime": None}

    def _place(
        self, scheduling_strategy: object = None, placement_group: object = None, **_: object
    ) -> object:
        if isinstance(scheduling_strategy, NodeAffinitySchedulingStrategy):
            for bundle, node in self._nodes().items():
                if node == scheduling_strategy.node_id:
                    return self.place(bundle)
        elif scheduling_strategy in _ANYWHERE and placement_group in (None, "default"):
            return self.place()
        return scheduling_strategy

    def place(self, bundle: int = -1) -> PlacementGroupSchedulingStrategy:
        """Return a place in the group, for the children of what runs there too.

        Ray sees to that for a process's first thread alone.
        """
        return PlacementGroupSchedulingStrategy(
            self.group, bundle, placement_group_capture_child_tasks=True
        )

    @cached_property
    def _has_no_memory(self) -> bool:
        return not any("memory" in bundle for bundle in self.group.bundle_specs)

    def _nodes(self) -> dict[int, str]:
        """Return the node that each of the group's bundles is on."""
        nodes: dict[int, str] = placement_group_table(self.group)["bundles_to_node_id"]
        return nodes

    def being(self, value: object, others: property) -> property:
        """Return a property of a process's connection with this value, if it is to that Ray."""

        def find(worker: Worker) -> object:
            return value if self._is_here() else others.__get__(worker)

        return property(find)

    def telling(
        self, others: Callable[[], dict[str, float]], ours: Callable[[], dict[str, float]]
    ) -> Callable[[], dict[str, float]]:
        """Return what tells of the group where the job's Ray is asked."""

        @wraps(others)
        def tell() -> dict[str, float]:
            return ours() if self._is_here() else others()

        return tell

    def all(self) -> dict[str, float]:
        """Return what the group has, and of its nodes what it does not hold itself."""
        total: Counter[str] = Counter()
        for bundle in self.group.bundle_specs:
            total.update(bundle)
        nodes = set(self._nodes().values())
        for name in {"memory", _STORE} - total.keys():
            for node in ray.nodes():
                total[name] += node["Resources"].get(name, 0) if node["NodeID"] in nodes else 0
        return dict(total)

    def free(self) -> dict[str, float]:
        """Return what of that nothing has taken."""
        free: Counter[str] = Counter()
        per_node = available_resources_per_node()
        for node in set(self._nodes().values()):
            for name, amount in per_node.get(node, {}).items():
                resource, is_grouped, group = name.partition("_group_")
                if name == _STORE or (is_grouped and group == self.group.id.hex()):
                    free[resource] += amount
        del free["bundle"]
        return dict(free)

    def hold_data(self, stack: ExitStack) -> None:
        """Let Ray Data count on the group alone, as it can: but for its nodes' object stores."""
        data = sys.modules["ray.data"]
        settings = vars(data.DataContext.get_current())
        for name in ("scheduling_strategy", "scheduling_strategy_large_args"):
            stack.callback(settings.update, {name: settings[name]})
            # Not as an attribute, which warns: Ray Data may see to it by itself one day.
            settings[name] = self.place()
        scaler = import_module(_SCALER).PlacementGroupClusterAutoscaler
        _change(stack, scaler, "get_total_resources", lambda _: self._for_data())

    def _for_data(self) -> object:
        from ray.data import ExecutionResources  # noqa: PLC0415 - it is loaded by then

        return ExecutionResources.from_resource_dict(self.all())

    def hold_tune(self, stack: ExitStack) -> None:
        """Let Ray Tune's trials share the group: there is no other within one."""
        from ray.air.execution import FixedResourceManager  # noqa: PLC0415 - loads pandas

        name = "PlacementGroupResourceManager"
        _change(stack, sys.modules[_TUNE], name, lambda: FixedResourceManager(self.all()))

    def hold_train(self, stack: ExitStack) -> None:
        """Let Ray Train's ranks be on the group's workers, for the same reason."""
        module = sys.modules[_TRAIN]
        start = module.DataParallelTrainer._initialize_and_run_controller

        @wraps(start)
        def start_here(*args: object, **options: object) -> object:
            if not self._is_here():
                return start(*args, **options)
            from rayml._ray.own_training import Controller  # noqa: PLC0415 - loads the rest of it

            with ExitStack() as during:
                _change(during, module, "TrainController", Controller)
                return start(*args, **options)

        _change(stack, module.DataParallelTrainer, start.__name__, start_here)
