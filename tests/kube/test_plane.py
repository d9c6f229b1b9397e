"""The test control plane does for a cluster's users what a cluster does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
import yaml

from tests.kube.access import Api, ApiError
from tests.kube.building import programs
from tests.kube.pods import Pods, condition, is_gone, is_ready, restarted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kube.plane import Plane


@pytest.fixture
def third_node(plane: Plane) -> Iterator[str]:
    plane.add_node("node-3", cpu=2, memory="4Gi", labels={"zone": "c"}, gpus=1)
    yield "node-3"
    plane.remove_node("node-3")


class TestCluster:
    def test_the_scheduler_says_why_a_pod_has_no_place(self, pods: Pods) -> None:
        pods.run("one", "true", resources={"requests": {"cpu": "100"}})
        pod = pods.wait("one", lambda pod: condition(pod, "PodScheduled") == "False")
        reason = next(one for one in pod["status"]["conditions"] if one["type"] == "PodScheduled")
        assert reason["reason"] == "Unschedulable"
        assert "Insufficient cpu" in reason["message"]

    def test_a_gpu_is_found_by_its_label(self, pods: Pods, third_node: str) -> None:
        resources = {"limits": {"nvidia.com/gpu": "1"}}
        pods.run("one", "true", resources=resources, spec={"nodeSelector": {"zone": "c"}})
        pods.finish("one")
        assert pods.wait("one", bool)["spec"]["nodeName"] == third_node

    def test_what_others_did_to_a_node_stays(self, pods: Pods, third_node: str) -> None:
        path = f"/api/v1/nodes/{third_node}"
        change = {"spec": {"unschedulable": True}, "metadata": {"labels": {"own": "x"}}}
        pods.plane.api.patch(path, change)
        pods.plane.add_image("test/other:1", "/usr/bin")
        node = pods.plane.api.get(path)
        assert node["spec"]["unschedulable"]
        assert node["metadata"]["labels"]["own"] == "x"

    def test_a_lost_node_takes_its_pods_with_it(self, pods: Pods, third_node: str) -> None:
        pods.run("one", "sleep", "4321", spec={"nodeName": third_node})
        pods.wait("one", is_ready)
        pods.plane.lose_node(third_node)
        pods.wait("one", is_gone)
        with pytest.raises(ApiError, match="not found"):
            pods.plane.api.get(f"/api/v1/nodes/{third_node}")
        assert subprocess.run(["pgrep", "-f", "^sleep 4321"], check=False).returncode == 1

    def test_a_node_that_is_not_removed_is_not_ready(self, pods: Pods, third_node: str) -> None:
        pods.run("one", "sleep", "60", spec={"nodeName": third_node})
        pods.wait("one", is_ready)
        pods.plane.lose_node(third_node, remove=False)
        node = pods.plane.api.get(f"/api/v1/nodes/{third_node}")
        assert condition(node, "Ready") == "Unknown"
        assert is_ready(pods.wait("one", bool))
        pods.plane.api.delete(f"/api/v1/nodes/{third_node}")

    def test_the_apiserver_comes_back(self, pods: Pods) -> None:
        pods.run("before", "sleep", "60")
        pods.wait("before", is_ready)
        pods.plane.stop("kube-apiserver")
        assert pods.exec("before", "true") == (0, "")
        pods.plane.start("kube-apiserver")
        pods.plane.wait_ready()
        pods.run("after", "true", spec={"nodeName": "node-1"})
        pods.wait("after", lambda pod: pod["status"].get("phase") == "Succeeded", 90)

    def test_a_paused_apiserver_answers_when_it_goes_on(self, pods: Pods) -> None:
        pods.plane.pause("kube-apiserver")
        try:
            with pytest.raises(requests.Timeout):
                pods.plane.api.call("GET", "/readyz", timeout=0.5)
        finally:
            pods.plane.resume("kube-apiserver")
        pods.plane.wait_ready()

    def test_the_operator_can_be_away(self, pods: Pods) -> None:
        pods.plane.stop("operator")
        assert not pods.plane.is_running("operator")
        pods.plane.start("operator")
        assert pods.plane.is_running("operator")

    def test_a_kubelet_that_crashes_takes_its_pods_along(self, pods: Pods) -> None:
        pods.run("one", "sleep", "60", spec={"restartPolicy": "Always"})
        pods.wait("one", is_ready)
        pods.plane.stop("kubelet")
        pods.plane.start("kubelet")
        pods.wait("one", restarted)

    def test_a_quota_is_kept(self, pods: Pods) -> None:
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
        pods.plane.api.create(f"{pods.path}/resourcequotas", quota)
        pods.plane.api.wait(
            f"{pods.path}/resourcequotas/none", lambda quota: "hard" in quota["status"]
        )
        with pytest.raises(ApiError, match="exceeded quota: none"):
            pods.run("one", "true")

    def test_our_own_definition_of_rayclusters_is_one(self, plane: Plane) -> None:
        ours = yaml.safe_load((Path(__file__).parent / "raycluster-crd.yaml").read_text())
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rayclusters.ray.io"
        ours["metadata"]["resourceVersion"] = plane.api.get(path)["metadata"]["resourceVersion"]
        answer = plane.api.call("PUT", path, params={"dryRun": "All"}, json=ours)
        assert answer.ok, answer.text

    def test_logs_can_be_read_through_the_apiserver(self, pods: Pods) -> None:
        pods.run("one", "sh", "-c", "echo a; echo b; echo c")
        pods.finish("one")
        answer = pods.plane.api.call("GET", f"{pods.path}/pods/one/log", params={"tailLines": 2})
        assert answer.text == "b\nc\n"


class TestIdentities:
    def test_each_kind_of_kubeconfig_is_someone(self, pods: Pods) -> None:
        plane = pods.plane
        token = plane.service_account_token(pods.namespace, "few")
        names = {
            plane.client_kubeconfig("jane", ["dev"]): "jane",
            plane.token_kubeconfig(): "token-user",
            plane.token_kubeconfig(token): f"system:serviceaccount:{pods.namespace}:few",
        }
        for kubeconfig, name in names.items():
            review = Api(kubeconfig)
            path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
            assert review.create(path, {})["status"]["userInfo"]["username"] == name
            with pytest.raises(ApiError, match=r"cannot list resource .pods.") as refused:
                review.get(f"{pods.path}/pods")
            assert refused.value.status == 403
            review.close()

    def test_a_wrong_token_is_nobody(self, pods: Pods) -> None:
        api = Api(pods.plane.token_kubeconfig("wrong"))
        with pytest.raises(ApiError) as refused:
            api.get(f"{pods.path}/pods")
        assert refused.value.status == 401
        api.close()


def test_planes_of_sessions_that_start_at_once_have_networks_of_their_own(
    plane: Plane, tmp_path: Path
) -> None:
    folders = [tmp_path / str(number) for number in range(12)]
    with ExitStack() as holders:
        for folder in folders:
            folder.mkdir()
            holder = subprocess.Popen(
                [programs() / "sandbox", "plane", folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={"TMPDIR": str(folder)},  # each session of tests has one of its own
            )
            holders.enter_context(holder)  # whose input is closed in the end, and it ends with it
        addresses = [_bridge(folder) for folder in folders]
    assert len(set(addresses)) == len(folders)


def test_a_killed_session_leaves_nothing(pods: Pods) -> None:
    stale = Path(tempfile.mkdtemp(prefix="rayml-plane-"))  # as if its sandbox was killed as well
    os.utime(stale, (0, 0))
    script = (
        "import sys, time\n"
        "from tests.kube.plane import Plane\n"
        "with Plane(operator=False) as plane:\n"
        "    plane.add_node('n')\n"
        "    print(plane.folder, plane.host_address, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as session:
        assert session.stdout is not None
        folder, address = session.stdout.readline().split()
        assert address in _addresses()
        assert Path(folder).parent == stale.parent
        assert not stale.exists()
        os.kill(session.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while (Path(folder).exists() or address in _addresses()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(folder).exists()
    assert address not in _addresses()
    assert subprocess.run(["pgrep", "-f", folder], check=False).returncode == 1
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{Path(folder).name}"))


def _addresses() -> str:
    return subprocess.run(["ip", "addr"], capture_output=True, check=True, text=True).stdout


def _bridge(folder: Path) -> str:
    deadline, file = time.monotonic() + 30, folder / "addresses"
    while not file.exists() or len(file.read_text().split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return file.read_text().split()[0]
