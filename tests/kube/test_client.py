"""The client on a real kube-apiserver: who we are, what is refused, and in which words."""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from rayml.cluster.address import ClusterName
from rayml.cluster.answers import Conflict, RightMissing
from rayml.cluster.client import KubeClient
from rayml.errors import ClusterError, ClusterUnreachable, NotFound, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kube.conftest import Cluster
    from tests.kube.plane import Plane

READ_PODS = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], KubeClient]:
    def as_in(kubeconfig: Path, patience_s: float = 5.0) -> KubeClient:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        return KubeClient.connect(patience_s=patience_s)

    return as_in


@pytest.fixture
def client(cluster: Plane | Cluster, connect: Callable[[Path], KubeClient]) -> KubeClient:
    return connect(cluster.kubeconfig)


def config_map(name: str = "one", **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


class TestWhoWeAre:
    def test_a_client_certificate_lets_us_in(
        self, plane: Plane, connect: Callable[[Path], KubeClient]
    ) -> None:
        with pytest.raises(RightMissing, match="'ann' of context"):
            connect(plane.client_kubeconfig("ann")).list("pods", "default")

    def test_a_token_lets_us_in(self, plane: Plane, connect: Callable[[Path], KubeClient]) -> None:
        with pytest.raises(RightMissing, match="'token-user' of context"):
            connect(plane.token_kubeconfig()).list("pods", "default")

    def test_a_login_plugin_lets_us_in(
        self, plane: Plane, connect: Callable[[Path], KubeClient]
    ) -> None:
        with pytest.raises(RightMissing, match="'token-user' of context"):
            connect(plane.exec_kubeconfig(plane.token)).list("pods", "default")

    def test_a_service_account_has_its_role_s_rights(
        self, plane: Plane, namespace: str, connect: Callable[[Path], KubeClient]
    ) -> None:
        token = plane.service_account_token(namespace, "reader", READ_PODS)
        client = connect(plane.token_kubeconfig(token))

        assert client.list("pods", namespace) == []
        assert client.can_i("list", "pods", namespace)
        assert not client.can_i("delete", "pods", namespace)
        assert client.nodes() is None

    def test_impersonation_is_passed_on(
        self, plane: Plane, tmp_path: Path, connect: Callable[[Path], KubeClient]
    ) -> None:
        config = yaml.safe_load(plane.kubeconfig.read_text())
        config["users"][0]["user"] |= {"as": "ben", "as-groups": ["one", "two"]}
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))

        with pytest.raises(RightMissing, match="'ben' of context"):
            connect(path).list("pods", "default")

    def test_a_plugin_is_asked_again_when_its_token_is_refused(
        self, plane: Plane, tmp_path: Path, connect: Callable[[Path], KubeClient]
    ) -> None:
        path, script = with_plugin(plane, tmp_path)
        marker = tmp_path / "asked"
        good, bad = (credential(token) for token in (plane.token, "stale"))
        script.write_text(
            f"#!/bin/sh\nif [ -e {marker} ]; then echo '{good}'; else echo '{bad}'; fi\n"
            f"touch {marker}\n"
        )

        with pytest.raises(RightMissing, match="'token-user'"):
            connect(path).list("pods", "default")

    def test_a_plugin_that_fails_shows_its_last_words(
        self, plane: Plane, tmp_path: Path, connect: Callable[[Path], KubeClient]
    ) -> None:
        path, script = with_plugin(plane, tmp_path)
        script.write_text("#!/bin/sh\necho 'please log in first' >&2; exit 3\n")

        with pytest.raises(ClusterUnreachable, match=r"exit code 3: please log in first; log in"):
            connect(path).list("pods", "default")

    def test_a_plugin_that_is_not_there_says_how_to_get_it(
        self, plane: Plane, tmp_path: Path, connect: Callable[[Path], KubeClient]
    ) -> None:
        path, script = with_plugin(plane, tmp_path)
        script.unlink()

        with pytest.raises(ClusterUnreachable, match="is not installed; get it from the shelf"):
            connect(path).list("pods", "default")

    def test_no_private_key_is_left_behind(
        self,
        plane: Plane,
        tmp_path: Path,
        connect: Callable[[Path], KubeClient],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        connect(plane.kubeconfig).list("pods", "default")

        assert list(tmp_path.iterdir()) == []

    def test_an_expired_token_says_when_it_expired(
        self, plane: Plane, connect: Callable[[Path], KubeClient]
    ) -> None:
        claims = json.dumps({"exp": 1_700_000_000}).encode()
        words = [base64.urlsafe_b64encode(w).decode().rstrip("=") for w in (b"{}", claims, b"x")]
        client = connect(plane.token_kubeconfig(".".join(words)))

        with pytest.raises(ClusterUnreachable, match=r"expired at 2023-11-14 .*; log in again"):
            client.list("pods", "default")

    def test_a_wrong_token_is_not_shown(
        self, plane: Plane, connect: Callable[[Path], KubeClient]
    ) -> None:
        with pytest.raises(ClusterUnreachable, match="not accepted") as caught:
            connect(plane.token_kubeconfig("hush-hush")).list("pods", "default")

        assert "hush-hush" not in str(caught.value)

    def test_a_server_with_another_certificate_is_not_trusted(
        self, plane: Plane, tmp_path: Path, connect: Callable[[Path], KubeClient]
    ) -> None:
        config = yaml.safe_load(plane.kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        for name in ("certificate-authority", "certificate-authority-data"):
            cluster.pop(name, None)
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))

        with pytest.raises(ClusterUnreachable, match="does not trust"):
            connect(path).list("pods", "default")

    def test_a_pod_speaks_as_its_service_account(self, plane: Plane, namespace: str) -> None:
        plane.add_image("test/rayml", Path(sys.executable).parent)
        plane.service_account_token(namespace, "reader", READ_PODS)
        program = (
            "from rayml.cluster.client import KubeClient; client = KubeClient.connect(); "
            "print(client.namespace, len(client.list('pods', client.namespace)), client.context)"
        )
        command = ["python", "-c", program]
        container = {"name": "main", "image": "test/rayml", "command": command}
        spec = {"containers": [container], "serviceAccountName": "reader"}
        pods = f"/api/v1/namespaces/{namespace}/pods"
        body = {"metadata": {"name": "one"}, "spec": {**spec, "restartPolicy": "Never"}}
        plane.api.create(pods, body)
        plane.api.wait(
            f"{pods}/one", lambda pod: pod["status"]["phase"] in {"Succeeded", "Failed"}
        )

        assert plane.logs(namespace, "one").strip() == f"{namespace} 1 this pod's service account"


