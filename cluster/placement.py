"""Where a worker's pod may run: the nodes that its resources ask for, as a pod's affinity."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rayml.config import Resources

    Item = dict[str, Any]

# What clouds and Karpenter write on interruptible nodes.
SPOT_LABELS = {
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
# Those of them that come with a taint of the same name.
_SPOT_TAINTS = ("cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority")
# Who says which GPU a node has: NVIDIA's feature discovery, GKE, EKS's autoscaler, Karpenter.
GPU_LABELS = (
    "nvidia.com/gpu.product",
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
)
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def affinity_of(resources: Resources) -> Item:
    """Return a pod's affinity: the user's own, and besides it what spot and gpu_type require."""
    affinity = {name: dict(part) for name, part in (resources.affinity or {}).items() if part}
    node = affinity.get("nodeAffinity", {})
    own = (node.get(_REQUIRED) or {}).get("nodeSelectorTerms") or []
    terms = [_merge(choice) for choice in product(*_alternatives(resources, own))]
    if terms != [{}]:
        terms.sort(key=repr)
        affinity["nodeAffinity"] = {**node, _REQUIRED: {"nodeSelectorTerms": terms}}
    return affinity


def tolerations_of(resources: Resources, gpu: str | None) -> list[Item]:
    """Return a pod's tolerations: the user's own, and those of spot nodes and of GPU nodes."""
    tolerations = [dict(toleration) for toleration in resources.tolerations or []]
    if resources.spot:
        tolerations += [
            {"key": key, "operator": "Equal", "value": SPOT_LABELS[key], "effect": "NoSchedule"}
            for key in _SPOT_TAINTS
        ]
    if gpu is not None:
        tolerations.append({"key": gpu, "operator": "Exists", "effect": "NoSchedule"})
    return sorted(tolerations, key=lambda toleration: repr(sorted(toleration.items())))


def _alternatives(resources: Resources, own: Sequence[Item]) -> list[Sequence[Item]]:
    """Return lists of terms: a node has to satisfy one of each list."""
    found: list[Sequence[Item]] = [own] if own else []
    if resources.spot:
        found.append([_term({key: value}, "In") for key, value in SPOT_LABELS.items()])
    if resources.spot is False:
        found.append([_term(SPOT_LABELS, "NotIn")])
    if resources.gpu_type and "/" not in resources.gpu_type:
        found.append([_term({key: resources.gpu_type}, "In") for key in GPU_LABELS])
    return found


def _term(labels: Mapping[str, str], operator: str) -> Item:
    return {
        "matchExpressions": [
            {"key": key, "operator": operator, "values": [value]} for key, value in labels.items()
        ]
    }


def _merge(terms: Sequence[Item]) -> Item:
    merged: Item = {}
    for term in terms:
        for field, expressions in term.items():
            merged[field] = [*merged.get(field, []), *expressions]
    return merged
