"""What a RayCluster's objects say: groups, workers, and why they are not ready."""

from __future__ import annotations

from typing import Any

import pytest

from rayml.cluster.observation import Observation, Worker
from rayml.cluster.reasons import DOUBTED, ends_of, refused_at, time_of
from tests.unit.small_cluster import Node, make_shape

SHAPE = make_shape(1)
OTHER = make_shape(2)
REFUSAL = "worker group rayml-x has minReplicas 3 greater than maxReplicas 2"
LATER = "2026-11-25T01:00:30Z"
INSUFFICIENT = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."


def cluster(*groups: dict[str, Any], observed: int = 4, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "c", "resourceVersion": "77", "generation": 4},
        "spec": {"workerGroupSpecs": list(groups), **more},
        "status": {"observedGeneration": observed},
    }


def pod(name: str = "p", *, node: str | None = "n1", group: str = "", **status: Any) -> Any:
    return {
        "metadata": {
            "name": name,
            "labels": {"ray.io/group": group or SHAPE.group},
            "creationTimestamp": "2026-11-25T01:00:00Z",
        },
        "spec": {
            "containers": [{"name": "ray-worker"}],
            "restartPolicy": "Never",
            **({"nodeName": node} if node else {}),
        },
        "status": {"phase": "Pending", "podIP": "10.0.0.1", **status},
    }


def running(*, is_ready: bool = True, **more: Any) -> dict[str, Any]:
    return {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": str(is_ready)}],
        "containerStatuses": [{"name": "ray-worker", "state": {"running": {}}}],
        **more,
    }


def waiting(reason: str, message: str = "", field: str = "containerStatuses") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {field: [{"name": "ray-worker", "state": state}]}


def unscheduled(message: str, reason: str = "Unschedulable") -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return {"conditions": [condition]}


def event(
    reason: str, message: str, kind: str = "RayCluster", name: str = "c", **more: Any
) -> Any:
    return {
        "reason": reason,
        "message": message,
        "type": "Warning",
        "involvedObject": {"kind": kind, "name": name},
        "lastTimestamp": "2026-11-25T01:00:05Z",
        **more,
    }


def read(*pods: Any, events: Any = (), nodes: Any = (), **more: Any) -> Observation:
    group = SHAPE.group_spec(2)
    return Observation.read(more.pop("cluster", cluster(group)), pods, events, (), nodes, **more)


def worker(*args: Any, **more: Any) -> Worker:
    (found,) = read(pod(*args, **more)).workers
    return found


class TestGroups:
    def test_only_groups_named_as_ours_are_ours(self) -> None:
        theirs = {"groupName": "workers", "replicas": 3}
        ours = SHAPE.group_spec(2) | {"scaleStrategy": {"workersToDelete": ["a"]}}
        seen = read(cluster=cluster(theirs, ours))

        (group,) = seen.groups
        assert (group.index, group.name, group.shape) == (1, SHAPE.group, SHAPE.key)
        assert (group.replicas, group.minimum, group.maximum) == (2, 0, 2**31 - 1)
        assert group.named == ("a",)
        assert (seen.resource_version, seen.generation, seen.size) == ("77", 4, 2)

    def test_a_cluster_without_worker_groups_is_one(self) -> None:
        bare = {"metadata": {"name": "c", "resourceVersion": "1"}, "spec": {}}

        assert (read(cluster=bare).groups, read(cluster=bare).size) == ((), None)

    def test_fields_that_nobody_has_written_have_kuberays_defaults(self) -> None:
        (group,) = read(cluster=cluster({"groupName": SHAPE.group})).groups

        assert (group.replicas, group.minimum, group.maximum) == (0, 0, 2**31 - 1)
        assert not group.has_strategy

    def test_a_spec_that_was_not_acted_on_yet_is_not_settled(self) -> None:
        assert read(cluster=cluster(observed=4)).is_settled
        assert not read(cluster=cluster(observed=3)).is_settled

    def test_rays_autoscaler_is_seen(self) -> None:
        assert read(cluster=cluster(enableInTreeAutoscaling=True)).is_autoscaling
        assert not read().is_autoscaling


