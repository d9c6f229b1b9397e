"""What KubeRay's operator refuses, and how it tells: a contract for it and for our double."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kube.rayclusters import RayClusters, group, raycluster, template

if TYPE_CHECKING:
    from tests.kube.conftest import Cluster
    from tests.kube.plane import Plane

REDIS_IN_ENV = [{"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}]
V2_IN_ENV = [{"name": "RAY_enable_autoscaler_v2", "value": "1"}]
AUTOSCALED: dict[str, Any] = {"enableInTreeAutoscaling": True}
AUTOSCALED_V2: dict[str, Any] = {**AUTOSCALED, "autoscalerOptions": {"version": "v2"}}


@pytest.fixture
def rays(cluster: Plane | Cluster, namespace: str) -> RayClusters:
    # No pod has to run for these tests: what is created is what counts.
    return RayClusters(cluster.api, namespace)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "labels among the flags": (
        raycluster(group(rayStartParams={"labels": "a=b"})),
        "rayStartParams['labels']",
    ),
    "labels among the head's flags": (
        raycluster(head={"rayStartParams": {"labels": "a=b"}}),
        "Head group",
    ),
    "a label that Kubernetes does not allow": (
        raycluster(group(labels={"pool": "not allowed"})),
        "invalid label value",
    ),
    "more at least than at most": (
        raycluster(group(minReplicas=11)),
        "maxReplicas 10",
    ),
    "a negative minimum": (raycluster(group(minReplicas=-1)), "-1"),
    "resources given twice": (
        raycluster(group(rayStartParams={"num-cpus": "1"}, resources={"CPU": "1"})),
        "small group",
    ),
    "no container": (
        raycluster(group(template={"spec": {"containers": []}})),
        "at least one container",
    ),
    "a suspended group beside an autoscaler": (
        raycluster(group(suspend=True), **AUTOSCALED),
        "cannot be suspended",
    ),
    "a group's idle timeout for the first autoscaler": (
        raycluster(group(idleTimeoutSeconds=5), **AUTOSCALED),
        "idleTimeoutSeconds",
    ),
    "a priority for the first autoscaler": (
        raycluster(group(priority=5), **AUTOSCALED),
        "priority",
    ),
    "restarts beside the second autoscaler": (
        raycluster(group(template=template({"restartPolicy": "Always"})), **AUTOSCALED_V2),
        "restartPolicy",
    ),
    "the second autoscaler by variable, with none on": (
        raycluster(head={"template": template(env=V2_IN_ENV)}),
        "RAY_enable_autoscaler_v2",
    ),
    "the second autoscaler by variable and by field": (
        raycluster(head={"template": template(env=V2_IN_ENV)}, **AUTOSCALED_V2),
        "RAY_enable_autoscaler_v2",
    ),
    "a token without a version of Ray": (
        raycluster(rayVersion="", authOptions={"mode": "token"}),
        "2.52.0 or later",
    ),
    "a token for a Ray that knows none": (
        raycluster(rayVersion="2.51.0", authOptions={"mode": "token"}),
        "2.51.0",
    ),
    "Kubernetes' tokens without any token": (
        raycluster(authOptions={"mode": "disabled", "enableK8sTokenAuth": True}),
        "enableK8sTokenAuth",
    ),
    "Redis by variable": (
        raycluster(head={"template": template(env=REDIS_IN_ENV)}),
        "RAY_REDIS_ADDRESS",
    ),
    "a store for the GCS that is switched off": (
        raycluster(gcsFaultToleranceOptions={"backend": "rocksdb"}),
        "GCSFaultToleranceEmbeddedStorage",
    ),
    "network policies, which are switched off": (
        raycluster(networkPolicy={"mode": "DenyAll"}),
        "RayClusterNetworkPolicy",
    ),
    "TLS, which is switched off": (raycluster(tlsOptions={"enabled": True}), "RayClusterMTLS"),
    "recreation of what a RayJob has made": (
        raycluster(
            labels={"ray.io/originated-from-crd": "RayJob"},
            upgradeStrategy={"type": "Recreate"},
        ),
        "RayJob",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_spec_shows_in_an_event_and_nowhere_else(rays: RayClusters, case: str) -> None:
    body, told = REFUSED[case]
    rays.create(body)
    event = rays.wait_event("InvalidRayClusterSpec")
    assert event["type"] == "Warning"
    assert told in event["message"]
    assert not rays.get().get("status")
    assert not rays.pods()
    assert rays.find("services", "one-head-svc") is None


@pytest.mark.parametrize("name", ["a" * 54, "1one", "one.two"])
def test_a_bad_name_is_refused_with_a_reason_of_its_own(rays: RayClusters, name: str) -> None:
    rays.create(raycluster(name=name))
    assert rays.wait_event("InvalidRayClusterMetadata")["type"] == "Warning"
    assert not rays.get(name).get("status")


def test_a_repaired_spec_is_taken(rays: RayClusters) -> None:
    rays.create(raycluster(group(minReplicas=11)))
    rays.wait_event("InvalidRayClusterSpec")
    rays.edit({"/spec/workerGroupSpecs/0/minReplicas": 0})
    rays.worker()


def test_a_running_cluster_outlives_a_bad_edit(rays: RayClusters) -> None:
    rays.create(raycluster(group()))
    worker = rays.worker()
    rays.edit(
        {
            "/spec/workerGroupSpecs/0/rayStartParams": {"labels": "a=b"},
            "/spec/workerGroupSpecs/0/replicas": 3,
        }
    )
    rays.wait_event("InvalidRayClusterSpec")
    assert rays.worker()["metadata"]["uid"] == worker["metadata"]["uid"]


def test_two_groups_of_one_name_are_not_refused(rays: RayClusters) -> None:
    # Each makes the pods its own: they come and go without end.
    rays.create(raycluster(group("twin"), group("twin", 2)))
    rays.wait_event("DeletedWorkerPod")
    assert not rays.events("InvalidRayClusterSpec")


def test_a_cluster_that_another_controller_looks_after_is_left_alone(rays: RayClusters) -> None:
    foreign = raycluster(group(), name="foreign", managedBy="kueue.x-k8s.io/multikueue")
    rays.create(foreign)
    rays.create(raycluster())
    rays.wait(lambda one: one.get("status"))
    assert not rays.pods("ray.io/cluster=foreign")
    assert not rays.get("foreign").get("status")


def test_an_autoscaler_waits_for_the_account_that_its_head_names(rays: RayClusters) -> None:
    head = {"template": template({"serviceAccountName": "missing"})}
    rays.create(raycluster(head=head, enableInTreeAutoscaling=True))
    rays.wait_event("AutoscalerServiceAccountNotFound")
    assert not rays.pods()
    rays.api.create(f"{rays.core}/serviceaccounts", {"metadata": {"name": "missing"}})
    rays.worker("headgroup")
