"""The Kubernetes objects of a Ray cluster of ours, in the order in which they are made: pure."""

from __future__ import annotations

import sys
from base64 import b64encode
from copy import deepcopy
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from rayml.cluster.code import VOLUME, code_command, code_mount, code_volume, wake_command
from rayml.cluster.quantity import cpu_quantity, memory_quantity
from rayml.config import parse_memory
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

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
_STORE: Final = "RAYML_STORE"
# Ray gives its workers the least priority. On the head they are tracker and reservations.
_FAIR: Final = {"name": "RAY_worker_niceness", "value": "0"}
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
        cpus: What its pod asks for, usually 1; Ray counts none of it.
        memory: What its pod asks for and may take, a Kubernetes quantity; usually 4Gi.
        node_selector: Labels of the nodes that it may run on.

    Raises:
        SpecError: A value is not an amount.
    """

    image: str
    ray_version: str
    cpus: float | None = None
    memory: str | None = None
    node_selector: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.memory is not None:
            parse_memory(self.memory)
        if self.cpus is not None and not 0 < self.cpus < float("inf"):
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
        ("", "pods", ["list", "patch"], None),
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
    """Return objects as one YAML text, for `kubectl apply --server-side -f` and for GitOps."""
    import yaml  # noqa: PLC0415 - only who prints it needs it

    # Code is some megabytes of text: the dumper in Python would take half a minute for it.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump_all(items, Dumper=dumper, sort_keys=False, explicit_start=True, width=10_000)


def renewed_head(
    group: Mapping[str, Any], head: Head, settings: Settings, before: Settings
) -> Item:
    """Return a `headGroupSpec` with what is ours in it made anew; what others added stays.

    Args:
        group: The `headGroupSpec` as it is.
        head: What it is to be.
        settings: What it is given.
        before: What it was given by these.
    """
    new: Item = deepcopy(dict(group))
    pod = new["template"]["spec"]
    _size(pod["containers"][0], head)
    _furnish(pod, settings, before)
    return new


def _head_pod(name: ClusterName, head: Head, settings: Settings) -> Item:
    probes = {"readinessProbe": _READINESS, "lifecycle": _PRE_STOP}
    container: Item = {"name": "ray-head", "image": head.image, "env": [_FAIR]}
    _size(container, replace(head, cpus=head.cpus or 1, memory=head.memory or "4Gi"))
    container |= probes
    pod: Item = {"serviceAccountName": account_name(name), "containers": [container]}
    if head.node_selector:
        pod["nodeSelector"] = dict(head.node_selector)
    _furnish(pod, settings, settings)
    return pod


def _size(container: Item, head: Head) -> None:
    """Set a container's image, and its resources as far as the head says something of them."""
    container["image"] = head.image
    resources = container.setdefault("resources", {})
    requests = resources.setdefault("requests", {})
    if head.cpus is not None:
        requests["cpu"] = cpu_quantity(head.cpus)
    if head.memory is not None:
        memory = memory_quantity(parse_memory(head.memory))
        requests["memory"] = memory
        resources.setdefault("limits", {})["memory"] = memory


def _furnish(pod: Item, settings: Settings, before: Settings) -> None:
    """Give a head's pod rayml's code and its store's place and credentials, and only those."""
    container = pod["containers"][0]
    code, secret = settings.code, settings.store_secret
    env = [{"name": _STORE, "value": settings.store}] if settings.store else []
    given = [{"secretRef": {"name": secret}}] if secret else []
    old = {"secretRef": {"name": before.store_secret}}
    _replace(container, "env", env, lambda item: item.get("name") == _STORE)
    _replace(container, "envFrom", given, lambda item: item == old)
    mounts = [code_mount()] if code else []
    _replace(container, "volumeMounts", mounts, lambda item: item.get("name") == VOLUME)
    volumes = [code_volume(code)] if code else []
    _replace(pod, "volumes", volumes, lambda item: item.get("name") == VOLUME)
    container["command"] = code_command(is_head=True) if code else wake_command()


def _replace(
    owner: Item,
    field_name: str,
    new: Iterable[Mapping[str, Any]],
    is_ours: Callable[[Mapping[str, Any]], bool],
) -> None:
    """Put our items of a list where ours were before; a list without any item goes."""
    others = [item for item in owner.get(field_name) or () if not is_ours(item)]
    owner[field_name] = [*others, *new]
    if not owner[field_name]:
        del owner[field_name]


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
