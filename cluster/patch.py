"""The one guarded change of a RayCluster that makes a plan true.

The list of worker groups is one value to Kubernetes: each of its entries is changed by its place,
and the patch tests that this very version of the RayCluster, with these names at these places, is
still there. What others have written into it stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rayml.cluster.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rayml.cluster.observation import Group, Observation
    from rayml.cluster.shape import Shape

    Op = dict[str, Any]

_GROUPS = "/spec/workerGroupSpecs"


def patch_ops(plan: Plan, observation: Observation, shapes: Mapping[str, Shape]) -> list[Op]:
    """Return the operations of one JSON patch; none when nothing has to change.

    Args:
        plan: What is wanted.
        observation: What the plan was made from.
        shapes: The shapes of the demands, by key: what new groups are made of.
    """
    changes: list[Op] = []
    there: dict[str, set[str]] = {group.shape: set() for group in observation.groups}
    for worker in observation.workers:
        there[worker.shape].add(worker.name)
    for group in observation.groups:
        if group.name in plan.removable:
            continue
        if ops := list(_resize(group, plan, there[group.shape], observation.is_autoscaling)):
            changes += [_test_name(group), *ops]
    changes += _append(plan, observation, shapes)
    # From the end on: what is taken out moves those behind it.
    for group in reversed(observation.groups):
        if group.name in plan.removable:
            changes += [_test_name(group), {"op": "remove", "path": _path(group)}]
    if not changes:
        return []
    version = observation.resource_version
    return [{"op": "test", "path": "/metadata/resourceVersion", "value": version}, *changes]


def trial_ops(shape: Shape, observation: Observation, size: int = 1) -> list[Op]:
    """Return what would make a group of this shape so large; none if it is."""
    plan = Plan(replicas={shape.group: size})
    for group in observation.groups:
        if group.name == shape.group:
            ops = list(_resize(group, plan, set(), observation.is_autoscaling))
            return [_test_name(group), *ops] if group.replicas < size else []
    return _append(plan, observation, {shape.key: shape})


def _resize(group: Group, plan: Plan, there: set[str], is_autoscaling: bool) -> Iterator[Op]:  # noqa: FBT001
    if is_autoscaling:
        if (least := plan.replicas.get(group.name, group.minimum)) != group.minimum:
            yield _set(group, "minReplicas", least)
        return
    size = plan.replicas.get(group.name, max(group.replicas, group.minimum))
    if size != group.replicas:
        yield _set(group, "replicas", size)
    if group.minimum:
        yield _set(group, "minReplicas", 0)
    # The operator counts those named as gone: they stay named until they are.
    kept = [name for name in group.named if name in there]
    named = kept + sorted((plan.victims & there) - set(kept))
    if named != list(group.named):
        if group.has_strategy:
            yield _set(group, "scaleStrategy/workersToDelete", named)
        else:
            yield _set(group, "scaleStrategy", {"workersToDelete": named})


def _append(plan: Plan, observation: Observation, shapes: Mapping[str, Shape]) -> list[Op]:
    there = {group.name for group in observation.groups}
    new = [s for s in shapes.values() if s.group not in there and plan.replicas.get(s.group)]
    specs = []
    for shape in sorted(new, key=lambda shape: shape.key):
        size = plan.replicas[shape.group]
        minimum = size if observation.is_autoscaling else 0
        specs.append(shape.group_spec(size, minimum=minimum))
    if specs and observation.size is None:
        return [{"op": "add", "path": _GROUPS, "value": specs}]
    return [{"op": "add", "path": f"{_GROUPS}/-", "value": spec} for spec in specs]


def _test_name(group: Group) -> Op:
    return {"op": "test", "path": f"{_path(group)}/groupName", "value": group.name}


def _set(group: Group, field: str, value: object) -> Op:
    # "add" replaces what is there, and does not mind if nothing is.
    return {"op": "add", "path": f"{_path(group)}/{field}", "value": value}


def _path(group: Group) -> str:
    return f"{_GROUPS}/{group.index}"
