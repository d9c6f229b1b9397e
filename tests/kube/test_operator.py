"""How KubeRay's operator follows a RayCluster: a contract for the real one and our double.

`RAYML_TEST_KUBERAY_OPERATOR` and `RAYML_TEST_KUBERAY_CRDS` put the real one in our double's place.
"""

from __future__ import annotations

import base64
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.kube.rayclusters import (
    IMAGE,
    RayClusters,
    add_fake_ray,
    condition,
    env,
    group,
    is_ready,
    names,
    raycluster,
    reason,
    start_flags,
    template,
)

if TYPE_CHECKING:
    from tests.kube.plane import Plane

FIRST = "/spec/workerGroupSpecs/0"
AUTOSCALED: dict[str, Any] = {"enableInTreeAutoscaling": True}


@pytest.fixture(scope="module")
def fake_ray(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> str:
    add_fake_ray(plane, tmp_path_factory.mktemp("image") / "bin")
    return IMAGE


@pytest.fixture
def rays(plane: Plane, fake_ray: str, namespace: str) -> RayClusters:
    return RayClusters(plane.api, namespace)


class TestSizes:
    def test_a_larger_group_gets_more_pods_and_keeps_those_it_has(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("small", 1)))
        before = rays.settled("small", 1)
        rays.edit({f"{FIRST}/replicas": 3})
        assert before < rays.settled("small", 3)
        indexes = {
            pod["metadata"]["labels"]["ray.io/worker-group-replica-index"]
            for pod in rays.pods("ray.io/group=small")
        }
        assert indexes == {"0", "1", "2"}

    def test_a_smaller_group_loses_its_surplus_whichever_pods_those_are(
        self, rays: RayClusters
    ) -> None:
        rays.create(raycluster(group("small", 4)))
        before = rays.settled("small", 4)
        rays.edit({f"{FIRST}/replicas": 2})
        assert rays.settled("small", 2) < before

    def test_named_pods_are_the_ones_that_go(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("small", 4)))
        first, second, *rest = sorted(rays.settled("small", 4))
        rays.edit(
            {
                f"{FIRST}/replicas": 2,
                f"{FIRST}/scaleStrategy": {"workersToDelete": [first, second]},
            }
        )
        assert rays.settled("small", 2) == set(rest)

    def test_named_pods_go_whatever_the_size_and_stay_named(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("small", 2)))
        named, other = sorted(rays.settled("small", 2))
        rays.edit({f"{FIRST}/scaleStrategy": {"workersToDelete": [named, "no-such-pod"]}})
        rays.api.wait(f"{rays.core}/pods/{named}", lambda pod: pod is None)
        after = rays.settled("small", 2)
        assert other in after
        kept = rays.get()["spec"]["workerGroupSpecs"][0]["scaleStrategy"]["workersToDelete"]
        assert kept == [named, "no-such-pod"]

    def test_a_size_beyond_its_bounds_is_kept_within_them(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("small", 9, maxReplicas=2), group("more", 0, minReplicas=1)))
        rays.settled("small", 2)
        rays.settled("more", 1)
        status = rays.wait(lambda one: one["status"].get("readyWorkerReplicas") == 3)["status"]
        assert status["desiredWorkerReplicas"] == 3
        assert (status["minWorkerReplicas"], status["maxWorkerReplicas"]) == (1, 12)

    def test_beside_an_autoscaler_a_smaller_size_deletes_nothing(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("small", 2), group("other", 0), **AUTOSCALED))
        before = rays.settled("small", 2)
        # The groups are worked off in order: when the second has its pod, the first has been seen.
        rays.edit({f"{FIRST}/replicas": 0, "/spec/workerGroupSpecs/1/replicas": 1})
        rays.settled("other", 1)
        assert rays.settled("small", 2) == before

    def test_beside_an_autoscaler_named_pods_still_go(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("small", 2), **AUTOSCALED))
        named, other = sorted(rays.settled("small", 2))
        rays.edit({f"{FIRST}/replicas": 1, f"{FIRST}/scaleStrategy": {"workersToDelete": [named]}})
        assert rays.settled("small", 1) == {other}

    def test_beside_an_autoscaler_a_larger_minimum_brings_pods(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("small", 0), **AUTOSCALED))
        rays.head()
        rays.edit({f"{FIRST}/minReplicas": 2})
        rays.settled("small", 2)