class TestWorkers:
    def test_a_pod_without_a_node_is_pending(self) -> None:
        assert worker(node=None).state == "pending"

    def test_a_pod_whose_ray_does_not_run_yet_is_scheduled(self) -> None:
        assert worker().state == "scheduled"

    def test_a_pod_that_is_ready_without_its_ray_node_is_started(self) -> None:
        assert worker(**running()).state == "started"

    def test_a_ray_node_that_lives_is_ready_before_its_pod_is(self) -> None:
        (found,) = read(
            pod(**running(is_ready=False)), nodes=[Node("id", "10.0.0.1", False)]
        ).workers
        assert found.state == "ready"

    def test_a_ready_pod_with_a_live_ray_node_is_ready(self) -> None:
        seen = read(pod(**running()), nodes=[Node("id", "10.0.0.1", is_busy=True)])

        assert seen.workers[0].state == "ready"
        assert (seen.workers[0].node_id, seen.workers[0].is_busy) == ("id", True)
        assert not seen.workers[0].reason

    def test_two_ray_nodes_with_one_address_are_not_told_apart(self) -> None:
        nodes = [Node("dead", "10.0.0.1", is_busy=True), Node("new", "10.0.0.1", is_busy=False)]
        (found,) = read(pod(**running()), nodes=nodes).workers

        assert (found.state, found.node_id) == ("started", None)

    def test_a_deleted_pod_is_leaving(self) -> None:
        deleted = pod(**running())
        deleted["metadata"]["deletionTimestamp"] = "2026-11-25T01:01:00Z"

        assert read(deleted, nodes=[Node("id", "10.0.0.1", False)]).workers[0].is_leaving

    @pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
    def test_a_pod_that_has_ended_is_leaving(self, phase: str) -> None:
        assert worker(phase=phase).is_leaving

    def test_a_pod_whose_ray_has_ended_for_good_is_leaving(self) -> None:
        ended = {"name": "ray-worker", "state": {"terminated": {"exitCode": 137}}}

        assert worker(phase="Running", containerStatuses=[ended]).is_leaving

    def test_a_pod_named_for_deletion_is_leaving_at_once(self) -> None:
        group = SHAPE.group_spec(1) | {"scaleStrategy": {"workersToDelete": ["p"]}}
        (found,) = read(pod(**running()), cluster=cluster(group)).workers

        assert (found.is_leaving, found.is_named) == (True, True)

    def test_a_pod_of_a_group_that_was_taken_out_is_an_orphan(self) -> None:
        seen = read(pod("a", group=OTHER.group), pod("b"))

        assert [orphan.name for orphan in seen.orphans] == ["a"]
        assert [worker.name for worker in seen.workers] == ["b"]

    def test_pods_of_the_head_and_of_others_are_none_of_ours(self) -> None:
        assert read(pod(group="headgroup"), pod(group="workers")).workers == ()


class TestReasons:
    def test_the_scheduler_is_quoted(self) -> None:
        found = worker(node=None, **unscheduled(INSUFFICIENT))

        assert found.reason == f"pod p is unschedulable: {INSUFFICIENT}"
        assert found.is_unschedulable
        assert found.lacks_room

    def test_nodes_of_the_wrong_kind_are_no_lack_of_room(self) -> None:
        found = worker(node=None, **unscheduled("0/2 nodes match pod's node affinity/selector."))

        assert (found.is_unschedulable, found.lacks_room) == (True, False)

    def test_a_scheduling_gate_is_named(self) -> None:
        found = worker(node=None, **unscheduled("waiting for kueue", "SchedulingGated"))

        assert found.reason == "pod p is not scheduled (SchedulingGated): waiting for kueue"
        assert not found.is_unschedulable

    @pytest.mark.parametrize("field", ["containerStatuses", "initContainerStatuses"])
    def test_an_image_that_cannot_be_pulled_is_named(self, field: str) -> None:
        found = worker(**waiting("ImagePullBackOff", 'Back-off pulling image "x:1"', field))

        expected = 'pod p does not start: ImagePullBackOff: Back-off pulling image "x:1"'
        assert found.reason == expected

    def test_a_container_that_is_being_created_is_no_problem(self) -> None:
        assert worker(**waiting("ContainerCreating")).reason == "pod p is starting"

    def test_a_volume_that_cannot_be_mounted_is_named(self) -> None:
        mount = event("FailedMount", 'secret "s" not found', "Pod", "p")
        other = event(
            "FailedMount", "another pod's", "Pod", "q", lastTimestamp="2027-01-01T00:00:00Z"
        )
        (found,) = read(pod(**waiting("ContainerCreating")), events=[mount, other]).workers

        assert found.reason == 'pod p does not start: FailedMount: secret "s" not found'

    def test_a_warning_that_was_overcome_is_not_told(self) -> None:
        failed = event("FailedScheduling", "no node", "Pod", "p")
        pulling = event("Pulling", "Pulling image", "Pod", "p", type="Normal")
        pulling["lastTimestamp"] = "2026-11-25T01:00:09Z"
        (found,) = read(pod(), events=[pulling, failed]).workers

        assert found.reason == "pod p pulls its image"

    def test_an_evicted_pod_says_why(self) -> None:
        found = worker(phase="Failed", reason="Evicted", message="The node was low on memory.")

        assert found.reason == "pod p has failed: Evicted, The node was low on memory."

    def test_a_container_killed_for_memory_says_so(self) -> None:
        state = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
        found = worker(phase="Failed", containerStatuses=[{"name": "ray-worker", "state": state}])

        assert found.reason == "pod p has failed: OOMKilled, exit code 137"

    def test_a_container_that_has_ended_for_good_says_how(self) -> None:
        state = {"terminated": {"reason": "Error", "exitCode": 127}}
        ended = {"containerStatuses": [{"name": "ray-worker", "state": state}]}

        found = worker(phase="Running", **ended)
        assert found.reason == "pod p has failed: Error, exit code 127"

    def test_a_pod_that_is_up_waits_for_its_ray(self) -> None:
        assert worker(**running()).reason == "pod p is up and its Ray is starting"

    def test_a_long_reason_is_cut(self) -> None:
        assert len(worker(node=None, **unscheduled("x y\n" * 1000)).reason) < 500


