"""Small pods for tests of the plane: to run them, wait for them and ask what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.kube.clusters import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kube.plane import Plane

IMAGE = "test/python:1"


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

    def wait(self, name: str, until: Callable[[Any], bool], timeout_s: float = 60) -> Any:
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

    def await_reasons(self, name: str, *reasons: str) -> None:
        """Wait for events about a pod: they come a moment after its status."""
        wait_for(lambda: set(reasons) <= set(self.reasons(name)), f"the events {reasons}")

    def serve(self, name: str, **service: Any) -> None:
        """Make a headless service for the pods of that name."""
        spec = {"clusterIP": "None", "selector": {"app": name}, "ports": [{"port": 8000}]}
        body = {"metadata": {"name": name}, "spec": {**spec, **service}}
        self.plane.api.create(f"{self.path}/services", body)


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