class TestGroups:
    def test_a_group_can_be_added_to_a_cluster_that_lives(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("small")))
        before = rays.settled("small", 1) | rays.settled("headgroup", 1)
        rays.edit({"/spec/workerGroupSpecs/-": group("added", 1, labels={"pool": "added"})})
        (added,) = rays.settled("added", 1)
        pod = rays.find("pods", added)
        assert start_flags(pod)["--labels"] == "pool=added"
        assert names(rays.pods()) == before | {added}

    def test_pods_of_a_group_that_was_taken_out_stay(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("small", 0), group("removed", 1)))
        orphan = rays.settled("removed", 1)
        rays.remove("/spec/workerGroupSpecs/1")
        rays.edit({f"{FIRST}/replicas": 1})
        rays.settled("small", 1)
        assert rays.settled("removed", 1) == orphan
        status = rays.wait(lambda one: one["status"].get("readyWorkerReplicas") == 2)["status"]
        assert status["desiredWorkerReplicas"] == 1
        rays.delete()
        rays.wait_pods(lambda pods: not pods, "ray.io/cluster=one")

    def test_a_group_without_pods_leaves_nothing_behind(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("kept"), group("removed", 1)))
        rays.settled("removed", 1)
        rays.edit({"/spec/workerGroupSpecs/1/replicas": 0})
        rays.settled("removed", 0)
        rays.remove("/spec/workerGroupSpecs/1")
        rays.settled("kept", 1)

    def test_a_changed_template_changes_no_pod_that_is_there(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("small")))
        before = rays.settled("small", 1)
        marked = template(env=[{"name": "MARK", "value": "new"}])
        rays.edit({f"{FIRST}/template": marked, f"{FIRST}/replicas": 2})
        (added,) = rays.settled("small", 2) - before
        assert env(rays.find("pods", added))["MARK"] == "new"
        assert "MARK" not in env(rays.find("pods", *before))

    def test_where_recreation_is_asked_for_a_further_group_restarts_every_pod(
        self, rays: RayClusters
    ) -> None:
        rays.create(raycluster(group("small"), upgradeStrategy={"type": "Recreate"}))
        before = rays.settled("small", 1) | rays.settled("headgroup", 1)
        rays.edit({f"{FIRST}/replicas": 2})
        assert before < rays.settled("small", 2) | rays.settled("headgroup", 1)
        rays.edit({"/spec/workerGroupSpecs/-": group("added")})
        rays.settled("added", 1)
        assert not before & (rays.settled("small", 2) | rays.settled("headgroup", 1))

    def test_a_suspended_group_has_no_pods_until_it_goes_on(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("small"), group("other")))
        kept = rays.settled("small", 1)
        rays.settled("other", 1)
        rays.edit({"/spec/workerGroupSpecs/1/suspend": True})
        rays.settled("other", 0)
        rays.wait(lambda one: one["status"]["desiredWorkerReplicas"] == 1)
        rays.edit({"/spec/workerGroupSpecs/1/suspend": False})
        rays.settled("other", 1)
        assert rays.settled("small", 1) == kept

    def test_hosts_of_a_replica_go_together(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("wide", 2, numOfHosts=2)))
        before = rays.settled("wide", 4)
        lost = min(before)
        replica = rays.find("pods", lost)["metadata"]["labels"]["ray.io/worker-group-replica-name"]
        partners = names(rays.pods(f"ray.io/worker-group-replica-name={replica}"))
        rays.delete_pod(lost)
        rays.wait_pods(lambda pods: not names(pods) & partners, "ray.io/group=wide")
        assert rays.settled("wide", 4) >= before - partners