class TestProblems:
    def test_a_refused_spec_is_told_until_the_operator_acts_again(self) -> None:
        refused = event("InvalidRayClusterSpec", REFUSAL)

        assert read(cluster=cluster(observed=3), events=[refused]).invalid == REFUSAL
        assert read(cluster=cluster(observed=4), events=[refused]).invalid is None

    def test_a_refusal_from_before_the_spec_was_mended_is_over(self) -> None:
        refused = event("InvalidRayClusterSpec", REFUSAL, lastTimestamp="2026-11-25T01:00:10Z")
        found = cluster(observed=3)
        found["metadata"]["managedFields"] = [
            {"time": "2026-11-25T01:00:10Z", "fieldsV1": {"f:spec": {}}},
            {"time": LATER, "fieldsV1": {"f:status": {}}},
        ]
        assert read(cluster=found, events=[refused]).invalid == REFUSAL

        found["metadata"]["managedFields"][0]["time"] = "2026-11-25T01:00:11Z"
        assert read(cluster=found, events=[refused]).invalid is None

    def test_a_refusal_that_was_doubted_counts_if_it_comes_again(self) -> None:
        refused = event("InvalidRayClusterSpec", REFUSAL, lastTimestamp="2026-11-25T01:00:10Z")
        found, again = cluster(observed=3), {**refused, "lastTimestamp": "2026-11-25T01:00:11Z"}
        found["metadata"]["annotations"] = {DOUBTED: repr(refused_at(found, [refused]))}

        assert read(cluster=found, events=[refused]).invalid is None
        assert read(cluster=found, events=[again]).invalid == REFUSAL
        found["metadata"]["annotations"] = {DOUBTED: "yesterday"}
        assert read(cluster=found, events=[refused]).invalid == REFUSAL

    def test_another_clusters_refusal_is_not_ours(self) -> None:
        refused = event("InvalidRayClusterSpec", REFUSAL, name="d")

        assert read(cluster=cluster(observed=3), events=[refused]).invalid is None

    def test_a_refusal_outlives_its_event(self) -> None:
        refused = event("InvalidRayClusterSpec", REFUSAL)
        before = read(cluster=cluster(observed=3), events=[refused]).after(None, (), 0)

        assert read(cluster=cluster(observed=3)).after(before, (), 1).invalid == REFUSAL
        assert read(cluster=cluster(observed=4)).after(before, (), 1).invalid is None

    def test_a_quota_in_the_way_is_told_with_its_group(self) -> None:
        message = f'pods "c-{SHAPE.group}-worker-x" is forbidden: exceeded quota: q'
        failed = event("FailedToCreateWorkerPod", message)

        assert read(events=[failed]).problems == {SHAPE.group: message}

    def test_a_problem_is_over_when_a_pod_was_made_after_it(self) -> None:
        failed = event("FailedToCreateWorkerPod", f"c-{SHAPE.group}-worker-x: exceeded quota")
        failed["lastTimestamp"] = "2026-11-25T00:59:59Z"

        assert read(pod(), events=[failed]).problems == {}

    def deleted(self, at: str, how: str = "Failed") -> Any:
        message = (
            f"Deleted worker Pod ns/c-{SHAPE.group}-worker-x; Pod status: {how}; Pod restart "
            "policy: Never; Ray container terminated status: &ContainerStateTerminated"
            "{ExitCode:127,Signal:0,Reason:Error,Message:,StartedAt:2026-11-25 00:59:01 +0000}"
        )
        return event("DeletedWorkerPod", message, type="Normal", lastTimestamp=at)

    def test_a_pod_that_failed_is_remembered_while_its_successor_starts(self) -> None:
        failed = f"pod c-{SHAPE.group}-worker-x has failed: Error, exit code 127"

        just_before = read(pod(), events=[self.deleted("2026-11-25T00:59:59Z")])
        assert just_before.failures == {SHAPE.group: failed}
        long_ago = read(pod(), events=[self.deleted("2026-11-25T00:10:00Z")])
        assert long_ago.failures == {}

    def test_a_pod_deleted_on_request_has_not_failed(self) -> None:
        ours = event("DeletedWorkerPod", f"Deleted pod ns/c-{SHAPE.group}-worker-x")

        assert read(pod(), events=[ours]).failures == {}

    def test_events_of_the_newer_api_are_read_as_well(self) -> None:
        failed = {
            "reason": "FailedToCreateWorkerPod",
            "note": "exceeded quota: q",
            "regarding": {"kind": "RayCluster", "name": "c"},
            "eventTime": "2026-11-25T01:00:05.123456Z",
            "series": {"count": 2, "lastObservedTime": "2026-11-25T01:10:05.123456Z"},
        }
        assert read(pod(), events=[failed]).problems == {"": "exceeded quota: q"}

    def test_without_events_the_condition_tells(self) -> None:
        failing = cluster(SHAPE.group_spec(1))
        condition = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"}
        failing["status"]["conditions"] = [condition]

        assert read(cluster=failing).problems == {"": "exceeded quota: q"}


