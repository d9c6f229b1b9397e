"""What KubeRay's operator makes of a RayCluster: a contract for the real one and our double."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kube.rayclusters import (
    RayClusters,
    condition,
    container,
    env,
    group,
    raycluster,
    start_flags,
    template,
)

if TYPE_CHECKING:
    from tests.kube.conftest import Cluster
    from tests.kube.plane import Plane

AUTOSCALED: dict[str, Any] = {"enableInTreeAutoscaling": True}
AUTOSCALED_V2: dict[str, Any] = {
    "enableInTreeAutoscaling": True,
    "autoscalerOptions": {"version": "v2"},
}


@pytest.fixture
def rays(cluster: Plane | Cluster, namespace: str) -> RayClusters:
    # No pod has to run for these tests: what is created is what counts.
    return RayClusters(cluster.api, namespace)


class TestPods:
    def test_pods_carry_the_labels_by_which_they_are_found(self, rays: RayClusters) -> None:
        pool = {"example.com/pool": "a", "ray.io/group": "not-this", "ray.io/cluster": "nor-this"}
        rays.create(raycluster(group(labels=pool)))
        head, worker = rays.worker("headgroup"), rays.worker()
        assert head["metadata"]["labels"] == {
            "app.kubernetes.io/created-by": "kuberay-operator",
            "app.kubernetes.io/name": "kuberay",
            "ray.io/cluster": "one",
            "ray.io/group": "headgroup",
            "ray.io/identifier": "one-head",
            "ray.io/is-ray-node": "yes",
            "ray.io/node-type": "head",
        }
        assert worker["metadata"]["labels"] == {
            **head["metadata"]["labels"],
            "example.com/pool": "a",
            "ray.io/group": "small",
            "ray.io/identifier": "one-worker",
            "ray.io/node-type": "worker",
            "ray.io/worker-group-replica-index": "0",
        }

    def test_pods_are_named_and_owned_by_their_cluster(self, rays: RayClusters) -> None:
        created = rays.create(raycluster(group()))
        for pod, prefix in (
            (rays.worker("headgroup"), "one-head-"),
            (rays.worker(), "one-small-worker-"),
        ):
            assert pod["metadata"]["generateName"] == prefix
            (owner,) = pod["metadata"]["ownerReferences"]
            assert owner["uid"] == created["metadata"]["uid"]
            assert (owner["kind"], owner["controller"]) == ("RayCluster", True)

    def test_a_long_group_name_loses_its_end(self, rays: RayClusters) -> None:
        rays.create(raycluster(group("Big" + "x" * 50)))
        worker = rays.worker("Big" + "x" * 50)
        assert worker["metadata"]["generateName"] == f"one-big{'x' * 43}-worker-"

    def test_pods_know_where_they_are(self, rays: RayClusters) -> None:
        rays.create(raycluster(group()))
        address = f"one-head-svc.{rays.namespace}.svc.cluster.local"
        head, worker = env(rays.worker("headgroup")), env(rays.worker())
        for variables in (head, worker):
            assert _field(variables["RAY_CLUSTER_NAME"]) == "metadata.labels['ray.io/cluster']"
            assert _field(variables["RAY_CLUSTER_NAMESPACE"]) == "metadata.namespace"
            assert _field(variables["RAY_CLOUD_INSTANCE_ID"]) == "metadata.name"
            assert _field(variables["RAY_NODE_TYPE_NAME"]) == "metadata.labels['ray.io/group']"
            assert variables["RAY_PORT"] == "6379"
            assert variables["KUBERAY_GEN_RAY_START_CMD"].startswith("ray start ")
        assert head["RAY_ADDRESS"] == "127.0.0.1:6379"
        assert worker["RAY_ADDRESS"] == f"{address}:6379"
        assert (worker["FQ_RAY_IP"], worker["RAY_IP"]) == (address, "one-head-svc")
        assert "FQ_RAY_IP" not in head
        assert "RAY_AUTH_TOKEN" not in head

    def test_ray_learns_what_its_container_may_use(self, rays: RayClusters) -> None:
        limits = {"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": "2"}
        rays.create(
            raycluster(
                group(
                    template=template(resources={"limits": limits}), labels={"b": "2", "a": "1"}
                ),
                group(
                    "asking",
                    template=template(resources={"requests": {"cpu": "3", "memory": "1Gi"}}),
                ),
                group(
                    "told", resources={"CPU": "1500m", "memory": "2Gi", "GPU": "1", "disk": "0.5"}
                ),
                group("overruled", rayStartParams={"num-cpus": "0"}),
            )
        )
        limited = start_flags(rays.worker())
        assert limited["--num-cpus"] == "1"  # half a CPU is rounded up
        assert limited["--memory"] == str(1024**3)
        assert limited["--num-gpus"] == "2"
        assert limited["--labels"] == "a=1,b=2"
        asking = start_flags(rays.worker("asking"))
        assert (asking["--num-cpus"], asking.get("--memory")) == ("3", None)
        told = start_flags(rays.worker("told"))
        assert (told["--num-cpus"], told["--memory"]) == ("2", str(2 * 1024**3))
        assert (told["--num-gpus"], told["--resources"]) == ("1", "'{\"disk\":0.5}'")
        assert start_flags(rays.worker("overruled"))["--num-cpus"] == "0"

    def test_flags_with_a_truth_are_switches_but_for_a_few(self, rays: RayClusters) -> None:
        flags = {
            "disable-usage-stats": "true",
            "no-redirect-output": "false",
            "log-color": "false",
        }
        rays.create(raycluster(group(rayStartParams=flags)))
        given = start_flags(rays.worker())
        assert given["--disable-usage-stats"] == ""
        assert "--no-redirect-output" not in given
        assert given["--log-color"] == "false"

    def test_ray_starts_after_what_the_container_would_run(self, rays: RayClusters) -> None:
        own = template(command=["echo"], args=["first"])
        rays.create(raycluster(group(template=own), head={"rayStartParams": {"port": "7000"}}))
        head, worker = rays.worker("headgroup"), rays.worker()
        line = " ".join(worker["spec"]["containers"][0]["args"][0].split())
        limit = "ulimit -n ${RAY_START_ULIMIT_OPEN_FILES:-65536}"
        assert line.startswith(f"echo first && {limit}; ray start ")
        assert worker["spec"]["containers"][0]["command"] == ["/bin/bash", "-c", "--"]
        address = f"one-head-svc.{rays.namespace}.svc.cluster.local:7000"
        assert (
            start_flags(worker).items()
            >= {
                "--address": address,
                "--block": "",
                "--metrics-export-port": "8080",
                "--dashboard-agent-listen-port": "52365",
            }.items()
        )
        assert start_flags(head).keys() >= {"--head", "--block", "--dashboard-host"}

    def test_an_annotation_keeps_the_containers_own_command(self, rays: RayClusters) -> None:
        keep = {"ray.io/overwrite-container-cmd": "true"}
        body = raycluster(group(template=template(command=["sleep", "9"])), annotations=keep)
        rays.create(body)
        worker = rays.worker()
        assert worker["spec"]["containers"][0]["command"] == ["sleep", "9"]
        assert env(worker)["KUBERAY_GEN_RAY_START_CMD"].startswith("ray start ")

    def test_a_worker_waits_for_the_head(self, rays: RayClusters) -> None:
        rays.create(raycluster(group()))
        (waiting,) = rays.worker()["spec"]["initContainers"]
        assert waiting["name"] == "wait-gcs-ready"
        assert waiting["resources"]["limits"] == {"cpu": "200m", "memory": "256Mi"}
        assert f"one-head-svc.{rays.namespace}.svc.cluster.local:6379" in waiting["args"][0]
        assert "sleep 5" in waiting["args"][0]
        assert "initContainers" not in rays.worker("headgroup")["spec"]

    @pytest.mark.parametrize("version", ["2.60.0", ""])
    def test_containers_without_probes_get_slow_ones(
        self, rays: RayClusters, version: str
    ) -> None:
        bare = container()
        del bare["readinessProbe"], bare["livenessProbe"]
        rays.create(
            raycluster(group(template={"spec": {"containers": [bare]}}), rayVersion=version)
        )
        probes = rays.worker()["spec"]["containers"][0]
        readiness, liveness = probes["readinessProbe"], probes["livenessProbe"]
        assert (readiness["initialDelaySeconds"], readiness["periodSeconds"]) == (10, 5)
        assert (liveness["initialDelaySeconds"], liveness["failureThreshold"]) == (30, 120)
        if version:
            assert readiness["httpGet"]["port"] == 52365
        else:
            assert "wget" in readiness["exec"]["command"][-1]

    def test_shared_memory_is_as_large_as_the_containers_memory(self, rays: RayClusters) -> None:
        rays.create(raycluster(group()))
        spec = rays.worker()["spec"]
        (volume,) = (one for one in spec["volumes"] if one["name"] == "shared-mem")
        assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}
        mounts = {one["name"]: one["mountPath"] for one in spec["containers"][0]["volumeMounts"]}
        assert mounts["shared-mem"] == "/dev/shm"  # noqa: S108 - a path in the container

    def test_hosts_of_a_replica_share_its_name(self, rays: RayClusters) -> None:
        rays.create(raycluster(group(numOfHosts=2)))
        pods = rays.wait_pods(lambda pods: len(pods) == 2, "ray.io/group=small")
        labels = [pod["metadata"]["labels"] for pod in pods]
        assert len({one["ray.io/worker-group-replica-name"] for one in labels}) == 1
        assert {one["ray.io/replica-host-index"] for one in labels} == {"0", "1"}
        assert rays.find("services", "one-headless")["spec"]["clusterIP"] == "None"


class TestSurroundings:
    def test_the_heads_service_has_no_address_of_its_own(self, rays: RayClusters) -> None:
        rays.create(raycluster())
        spec = rays.api.wait(f"{rays.core}/services/one-head-svc", bool)["spec"]
        assert spec["clusterIP"] == "None"
        assert spec["publishNotReadyAddresses"] is True
        assert {port["name"]: port["port"] for port in spec["ports"]} == {
            "client": 10001,
            "dashboard": 8265,
            "gcs-server": 6379,
            "metrics": 8080,
            "serve": 8000,
        }
        assert spec["selector"]["ray.io/node-type"] == "head"

    def test_ports_of_the_heads_container_replace_rays_own(self, rays: RayClusters) -> None:
        ports = [{"name": "gcs-server", "containerPort": 6379}]
        rays.create(raycluster(head={"template": template(ports=ports)}))
        spec = rays.api.wait(f"{rays.core}/services/one-head-svc", bool)["spec"]
        assert {port["name"] for port in spec["ports"]} == {"gcs-server", "metrics"}

    def test_a_service_that_the_user_describes_keeps_its_name_and_its_ports(
        self, rays: RayClusters
    ) -> None:
        own = {
            "metadata": {"name": "custom", "labels": {"mine": "too"}},
            "spec": {"ports": [{"name": "extra", "port": 99}], "selector": {"not": "this"}},
        }
        rays.create(raycluster(group(), head={"headService": own}))
        service = rays.api.wait(f"{rays.core}/services/custom", bool)
        assert (
            service["metadata"]["labels"].items()
            >= {"mine": "too", "ray.io/cluster": "one"}.items()
        )
        assert {"extra", "dashboard"} <= {port["name"] for port in service["spec"]["ports"]}
        assert "not" not in service["spec"]["selector"]
        address = f"custom.{rays.namespace}.svc.cluster.local:6379"
        assert start_flags(rays.worker())["--address"] == address

    def test_an_ingress_leads_to_the_dashboard(self, rays: RayClusters) -> None:
        head = {"enableIngress": True, "ingressOptions": {"host": "ray.example.com"}}
        rays.create(raycluster(head=head, annotations={"kubernetes.io/ingress.class": "nginx"}))
        path = f"/apis/networking.k8s.io/v1/namespaces/{rays.namespace}/ingresses/one-head-ingress"
        ingress = rays.api.wait(path, bool)
        assert ingress["spec"]["ingressClassName"] == "nginx"
        (rule,) = ingress["spec"]["rules"]
        assert rule["host"] == "ray.example.com"
        (place,) = rule["http"]["paths"]
        backend = {"name": "one-head-svc", "port": {"number": 8265}}
        assert (place["path"], place["backend"]["service"]) == ("/", backend)
        rays.edit({"/spec/headGroupSpec/ingressOptions/path": "/dashboard"})

        def has_moved(found: Any) -> bool:
            return bool(found["spec"]["rules"][0]["http"]["paths"][0]["path"] == "/dashboard")

        rays.api.wait(path, has_moved)

    def test_a_deleted_head_service_comes_back(self, rays: RayClusters) -> None:
        rays.create(raycluster())
        first = rays.api.wait(f"{rays.core}/services/one-head-svc", bool)
        rays.worker("headgroup")
        rays.api.delete(f"{rays.core}/services/one-head-svc")

        def is_new(service: Any) -> bool:
            return bool(service) and service["metadata"]["uid"] != first["metadata"]["uid"]

        rays.api.wait(f"{rays.core}/services/one-head-svc", is_new)

    def test_a_token_is_drawn_once_and_handed_to_all_containers(self, rays: RayClusters) -> None:
        rays.create(raycluster(group(), authOptions={"mode": "token"}, **AUTOSCALED))
        head, worker = rays.worker("headgroup"), rays.worker()
        secret = rays.find("secrets", "one")
        assert secret["data"]["auth_token"]
        assert secret["metadata"]["ownerReferences"][0]["kind"] == "RayCluster"
        spec = worker["spec"]
        for one in [*head["spec"]["containers"], *spec["containers"], *spec["initContainers"]]:
            variables = {variable["name"]: variable for variable in one["env"]}
            assert variables["RAY_AUTH_MODE"]["value"] == "token"
            reference = variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
            assert reference == {"name": "one", "key": "auth_token"}

    def test_a_secret_that_is_there_already_is_taken(self, rays: RayClusters) -> None:
        body = {"metadata": {"name": "one"}, "stringData": {"auth_token": "mine"}}
        before = rays.api.create(f"{rays.core}/secrets", body)
        rays.create(raycluster(authOptions={"mode": "token"}))
        rays.worker("headgroup")
        assert rays.find("secrets", "one")["data"] == before["data"]

    def test_no_secret_is_made_where_one_is_named(self, rays: RayClusters) -> None:
        rays.create(raycluster(authOptions={"mode": "token", "secretName": "mine"}))
        token = env(rays.worker("headgroup"))["RAY_AUTH_TOKEN"]
        assert token["secretKeyRef"]["name"] == "mine"
        assert rays.find("secrets", "one") is None

    def test_kubernetes_own_tokens_are_mounted_in_place_of_a_secret(
        self, rays: RayClusters
    ) -> None:
        rays.create(raycluster(authOptions={"mode": "token", "enableK8sTokenAuth": True}))
        head = rays.worker("headgroup")
        assert env(head)["RAY_ENABLE_K8S_TOKEN_AUTH"] == "true"
        assert "RAY_AUTH_TOKEN" not in env(head)
        mounts = {one["mountPath"] for one in head["spec"]["containers"][0]["volumeMounts"]}
        assert "/var/run/secrets/ray.io/serviceaccount" in mounts
        assert rays.find("secrets", "one") is None

    def test_a_long_cluster_name_loses_its_beginning_as_a_secrets_name(
        self, rays: RayClusters
    ) -> None:
        name = "abc" + "x" * 50
        rays.create(raycluster(name=name, authOptions={"mode": "token"}))
        rays.api.wait(f"{rays.core}/secrets/{'x' * 50}", bool)
        (head,) = rays.wait_pods(bool, f"ray.io/cluster={name}")
        assert head["metadata"]["generateName"] == f"{name[:50]}-head-"

    def test_an_autoscaler_comes_with_its_account_and_rights(self, rays: RayClusters) -> None:
        rays.create(raycluster(group(), **AUTOSCALED))
        head = rays.worker("headgroup")["spec"]
        assert head["serviceAccountName"] == "one"
        ray, sidecar = head["containers"]
        assert sidecar["name"] == "autoscaler"
        assert "ray kuberay-autoscaler" in sidecar["args"][0]
        assert "--no-monitor" in ray["args"][0]
        assert sidecar["resources"]["limits"] == {"cpu": "500m", "memory": "512Mi"}
        rules = rays.find("roles", "one", "/apis/rbac.authorization.k8s.io/v1")["rules"]
        granted = {resource: rule["verbs"] for rule in rules for resource in rule["resources"]}
        assert granted["rayclusters"] == ["get", "patch"]
        binding = rays.find("rolebindings", "one", "/apis/rbac.authorization.k8s.io/v1")
        assert binding["subjects"][0]["name"] == "one"

    def test_only_a_named_second_autoscaler_forbids_restarts(self, rays: RayClusters) -> None:
        rays.create(raycluster(group(), **AUTOSCALED_V2))
        assert rays.worker()["spec"]["restartPolicy"] == "Never"
        head = rays.worker("headgroup")
        assert head["spec"]["restartPolicy"] == "Never"
        assert env(head)["RAY_enable_autoscaler_v2"] == "true"

    def test_a_quota_that_is_full_shows_as_a_condition_and_as_an_event(
        self, rays: RayClusters
    ) -> None:
        quota = f"{rays.core}/resourcequotas"
        rays.api.create(quota, {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "2"}}})
        rays.api.wait(f"{quota}/few", _is_counted)
        rays.create(raycluster(group("small", 3)))
        failed = rays.wait(lambda one: condition(one, "ReplicaFailure") == "True")
        (shown,) = (
            one for one in failed["status"]["conditions"] if one["type"] == "ReplicaFailure"
        )
        assert shown["reason"] == "FailedCreateWorkerPod"
        assert "exceeded quota" in shown["message"]
        assert "exceeded quota" in rays.wait_event("FailedToCreateWorkerPod")["message"]
        assert len(rays.pods()) == 2
        rays.api.delete(f"{quota}/few")
        rays.wait(lambda one: condition(one, "ReplicaFailure") is None)
        assert len(rays.pods()) == 4


def _field(source: Any) -> str:
    path: str = source["fieldRef"]["fieldPath"]
    return path


def _is_counted(quota: Any) -> bool:
    return bool(quota) and "hard" in quota.get("status", {})