class TestLosses:
    def test_a_deleted_worker_is_replaced(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("small", 2)))
        lost, kept = sorted(rays.settled("small", 2))
        rays.delete_pod(lost)
        rays.api.wait(f"{rays.core}/pods/{lost}", lambda pod: pod is None)
        assert kept in rays.settled("small", 2)

    def test_a_deleted_head_is_replaced_and_the_workers_are_left_alone(
        self, rays: RayClusters
    ) -> None:
        rays.create(raycluster(group()))
        workers, (head,) = rays.settled("small", 1), rays.settled("headgroup", 1)
        rays.delete_pod(head)
        rays.api.wait(f"{rays.core}/pods/{head}", lambda pod: pod is None)
        assert head not in rays.settled("headgroup", 1)
        assert rays.settled("small", 1) == workers

    def test_a_worker_that_has_failed_for_good_is_replaced(
        self, plane: Plane, rays: RayClusters
    ) -> None:
        rays.create(raycluster(group(template=template({"restartPolicy": "Never"}))))
        (failed,) = rays.settled("small", 1)
        plane.signal(rays.namespace, failed, signal.SIGKILL)
        rays.api.wait(f"{rays.core}/pods/{failed}", lambda pod: pod is None)
        rays.settled("small", 1)

    def test_a_container_that_may_restart_keeps_its_pod(
        self, plane: Plane, rays: RayClusters
    ) -> None:
        rays.create(raycluster(group()))
        (crashed,) = rays.settled("small", 1)
        plane.signal(rays.namespace, crashed, signal.SIGKILL)
        rays.api.wait(f"{rays.core}/pods/{crashed}", _has_restarted)
        assert rays.settled("small", 1) == {crashed}

    def test_what_was_asked_while_the_operator_was_down_is_done_when_it_is_back(
        self, plane: Plane, rays: RayClusters
    ) -> None:
        rays.create(raycluster(group("small", 2)))
        named, kept = sorted(rays.settled("small", 2))
        plane.stop("operator")
        rays.edit({f"{FIRST}/replicas": 1, f"{FIRST}/scaleStrategy": {"workersToDelete": [named]}})
        plane.start("operator")
        assert rays.settled("small", 1) == {kept}

    def test_a_deleted_cluster_takes_all_with_it(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("small", 2), authOptions={"mode": "token"}, **AUTOSCALED))
        rays.settled("small", 2)
        rays.delete()
        rays.wait_pods(lambda pods: not pods, "ray.io/cluster=one")
        for kind in ("services/one-head-svc", "secrets/one", "serviceaccounts/one"):
            rays.api.wait(f"{rays.core}/{kind}", lambda found: found is None)

    def test_a_head_in_redis_is_cleaned_up_after(self, rays: RayClusters) -> None:
        redis = {"redisAddress": "redis:6379", "redisPassword": {"value": "secret"}}
        rays.create(raycluster(group(), gcsFaultToleranceOptions=redis))
        head = rays.head()
        kept = ["ray.io/gcs-ft-redis-cleanup-finalizer"]
        assert rays.get()["metadata"]["finalizers"] == kept
        assert env(head)["RAY_REDIS_ADDRESS"] == "redis:6379"
        assert start_flags(head)["--redis-password"] == "$REDIS_PASSWORD"
        assert env(rays.worker())["RAY_gcs_rpc_server_reconnect_timeout_s"] == "600"
        rays.delete()
        rays.wait_event("CreatedRedisCleanupJob")
        rays.wait(lambda one: one is None)  # the job fails here, and the cluster goes all the same