class TestEnds:
    """How the workers of a run have ended."""

    AT = time_of("2026-11-25T01:00:00Z")

    def ends(self, *pods: Any, events: Any = ()) -> list[str]:
        return ends_of({"p"}, self.AT, pods, events)

    def restarted(self, at: str) -> Any:
        last = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": at}}
        container = {"name": "ray-worker", "state": {"running": {}}, "lastState": last}
        return pod("p", **running(containerStatuses=[container]))

    def test_one_that_is_well_has_none(self) -> None:
        assert self.ends(pod("p", **running()), pod("other", phase="Failed")) == []

    def test_one_that_failed_says_how(self) -> None:
        assert self.ends(pod("p", phase="Failed", reason="Evicted")) == [
            "pod p has failed: Evicted"
        ]

    def test_one_whose_container_started_again_says_how_it_had_ended(self) -> None:
        assert self.ends(self.restarted("2026-11-25T01:00:09Z")) == [
            "pod p has failed: OOMKilled, exit code 137"
        ]
        assert self.ends(self.restarted("2026-11-25T00:50:00Z")) == []  # of an earlier run

    def test_one_that_the_operator_deleted_has_its_reason(self) -> None:
        message = (
            "Deleted worker Pod ns/p; Pod status: Failed; Pod restart policy: Never; Ray "
            "container terminated status: &ContainerStateTerminated"
            "{ExitCode:137,Signal:0,Reason:OOMKilled,}"
        )
        ours = event("DeletedWorkerPod", message, type="Normal")
        assert self.ends(events=[ours]) == ["pod p has failed: OOMKilled, exit code 137"]

    def test_one_that_somebody_took_away_says_who(self) -> None:
        taken = event("Preempted", "Preempted by pod 7 on node n1", "Pod", "p", type="Normal")
        assert self.ends(events=[taken]) == ["pod p was deleted: Preempted by pod 7 on node n1"]
        assert self.ends() == ["pod p was deleted"]


