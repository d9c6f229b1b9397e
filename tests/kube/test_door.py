"""The door, through a real kube-apiserver, to a small server in a head's pod."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import requests

from rayml.cluster.address import ClusterName
from rayml.cluster.answers import RightMissing
from rayml.cluster.client import KubeClient
from rayml.cluster.door import Door, get_job_submission_client_cluster_info, open_door
from rayml.cluster.forwarder import KEY_HEADER
from rayml.cluster.settings import Settings
from rayml.cluster.versions import check_versions, is_answering
from rayml.errors import ClusterUnreachable, NotFound, SpecError
from tests.kube import fake_head
from tests.ray.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kube.plane import Plane

NAMESPACE = "test-door"
NAME = ClusterName(NAMESPACE, "one")
READ = [
    {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
]


@pytest.fixture(scope="module")
def head(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterName]:
    """A RayCluster whose head is the small server, and nothing else."""
    fake_head.add_fake_head(plane, tmp_path_factory.mktemp("image"))
    plane.api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    plane.api.wait(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default", bool)
    make(plane)
    yield NAME
    plane.api.delete(f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayclusters")
    plane.api.delete(f"/api/v1/namespaces/{NAMESPACE}")


@pytest.fixture
def client(plane: Plane, head: ClusterName, monkeypatch: pytest.MonkeyPatch) -> KubeClient:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    return KubeClient.connect()


@pytest.fixture
def door(client: KubeClient) -> Door:
    return open_door(NAME, client)


def make(plane: Plane) -> None:
    probe = {"tcpSocket": {"port": fake_head.PORT}, "periodSeconds": 1}
    container = {"name": "ray", "image": fake_head.IMAGE, "readinessProbe": probe}
    pod = {"containers": [container], "terminationGracePeriodSeconds": 0}
    spec = {
        "rayVersion": fake_head.RAY,
        "authOptions": {"mode": "token"},
        "headGroupSpec": {"rayStartParams": {}, "template": {"spec": pod}},
    }
    body = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": NAME.name}}
    plane.api.create(f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayclusters", {**body, "spec": spec})
    await_head(plane)


def await_head(plane: Plane) -> None:
    plane.api.wait(
        f"/api/v1/namespaces/{NAMESPACE}/pods",
        lambda pods: any(is_ready(pod) for pod in pods["items"]),
        60.0,
        labelSelector=f"ray.io/cluster={NAME.name}",
    )


def is_ready(pod: Any) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def ask(door: Door, path: str, method: str = "GET", **options: Any) -> requests.Response:
    headers = {**door.headers, **options.pop("headers", {})}
    return requests.request(method, door.address + path, headers=headers, timeout=60, **options)


class TestRequests:
    def test_a_request_arrives_with_both_credentials(self, door: Door) -> None:
        found = ask(door, "/echo?a=%2Fb&c=d%20e").json()

        assert found["path"] == "/echo?a=%2Fb&c=d%20e"
        assert found["headers"]["x-ray-authorization"].startswith("Bearer ")

    def test_what_the_caller_has_of_credentials_stays_here(self, door: Door) -> None:
        found = ask(door, "/echo", headers={"Authorization": "Bearer mine", "X-Other": "kept"})

        assert found.status_code == 200
        assert "mine" not in found.text
        assert found.json()["headers"]["x-other"] == "kept"
        assert all(word not in found.text for word in door.headers.values())

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
    @pytest.mark.parametrize("size", [0, 10, 3_000_000])
    def test_bodies_of_any_size_arrive_whole(self, door: Door, method: str, size: int) -> None:
        found = ask(door, "/echo", method, data=b"x" * size).json()

        assert (found["method"], found["bytes"]) == (method, size)

    def test_a_body_of_unknown_length_arrives_whole(self, door: Door) -> None:
        assert ask(door, "/echo", "PUT", data=iter([b"abc"] * 5)).json()["bytes"] == 15

    def test_a_large_upload_is_not_held_in_memory(self, door: Door) -> None:
        before = peak_kib()
        assert ask(door, "/echo", "PUT", data=Zeros(90_000_000)).json()["bytes"] == 90_000_000
        assert peak_kib() - before < 60_000

    def test_a_large_answer_comes_whole(self, door: Door) -> None:
        assert len(ask(door, "/big").content) == 20_000_000

    def test_an_answer_that_is_cut_is_an_error_here_too(self, door: Door) -> None:
        with pytest.raises(requests.exceptions.RequestException):
            ask(door, "/big?cut=yes")

    def test_what_ray_answers_comes_as_it_is(self, door: Door) -> None:
        assert ask(door, "/nothing").status_code == 404

    def test_a_stranger_is_not_let_in(self, door: Door) -> None:
        answer = requests.get(f"{door.address}/echo", timeout=60)

        assert answer.status_code == 403
        assert "another process" in answer.text

    def test_it_listens_on_the_loopback_alone(self, door: Door, plane: Plane) -> None:
        assert door.address.startswith("http://127.0.0.1:")
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(door.address.replace("127.0.0.1", plane.host_address), timeout=5)

    def test_its_word_is_not_in_its_representation(self, door: Door) -> None:
        assert all(word not in repr(door) for word in door.headers.values())

    def test_many_requests_at_once_are_all_answered(self, door: Door) -> None:
        answers: list[int] = []
        count = lambda: answers.append(ask(door, "/echo", "POST", data=b"x").status_code)  # noqa: E731
        threads = [threading.Thread(target=count) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert answers == [200] * 40


class TestSockets:
    def test_lines_come_in_order_and_the_end_is_an_end(self, door: Door) -> None:
        assert listen(door, "/talk/end") == (["line 1", "line 2"], 1000)

    def test_a_cut_is_no_end(self, door: Door) -> None:
        lines, code = listen(door, "/talk/cut")

        assert lines == ["line 1", "line 2"][: len(lines)]
        assert code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE

    def test_both_sides_speak(self, door: Door) -> None:
        async def talk() -> list[Any]:
            async with (
                aiohttp.ClientSession(headers=door.headers) as session,
                session.ws_connect(f"{door.address}/talk/echo") as socket,
            ):
                await socket.send_str("x" * 100_000)
                await socket.send_bytes(b"abc")
                return [(await socket.receive()).data for _ in range(4)]

        assert asyncio.run(talk()) == ["line 1", "line 2", "heard 100000", b"cba"]

    def test_a_socket_that_ray_refuses_says_so(self, door: Door) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            listen(door, "/nothing")
        assert caught.value.status == 404

    def test_a_stranger_gets_no_socket(self, door: Door) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            listen(Door(door.address, {}), "/talk/end")
        assert caught.value.status == 403


class TestRefusals:
    def test_a_cluster_that_is_not_there_is_not_found(self, client: KubeClient) -> None:
        with pytest.raises(NotFound, match="did you mean 'one'"):
            open_door(ClusterName(NAMESPACE, "onee"), client)

    def test_who_may_not_read_the_token_is_told(
        self, plane: Plane, client: KubeClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = plane.service_account_token(NAMESPACE, "no-secrets", READ[:1])
        monkeypatch.setenv("KUBECONFIG", str(plane.token_kubeconfig(token)))

        with pytest.raises(RightMissing, match="may not get secrets 'one'"):
            open_door(NAME, KubeClient.connect())

    def test_who_may_not_pass_is_told_which_right_it_takes(
        self, plane: Plane, client: KubeClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = plane.service_account_token(NAMESPACE, "no-proxy", READ)
        monkeypatch.setenv("KUBECONFIG", str(plane.token_kubeconfig(token)))
        answer = ask(open_door(NAME, KubeClient.connect()), "/echo")

        assert answer.status_code == 502
        assert "may not get services/proxy 'one-head-svc' in namespace" in answer.text
        # Ray's client shows the reason of an HTTP error and nothing else.
        assert "services/proxy" in answer.reason

    def test_another_python_there_is_named_with_ours(self, client: KubeClient, door: Door) -> None:
        ours = f"Python {sys.version.split()[0]}"
        with pytest.raises(SpecError, match=rf"Python 3\.7\.17 and this process has .*{ours}"):
            check_versions(NAME, Settings.read(client.ray_cluster(NAME)), door)


class TestChanges:
    def test_a_cluster_made_anew_is_reached_with_its_new_token(
        self, plane: Plane, door: Door
    ) -> None:
        rayclusters = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayclusters/{NAME.name}"
        before = ask(door, "/echo").json()["headers"]["x-ray-authorization"]
        plane.api.delete(rayclusters)
        for kind in ("secrets/one", "services/one-head-svc"):
            # Kubernetes' garbage collector looks for new kinds of owners every half a minute.
            path = f"/api/v1/namespaces/{NAMESPACE}/{kind}"
            plane.api.wait(path, lambda found: not found, timeout_s=90)
        make(plane)

        found = eventually(lambda: answered(door), 60)
        assert found["headers"]["x-ray-authorization"] != before

    def test_a_head_that_is_gone_is_said_to_be(self, plane: Plane, door: Door) -> None:
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        plane.stop("operator")
        try:
            (pod,) = plane.api.get(pods)["items"]
            plane.api.delete(f"{pods}/{pod['metadata']['name']}")
            plane.api.wait(pods, lambda found: not found["items"])
            answer = eventually(lambda: refused(door), 30)
            with pytest.raises(ClusterUnreachable, match=r"the head of .* does not answer"):
                is_answering(door)
        finally:
            plane.start("operator")
        assert "rayml cluster status" in answer

        await_head(plane)
        assert eventually(lambda: answered(door), 60)

    def test_an_apiserver_that_restarts_is_waited_for(self, plane: Plane, door: Door) -> None:
        plane.stop("kube-apiserver")
        starter = threading.Timer(0.5, plane.start, ["kube-apiserver"])
        starter.start()
        try:
            answer = ask(door, "/echo", "POST", data=b"x")
        finally:
            starter.join()
            plane.wait_ready()
        # It answers within the ten seconds, or says who does not.
        assert answer.status_code == 200 or "broke" in answer.text


class TestRaysOwnClients:
    def test_the_address_of_ray_s_clients_is_read(self, client: KubeClient) -> None:
        info = get_job_submission_client_cluster_info(f"{NAMESPACE}/one", headers={"X-Own": "1"})

        assert info.headers is not None
        assert info.headers["X-Own"] == "1"
        answer = requests.get(f"{info.address}/api/version", headers=info.headers, timeout=60)
        assert answer.json()["ray_version"] == fake_head.RAY

    def test_ray_s_own_client_finds_it_by_name(self, client: KubeClient) -> None:
        from ray.job_submission import JobSubmissionClient

        assert JobSubmissionClient(f"rayml://{NAMESPACE}/one").get_version() == "4"

    def test_an_address_of_another_form_is_refused(self) -> None:
        with pytest.raises(SpecError, match="write kuberay://namespace/name"):
            get_job_submission_client_cluster_info("one")

    def test_the_door_closes_with_the_process(self, plane: Plane, head: ClusterName) -> None:
        program = (
            "from rayml.cluster.door import open_door, ClusterName, KubeClient; "
            f"print(open_door(ClusterName('{NAMESPACE}', 'one'), KubeClient.connect()).address)"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            capture_output=True,
            check=True,
            env={"KUBECONFIG": str(plane.kubeconfig)},
            text=True,
            timeout=60,
        )

        assert not done.stderr
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(done.stdout.strip(), timeout=5)


class TestInAPod:
    def test_with_a_kubeconfig_it_asks_as_from_outside(
        self,
        client: KubeClient,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        (tmp_path / "token").write_text("of another Kubernetes")
        monkeypatch.setattr("rayml.cluster.kubeconfig.ACCOUNT_FOLDER", tmp_path)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")

        monkeypatch.setattr("rayml.cluster.door._doors", {})  # it may be open already
        door = open_door(NAME, client)
        assert door.address.startswith("http://127.0.0.1:")
        assert KEY_HEADER in door.headers

    def test_a_pod_asks_the_head_directly(self, plane: Plane, head: ClusterName) -> None:
        from pathlib import Path

        plane.add_image("test/rayml", Path(sys.executable).parent)
        plane.service_account_token(NAMESPACE, "inside", READ)
        program = f"""
