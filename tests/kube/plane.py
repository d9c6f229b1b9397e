"""A real Kubernetes control plane on this machine, whose pods are processes of this machine.

`python -m tests.kube.plane` keeps one up, and prints how to reach it.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import requests
import yaml

from tests.kube.access import Api, Server, certificate_user, exec_user, token_user
from tests.kube.building import programs
from tests.kube.components import Settings, command_lines
from tests.kube.control import KubeletControl
from tests.kube.images import image_config, ray_image
from tests.kube.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

CRDS = "RAYML_TEST_KUBERAY_CRDS"
READY_S = 90.0
STOP_S = 20.0

_BESIDE = Path(__file__).parents[3] / "shared" / "kuberay"
_OWN_CRD = Path(__file__).parent / "raycluster-crd.yaml"
_PREFIX = "rayml-plane-"
_LEASEHOLDERS = ("operator", "kube-scheduler", "kube-controller-manager")


class Plane:
    """A control plane, nodes and an operator for RayClusters; a context manager.

    All of it is in namespaces of its own: its processes, its network and its mounts end when the
    context does or this process dies, and several planes run side by side.

    Attributes:
        folder: Where everything of the plane lies; it goes with the plane.
        kubeconfig: The file for an administrator.
        api: Calls as that administrator.
        host_address: This machine's address as pods see it.
    """

    def __init__(self, *, operator: bool = True) -> None:
        """Describe a plane; without an operator it knows no RayClusters at all."""
        self._operator = operator
        self._nodes: dict[str, dict[str, Any]] = {}
        self._images: dict[str, dict[str, Any]] = {}
        self._identities = 0
        self._waiting: list[str] = []
        self.back_off_s = 10.0  # before the second restart of a container, as in any cluster

    def __enter__(self) -> Self:
        self._programs = programs()
        self._sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self.kubeconfig = self.folder / "admin.kubeconfig"
        self._sandbox = Sandbox(self._programs / "sandbox", self.folder)
        try:
            self._begin()
        except BaseException as exc:
            for log in self.folder.glob("*.log"):
                exc.add_note(f"{log.name}: {log.read_text('utf-8', 'replace')[-1500:]}")
            self._sandbox.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.api.close()
        self._sandbox.close()

    def _begin(self) -> None:
        settings = Settings(
            self.folder, self._programs, self._sandbox.address, self.folder / "admin.kubeconfig"
        )
        self.address = settings.ip
        self.host_address = self._sandbox.host_address.split("/")[0]
        self._make_identities()
        self._lines = command_lines(settings)
        self._kubelet = KubeletControl(self.folder)
        for name in ("etcd", "kube-apiserver"):
            self.start(name)
        crds = _crds() if self._operator else []  # read while the apiserver starts
        self.api = Api(self.kubeconfig)
        self.wait_ready()
        for name in ("kube-controller-manager", "kube-scheduler"):
            self.start(name)
        self._write_kubelet()
        self.start("kubelet")
        self._apply_crds(crds)
        if self._operator:
            self.start("operator")
        self.api.wait("/api/v1/namespaces/default/serviceaccounts/default", bool, READY_S)

    def _sweep(self) -> None:
        """Remove what planes have left that were killed together with their sandboxes."""
        left = Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")
        subprocess.run([self._programs / "sandbox", "sweep", *left], check=True)

    def _make_identities(self) -> None:
        pki = self.folder / "pki"
        pki.mkdir()
        self._tool("pki", pki, self.address)
        self.token = secrets.token_hex(16)
        (pki / "tokens.csv").write_text(f'{self.token},token-user,token-user,"token-users"\n')
        self.server = Server(f"https://{self.address}:443", pki / "ca.crt")
        for name, user in (("admin", "admin"), ("operator", "kuberay-operator")):
            path = self.client_kubeconfig(user, ["system:masters"])
            path.rename(self.folder / f"{name}.kubeconfig")

    def _tool(self, *words: object) -> None:
        subprocess.run([self._programs / "sandbox", *map(str, words)], check=True)

    # Components

    def start(self, name: str) -> None:
        """Start a component that does not run, by its name in `command_lines`."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        self._sandbox.start(name, self._lines[name], self.folder / f"{name}.log", env)
        if name == "kubelet":
            self._kubelet.await_socket(READY_S)

    def stop(self, name: str) -> None:
        """Kill a component, as a crash does; the kubelet takes its pods with it.

        With the apiserver go those that would lose their leases, until `wait_ready`: their watches
        would come back up to a minute later than it.
        """
        if name == "kube-apiserver":
            self._waiting = [other for other in _LEASEHOLDERS if self.is_running(other)]
            for other in self._waiting:
                self.stop(other)
        self._sandbox.signal(name, signal.SIGKILL)
        self._sandbox.wait(name, STOP_S)
        if name == "kubelet":
            (self.folder / "kubelet.sock").unlink()

    def pause(self, name: str) -> None:
        """Stop a component in its tracks, connections open, until `resume`."""
        self._sandbox.signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a paused component go on."""
        self._sandbox.signal(name, signal.SIGCONT)

    def is_running(self, name: str) -> bool:
        """Whether a component has been started and has not ended."""
        return self._sandbox.running(name)

    def component_log(self, name: str) -> str:
        """What a component has printed so far."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Wait until the apiserver says that it is ready; then start what went with it.

        Raises:
            TimeoutError: it has not become so; with what was seen last, and the end of its log.
        """
        deadline, seen = time.monotonic() + timeout_s, ""
        while time.monotonic() < deadline and self.is_running("kube-apiserver"):
            try:
                answer = self.api.call("GET", "/readyz?verbose", timeout=2)
                if answer.ok:
                    while self._waiting:
                        self.start(self._waiting.pop())
                    return
                seen = answer.text
            except requests.RequestException as exc:
                seen = repr(exc)
            time.sleep(0.05)
        raise TimeoutError(
            f"no apiserver is ready: {seen}\n{self.component_log('kube-apiserver')[-4000:]}"
        )

    def _apply_crds(self, crds: list[dict[str, Any]]) -> None:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for crd in crds:
            self.api.create(path, crd)
        for crd in crds:
            self.api.wait(f"{path}/{crd['metadata']['name']}", _is_established, READY_S)

    # Nodes and images

    def add_node(
        self,
        name: str,
        cpu: float = 4,
        memory: str = "8Gi",
        *,
        labels: Mapping[str, str] | None = None,
        taints: Iterable[Mapping[str, str]] = (),
        gpus: int = 0,
    ) -> None:
        """Make a node, or change one: what it has need not be there in truth."""
        self._nodes[name] = {
            "cpu": str(cpu),
            "memory": memory,
            "pods": "110",
            "gpus": gpus,
            "labels": dict(labels or {}),
            "taints": [dict(taint) for taint in taints],
        }
        self._reload()

    def lose_node(self, name: str, *, remove: bool = True) -> None:
        """End a node as a power cut does: all its processes at once, and nothing is reported.

        With `remove`, its Node object and its pods are then deleted, as a cloud's controller does;
        without, the node stays, not ready, and its pods stay as they were last seen.
        """
        del self._nodes[name]
        self._write_kubelet()
        self._kubelet.post("lose", {"node": name, "remove": str(remove).lower()})

    def remove_node(self, name: str) -> None:
        """Lose a node if there is one of this name: what a test does in the end."""
        if name in self._nodes:
            self.lose_node(name)

    def add_image(
        self,
        name: str,
        path: Path | str,
        *,
        pull_s: float = 0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Let containers use an image: `path` comes first in their PATH, with this environment."""
        self._images[name] = image_config(Path(path), pull_s, env or {})
        self._reload()

    def _write_kubelet(self) -> None:
        config = {"nodes": self._nodes, "images": self._images, "backOffS": self.back_off_s}
        new = self.folder / "kubelet.json.new"
        new.write_text(json.dumps(config))
        new.rename(self.folder / "kubelet.json")

    def _reload(self) -> None:
        self._write_kubelet()
        self._kubelet.post("reload")

    # Pods

    def logs(
        self, namespace: str, pod: str, container: str | None = None, *, attempt: int = -1
    ) -> str:
        """What a container has printed, the first of its pod if none is named.

        It is there also after the pod is gone; attempt -1 is the latest, -2 the one before. Of
        several pods with one name, it is the last one's.
        """
        pods = (self.folder / "logs" / namespace / pod).glob("*/first")
        first = max(pods, key=lambda path: path.stat().st_mtime_ns, default=None)
        if first is None:
            return ""
        found = list((first.parent / (container or first.read_text())).glob("*.log"))
        found.sort(key=lambda path: int(path.stem))
        return found[attempt].read_text("utf-8", "replace") if found else ""

    def exec(
        self,
        namespace: str,
        pod: str,
        argv: Sequence[str],
        *,
        container: str = "",
        timeout_s: float = 30,
    ) -> tuple[int, str]:
        """Run a program inside a running container; its exit code and what it printed."""
        where = {"namespace": namespace, "pod": pod, "container": container}
        report = self._kubelet.post("exec", {**where, "timeout": str(timeout_s)}, list(argv))
        return report["code"], report.get("output", "")

    def signal(self, namespace: str, pod: str, number: int, *, container: str = "") -> None:
        """Send a signal to the first process of a running container."""
        where = {"namespace": namespace, "pod": pod, "container": container}
        self._kubelet.post("signal", {**where, "signal": str(number)})

    def files(self, namespace: str, pod: str, *, container: str = "") -> Path:
        """A folder of this machine with the `tmp` and the `home` of a container that runs."""
        where = {"namespace": namespace, "pod": pod, "container": container}
        return Path(self._kubelet.get("folder", where))

    # Identities

    def client_kubeconfig(
        self, user: str, groups: Iterable[str] = (), namespace: str = "default"
    ) -> Path:
        """A kubeconfig with a client certificate of this user, who has no rights of their own."""
        name = self._next_identity()
        self._tool("certificate", self.folder / "pki", name, user, *groups)
        certificate = certificate_user(self.folder / "pki" / f"{name}.crt")
        return self._kubeconfig(name, certificate, namespace)

    def token_kubeconfig(self, token: str | None = None, namespace: str = "default") -> Path:
        """A kubeconfig with a token: the one given, or that of token-user, who has no rights."""
        user = token_user(self.token if token is None else token)
        return self._kubeconfig(self._next_identity(), user, namespace)

    def exec_kubeconfig(self, token: str, namespace: str = "default") -> Path:
        """A kubeconfig with a plugin that tells this token."""
        name = self._next_identity()
        return self._kubeconfig(name, exec_user(self.folder / f"{name}.sh", token), namespace)

    def service_account_token(
        self, namespace: str, name: str, rules: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        """Make a service account with the rights of these rules; return a token of it."""
        core, rbac = f"/api/v1/namespaces/{namespace}", _rbac(namespace)
        metadata = {"name": name}
        self.api.create(f"{core}/serviceaccounts", {"metadata": metadata})
        self.api.create(f"{rbac}/roles", {"metadata": metadata, "rules": list(rules)})
        binding = {
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }
        self.api.create(f"{rbac}/rolebindings", binding)
        request = self.api.create(f"{core}/serviceaccounts/{name}/token", {"spec": {}})
        return str(request["status"]["token"])

    def _next_identity(self) -> str:
        self._identities += 1
        return f"identity-{self._identities}"

    def _kubeconfig(self, name: str, user: Mapping[str, Any], namespace: str) -> Path:
        return self.server.kubeconfig(self.folder / f"{name}.kubeconfig", user, namespace)


def _rbac(namespace: str) -> str:
    return f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"


def _crds() -> list[dict[str, Any]]:
    """KubeRay's own, where they are named or lie beside the project, else one of ours."""
    named = os.environ.get(CRDS)
    place = Path(named) if named else _BESIDE
    files = sorted(place.glob("*.yaml")) if place.is_dir() else [place]
    if not named and not place.is_dir():
        files = [_OWN_CRD]
    documents = []
    for file in files:
        with file.open() as text:
            documents += [document for document in yaml.load_all(text, _LOADER) if document]
    return [one for one in documents if one.get("kind") == "CustomResourceDefinition"]


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as quick


def _is_established(crd: dict[str, Any] | None) -> bool:
    conditions = ((crd or {}).get("status") or {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def main() -> None:
    """Keep a plane up with two nodes and the stock Ray image, until standard input ends."""
    with Plane() as plane:
        name, path = ray_image()
        plane.add_image(name, path)
        plane.add_node("node-1", cpu=8, memory="16Gi")
        plane.add_node("node-2", cpu=8, memory="16Gi")
        print(f"export KUBECONFIG={plane.kubeconfig}\n# image {name}, logs in {plane.folder}/logs")
        print("# ends with this process, or when its input does", flush=True)
        with suppress(KeyboardInterrupt):
            sys.stdin.read()


if __name__ == "__main__":
    main()
