"""RayClusters for tests of the operator: cheap manifests, and what to wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.kube.access import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from tests.kube.access import Api
    from tests.kube.plane import Plane

IMAGE = "test/ray:1"
RAY_VERSION = "2.60.0"
PATIENCE_S = 60.0

# Stands for Ray where Ray is not under test: its head is always well, and its nodes just stay.
_FAKE_RAY = """#!/bin/sh
case "$1" in
  health-check) exit 0 ;;
  *) echo "ray $*"; exec sleep 100000 ;;
esac
"""

_PROBE = {"exec": {"command": ["true"]}, "periodSeconds": 1}


def add_fake_ray(plane: Plane, folder: Path) -> None:
    """Let containers use the image IMAGE."""
    folder.mkdir()
    (folder / "ray").write_text(_FAKE_RAY)
    (folder / "ray").chmod(0o755)
    plane.add_image(IMAGE, folder)


def container(**fields: Any) -> dict[str, Any]:
    """A container that is ready at once."""
    small = {"cpu": "50m", "memory": "64Mi"}
    return {
        "name": "ray",
        "image": IMAGE,
        "resources": {"requests": small, "limits": small},
        "readinessProbe": _PROBE,
        "livenessProbe": _PROBE,
        **fields,
    }


def template(spec: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A pod template with one such container, which takes the fields."""
    return {
        "spec": {
            "containers": [container(**fields)],
            "terminationGracePeriodSeconds": 1,
            **(spec or {}),
        }
    }


def group(name: str = "small", replicas: int = 1, **fields: Any) -> dict[str, Any]:
    """A worker group."""
    sizes = {"replicas": replicas, "minReplicas": 0, "maxReplicas": 10}
    return {"groupName": name, **sizes, "rayStartParams": {}, "template": template(), **fields}


def raycluster(
    *groups: dict[str, Any],
    name: str = "one",
    head: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A RayCluster with a head and these groups."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": name, "annotations": annotations or {}, "labels": labels or {}},
        "spec": {
            "rayVersion": RAY_VERSION,
            "headGroupSpec": {"rayStartParams": {}, "template": template(), **(head or {})},
            "workerGroupSpecs": list(groups),
            **spec,
        },
    }


class RayClusters:
    """The RayClusters of one namespace, and what an operator makes of them."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self.core = f"/api/v1/namespaces/{namespace}"
        self.path = f"/apis/ray.io/v1/namespaces/{namespace}/rayclusters"

    def create(self, body: dict[str, Any]) -> Any:
        """Apply a manifest."""
        return self.api.create(self.path, body)

    def get(self, name: str = "one") -> Any:
        """A RayCluster as it is now."""
        return self.api.get(f"{self.path}/{name}")

    def wait(self, until: Callable[[Any], bool], timeout_s: float = PATIENCE_S) -> Any:
        """Wait for the cluster `one` to be as wanted."""
        return self.api.wait(f"{self.path}/one", until, timeout_s)

    def edit(self, values: dict[str, Any], name: str = "one") -> Any:
        """Set each value at its JSON pointer; `/spec/workerGroupSpecs/-` appends."""
        patch = [{"op": "add", "path": path, "value": value} for path, value in values.items()]
        return self.api.patch(f"{self.path}/{name}", patch, "json")

    def remove(self, path: str) -> None:
        """Remove what is at a JSON pointer."""
        self.api.patch(f"{self.path}/one", [{"op": "remove", "path": path}], "json")

    def delete(self, name: str = "one") -> None:
        """Delete a cluster."""
        self.api.delete(f"{self.path}/{name}")

    def pods(self, selector: str = "ray.io/cluster=one") -> list[Any]:
        """The pods with these labels."""
        return list(self.api.get(f"{self.core}/pods", labelSelector=selector)["items"])

    def wait_pods(self, until: Callable[[list[Any]], bool], selector: str) -> list[Any]:
        """Wait for the pods with these labels to be as wanted."""
        answer = self.api.wait(
            f"{self.core}/pods",
            lambda found: until(found["items"]),
            PATIENCE_S,
            labelSelector=selector,
        )
        return list(answer["items"])

    def settled(self, group_name: str, size: int) -> set[str]:
        """The names of a group's pods, once it has so many, all of them ready and none leaving."""

        def is_settled(pods: list[Any]) -> bool:
            return len(pods) == size and all(is_ready(pod) for pod in pods)

        selector = f"ray.io/cluster=one,ray.io/group={group_name}"
        return names(self.wait_pods(is_settled, selector))

    def head(self) -> Any:
        """The head pod, once it is ready."""
        (name,) = self.settled("headgroup", 1)
        return self.api.get(f"{self.core}/pods/{name}")

    def worker(self, group_name: str = "small") -> Any:
        """The only pod of a group, as soon as it is there."""
        selector = f"ray.io/cluster=one,ray.io/group={group_name}"
        (pod,) = self.wait_pods(lambda pods: len(pods) == 1, selector)
        return pod

    def delete_pod(self, name: str) -> None:
        """Delete a pod."""
        self.api.delete(f"{self.core}/pods/{name}")

    def events(self, reason: str) -> list[Any]:
        """The events with a reason, about RayClusters."""
        found = self.api.get(
            f"{self.core}/events", fieldSelector=f"involvedObject.kind=RayCluster,reason={reason}"
        )
        return list(found["items"])

    def wait_event(self, reason: str) -> Any:
        """The first event with a reason, as soon as there is one."""
        selector = f"involvedObject.kind=RayCluster,reason={reason}"
        answer = self.api.wait(
            f"{self.core}/events", lambda found: found["items"], PATIENCE_S, fieldSelector=selector
        )
        return answer["items"][0]

    def find(self, kind: str, name: str, api: str = "/api/v1") -> Any:
        """An object of the namespace, or None."""
        try:
            return self.api.get(f"{api}/namespaces/{self.namespace}/{kind}/{name}")
        except ApiError as exc:
            if exc.status == 404:
                return None
            raise


def names(pods: Iterable[Any]) -> set[str]:
    """The names of objects."""
    return {pod["metadata"]["name"] for pod in pods}


def is_ready(pod: Any) -> bool:
    """Whether a pod is ready, and stays."""
    return condition(pod, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def condition(thing: Any, kind: str) -> str | None:
    """The status of a condition, of a pod or a RayCluster."""
    found = (thing.get("status") or {}).get("conditions") or []
    return next((one["status"] for one in found if one["type"] == kind), None)


def reason(thing: Any, kind: str) -> str | None:
    """The reason of a condition."""
    found = (thing.get("status") or {}).get("conditions") or []
    return next((one["reason"] for one in found if one["type"] == kind), None)


def env(pod: Any) -> dict[str, Any]:
    """The environment of a pod's first container, by name: values, or where they come from."""
    variables = pod["spec"]["containers"][0]["env"]
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in variables}


def start_flags(pod: Any) -> dict[str, str]:
    """The flags of the `ray start` that a pod's first container runs."""
    line = pod["spec"]["containers"][0]["args"][0]
    words: Sequence[str] = line.partition("ray start")[2].split()
    return {flag: value for flag, _, value in (word.partition("=") for word in words)}