class TestWhatIsMissing:
    def test_a_context_that_is_not_there_names_those_that_are(
        self, cluster: Plane | Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        (name, *_) = yaml.safe_load(cluster.kubeconfig.read_text())["contexts"]

        with pytest.raises(SpecError, match=f"no context 'nowhere'; .*{name['name']}"):
            KubeClient.connect("nowhere")

    def test_a_context_can_be_set_for_a_whole_project(
        self, cluster: Plane | Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        monkeypatch.setenv("RAYML_KUBE_CONTEXT", "nowhere")

        with pytest.raises(SpecError, match="no context 'nowhere'"):
            KubeClient.connect()

    def test_a_kubeconfig_that_is_not_there_says_where_it_was_looked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

        with pytest.raises(ClusterUnreachable, match=r"there is no kubeconfig at .*/none"):
            KubeClient.connect()

    def test_a_namespace_that_is_not_there_names_one_that_is(self, client: KubeClient) -> None:
        with pytest.raises(NotFound, match=r"namespace 'defaultt' .*did you mean 'default'"):
            client.ray_cluster(ClusterName("defaultt", "one"))

    def test_a_ray_cluster_that_is_not_there_says_how_to_make_it(
        self, client: KubeClient, namespace: str
    ) -> None:
        with pytest.raises(NotFound, match=f"RayCluster 'one' in namespace '{namespace}'.* up"):
            client.ray_cluster(ClusterName(namespace, "one"))

    def test_a_kind_that_is_not_served_is_no_missing_object(
        self, client: KubeClient, namespace: str
    ) -> None:
        with pytest.raises(ClusterError, match="knows no teapots"):
            client.find("teapots", "one", namespace)

    def test_a_right_that_is_missing_is_named(
        self, plane: Plane, namespace: str, connect: Callable[[Path], KubeClient]
    ) -> None:
        client = connect(plane.token_kubeconfig())
        expected = (
            f"'token-user' of context .* may not patch rayclusters 'one' in namespace "
            f"'{namespace}'; ask for a Role"
        )

        with pytest.raises(RightMissing, match=expected):
            client.patch_ray_cluster(ClusterName(namespace, "one"), [])

    def test_what_the_schema_refuses_is_named_by_its_field(
        self, client: KubeClient, namespace: str
    ) -> None:
        body = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "one"}}

        with pytest.raises(SpecError, match=r"spec\.headGroupSpec: Required value"):
            client.create("rayclusters", {**body, "spec": {}}, namespace)

    def test_a_field_that_the_server_does_not_know_is_refused(
        self, client: KubeClient, namespace: str
    ) -> None:
        with pytest.raises(SpecError, match='unknown field "nonsense"'):
            client.create("configmaps", config_map(a="1") | {"nonsense": 1}, namespace)
        client.create("configmaps", config_map(a="1"), namespace)
        with pytest.raises(SpecError, match='unknown field "nonsense"'):
            client.patch("configmaps", "one", {"nonsense": 1}, namespace)