import socket, time
from rayml.cluster.door import open_door, ClusterName, KubeClient
from rayml.cluster.versions import is_answering

door = open_door(ClusterName("{NAMESPACE}", "one"), KubeClient.connect())
for _ in range(90):  # a name is known when the kubelet has heard of it
    try:
        socket.gethostbyname("one-head-svc.{NAMESPACE}")
        break
    except OSError:
        time.sleep(0.5)
print(door.address, is_answering(door))
"""
        container = {"name": "main", "image": "test/rayml", "command": ["python", "-c", program]}
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        spec = {"containers": [container], "serviceAccountName": "inside"}
        body = {"metadata": {"name": "inside"}, "spec": {**spec, "restartPolicy": "Never"}}
        plane.api.create(pods, body)
        ends = {"Succeeded", "Failed"}
        plane.api.wait(f"{pods}/inside", lambda pod: pod["status"]["phase"] in ends, 60.0)

        address = f"http://one-head-svc.{NAMESPACE}:8265"
        assert plane.logs(NAMESPACE, "inside").strip() == f"{address} True"
        plane.api.delete(f"{pods}/inside")


class Zeros:
    """A body of so many bytes, made while it is read."""

    def __init__(self, size: int) -> None:
        self.len = size  # what requests takes for the length
        self._left = size

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        self._left -= size
        return bytes(size)

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(65536):
            yield chunk


def peak_kib() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def listen(door: Door, path: str) -> tuple[list[str], int | None]:
    async def receive() -> tuple[list[str], int | None]:
        async with (
            aiohttp.ClientSession(headers=door.headers) as session,
            session.ws_connect(door.address + path) as socket,
        ):
            lines = [str(message.data) async for message in socket]
            return lines, socket.close_code

    return asyncio.run(receive())


def answered(door: Door) -> Any:
    answer = ask(door, "/echo")
    return answer.json() if answer.ok else None


def refused(door: Door) -> str | None:
    answer = ask(door, "/echo")
    return answer.text if answer.status_code == 502 else None