class TestStatus:
    def test_a_ready_cluster_says_where_its_head_is(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("small", 2)))
        ready = rays.wait(lambda one: (one.get("status") or {}).get("state") == "ready")
        status, head = ready["status"], rays.head()
        assert status["head"] == {
            "podIP": head["status"]["podIP"],
            "podName": head["metadata"]["name"],
            "serviceIP": head["status"]["podIP"],
            "serviceName": "one-head-svc",
        }
        assert status["endpoints"]["dashboard"] == "8265"
        assert (status["desiredWorkerReplicas"], status["readyWorkerReplicas"]) == (2, 2)
        assert (status["desiredCPU"], status["desiredMemory"]) == ("150m", "192Mi")
        assert status["observedGeneration"] == ready["metadata"]["generation"]
        assert condition(ready, "HeadPodReady") == "True"
        assert reason(ready, "RayClusterProvisioned") == "AllPodRunningAndReadyFirstTime"

    def test_a_cluster_stays_ready_while_it_lacks_pods(self, rays: RayClusters) -> None:
        rays.create(raycluster(group()))
        rays.wait(lambda one: (one.get("status") or {}).get("state") == "ready")
        nowhere = template({"nodeSelector": {"no": "such-node"}})
        rays.edit({"/spec/workerGroupSpecs/-": group("pending", 1, template=nowhere)})
        lacking = rays.wait(lambda one: one["status"]["desiredWorkerReplicas"] == 2)
        assert lacking["status"]["readyWorkerReplicas"] == 1
        assert lacking["status"]["state"] == "ready"
        assert condition(lacking, "RayClusterProvisioned") == "True"

    def test_a_lost_head_shows_and_the_cluster_stays_ready(self, rays: RayClusters) -> None:
        rays.create(raycluster())
        rays.wait(lambda one: (one.get("status") or {}).get("state") == "ready")
        rays.delete_pod(rays.head()["metadata"]["name"])
        lost = rays.wait(lambda one: condition(one, "HeadPodReady") == "False")
        assert lost["status"]["state"] == "ready"
        rays.wait(lambda one: condition(one, "HeadPodReady") == "True")

    def test_an_image_that_is_not_there_shows_in_the_heads_condition(
        self, rays: RayClusters
    ) -> None:
        rays.create(raycluster(head={"template": template(image="no/such:image")}))
        pulled = {"ErrImagePull", "ImagePullBackOff"}
        one = rays.wait(lambda one: reason(one, "HeadPodReady") in pulled)
        assert "state" not in one["status"]
        assert condition(one, "RayClusterProvisioned") == "False"

    def test_an_edit_that_moves_no_counter_leaves_the_old_generation(
        self, rays: RayClusters
    ) -> None:
        rays.create(raycluster())
        rays.wait(lambda one: (one.get("status") or {}).get("state") == "ready")
        rays.edit({"/spec/authOptions": {"mode": "token"}})
        rays.api.wait(f"{rays.core}/secrets/one", bool)
        # What a later round makes shows that the round which made the secret is over.
        rays.edit({"/metadata/annotations": {"ray.io/enable-serve-service": "true"}})
        rays.api.wait(f"{rays.core}/services/one-serve-svc", bool)
        one = rays.get()
        assert one["status"]["observedGeneration"] < one["metadata"]["generation"]

    def test_a_suspended_cluster_has_no_pods_until_it_goes_on(self, rays: RayClusters) -> None:
        rays.create(raycluster(group()))
        before = rays.settled("small", 1) | rays.settled("headgroup", 1)
        rays.edit({"/spec/suspend": True})
        suspended = rays.wait(lambda one: condition(one, "RayClusterSuspended") == "True")
        assert not rays.pods()
        assert suspended["status"]["state"] == "suspended"
        assert condition(suspended, "RayClusterSuspending") == "False"
        assert condition(suspended, "RayClusterProvisioned") == "False"
        rays.edit({"/spec/suspend": False})
        rays.wait(lambda one: one["status"]["state"] == "ready")
        assert not before & (rays.settled("small", 1) | rays.settled("headgroup", 1))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_itself_grows_by_a_worker(plane: Plane, ray_image: str, namespace: str) -> None:
    rays = RayClusters(plane.api, namespace)
    quick = {"tcpSocket": {"port": 52365}, "periodSeconds": 1}
    size = {"limits": {"cpu": "1", "memory": "1500Mi"}}
    node = template(image=ray_image, resources=size, readinessProbe=quick)
    head = {"rayStartParams": {"num-cpus": "0"}, "template": node}
    workers = group(template=node, labels={"pool": "small"})
    version = ray_image.removeprefix("rayproject/ray:").partition("-")[0]
    rays.create(raycluster(workers, head=head, rayVersion=version, authOptions={"mode": "token"}))
    ray = _Ray(plane, rays)
    assert ray.wait_nodes(2) == {"headgroup": 1, "small": 1}
    rays.edit({f"{FIRST}/replicas": 2})
    assert ray.wait_nodes(3) == {"headgroup": 1, "small": 2}
    assert ray.instances() == names(rays.pods())
    assert ray.status_without_token() == 401


class _Ray:
    """The Ray of a cluster, as its dashboard tells."""

    def __init__(self, plane: Plane, rays: RayClusters) -> None:
        self.plane = plane
        self.rays = rays
        self.path = f"{rays.core}/services/one-head-svc:8265/proxy/nodes?view=summary"

    def nodes(self) -> list[Any]:
        """The nodes that Ray has and that live; none while the dashboard is not up."""
        secret = self.rays.find("secrets", "one")
        if secret is None:
            return []
        token = base64.b64decode(secret["data"]["auth_token"]).decode()
        headers = {"X-Ray-Authorization": f"Bearer {token}"}
        answer = self.plane.api.call("GET", self.path, headers=headers)
        if not answer.ok:
            return []
        raylets = [node["raylet"] for node in answer.json()["data"]["summary"]]
        return [raylet for raylet in raylets if raylet.get("state") == "ALIVE"]

    def wait_nodes(self, count: int) -> dict[str, int]:
        """The number of nodes in each group, once there are so many in all."""
        deadline = time.monotonic() + 140  # two nodes of Ray on two busy cores
        while len(nodes := self.nodes()) != count:
            assert time.monotonic() < deadline, nodes
            time.sleep(0.2)
        return dict(Counter(node["labels"]["ray.io/node-group"] for node in nodes))

    def instances(self) -> set[str]:
        """What Ray takes for the names of its nodes' machines."""
        return {node["instanceId"] for node in self.nodes()}

    def status_without_token(self) -> int:
        """The HTTP status for one who does not know the token."""
        return self.plane.api.call("GET", self.path).status_code


def _has_restarted(pod: Any) -> bool:
    restarts = pod["status"]["containerStatuses"][0]["restartCount"]
    return restarts == 1 and is_ready(pod)