class TestObjects:
    def test_who_comes_second_is_told(self, client: KubeClient, namespace: str) -> None:
        made = client.create("configmaps", config_map(a="1"), namespace)
        version = made["metadata"]["resourceVersion"]
        guard = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
        change = [guard, {"op": "add", "path": "/data/b", "value": "2"}]

        client.patch("configmaps", "one", change, namespace)
        with pytest.raises(Conflict, match="changed meanwhile"):
            client.patch("configmaps", "one", change, namespace)

    def test_a_place_that_is_gone_is_a_conflict_too(
        self, client: KubeClient, namespace: str
    ) -> None:
        client.create("configmaps", config_map(a="1"), namespace)
        with pytest.raises(Conflict):
            client.patch("configmaps", "one", [{"op": "remove", "path": "/data/b"}], namespace)

    def test_a_merge_patch_of_an_old_version_is_a_conflict(
        self, client: KubeClient, namespace: str
    ) -> None:
        client.create("configmaps", config_map(a="1"), namespace)
        changes = {"metadata": {"resourceVersion": "1"}, "data": {"a": "2"}}
        with pytest.raises(Conflict):
            client.patch("configmaps", "one", changes, namespace)

    def test_a_name_that_is_taken_is_a_conflict(self, client: KubeClient, namespace: str) -> None:
        client.create("configmaps", config_map(), namespace)
        with pytest.raises(Conflict, match="is there already"):
            client.create("configmaps", config_map(), namespace)

    def test_only_the_one_that_was_meant_is_deleted(
        self, client: KubeClient, namespace: str
    ) -> None:
        made = client.create("configmaps", config_map(), namespace)
        with pytest.raises(Conflict):
            client.delete("configmaps", "one", namespace, uid="another")

        assert client.delete("configmaps", "one", namespace, uid=made["metadata"]["uid"])
        assert not client.delete("configmaps", "one", namespace)
        assert client.find("configmaps", "one", namespace) is None

    def test_a_long_list_comes_whole(self, client: KubeClient, namespace: str) -> None:
        names = [f"map-{index:03d}" for index in range(510)]
        with ThreadPoolExecutor(8) as pool:
            make = lambda name: client.create("configmaps", config_map(name), namespace)  # noqa: E731
            list(pool.map(make, names))

        found = client.list("configmaps", namespace)
        assert [i["metadata"]["name"] for i in found if "map-" in i["metadata"]["name"]] == names

    def test_kinds_of_other_groups_are_found(self, client: KubeClient) -> None:
        found = client.get("priorityclasses", "system-node-critical")

        assert found["value"] == 2_000_001_000

    def test_events_can_be_asked_for_by_their_object(
        self, client: KubeClient, namespace: str
    ) -> None:
        about = {"kind": "Pod", "name": "one", "namespace": namespace}
        for name, kind in (("first", "Pod"), ("second", "Node")):
            client.create(
                "events",
                {"metadata": {"name": name}, "involvedObject": {**about, "kind": kind}},
                namespace,
            )

        (event,) = client.events(namespace, "Pod", "one")
        assert event["metadata"]["name"] == "first"


class TestWhenItIsDown:
    @pytest.fixture
    def stopped(self, plane: Plane) -> Any:
        plane.stop("kube-apiserver")
        yield plane
        if not plane.is_running("kube-apiserver"):
            plane.start("kube-apiserver")
        plane.wait_ready()

    def test_no_answer_is_an_error_in_time(
        self, stopped: Plane, connect: Callable[[Path], KubeClient]
    ) -> None:
        client, began = connect(stopped.kubeconfig), time.monotonic()

        with pytest.raises(ClusterUnreachable, match=r"does not answer: .*refused; check"):
            client.list("pods", "default")
        assert 1 < time.monotonic() - began < 10

    def test_a_call_outlasts_a_restart(
        self, stopped: Plane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KUBECONFIG", str(stopped.kubeconfig))
        starter = threading.Timer(1.0, stopped.start, ["kube-apiserver"])
        starter.start()
        try:
            assert KubeClient.connect(patience_s=90).find("namespaces", "default") is not None
        finally:
            starter.join()


def with_plugin(plane: Plane, folder: Path) -> tuple[Path, Path]:
    """Return a kubeconfig whose plugin is a script beside it, and the script's path."""
    script = folder / "plugin.sh"
    script.touch(0o755)
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "./plugin.sh",
        "installHint": "get it from the shelf",
        "interactiveMode": "Never",
    }
    config = yaml.safe_load(plane.token_kubeconfig("unused").read_text())
    config["users"][0]["user"] = {"exec": plugin}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path, script


def credential(token: str) -> str:
    kind = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    return json.dumps({**kind, "status": {"token": token}})
