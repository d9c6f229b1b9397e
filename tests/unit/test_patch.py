"""The one JSON patch that makes a plan true, and touches nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rayml.cluster.observation import Observation
from rayml.cluster.patch import patch_ops, trial_ops
from rayml.cluster.plan import Plan
from tests.unit.small_cluster import apply_op, make_shape

if TYPE_CHECKING:
    from rayml.cluster.shape import Shape

A, B, C = make_shape(1), make_shape(2), make_shape(3)
SHAPES = {shape.key: shape for shape in (A, B, C)}
THEIRS: dict[str, Any] = {"groupName": "theirs", "replicas": 2, "minReplicas": 1, "odd": [1]}
GUARD = {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}


def cluster(*groups: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "c", "resourceVersion": "7", "generation": 1},
        "spec": {"rayVersion": "2.60.0", "workerGroupSpecs": list(groups), **spec},
    }


def pod(name: str, shape: Shape) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"ray.io/group": shape.group}},
        "spec": {"containers": [{"name": "ray-worker"}], "nodeName": "n"},
    }


def patched(before: dict[str, Any], plan: Plan, *pods: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the patch, and what it makes of the RayCluster's spec."""
    ops = patch_ops(plan, Observation.read(before, pods), SHAPES)
    for op in ops:
        apply_op(before, op)
    return ops, before["spec"]


def test_nothing_to_change_is_no_patch() -> None:
    assert patched(cluster(A.group_spec(2)), Plan(replicas={A.group: 2})) == (
        [],
        cluster(A.group_spec(2))["spec"],
    )


def test_a_new_group_is_appended_and_guarded() -> None:
    ops, spec = patched(cluster(THEIRS), Plan(replicas={A.group: 2}))

    assert ops[0] == GUARD
    assert spec["workerGroupSpecs"] == [THEIRS, A.group_spec(2)]


def test_a_trial_is_of_one_group_and_of_none_that_is_there() -> None:
    before = Observation.read(cluster(THEIRS, A.group_spec(2)), ())

    assert trial_ops(A, before) == []
    path = "/spec/workerGroupSpecs/-"
    assert trial_ops(B, before) == [{"op": "add", "path": path, "value": B.group_spec(1)}]


def test_the_first_group_of_all_makes_the_list() -> None:
    before = cluster()
    del before["spec"]["workerGroupSpecs"]
    _, spec = patched(before, Plan(replicas={B.group: 1, A.group: 2}))

    expected = sorted([A.group_spec(2), B.group_spec(1)], key=lambda g: str(g["groupName"]))
    assert spec["workerGroupSpecs"] == expected


def test_a_list_that_is_empty_is_appended_to() -> None:
    _, spec = patched(cluster(), Plan(replicas={A.group: 2}))

    assert spec["workerGroupSpecs"] == [A.group_spec(2)]


def test_each_touched_group_is_tested_at_its_place() -> None:
    ops, spec = patched(cluster(THEIRS, A.group_spec(1)), Plan(replicas={A.group: 3}))

    path = "/spec/workerGroupSpecs/1"
    assert ops == [
        GUARD,
        {"op": "test", "path": f"{path}/groupName", "value": A.group},
        {"op": "add", "path": f"{path}/replicas", "value": 3},
    ]
    assert spec["workerGroupSpecs"][0] == THEIRS


def test_somebody_elses_change_makes_the_patch_fail() -> None:
    seen = Observation.read(cluster(A.group_spec(1)), ())
    _, test, *_ = patch_ops(Plan(replicas={A.group: 2}), seen, SHAPES)
    moved = cluster(B.group_spec(1), A.group_spec(1))

    with pytest.raises(AssertionError, match="groupName"):
        apply_op(moved, test)


def test_size_and_victims_are_changed_at_once() -> None:
    plan = Plan(replicas={A.group: 1}, victims=frozenset({"b", "a", "of-another-group"}))
    _, spec = patched(cluster(A.group_spec(3)), plan, pod("a", A), pod("b", A), pod("c", A))

    (group,) = spec["workerGroupSpecs"]
    assert group["replicas"] == 1
    assert group["scaleStrategy"] == {"workersToDelete": ["a", "b"]}


def test_names_stay_until_their_pods_are_gone() -> None:
    group = A.group_spec(1) | {"scaleStrategy": {"workersToDelete": ["a", "gone"], "odd": 1}}
    _, spec = patched(cluster(group), Plan(replicas={A.group: 1}), pod("a", A), pod("b", A))
    assert spec["workerGroupSpecs"][0]["scaleStrategy"] == {"workersToDelete": ["a"], "odd": 1}

    _, spec = patched(cluster(*spec["workerGroupSpecs"]), Plan(replicas={A.group: 1}), pod("b", A))
    assert spec["workerGroupSpecs"][0]["scaleStrategy"]["workersToDelete"] == []


def test_a_least_size_that_somebody_has_set_is_lowered_with_the_size() -> None:
    group = A.group_spec(0, minimum=3)
    _, spec = patched(cluster(group), Plan(replicas={A.group: 2}))

    assert spec["workerGroupSpecs"] == [A.group_spec(2)]


def test_empty_groups_are_taken_out_from_the_end_on() -> None:
    groups = [A.group_spec(0), THEIRS, B.group_spec(1), C.group_spec(0)]
    plan = Plan(replicas={A.group: 0, B.group: 2, C.group: 0}, removable=(A.group, C.group))
    ops, spec = patched(cluster(*groups), plan)

    assert spec["workerGroupSpecs"] == [THEIRS, B.group_spec(2)]
    assert [op["path"] for op in ops if op["op"] == "remove"] == [
        "/spec/workerGroupSpecs/3",
        "/spec/workerGroupSpecs/0",
    ]


def test_a_group_appended_while_others_go_keeps_its_place_at_the_end() -> None:
    plan = Plan(replicas={A.group: 0, B.group: 2}, removable=(A.group,))
    _, spec = patched(cluster(A.group_spec(0), THEIRS), plan)

    assert spec["workerGroupSpecs"] == [THEIRS, B.group_spec(2)]


def test_with_rays_autoscaler_only_least_sizes_change() -> None:
    group = A.group_spec(5, minimum=1)
    plan = Plan(replicas={A.group: 3, B.group: 2})
    _, spec = patched(cluster(group, enableInTreeAutoscaling=True), plan)

    assert spec["workerGroupSpecs"] == [A.group_spec(5, minimum=3), B.group_spec(2, minimum=2)]


def test_a_group_that_the_plan_says_nothing_about_stays() -> None:
    for autoscaling in (False, True):
        before = cluster(A.group_spec(2), enableInTreeAutoscaling=autoscaling)
        assert patched(before, Plan())[0] == []
