"""The shape of a worker: one pod template, one worker group, one name for ever.

Two jobs whose workers would be the same pods have the same shape, and so share warm workers. What
makes the pod is hashed; the worker group is named after the hash and needs no further record.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from rayml.cluster.code import Code, code_command, code_mount, code_volume
from rayml.cluster.placement import affinity_of, tolerations_of
from rayml.cluster.quantity import cpu_quantity, memory_quantity
from rayml.cluster.settings import Settings
from rayml.errors import SpecError
from rayml.placement import VOLUME_SOURCES, is_label_key, is_label_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rayml.config import Resources

    Item = dict[str, Any]

SHAPE = "rayml.io/shape"
WORKER = "rayml_worker"
GROUP_PREFIX = "rayml-"
NO_MAXIMUM = 2**31 - 1
_GPU = "nvidia.com/gpu"
# For whoever looks at pods: rayml looks at Ray's nodes, which are there seconds earlier.
_READINESS = {
    "httpGet": {"path": "/api/healthz", "port": 52365},
    "initialDelaySeconds": 5,
    "periodSeconds": 5,
    "timeoutSeconds": 2,
    "failureThreshold": 10,
}
# Bash, the container's first process, passes no SIGTERM on: without this, pods go after 30 s.
_PRE_STOP = {"preStop": {"exec": {"command": ["/bin/sh", "-c", "ray stop --force"]}}}


@dataclass(frozen=True, kw_only=True)
class Base:
    """What a cluster gives to each of its workers, whatever their shape.

    Attributes:
        image: The head's image; a job may ask for another.
        pull_policy: The head's policy of pulling it, if it has one.
        pull_secrets: The names of the Secrets that pull it.
        ray_version: The RayCluster's `rayVersion`.
        is_autoscaling: Ray's own autoscaler changes the cluster's size.
        settings: The cluster's.
    """

    image: str
    pull_policy: str | None = None
    pull_secrets: tuple[str, ...] = ()
    ray_version: str | None = None
    is_autoscaling: bool = False
    settings: Settings = field(default_factory=Settings)

    @classmethod
    def read(cls, cluster: Mapping[str, Any]) -> Base:
        """Return what a RayCluster gives to its workers.

        Raises:
            SpecError: Its head has no container, or an annotation is not what it has to be.
        """
        spec = cluster["spec"]
        pod = spec.get("headGroupSpec", {}).get("template", {}).get("spec", {})
        if not (pod.get("containers") or [{}])[0].get("image"):
            name = cluster["metadata"]["name"]
            raise SpecError(f"the head of RayCluster {name!r} has no image; give it one")
        return cls(
            image=pod["containers"][0]["image"],
            pull_policy=pod["containers"][0].get("imagePullPolicy"),
            pull_secrets=tuple(secret["name"] for secret in pod.get("imagePullSecrets") or []),
            ray_version=spec.get("rayVersion"),
            is_autoscaling=bool(spec.get("enableInTreeAutoscaling")),
            settings=Settings.read(cluster),
        )


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What one worker is: a pod template, and what Ray counts of it.

    Attributes:
        key: Ten hexadecimal digits, the same for the same pods at any time and place.
        words: The same for people.
        cpus: Ray's CPUs of a worker, whole ones.
        gpus: Ray's GPUs of a worker.
        template: The pod template.
    """

    key: str
    words: str
    cpus: int
    gpus: int
    template: Item

    @property
    def group(self) -> str:
        """The name of its worker group."""
        return f"{GROUP_PREFIX}{self.key}"

    def bundle(self) -> dict[str, float]:
        """Return a placement group's bundle that takes the whole of one worker."""
        amounts = {"CPU": float(self.cpus), "GPU": float(self.gpus), WORKER: 1.0}
        return {name: amount for name, amount in amounts.items() if amount}

    def selector(self) -> dict[str, str]:
        """Return the label selector that finds workers of this shape only."""
        return {SHAPE: self.key}

    def group_spec(
        self, replicas: int, *, minimum: int = 0, maximum: int = NO_MAXIMUM
    ) -> dict[str, Any]:
        """Return the entry of `workerGroupSpecs`; it validates against KubeRay's CRD."""
        resources = {"CPU": str(self.cpus), WORKER: "1"}
        if self.gpus:
            resources["GPU"] = str(self.gpus)
        return {
            "groupName": self.group,
            "replicas": replicas,
            "minReplicas": minimum,
            "maxReplicas": maximum,
            "labels": {SHAPE: self.key},
            # KubeRay would count 500m as one CPU, but no CPU as all of the node's.
            "resources": resources,
            "rayStartParams": {},
            "template": self.template,
        }


def shape_of(resources: Resources, image: str | None, base: Base) -> Shape:
    """Return the shape of a job's workers on a cluster.

    `workers` is no part of it, and neither is the order in which volumes, tolerations and the
    fields of a dict were written.

    Raises:
        SpecError: Pods cannot give what is asked for.
    """
    gpu = _gpu_resource(resources)
    words = _words(resources, image)
    template = {
        "metadata": {
            "labels": dict(resources.labels or {}),
            "annotations": {SHAPE: words},
        },
        "spec": _pod(resources, image or base.image, gpu, base),
    }
    template = json.loads(_canonical(template))
    key = sha256(_canonical(template).encode()).hexdigest()[:10]
    return Shape(
        key=key,
        words=words,
        cpus=math.ceil(resources.cpus),
        gpus=int(resources.gpus),
        template=template,
    )


