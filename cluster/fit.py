"""What can never fit, however long it waits: refused at submit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rayml.cluster.limits import beyond
from rayml.cluster.placement import GPU_LABELS, SPOT_LABELS
from rayml.cluster.quantity import parse_quantity
from rayml.cluster.quota import amounts_planned, counted, lines, show
from rayml.cluster.shape import NO_MAXIMUM
from rayml.errors import CapacityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rayml.cluster.demand import Demand
    from rayml.cluster.observation import Group
    from rayml.cluster.quota import Amounts
    from rayml.cluster.settings import Settings

    Object = Mapping[str, Any]

# Whoever writes these on nodes can add more of them: what is there now is no limit.
_GROWING = (
    "cloud.google.com/gke-nodepool",
    "cluster-autoscaler.kubernetes.io/",
    "cluster.x-k8s.io/",
    "doks.digitalocean.com/",
    "eks.amazonaws.com/",
    "k8s.scaleway.com/",
    "karpenter.",
    "kops.k8s.io/",
    "kubernetes.azure.com/",
    "lke.linode.com/",
    "machine.openshift.io/",
    "magnum.openstack.org/",
    "oci.oraclecloud.com/",
    "oke.oraclecloud.com/",
)


def check_fit(
    demand: Demand,
    settings: Settings,
    quotas: Iterable[Object],
    nodes: Sequence[Object] | None,
    groups: Iterable[Group] = (),
) -> None:
    """Check that the cluster could ever hold a demand, were it idle.

    Nodes count as a limit only where nothing suggests that more of them can come.

    Args:
        demand: What is asked for.
        settings: The cluster's.
        quotas: Its namespace's.
        nodes: Those that there are; None if nobody may see them, or others may come.
        groups: Ours.

    Raises:
        CapacityError: It could not; the message names the limit and the demand.
    """
    known = {group.shape: (group.name, group.maximum) for group in groups}
    name, maximum = known.get(demand.shape.key, (demand.shape.group, NO_MAXIMUM))
    if text := beyond(demand.workers, settings.max_workers, name, maximum):
        raise CapacityError(f"the job {text}")
    amounts = amounts_planned(demand.shape.template)
    _check_quotas(quotas, demand, amounts)
    if nodes and not (settings.nodes_grow or any(map(_can_grow, nodes))):
        _check_nodes(demand, amounts.requests, nodes)


def _check_quotas(quotas: Iterable[Object], demand: Demand, amounts: Amounts) -> None:
    for line in lines(quotas):
        asked = counted(line.resource, amounts) * demand.workers
        if line.is_below(asked):
            raise CapacityError(
                f"the job asks for {show(line.resource, asked)} of {line.resource} in all and "
                f"ResourceQuota {line.quota!r} allows {show(line.resource, line.hard)}; ask for "
                "less, or have it raised"
            )


def _check_nodes(demand: Demand, requests: Mapping[str, float], nodes: Sequence[Object]) -> None:
    words = demand.shape.words
    allowed = [node for node in nodes if _admits(node, demand.shape.template["spec"])]
    if not allowed:
        raise CapacityError(
            f"none of the cluster's {len(nodes)} nodes takes workers of {words}: "
            f"{_obstacle(demand.shape.template['spec'], nodes)}"
        )
    for name, amount in requests.items():
        largest = max(_allocatable(node, name) for node in allowed)
        if amount > largest:
            raise CapacityError(
                f"a worker of {words} needs {show(name, amount)} of {name} and the largest node "
                f"that takes it has {show(name, largest)}; ask for less, or add a larger node"
            )
    fitting = sum(_times(requests, node) for node in allowed)
    if demand.workers > fitting:
        raise CapacityError(
            f"the job asks for {demand.workers} workers of {words} and the cluster's nodes can "
            f"hold {fitting}; ask for fewer or smaller ones, or add nodes"
        )


def _obstacle(pod: Object, nodes: Sequence[Object]) -> str:
    """Return why no node takes a pod, and the way out, in words."""
    asked = [e for term in _terms(pod) for e in term.get("matchExpressions") or []]
    return (
        _gpu_obstacle([e for e in asked if e["key"] in GPU_LABELS], nodes)
        or _spot_obstacle([e for e in asked if e["key"] in SPOT_LABELS], nodes)
        or "labels, taints or readiness stand in the way; change the node_selector, affinity or "
        "tolerations"
    )


def _gpu_obstacle(asked: Sequence[Object], nodes: Sequence[Object]) -> str:
    if not asked or any(_holds(e, _labels(node)) for e in asked for node in nodes):
        return ""
    kinds = [labels[key] for labels in map(_labels, nodes) for key in GPU_LABELS if key in labels]
    found = ", ".join(sorted(set(map(repr, kinds)))) or "no GPU"
    kind = next(iter(asked[0].get("values") or []), "")
    return f"their labels name {found} and gpu_type is {kind!r}; give one of theirs"


def _spot_obstacle(asked: Sequence[Object], nodes: Sequence[Object]) -> str:
    is_wanted = any(e["operator"] == "In" for e in asked)
    are_enough = any if is_wanted else all
    if any(are_enough(_holds(e, _labels(node)) for e in asked) for node in nodes) or not asked:
        return ""
    found = "none of them is labelled" if is_wanted else "all of them are labelled"
    return f"spot is {is_wanted} and {found} as a spot node; leave it out"


def _labels(node: Object) -> Mapping[str, str]:
    return node["metadata"].get("labels") or {}


def _can_grow(node: Object) -> bool:
    marks = [*_labels(node), *(node["metadata"].get("annotations") or {})]
    return any(mark.startswith(_GROWING) or ".karpenter." in mark for mark in marks)


def _admits(node: Object, pod: Object) -> bool:
    """Tell whether a node's labels and taints let a pod onto it."""
    labels = _labels(node)
    if any(labels.get(key) != value for key, value in pod.get("nodeSelector", {}).items()):
        return False
    terms = _terms(pod)
    if terms and not any(_matches(term, node) for term in terms):
        return False
    taints = node.get("spec", {}).get("taints") or []
    hard = [taint for taint in taints if taint["effect"] in {"NoSchedule", "NoExecute"}]
    # A node that is not ready for a moment is no limit.
    lasting = [taint for taint in hard if not taint["key"].startswith("node.kubernetes.io/")]
    return all(any(_tolerates(t, taint) for t in pod.get("tolerations", [])) for taint in lasting)


