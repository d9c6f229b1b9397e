"""The Kubernetes objects of a Ray cluster of ours, in the order in which they are made: pure."""

from __future__ import annotations

import sys
from base64 import b64encode
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from rayml.cluster.code import code_command, code_mount, code_volume
from rayml.config import parse_memory
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rayml.cluster.address import ClusterName
    from rayml.cluster.bundle import Bundle
    from rayml.cluster.settings import Settings

    Item = dict[str, Any]

OWNER: Final = "rayml.io/cluster"
CODE: Final = "rayml.io/code"
KINDS: Final = {
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ConfigMap": "configmaps",
    "RayCluster": "rayclusters",
}
_MANAGER: Final = {"app.kubernetes.io/managed-by": "rayml"}
_RBAC: Final = "rbac.authorization.k8s.io"
# KubeRay's own probe first asks ten seconds after the start, and then every five.
_READINESS: Final = {
    "httpGet": {"path": "/api/healthz", "port": 52365},
    "periodSeconds": 1,
    "timeoutSeconds": 2,
    "failureThreshold": 10,
}
# Bash, the container's first process, passes no SIGTERM on.
_PRE_STOP: Final = {"preStop": {"exec": {"command": ["/bin/sh", "-c", "ray stop --force"]}}}


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a cluster's head is; it runs no user's work.

    Attributes:
        image: With Ray, for all pods; with rayml as well if no code is mounted.
        ray_version: Ray's in that image.
        cpus: What its pod asks for; Ray counts none of it.
        memory: What its pod asks for and may take: a Kubernetes quantity.
        node_selector: Labels of the nodes that it may run on.

    Raises:
        SpecError: A value is not an amount.
    """

    image: str
    ray_version: str
    cpus: float = 1
    memory: str = "4Gi"
    node_selector: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parse_memory(self.memory)
        if not 0 < self.cpus < float("inf"):
            raise SpecError(f"the head's cpus={self.cpus!r} is not an amount; give more than 0")


def own_image() -> str:
    """Return the public Ray image with the Ray and the Python of this process."""
    version = metadata.version("ray")
    return f"rayproject/ray:{version}-py{sys.version_info.major}{sys.version_info.minor}"


def account_name(name: ClusterName) -> str:
    """Return the name of the service account, role and binding of a cluster that `up` makes."""
    return f"{name.name}-rayml"


def manifest(
    name: ClusterName, head: Head, settings: Settings, bundle: Bundle | None
) -> list[Item]:
    """Return all objects of a cluster, in the order in which they are made.

    Args:
        name: The cluster's.
        head: What its head is.
        settings: Where its runs are recorded, how large it may grow.
        bundle: rayml's code for its pods; None where the image has it.
    """
    account = account_name(name)
    version = metadata.version("rayml")
    code = bundle.code if bundle is not None else None
    settings = replace(settings, managed="up", version=version, code=code)
    return [
        _object("ServiceAccount", account, name),
        *rights(name, account),
        *code_maps(name, bundle),
        ray_cluster(name, head, settings),
    ]


def rights(name: ClusterName, account: str) -> list[Item]:
    """Return the role and its binding: the least with which the head can do its work.

    Args:
        name: The cluster's.
        account: The service account that its head runs as.
    """
    role = account_name(name)
    about = [
        # Its own cluster and no other.
        ("ray.io", "rayclusters", ["get", "patch"], [name.name]),
        # Kubernetes cannot tell this cluster's pods from others of the namespace. A pod that runs
        # something is labelled with its run.
        ("", "pods", ["get", "list", "patch"], None),
        ("", "events", ["list"], None),
        ("", "resourcequotas", ["list"], None),
    ]
    rules = [
        {"apiGroups": [group], "resources": [resource], "verbs": verbs}
        | ({} if names is None else {"resourceNames": names})
        for group, resource, verbs, names in about
    ]
    subject = {"kind": "ServiceAccount", "name": account, "namespace": name.namespace}
    reference = {"apiGroup": _RBAC, "kind": "Role", "name": role}
    return [
        _object("Role", role, name, f"{_RBAC}/v1") | {"rules": rules},
        _object("RoleBinding", role, name, f"{_RBAC}/v1")
        | {"subjects": [subject], "roleRef": reference},
    ]


def code_maps(name: ClusterName, bundle: Bundle | None) -> list[Item]:
    """Return the ConfigMaps that hold rayml's code; clusters of one namespace may share them."""
    if bundle is None:
        return []
    code = bundle.code
    parts = zip(code.names, code.keys, bundle.parts, strict=True)
    found = []
    for title, key, part in parts:
        item = _object("ConfigMap", title, name)
        item["metadata"]["labels"] = {**_MANAGER, CODE: code.digest}
        item |= {"binaryData": {key: b64encode(part).decode()}, "immutable": True}
        found.append(item)
    return found


def ray_cluster(name: ClusterName, head: Head, settings: Settings) -> Item:
    """Return the RayCluster: a head, and no worker until a job asks for some.

    It has no `upgradeStrategy`: with one, the first new worker group would restart every pod.
    """
    item = _object("RayCluster", name.name, name, "ray.io/v1")
    item["metadata"]["labels"] |= settings.labels()
    item["metadata"]["annotations"] = settings.annotations()
    item["spec"] = {
        "rayVersion": head.ray_version,
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},  # noqa: S104
            "template": {"spec": _head_pod(name, head, settings)},
        },
    }
    return item


def to_yaml(items: Iterable[Item]) -> str:
    """Return objects as one YAML text, for `kubectl apply -f` and for GitOps."""
    import yaml  # noqa: PLC0415 - only who prints it needs it

    return yaml.safe_dump_all(items, sort_keys=False, explicit_start=True, width=10_000)


def _head_pod(name: ClusterName, head: Head, settings: Settings) -> Item:
    code = settings.code
    container: Item = {
        "name": "ray-head",
        "image": head.image,
        "resources": {
            "requests": {"cpu": f"{head.cpus:g}", "memory": head.memory},
            "limits": {"memory": head.memory},
        },
        "readinessProbe": _READINESS,
        "lifecycle": _PRE_STOP,
    }
    if code is not None:
        container |= {"command": code_command(is_head=True), "volumeMounts": [code_mount()]}
    if settings.store is not None:
        container["env"] = [{"name": "RAYML_STORE", "value": settings.store}]
    if settings.store_secret is not None:
        container["envFrom"] = [{"secretRef": {"name": settings.store_secret}}]
    pod: Item = {"serviceAccountName": account_name(name), "containers": [container]}
    if head.node_selector:
        pod["nodeSelector"] = dict(head.node_selector)
    if code is not None:
        pod["volumes"] = [code_volume(code)]
    return pod


def _object(kind: str, title: str, name: ClusterName, version: str = "v1") -> Item:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {
            "name": title,
            "namespace": name.namespace,
            "labels": {**_MANAGER, OWNER: name.name},
        },
    }