@lru_cache(maxsize=4096)
def shape_key(group: str) -> str | None:
    """Return the key of the shape that a worker group is named after; None if it is not ours.

    >>> shape_key("rayml-0123456789"), shape_key("workers")
    ('0123456789', None)
    """
    key = group.removeprefix(GROUP_PREFIX)
    is_ours = group != key and len(key) == 10 and not set(key) - set("0123456789abcdef")
    return key if is_ours else None


def _pod(resources: Resources, image: str, gpu: str | None, base: Base) -> Item:
    volumes = sorted(resources.volumes or [], key=lambda volume: str(volume["name"]))
    code = base.settings.code
    pod = {
        "containers": [_container(resources, image, gpu, base)],
        # Another life of the same pod would be a worker that nobody has asked for.
        "restartPolicy": "Never",
        "volumes": [*map(_volume, volumes), *([code_volume(code)] if code else [])],
        "imagePullSecrets": [{"name": name} for name in base.pull_secrets],
        "nodeSelector": resources.node_selector,
        "affinity": affinity_of(resources),
        "tolerations": tolerations_of(resources, gpu),
        "priorityClassName": resources.priority_class,
        "serviceAccountName": resources.service_account,
    }
    return _without_empty(pod)


def _container(resources: Resources, image: str, gpu: str | None, base: Base) -> Item:
    settings = base.settings
    is_heads = image == base.image
    container = {
        "name": "ray-worker",
        "image": image,
        "imagePullPolicy": base.pull_policy if is_heads else None,
        "command": code_command() if settings.code else None,
        "env": [{"name": "RAYML_STORE", "value": settings.store}] if settings.store else None,
        "envFrom": [{"secretRef": {"name": settings.store_secret}}]
        if settings.store_secret
        else None,
        "resources": _amounts(resources, gpu),
        "volumeMounts": _mounts(resources.volumes or [], settings.code),
        "readinessProbe": _READINESS,
        "lifecycle": _PRE_STOP,
    }
    return _without_empty(container)


def _amounts(resources: Resources, gpu: str | None) -> Item:
    # A request of no CPU is written all the same: without one, the limit would be requested.
    requests = {"cpu": cpu_quantity(resources.cpus)}
    limits = {}
    if resources.memory_bytes is not None:
        requests["memory"] = memory_quantity(resources.memory_bytes)
    if resources.cpus_limit is not None:
        limits["cpu"] = cpu_quantity(resources.cpus_limit)
    if resources.memory_limit_bytes is not None:
        limits["memory"] = memory_quantity(resources.memory_limit_bytes)
    if gpu is not None:
        requests[gpu] = limits[gpu] = str(int(resources.gpus))
    return _without_empty({"requests": requests, "limits": limits})


def _mounts(volumes: Iterable[Mapping[str, Any]], code: Code | None) -> list[Item]:
    mounts = [
        _without_empty(
            {
                "name": volume["name"],
                "mountPath": volume["mount_path"],
                "subPath": volume.get("sub_path"),
                "readOnly": volume.get("read_only") or None,
            }
        )
        for volume in sorted(volumes, key=lambda volume: str(volume["name"]))
    ]
    return [*mounts, code_mount()] if code else mounts


def _volume(volume: Mapping[str, Any]) -> Item:
    return {
        "name": volume["name"],
        **{source: volume[source] for source in VOLUME_SOURCES if source in volume},
    }


def _gpu_resource(resources: Resources) -> str | None:
    """Return the name of the GPUs among a pod's resources; None if it asks for none."""
    if resources.gpus != int(resources.gpus):
        raise SpecError(
            f"gpus={resources.gpus!r} is no whole number, and a pod shares no GPU; give one, or a "
            "gpu_type with a slash that names a shared resource of your nodes"
        )
    kind = resources.gpu_type
    if kind is None:
        return _GPU if resources.gpus else None
    if "/" not in kind:
        if not is_label_value(kind):
            raise SpecError(
                f"gpu_type={kind!r} is no value that a node's label can have; write what your "
                "nodes' GPU label says, such as 'NVIDIA-A100-SXM4-40GB'"
            )
        return _GPU if resources.gpus else None
    if not is_label_key(kind) or not resources.gpus:
        raise SpecError(
            f"gpu_type={kind!r} with gpus={resources.gpus!r} names no resource to ask for; write "
            "one such as 'amd.com/gpu' and how many"
        )
    return kind


def _words(resources: Resources, image: str | None) -> str:
    """Return a shape for people."""
    parts = [f"{resources.cpus:g} CPU{'' if resources.cpus == 1 else 's'}"]
    if resources.memory_bytes:
        parts.append(f"{memory_quantity(resources.memory_bytes)} of memory")
    if resources.gpus:
        kind = f" {resources.gpu_type}" if resources.gpu_type else ""
        parts.append(f"{resources.gpus:g}{kind} GPU{'' if resources.gpus == 1 else 's'}")
    if resources.spot is not None:
        parts.append("spot" if resources.spot else "not spot")
    if image:
        parts.append(f"image {image}")
    return ", ".join(parts)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _without_empty(fields: Mapping[str, Any]) -> Item:
    return {
        name: value
        for name, value in fields.items()
        if value is not None and value not in ([], {})
    }
