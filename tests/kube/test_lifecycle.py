"""A cluster's life on a real control plane; its head is a small server instead of Ray."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import requests

from rayml.cluster.address import ClusterName
from rayml.cluster.book import BOOK
from rayml.cluster.choices import Choices
from rayml.cluster.client import KubeClient
from rayml.cluster.door import open_door
from rayml.cluster.lifecycle import down, up
from rayml.cluster.manifest import CODE
from rayml.cluster.settings import Settings
from rayml.cluster.summary import read_summary
from rayml.errors import ClusterError, NotFound, SpecError
from tests.kube import fake_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kube.plane import Plane

IMAGE = "test/lasting:2.60.0"
HEAD: dict[str, Any] = {"head_cpus": 0.1, "head_memory": "64Mi"}
WAIT_S = 90.0
PARTS = ("roles", "rolebindings")


@pytest.fixture(scope="module", autouse=True)
def image(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> None:
    python = sys.version.split()[0]
    fake_head.add_fake_head(plane, tmp_path_factory.mktemp("image"), IMAGE, python)


@pytest.fixture
def client(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> KubeClient:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    return KubeClient.connect()


@pytest.fixture
def name(namespace: str) -> ClusterName:
    return ClusterName(namespace, "one")


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def raise_it(name: ClusterName, client: KubeClient, told: list[str]) -> Callable[..., Any]:
    """`up` with the small image, unless other choices are made; returns the RayCluster."""

    def raise_it(*, adopt: bool = False, wait_s: float = WAIT_S, **choices: Any) -> Any:
        chosen = Choices(**{"image": IMAGE, "has_rayml": True, **HEAD, **choices})
        up(name, client, chosen, adopt=adopt, wait_s=wait_s, tell=told.append)
        return client.ray_cluster(name)

    return raise_it


def head_uid(name: ClusterName, client: KubeClient) -> str:
    (head,) = [pod for pod in client.pods(name) if "deletionTimestamp" not in pod["metadata"]]
    return str(head["metadata"]["uid"])


def run_a_job(name: ClusterName, client: KubeClient, **job: Any) -> None:
    door = open_door(name, client)
    answer = requests.post(f"{door.address}/api/jobs/", json=job, headers=door.headers, timeout=60)
    answer.raise_for_status()


def theirs(**spec: Any) -> dict[str, Any]:
    """A RayCluster of somebody else, with a worker group of theirs."""
    small = {"requests": {"cpu": "50m", "memory": "64Mi"}}
    container = {"name": "ray", "image": IMAGE, "resources": small}
    pod = {"containers": [container], "terminationGracePeriodSeconds": 0}
    group = {
        "groupName": "theirs",
        "replicas": 1,
        "minReplicas": 0,
        "maxReplicas": 3,
        "rayStartParams": {},
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "one", "annotations": {"team": "theirs"}},
        "spec": {
            "rayVersion": fake_head.RAY,
            "headGroupSpec": {"rayStartParams": {}, "template": {"spec": pod}},
            "workerGroupSpecs": [group],
            **spec,
        },
    }


class TestUp:
    def test_a_new_cluster_takes_jobs(
        self,
        name: ClusterName,
        client: KubeClient,
        raise_it: Callable[..., Any],
        told: list[str],
    ) -> None:
        cluster = raise_it(max_workers=6, grace_s=0)

        assert f"{name} takes jobs: Ray 2.60.0" in told[-1]
        assert Settings.read(cluster).max_workers == 6
        found = read_summary(name, client)
        assert (found.state, found.reason, found.managed) == ("ready", "", "up")
        assert found.settings["grace_s"] == 0

    def test_the_same_again_changes_nothing(
        self, name: ClusterName, client: KubeClient, raise_it: Callable[..., Any]
    ) -> None:
        before, pod = raise_it(store="s3://runs/a"), head_uid(name, client)
        after = raise_it()

        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
        assert head_uid(name, client) == pod

    def test_an_image_that_has_rayml_is_remembered(
        self, name: ClusterName, client: KubeClient, raise_it: Callable[..., Any]
    ) -> None:
        raise_it(wait_s=0)
        cluster = raise_it(has_rayml=None, wait_s=0)

        assert Settings.read(cluster).code is None
        assert client.list("configmaps", name.namespace, labels=CODE) == []

    def test_a_limit_is_changed_without_a_restart(
        self, name: ClusterName, client: KubeClient, raise_it: Callable[..., Any]
    ) -> None:
        raise_it(max_workers=1)
        pod = head_uid(name, client)
        settings = Settings.read(raise_it(max_workers=2))

        assert settings.max_workers == 2
        assert head_uid(name, client) == pod

    def test_another_store_restarts_an_idle_head(
        self, name: ClusterName, client: KubeClient, raise_it: Callable[..., Any]
    ) -> None:
        raise_it(store="s3://runs/a")
        pod = head_uid(name, client)
        raise_it(store="s3://runs/b")

        assert head_uid(name, client) != pod
        (head,) = client.pods(name)
        env = {item["name"]: item.get("value") for item in head["spec"]["containers"][0]["env"]}
        assert env["RAYML_STORE"] == "s3://runs/b"

    def test_a_head_with_a_live_job_goes_on(
        self,
        name: ClusterName,
        client: KubeClient,
        raise_it: Callable[..., Any],
        told: list[str],
    ) -> None:
        raise_it()
        pod = head_uid(name, client)
        run_a_job(name, client, submission_id="busy")
        cluster = raise_it(store="s3://runs/b", max_workers=9)

        assert head_uid(name, client) == pod
        # Workers of the new kind beside a head of the old would be two halves of two clusters.
        assert Settings.read(cluster).store is None
        assert Settings.read(cluster).max_workers == 9
        assert any("goes on as it was, because busy would end" in line for line in told)

    def test_rayml_s_code_is_mounted_where_the_image_lacks_it(
        self, name: ClusterName, client: KubeClient, plane: Plane, raise_it: Callable[..., Any]
    ) -> None:
        cluster = raise_it(has_rayml=False)

        (head,) = client.pods(name)
        files = plane.files(name.namespace, head["metadata"]["name"])
        assert (files / "tmp" / "rayml" / "code" / "rayml" / "__init__.py").exists()
        maps = client.list("configmaps", name.namespace, labels=CODE)
        code = Settings.read(cluster).code
        assert code is not None
        assert sorted(item["metadata"]["name"] for item in maps) == sorted(code.names)

    def test_a_ray_python_unlike_ours_is_refused_by_name(
        self, plane: Plane, raise_it: Callable[..., Any], tmp_path: Any
    ) -> None:
        fake_head.add_fake_head(plane, tmp_path, "test/old:2.60.0", "3.7.17")

        with pytest.raises(SpecError, match=r"Python 3\.7\.17 and this process has"):
            raise_it(image="test/old:2.60.0")


class TestWhatIsWrong:
    def test_an_image_that_cannot_be_pulled_is_named(
        self, raise_it: Callable[..., Any], told: list[str]
    ) -> None:
        with pytest.raises(ClusterError, match=r"not ready within 8 s: .*no/such:image"):
            raise_it(image="no/such:image", wait_s=8)

        assert any("ImagePull" in line for line in told)

    def test_a_head_that_fits_no_node_says_why(self, raise_it: Callable[..., Any]) -> None:
        with pytest.raises(ClusterError, match=r"unschedulable: 0/.* Insufficient cpu"):
            raise_it(head_cpus=1000, wait_s=4)

    def test_what_kuberay_refuses_is_said_until_it_is_mended(
        self, name: ClusterName, client: KubeClient, raise_it: Callable[..., Any]
    ) -> None:
        raise_it()
        params = {"headGroupSpec": {"rayStartParams": {"labels": "a=b"}}}
        client.patch_ray_cluster(name, {"spec": params})

        with pytest.raises(SpecError, match=r"KubeRay refuses .*labels"):
            raise_it()

        mended = {"headGroupSpec": {"rayStartParams": {"labels": None}}}
        client.patch_ray_cluster(name, {"spec": mended})
        raise_it()

    def test_an_operator_that_is_down_is_suspected(
        self, plane: Plane, raise_it: Callable[..., Any]
    ) -> None:
        plane.stop("operator")
        try:
            with pytest.raises(ClusterError, match="is KubeRay's operator running"):
                raise_it(wait_s=16)
        finally:
            plane.start("operator")

    def test_a_namespace_that_is_not_there_is_named(
        self, client: KubeClient, told: list[str]
    ) -> None:
        choices = Choices(image=IMAGE, has_rayml=True)
        with pytest.raises(NotFound, match="namespace 'nowhere-at-all' is not there"):
            up(ClusterName("nowhere-at-all", "one"), client, choices, tell=told.append)

    def test_a_secret_that_is_not_there_stops_all(
        self, name: ClusterName, client: KubeClient, raise_it: Callable[..., Any]
    ) -> None:
        with pytest.raises(NotFound, match=r"Secret 'keys' .*kubectl -n .* create secret"):
            raise_it(store="s3://runs", store_secret="keys")

        assert client.find("rayclusters", "one", name.namespace) is None
        assert client.find("serviceaccounts", "one-rayml", name.namespace) is None

    def test_somebody_else_s_object_is_left_alone(
        self, name: ClusterName, client: KubeClient, raise_it: Callable[..., Any]
    ) -> None:
        role = {"metadata": {"name": "one-rayml"}, "rules": []}
        client.create("roles", role, name.namespace)

        with pytest.raises(SpecError, match=r"Role 'one-rayml' .* is somebody else's"):
            raise_it()
        assert client.get("roles", "one-rayml", name.namespace)["rules"] in (None, [])


class TestRights:
    def test_a_head_may_do_its_work_and_no_more(
        self, plane: Plane, name: ClusterName, raise_it: Callable[..., Any], tmp_path: Any
    ) -> None:
        raise_it(wait_s=0)
        path = f"/api/v1/namespaces/{name.namespace}/serviceaccounts/one-rayml/token"
        token = plane.api.create(path, {"spec": {}})["status"]["token"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", str(plane.token_kubeconfig(token)))
            head = KubeClient.connect()

        where = name.namespace
        assert head.can_i("patch", "rayclusters", where, "one")
        assert head.can_i("patch", "pods", where)
        assert head.can_i("list", "events", where)
        assert head.can_i("list", "resourcequotas", where)
        assert not head.can_i("patch", "rayclusters", where, "two")
        assert not head.can_i("delete", "pods", where)
        assert not head.can_i("get", "secrets", where)
        assert not head.can_i("patch", "rayclusters", "default", "one")


class TestDown:
    def test_all_that_up_made_goes_and_nothing_else(
        self,
        plane: Plane,
        name: ClusterName,
        client: KubeClient,
        raise_it: Callable[..., Any],
        told: list[str],
    ) -> None:
        before = inventory(plane, client, name)
        client.create("secrets", {"metadata": {"name": "keys"}}, name.namespace)
        raise_it(has_rayml=False, store="s3://runs", store_secret="keys")
        down(name, client, tell=told.append)

        assert inventory(plane, client, name) == {*before, "secrets/keys"}

    def test_a_cluster_that_is_in_use_stays(
        self,
        name: ClusterName,
        client: KubeClient,
        raise_it: Callable[..., Any],
        told: list[str],
    ) -> None:
        raise_it()
        run_a_job(name, client, submission_id="busy")
        with pytest.raises(SpecError, match="runs busy; wait for them, cancel them, or say"):
            down(name, client, tell=told.append)
        assert client.ray_cluster(name)

        down(name, client, force=True, tell=told.append)
        assert client.find("rayclusters", "one", name.namespace) is None

    def test_a_reservation_keeps_a_cluster(
        self,
        plane: Plane,
        name: ClusterName,
        client: KubeClient,
        raise_it: Callable[..., Any],
        told: list[str],
    ) -> None:
        raise_it()
        book = json.dumps([{"run": "waiting-run", "state": "waiting"}])
        client.patch_ray_cluster(name, {"metadata": {"annotations": {BOOK: book}}})

        with pytest.raises(SpecError, match="runs waiting-run;"):
            down(name, client, tell=told.append)

        # A head that starts again cannot say what it runs.
        plane.stop("operator")
        try:
            (head,) = client.pods(name)
            client.delete("pods", head["metadata"]["name"], name.namespace)
            with pytest.raises(SpecError, match="runs waiting-run;"):
                down(name, client, tell=told.append)
        finally:
            plane.start("operator")

    def test_code_that_another_cluster_mounts_stays(
        self,
        name: ClusterName,
        client: KubeClient,
        raise_it: Callable[..., Any],
        told: list[str],
    ) -> None:
        raise_it(has_rayml=False, wait_s=0)
        other, choices = ClusterName(name.namespace, "two"), Choices(image=IMAGE, **HEAD)
        up(other, client, choices, wait_s=0, tell=told.append)
        down(name, client, tell=told.append)
        assert client.list("configmaps", name.namespace, labels=CODE)

        down(other, client, tell=told.append)
        assert client.list("configmaps", name.namespace, labels=CODE) == []

    def test_what_a_half_made_cluster_left_goes(
        self,
        plane: Plane,
        name: ClusterName,
        client: KubeClient,
        raise_it: Callable[..., Any],
        told: list[str],
    ) -> None:
        before = inventory(plane, client, name)
        raise_it(wait_s=0)
        client.delete("rayclusters", "one", name.namespace)
        down(name, client, tell=told.append)

        assert inventory(plane, client, name) == before

    def test_a_cluster_that_was_never_there_is_not_found(
        self, name: ClusterName, client: KubeClient, told: list[str]
    ) -> None:
        with pytest.raises(NotFound, match=r"RayCluster 'one' .* is not there"):
            down(name, client, tell=told.append)

    def test_somebody_else_s_cluster_stays(
        self, name: ClusterName, client: KubeClient, told: list[str]
    ) -> None:
        client.create("rayclusters", theirs(), name.namespace)
        with pytest.raises(SpecError, match="was not made by rayml cluster up"):
            down(name, client, force=True, tell=told.append)
        assert client.ray_cluster(name)


class TestAdopted:
    def test_nobody_s_cluster_is_taken_by_accident(
        self, name: ClusterName, client: KubeClient, raise_it: Callable[..., Any]
    ) -> None:
        made = client.create("rayclusters", theirs(), name.namespace)
        with pytest.raises(SpecError, match="add --adopt"):
            raise_it(wait_s=0)

        there = client.ray_cluster(name)
        assert there["spec"] == made["spec"]
        assert there["metadata"]["annotations"] == {"team": "theirs"}

    def test_it_gets_annotations_and_a_role_and_keeps_the_rest(
        self, name: ClusterName, client: KubeClient, raise_it: Callable[..., Any]
    ) -> None:
        made = client.create("rayclusters", theirs(), name.namespace)
        cluster = raise_it(adopt=True, wait_s=0, max_workers=3)

        assert cluster["spec"] == made["spec"]
        assert cluster["metadata"]["annotations"]["team"] == "theirs"
        settings = Settings.read(cluster)
        assert (settings.managed, settings.max_workers) == ("adopted", 3)
        (subject,) = client.get("rolebindings", "one-rayml", name.namespace)["subjects"]
        assert subject["name"] == "default"

    def test_a_grace_that_ray_s_autoscaler_does_not_keep_is_no_promise(
        self, name: ClusterName, client: KubeClient, raise_it: Callable[..., Any], told: list[str]
    ) -> None:
        autoscaled = theirs()
        autoscaled["spec"]["enableInTreeAutoscaling"] = True
        client.create("rayclusters", autoscaled, name.namespace)
        raise_it(adopt=True, wait_s=0)
        assert "--grace-s does nothing here" not in str(told)
        raise_it(adopt=True, wait_s=0, grace_s=9)
        assert "--grace-s does nothing here" in str(told)

    def test_it_is_left_as_it_was_found(
        self,
        name: ClusterName,
        client: KubeClient,
        raise_it: Callable[..., Any],
        told: list[str],
    ) -> None:
        made = client.create("rayclusters", theirs(), name.namespace)
        raise_it(adopt=True, wait_s=0)
        ours = {**made["spec"]["workerGroupSpecs"][0], "groupName": "rayml-0123456789"}
        path = "/spec/workerGroupSpecs/-"
        client.patch_ray_cluster(name, [{"op": "add", "path": path, "value": ours}])
        down(name, client, force=True, tell=told.append)

        there = client.ray_cluster(name)
        assert there["spec"] == made["spec"]
        assert there["metadata"]["annotations"] == {"team": "theirs"}
        assert there["metadata"].get("labels", {}) == made["metadata"].get("labels", {})
        groups = {pod["metadata"]["labels"]["ray.io/group"] for pod in client.pods(name)}
        assert "rayml-0123456789" not in groups
        assert client.find("roles", "one-rayml", name.namespace) is None

    @pytest.mark.parametrize(
        ("part", "what"),
        [
            ({"spec": {"upgradeStrategy": {"type": "Recreate"}}}, "upgradeStrategy Recreate"),
            ({"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "q"}}}, "Kueue's queue 'q'"),
        ],
    )
    def test_a_cluster_that_cannot_be_resized_is_not_adopted(
        self,
        part: dict[str, Any],
        what: str,
        name: ClusterName,
        client: KubeClient,
        raise_it: Callable[..., Any],
    ) -> None:
        client.create("rayclusters", theirs(), name.namespace)
        client.patch_ray_cluster(name, part)

        with pytest.raises(SpecError, match=what):
            raise_it(adopt=True, wait_s=0)
        assert Settings.read(client.ray_cluster(name)).managed is None


def inventory(plane: Plane, client: KubeClient, name: ClusterName) -> set[str]:
    """Return all objects of a namespace that somebody has made, once the operator's are gone."""
    core = f"/api/v1/namespaces/{name.namespace}"
    for kind in ("pods", "services"):
        plane.api.wait(f"{core}/{kind}", lambda found: not found["items"], 60.0)
    plane.api.wait(f"{core}/secrets/one", lambda found: not found, 60.0)
    kinds = ("serviceaccounts", "configmaps", "secrets", "rayclusters", *PARTS)
    return {
        f"{kind}/{item['metadata']['name']}"
        for kind in kinds
        for item in client.list(kind, name.namespace)
    }