def _terms(pod: Object) -> Sequence[Object]:
    """Return the terms of a pod's required node affinity; one of them has to hold."""
    affinity = pod.get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms: Sequence[Object] = required.get("nodeSelectorTerms", [])
    return terms


def _matches(term: Object, node: Object) -> bool:
    labels = _labels(node)
    fields = {"metadata.name": node["metadata"]["name"]}
    return all(_holds(e, labels) for e in term.get("matchExpressions") or []) and all(
        _holds(e, fields) for e in term.get("matchFields") or []
    )


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or []
    answers: dict[str, Callable[[], bool]] = {
        "Exists": lambda: value is not None,
        "DoesNotExist": lambda: value is None,
        "In": lambda: value in values,
        "NotIn": lambda: value not in values,
        "Gt": lambda: _number(value) > _number(values[0]),
        "Lt": lambda: _number(value) < _number(values[0]),
    }
    # An operator of later days may well hold: the scheduler will know.
    return answers.get(expression["operator"], lambda: True)()


def _number(text: str | None) -> float:
    """Return a label's number; what is none compares with nothing."""
    try:
        return int(text or "")
    except ValueError:
        return math.nan


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in {None, "", taint["effect"]}:
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in {None, "", taint["key"]}
    same_value = (toleration.get("value") or "") == (taint.get("value") or "")
    return toleration.get("key") == taint["key"] and same_value


def _allocatable(node: Object, name: str) -> float:
    return parse_quantity(node.get("status", {}).get("allocatable", {}).get(name, 0))


def _times(requests: Mapping[str, float], node: Object) -> int:
    shares = [_allocatable(node, name) / amount for name, amount in requests.items() if amount]
    pods = _allocatable(node, "pods") or math.inf
    return int(min(*shares, pods) + 1e-9)