class TestTimes:
    NODE = Node("id", "10.0.0.1", is_busy=False)
    BUSY = Node("id", "10.0.0.1", is_busy=True)

    def seen(self, node: Node) -> Observation:
        return read(pod("p", **running()), nodes=[node])

    def test_a_worker_is_free_from_when_no_run_holds_it(self) -> None:
        held = self.seen(self.BUSY).after(None, {"p"}, 100)
        freed = self.seen(self.BUSY).after(held, (), 105)
        later = self.seen(self.NODE).after(freed, (), 110)

        assert held.workers[0].free_since is None
        assert (freed.workers[0].free_since, freed.workers[0].idle_since) == (105, None)
        assert (later.workers[0].free_since, later.workers[0].idle_since) == (105, 110)

    def test_idle_time_starts_again_after_work_of_others(self) -> None:
        idle = self.seen(self.NODE).after(None, (), 100)
        busy = self.seen(self.BUSY).after(idle, (), 105)
        again = self.seen(self.NODE).after(busy, (), 110)

        assert idle.workers[0].idle_since == 100
        assert (again.workers[0].free_since, again.workers[0].idle_since) == (100, 110)

    def test_a_running_pod_whose_ray_is_gone_is_lost_from_then_on(self) -> None:
        there = self.seen(self.NODE).after(None, (), 100)
        gone = read(pod("p", **running())).after(there, (), 105)
        later = read(pod("p", **running())).after(gone, {"p"}, 110)
        back = self.seen(self.NODE).after(later, (), 115)

        assert [seen.workers[0].lost_since for seen in (there, gone, later, back)] == [
            None,
            105,
            105,
            None,
        ]
        assert later.workers[0].reason == "pod p is up and its Ray is gone"

    def test_one_whose_ray_is_still_to_come_is_not_lost(self) -> None:
        first = read(pod("p", **running())).after(None, (), 100)
        there = self.seen(self.NODE).after(first, (), 105)
        states = [{"name": "ray-worker", "state": {"running": {"startedAt": LATER}}}]
        again = read(pod("p", **running(containerStatuses=states))).after(there, (), 110)

        assert first.after(first, (), 102).workers[0].lost_since is None
        assert again.workers[0].lost_since is None

    def test_one_whose_end_is_overdue_is_lost_though_nobody_saw_its_ray(self) -> None:
        deleted = pod("p", **running())
        deleted["metadata"]["deletionTimestamp"] = LATER
        due = time_of(LATER)

        assert read(deleted).after(None, (), due + 1).workers[0].lost_since is None
        assert read(deleted).after(None, (), due + 60).workers[0].lost_since == due

    def test_who_begins_to_look_knows_an_old_one_without_ray_for_lost(self) -> None:
        states = [{"name": "ray-worker", "state": {"running": {"startedAt": LATER}}}]
        seen = read(pod("p", **running(containerStatuses=states)))
        began = time_of(LATER)

        assert seen.after(None, (), began + 60).workers[0].lost_since is None
        assert seen.after(None, (), began + 300).workers[0].lost_since == began + 300

    def test_workers_that_went_are_known_for_a_moment(self) -> None:
        there = self.seen(self.NODE).after(None, (), 100)
        gone = read().after(there, (), 105)

        assert [worker.name for worker in gone.gone] == ["p"]
        assert [worker.name for worker in read().after(gone, (), 110).gone] == ["p"]
        assert read().after(gone, (), 130).gone == ()

    def test_what_ray_s_autoscaler_looks_after_is_not_lost(self) -> None:
        auto = cluster(SHAPE.group_spec(2), enableInTreeAutoscaling=True)
        there = read(pod("p", **running()), nodes=[self.NODE], cluster=auto).after(None, (), 100)
        gone = read(pod("p", **running()), cluster=auto).after(there, (), 105)

        assert gone.workers[0].lost_since is None

    def test_a_refusal_counts_from_when_it_was_first_seen(self) -> None:
        refused = event("FailedToCreateWorkerPod", f"Failed: pods c-{SHAPE.group}-x: no")
        first = read(events=[refused]).after(None, (), 100)
        again = read(events=[refused]).after(first, (), 105)
        over = read().after(again, (), 110)

        assert first.problems_since == again.problems_since == {SHAPE.group: 100}
        assert over.problems_since == {}

    def test_times_of_the_api_are_unix_time(self) -> None:
        assert time_of("1970-01-01T00:01:00Z") == time_of("1970-01-01T00:01:00.000000Z") == 60
        assert time_of(None) == 0
