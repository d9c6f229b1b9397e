"""Pods on the process kubelet live as they do on any."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.kube.pods import IMAGE, Pods, condition, is_gone, is_ready, restarted, state, waits_for

SHARED = "/dev/shm"  # noqa: S108 - inside the pod
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


class TestContainers:
    def test_a_pod_runs_and_succeeds(self, pods: Pods) -> None:
        pods.run("one", "python", "-c", "import os; print('hello', os.getpid())")
        assert pods.finish("one") == "hello 1\n"
        ended = state(pods.wait("one", bool))["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
        pods.await_reasons("one", "Scheduled", "Pulled", "Created", "Started")

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

    def test_a_sidecar_starts_before_the_rest_and_ends_after_it(self, pods: Pods) -> None:
        sidecar = {
            "name": "aside",
            "image": IMAGE,
            "restartPolicy": "Always",
            "command": ["sh", "-c", "touch /dev/shm/up; trap 'exit 0' TERM; sleep 60 & wait"],
            "startupProbe": {"exec": {"command": ["test", "-e", f"{SHARED}/up"]}},
        }
        pods.run("one", "ls", SHARED, spec={"initContainers": [sidecar]})
        assert pods.finish("one") == "up\n"
        aside = pods.wait("one", bool)["status"]["initContainerStatuses"][0]
        assert aside["state"]["terminated"]["exitCode"] == 0

    def test_a_pod_ends_at_its_deadline(self, pods: Pods) -> None:
        spec = {"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 1}
        pods.run("one", "sleep", "60", spec=spec)
        pod = pods.wait("one", lambda pod: pod["status"].get("phase") == "Failed")
        assert pod["status"]["reason"] == "DeadlineExceeded"

    def test_a_slow_image_is_pulled_once_a_node(self, pods: Pods) -> None:
        name = f"test/slow:{pods.namespace}"
        pods.plane.add_image(name, Path(sys.executable).parent, pull_s=1)
        for pod in ("one", "two"):
            pods.run(pod, "true", image=name, spec={"nodeName": "node-1"})
            pods.finish(pod)
        pods.await_reasons("one", "Pulling", "Pulled")
        assert "Pulling" not in pods.reasons("two")

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
        assert pods.log("one") == "one\n"

    def test_the_files_of_the_machine_cannot_be_changed(self, pods: Pods) -> None:
        pods.run("one", "sh", "-c", "touch /etc/of-a-pod || touch ~/file && ls ~")
        assert pods.finish("one").endswith("Read-only file system\nfile\n")
        assert not Path("/etc/of-a-pod").exists()

    def test_a_container_that_ends_is_restarted_later_and_later(self, pods: Pods) -> None:
        pods.run("one", "sh", "-c", "exit 1", spec={"restartPolicy": "Always"})
        pod = pods.wait("one", waits_for("CrashLoopBackOff"))
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 1
        pods.await_reasons("one", "BackOff")

    @pytest.mark.parametrize("after", ["", "; sleep 600"], ids=["alone", "of-a-child"])
    def test_too_much_memory_is_the_end_of_all_of_it(self, pods: Pods, after: str) -> None:
        limits = {"limits": {"memory": "64Mi"}}
        fill = "python -c 'x = bytes(range(250)) * 2_000_000'"
        pods.run(
            "one", "sh", "-c", f"exec {fill}" if not after else fill + after, resources=limits
        )
        pod = pods.wait("one", lambda pod: pod["status"].get("phase") == "Failed")
        assert state(pod)["terminated"]["reason"] == "OOMKilled"
        assert state(pod)["terminated"]["exitCode"] == 137

    def test_an_unknown_image_is_tried_again_and_again(self, pods: Pods) -> None:
        pods.run("one", "true", image="nobody/nothing:1")
        pod = pods.wait("one", waits_for("ErrImagePull"))
        assert "nobody/nothing:1" in state(pod)["waiting"]["message"]
        pods.wait("one", waits_for("ImagePullBackOff"))
        pods.await_reasons("one", "Failed")


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
            {"name": "m", "mountPath": SHARED},
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
        pods.await_reasons("one", "Unhealthy", "Killing")

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

    def test_a_hook_runs_after_the_start(self, pods: Pods) -> None:
        words = ["sh", "-c", "echo hook > /proc/1/fd/1"]
        hooks = {"postStart": {"exec": {"command": words}}}
        pods.run("one", "sleep", "0.5", lifecycle=hooks)
        assert pods.finish("one") == "hook\n"

    def test_a_shorter_grace_replaces_a_longer_one(self, pods: Pods) -> None:
        pods.run("one", "sleep", "60")
        pods.wait("one", is_ready)
        pods.delete("one", gracePeriodSeconds=60)
        pods.delete("one", gracePeriodSeconds=1)
        pods.wait("one", is_gone, 40)

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
        deadline = time.monotonic() + 60
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

    def test_far_addresses_are_refused_at_once(self, pods: Pods) -> None:
        script = (
            "import socket, time; began = time.monotonic()\n"
            "try: socket.create_connection(('192.0.2.1', 80), timeout=20)\n"
            "except OSError: print(time.monotonic() - began < 5)"
        )
        pods.run("one", "python", "-c", script)
        assert pods.finish("one") == "True\n"

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
