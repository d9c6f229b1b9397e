"""The test control plane does for pods what a cluster does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kube.access import Api, ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kube.plane import Plane

IMAGE = "test/python:1"

SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000)"
ASK_APISERVER = """
import os, ssl, urllib.error, urllib.request
folder = "/var/run/secrets/kubernetes.io/serviceaccount/"
host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
trust = ssl.create_default_context(cafile=folder + "ca.crt")
for name in (host + ":" + port, "kubernetes.default.svc"):
    url = f"https://{name}/api/v1/namespaces/{open(folder + 'namespace').read()}/pods"
    request = urllib.request.Request(url, headers={
        "Authorization": "Bearer " + open(folder + "token").read()
    })
    try:
        print(urllib.request.urlopen(request, context=trust).status)
    except urllib.error.HTTPError as exc:
        print(exc.code)
"""


class Pods:
    """The pods of one namespace."""

    def __init__(self, plane: Plane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace
        self.path = f"/api/v1/namespaces/{namespace}"

    def run(self, name: str, *command: str, spec: Any = None, **container: Any) -> None:
        main = {"name": "main", "image": IMAGE, "command": list(command), **container}
        body = {
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": [main], "restartPolicy": "Never", **(spec or {})},
        }
        self.plane.api.create(f"{self.path}/pods", body)

    def wait(self, name: str, until: Callable[[Any], bool], timeout_s: float = 20) -> Any:
        return self.plane.api.wait(f"{self.path}/pods/{name}", until, timeout_s)

    def finish(self, name: str) -> str:
        """Wait until a pod has succeeded; what it has printed."""
        pod = self.wait(name, lambda pod: pod["status"].get("phase") in {"Succeeded", "Failed"})
        assert pod["status"]["phase"] == "Succeeded", (pod["status"], self.log(name))
        return self.log(name)

    def log(self, name: str) -> str:
        return self.plane.logs(self.namespace, name)

    def exec(self, name: str, *command: str) -> tuple[int, str]:
        return self.plane.exec(self.namespace, name, command)

    def delete(self, name: str, **options: Any) -> None:
        self.plane.api.delete(f"{self.path}/pods/{name}", options)

    def reasons(self, name: str) -> list[str]:
        """The reasons of the events about a pod."""
        selector = f"involvedObject.name={name}"
        events = self.plane.api.get(f"{self.path}/events", fieldSelector=selector)
        return [event["reason"] for event in events["items"]]

    def serve(self, name: str, **service: Any) -> None:
        """Make a headless service for the pods of that name."""
        spec = {"clusterIP": "None", "selector": {"app": name}, "ports": [{"port": 8000}]}
        body = {"metadata": {"name": name}, "spec": {**spec, **service}}
        self.plane.api.create(f"{self.path}/services", body)


@pytest.fixture
def pods(plane: Plane, namespace: str) -> Pods:
    plane.add_image(IMAGE, Path(sys.executable).parent)
    return Pods(plane, namespace)


@pytest.fixture
def third_node(plane: Plane) -> Iterator[str]:
    plane.add_node("node-3", cpu=2, memory="4Gi", labels={"zone": "c"}, gpus=1)
    yield "node-3"
    plane.remove_node("node-3")


def is_ready(pod: Any) -> bool:
    return condition(pod, "Ready") == "True"


def is_gone(pod: Any) -> bool:
    return pod is None


def condition(pod: Any, kind: str) -> str | None:
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
    return conditions.get(kind)


def state(pod: Any) -> Any:
    statuses = pod["status"].get("containerStatuses") or [{"state": {}}]
    return statuses[0]["state"]


def waits_for(reason: str) -> Callable[[Any], bool]:
    return lambda pod: state(pod).get("waiting", {}).get("reason") == reason


def restarted(pod: Any) -> bool:
    return bool(pod["status"].get("containerStatuses", [{}])[0].get("restartCount", 0) >= 1)


class TestContainers:
    def test_a_pod_runs_and_succeeds(self, pods: Pods) -> None:
        pods.run("one", "python", "-c", "import os; print('hello', os.getpid())")
        assert pods.finish("one") == "hello 1\n"
        ended = state(pods.wait("one", bool))["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
        assert {"Scheduled", "Pulled", "Created", "Started"} <= set(pods.reasons("one"))

    def test_a_pod_that_fails_tells_its_exit_code(self, pods: Pods) -> None:
        pods.run("one", "sh", "-c", "exit 3")
        pod = pods.wait("one", lambda pod: pod["status"].get("phase") == "Failed")
        assert (state(pod)["terminated"]["exitCode"], state(pod)["terminated"]["reason"]) == (
            3,
            "Error",
        )

    def test_a_program_that_is_not_there_cannot_start(self, pods: Pods) -> None:
        pods.run("one", "no-such-program")
        pod = pods.wait("one", lambda pod: pod["status"].get("phase") == "Failed")
        assert state(pod)["terminated"]["reason"] == "StartError"
        assert "executable file not found" in state(pod)["terminated"]["message"]

    def test_init_containers_run_first_and_in_order(self, pods: Pods) -> None:
        share = [{"name": "share", "mountPath": "/share/deep"}]
        env = [{"name": "FILE", "value": "/share/deep/f"}]
        first = {"image": IMAGE, "volumeMounts": share, "env": env}
        spec = {
            "volumes": [{"name": "share", "emptyDir": {}}],
            "initContainers": [
                {
                    "name": "a",
                    "command": ["sh", "-c", "sleep 0.3; echo a >> /share/deep/f"],
                    **first,
                },
                {"name": "b", "command": ["sh", "-c", "echo b >> /share/deep/f"], **first},
            ],
        }
        pods.run("one", "cat", "/share/deep/f", spec=spec, volumeMounts=share)
        assert pods.finish("one") == "a\nb\n"

    def test_containers_share_the_network_and_memory_but_no_files(self, pods: Pods) -> None:
        other = {
            "name": "other",
            "image": IMAGE,
            "command": ["sh", "-c", "touch /tmp/mine /dev/shm/ours; sleep 60"],
        }
        script = "while [ ! -e /dev/shm/ours ]; do sleep 0.02; done; ls /tmp; hostname"
        main = {"name": "main", "image": IMAGE, "command": ["sh", "-c", script]}
        pods.run("one", spec={"containers": [main, other]})
        pods.wait("one", lambda pod: "terminated" in state(pod))
        assert pods.plane.logs(pods.namespace, "one", "main") == "one\n"

    def test_the_files_of_the_machine_cannot_be_changed(self, pods: Pods) -> None:
        pods.run("one", "sh", "-c", "touch /etc/of-a-pod || touch ~/file && ls ~")
        assert pods.finish("one").endswith("Read-only file system\nfile\n")
        assert not Path("/etc/of-a-pod").exists()

    def test_a_container_that_ends_is_restarted_later_and_later(self, pods: Pods) -> None:
        pods.run("one", "sh", "-c", "exit 1", spec={"restartPolicy": "Always"})
        pod = pods.wait("one", waits_for("CrashLoopBackOff"))
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 1
        assert "BackOff" in pods.reasons("one")

    def test_too_much_memory_is_the_end(self, pods: Pods) -> None:
        limits = {"limits": {"memory": "64Mi"}}
        pods.run("one", "python", "-c", "x = b'x' * 500_000_000", resources=limits)
        pod = pods.wait("one", lambda pod: pod["status"].get("phase") == "Failed")
        assert state(pod)["terminated"]["reason"] == "OOMKilled"
        assert state(pod)["terminated"]["exitCode"] == 137

    def test_an_unknown_image_is_tried_again_and_again(self, pods: Pods) -> None:
        pods.run("one", "true", image="nobody/nothing:1")
        pod = pods.wait("one", waits_for("ErrImagePull"))
        assert "nobody/nothing:1" in state(pod)["waiting"]["message"]
        pods.wait("one", waits_for("ImagePullBackOff"))
        assert "Failed" in pods.reasons("one")


class TestEnvironment:
    def test_variables_come_from_everywhere(self, pods: Pods) -> None:
        pods.plane.api.create(
            f"{pods.path}/secrets",
            {"metadata": {"name": "s"}, "stringData": {"key": "hidden", "A": "a"}},
        )
        pods.plane.api.create(
            f"{pods.path}/configmaps", {"metadata": {"name": "c"}, "data": {"key": "plain"}}
        )
        env = [
            {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "key"}}},
            {"name": "ALL", "value": "$(S) $(C) $$(S) $(NONE)"},
        ]
        pods.run(
            "one",
            *("sh", "-c", 'echo "$WHERE|$IP|$CPU|$ALL|$X_A|$GRPC_DNS_RESOLVER|$HOME"'),
            env=env,
            envFrom=[{"prefix": "X_", "secretRef": {"name": "s"}}],
            resources={"limits": {"cpu": "2"}},
            spec={"nodeName": "node-1"},
        )
        log = pods.finish("one")
        ip = pods.wait("one", bool)["status"]["podIP"]
        assert log == f"node-1|{ip}|2|hidden plain $(S) $(NONE)|a|native|/home/ray\n"

    def test_a_missing_secret_is_waited_for(self, pods: Pods) -> None:
        env = [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}}]
        pods.run("one", "sh", "-c", "echo $S", env=env)
        pod = pods.wait("one", waits_for("CreateContainerConfigError"))
        assert state(pod)["waiting"]["message"] == 'secret "late" not found'
        secret = {"metadata": {"name": "late"}, "stringData": {"k": "came"}}
        pods.plane.api.create(f"{pods.path}/secrets", secret)
        assert pods.finish("one") == "came\n"

    def test_volumes_hold_secrets_and_fields(self, pods: Pods) -> None:
        secret = {"metadata": {"name": "s"}, "stringData": {"a": "1", "b": "2"}}
        pods.plane.api.create(f"{pods.path}/secrets", secret)
        label = {"path": "app", "fieldRef": {"fieldPath": "metadata.labels['app']"}}
        item = {"key": "b", "path": "deep/b"}
        spec = {
            "volumes": [
                {"name": "s", "secret": {"secretName": "s", "items": [item]}},
                {"name": "f", "downwardAPI": {"items": [label]}},
                {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
            ]
        }
        mounts = [
            {"name": "s", "mountPath": "/etc/secret", "readOnly": True},
            {"name": "f", "mountPath": "/fields"},
            {"name": "m", "mountPath": "/dev/shm"},  # noqa: S108 - inside the pod
        ]
        script = "cat /etc/secret/deep/b /fields/app; df -k --output=size /dev/shm | tail -1"
        pods.run("one", "sh", "-c", script, spec=spec, volumeMounts=mounts)
        assert pods.finish("one").split() == ["2one", "8192"]

    def test_a_pod_reaches_the_apiserver_with_its_own_rights(self, pods: Pods) -> None:
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
        pods.plane.service_account_token(pods.namespace, "reader", rules)
        pods.run("may", "python", "-c", ASK_APISERVER, spec={"serviceAccountName": "reader"})
        pods.run("may-not", "python", "-c", ASK_APISERVER)
        assert pods.finish("may") == "200\n200\n"
        assert pods.finish("may-not") == "403\n403\n"


class TestProbesAndHooks:
    def test_readiness_follows_the_probe(self, pods: Pods) -> None:
        probe = {"exec": {"command": ["test", "-e", "/tmp/ok"]}, "periodSeconds": 1}  # noqa: S108
        probe["failureThreshold"] = 1
        pods.run("one", "sleep", "60", readinessProbe=probe)
        pods.wait("one", lambda pod: pod["status"].get("phase") == "Running")
        assert condition(pods.wait("one", bool), "Ready") == "False"
        assert pods.exec("one", "touch", "/tmp/ok") == (0, "")  # noqa: S108
        pods.wait("one", is_ready)
        assert pods.exec("one", "rm", "/tmp/ok")[0] == 0  # noqa: S108
        pods.wait("one", lambda pod: not is_ready(pod))

    def test_a_container_that_is_not_alive_is_restarted(self, pods: Pods) -> None:
        probe = {"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 1}
        spec = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 1}
        pods.run("one", "sleep", "60", livenessProbe=probe, spec=spec)
        pods.wait("one", restarted)
        assert {"Unhealthy", "Killing"} <= set(pods.reasons("one"))

    def test_other_probes_wait_for_the_start(self, pods: Pods) -> None:
        startup = {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1}
        liveness = {"tcpSocket": {"port": 8000}, "periodSeconds": 1, "failureThreshold": 1}
        spec = {"restartPolicy": "Always"}
        script = f"import time; time.sleep(1); {SERVE}"
        probes: dict[str, Any] = {"startupProbe": startup, "livenessProbe": liveness}
        pods.run("one", "python", "-c", script, spec=spec, **probes)
        pod = pods.wait("one", is_ready)
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0

    def test_a_pod_may_say_goodbye(self, pods: Pods) -> None:
        script = "trap 'echo term; exit 0' TERM; echo up; while :; do sleep 0.05; done"
        words = ["sh", "-c", "sleep 0.5; echo pre > /proc/1/fd/1"]
        pods.run("one", "sh", "-c", script, lifecycle={"preStop": {"exec": {"command": words}}})
        pods.wait("one", lambda _: pods.log("one") == "up\n")
        pods.delete("one")
        pods.wait("one", is_gone)
        assert pods.log("one") == "up\npre\nterm\n"

    def test_who_does_not_go_is_killed_after_the_grace(self, pods: Pods) -> None:
        pods.run("one", "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
        pods.wait("one", is_ready)
        began = time.monotonic()
        pods.delete("one", gracePeriodSeconds=2)
        pods.wait("one", is_gone)
        assert 1.9 < time.monotonic() - began < 5

    def test_an_evicted_pod_goes(self, pods: Pods) -> None:
        pods.run("one", "sleep", "60", spec={"terminationGracePeriodSeconds": 1})
        pods.wait("one", is_ready)
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "one"}}
        pods.plane.api.create(f"{pods.path}/pods/one/eviction", body)
        pods.wait("one", is_gone)


class TestNetwork:
    def test_the_service_proxy_reaches_a_pod(self, pods: Pods) -> None:
        probe = {"tcpSocket": {"port": 8000}, "periodSeconds": 1}
        pods.run("web", "python", "-c", SERVE, readinessProbe=probe, workingDir="/usr/share")
        pods.serve("web")
        pods.wait("web", is_ready)
        path = f"{pods.path}/services/web:8000/proxy/"
        deadline = time.monotonic() + 10
        while not (answer := pods.plane.api.call("GET", path)).ok and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "Directory listing" in answer.text

    def test_names_of_services_stand_for_pods_that_are_ready(self, pods: Pods) -> None:
        probe = {"exec": {"command": ["test", "-e", "/tmp/ok"]}, "periodSeconds": 1}  # noqa: S108
        pods.serve("web")
        pods.run("web", "sleep", "60", readinessProbe=probe)
        script = (
            "until getent ahostsv4 web; do sleep 0.05; done; for n in web.NS web.NS.svc "
            "web.NS.svc.cluster.local asker; do getent ahostsv4 $n | head -1; done"
        )
        pods.run("asker", "sh", "-c", script.replace("NS", pods.namespace))
        asker = pods.wait("asker", is_ready)["status"]["podIP"]
        web = pods.wait("web", lambda pod: pod["status"].get("phase") == "Running")
        assert pods.log("asker") == ""
        pods.exec("web", "touch", "/tmp/ok")  # noqa: S108
        found = [line.split()[0] for line in pods.finish("asker").splitlines()]
        assert set(found[:-1]) == {web["status"]["podIP"]}
        assert found[-1] == asker

    def test_pods_on_two_nodes_reach_each_other(self, pods: Pods) -> None:
        pods.run("web", "python", "-c", SERVE, spec={"nodeName": "node-1"})
        ip = pods.wait("web", is_ready)["status"]["podIP"]
        script = (
            "import sys, time, urllib.request as u\n"
            "for _ in range(100):\n"
            "    try: print(u.urlopen(sys.argv[1]).status); break\n"
            "    except OSError: time.sleep(0.05)\n"
        )
        spec = {"nodeName": "node-2"}
        pods.run("asker", "python", "-c", script, f"http://{ip}:8000/", spec=spec)
        assert pods.finish("asker") == "200\n"
        assert pods.wait("asker", bool)["status"]["podIP"] != ip


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
        pods.wait("after", lambda pod: pod["status"].get("phase") == "Succeeded", 40)

    def test_a_quota_is_kept(self, pods: Pods) -> None:
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
        pods.plane.api.create(f"{pods.path}/resourcequotas", quota)
        pods.plane.api.wait(
            f"{pods.path}/resourcequotas/none", lambda quota: "hard" in quota["status"]
        )
        with pytest.raises(ApiError, match="exceeded quota: none"):
            pods.run("one", "true")

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


def test_a_killed_session_leaves_nothing(pods: Pods) -> None:
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
        assert Path(folder).parent == Path(tempfile.gettempdir())
        os.kill(session.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (Path(folder).exists() or address in _addresses()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(folder).exists()
    assert address not in _addresses()
    assert subprocess.run(["pgrep", "-f", folder], check=False).returncode == 1
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{Path(folder).name}"))


def _addresses() -> str:
    return subprocess.run(["ip", "addr"], capture_output=True, check=True, text=True).stdout
