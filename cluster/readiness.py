"""Whether a cluster's head takes jobs, and what it waits for if not."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from rayml.cluster.door import open_door
from rayml.cluster.reasons import DOUBTED, invalid_spec, pod_reason, refused_at
from rayml.cluster.versions import is_answering
from rayml.errors import ClusterError, RaymlError, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rayml.cluster.address import ClusterName
    from rayml.cluster.client import KubeClient

    Item = Mapping[str, Any]

_POLL_S: Final = 0.5
# By then a running operator has long made the head's pod.
_OPERATOR_S: Final = 15.0
# By then it has looked at what was changed a moment ago.
_REFUSAL_S: Final = 5.0


def head_of(pods: Iterable[Item]) -> Item | None:
    """Return the pod of the head, the one that stays if there are two; None if there is none."""
    heads = [pod for pod in pods if _labels(pod).get("ray.io/node-type") == "head"]
    return min(heads, key=lambda pod: "deletionTimestamp" in pod["metadata"], default=None)


def is_ready(pod: Item) -> bool:
    """Tell whether a pod stays and is Ready."""
    conditions = pod.get("status", {}).get("conditions") or ()
    states = {condition["type"]: condition["status"] for condition in conditions}
    return states.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def head_problem(cluster: Item, pods: Iterable[Item], events: Iterable[Item]) -> str:
    """Return what a head waits for, in words; empty once its pod is ready."""
    events = list(events)
    if refusal := invalid_spec(cluster, events):
        return f"KubeRay refuses the RayCluster: {refusal}"
    if cluster["spec"].get("suspend"):
        return "the RayCluster is suspended"
    head = head_of(pods)
    if head is None:
        return _absent(cluster, events)
    if "deletionTimestamp" in head["metadata"]:
        return f"the head's pod {head['metadata']['name']} is leaving"
    return "" if is_ready(head) else pod_reason(head, events)


def wait_until_ready(
    name: ClusterName, client: KubeClient, wait_s: float, tell: Callable[[str], None]
) -> None:
    """Return once a cluster's head takes jobs; say on the way what it waits for.

    Args:
        name: The cluster's.
        client: Of its kube-apiserver.
        wait_s: For how long.
        tell: Gets each new reason, once.

    Raises:
        SpecError: KubeRay refuses the RayCluster.
        ClusterError: It was not ready in time; says what it waits for.
    """
    _doubt_refusal(name, client)
    began, told = time.monotonic(), ""
    while True:
        waited_s = time.monotonic() - began
        reason = _look(name, client, waited_s)
        if not reason:
            return
        if waited_s > wait_s:
            raise ClusterError(
                f"{name} was not ready within {wait_s:g} s: {reason}; mend that and look "
                "again by rayml cluster status"
            )
        if reason != told:
            tell(reason)
            told = reason
        time.sleep(_POLL_S)


def _doubt_refusal(name: ClusterName, client: KubeClient) -> None:
    """Have the operator look again at a spec that it has refused, as that may have been mended."""
    refused = refused_at(client.ray_cluster(name), client.events(name.namespace))
    if refused is not None:
        changes = {"metadata": {"annotations": {DOUBTED: repr(refused)}}}
        client.patch_ray_cluster(name, changes)
        time.sleep(_REFUSAL_S)


def _look(name: ClusterName, client: KubeClient, waited_s: float) -> str:
    cluster = client.ray_cluster(name)
    pods, events = client.pods(name), client.events(name.namespace)
    if refusal := invalid_spec(cluster, events):
        raise SpecError(f"KubeRay refuses {name}: {refusal}; mend the RayCluster")
    if reason := head_problem(cluster, pods, events):
        is_alone = "status" not in cluster and waited_s > _OPERATOR_S
        return f"{reason}; is KubeRay's operator running?" if is_alone else reason
    with suppress(RaymlError):
        if is_answering(open_door(name, client)):
            return ""
    return "the head is up and its Jobs API is starting"


def _absent(cluster: Item, events: Iterable[Item]) -> str:
    """Return why there is no pod: KubeRay says so in events of the RayCluster."""
    uid = cluster["metadata"]["uid"]
    failures = [
        str(event.get("message"))
        for event in events
        if event.get("type") == "Warning" and event.get("involvedObject", {}).get("uid") == uid
    ]
    return f"there is no head: {failures[-1]}" if failures else "the head's pod is not made yet"


def _labels(pod: Item) -> Mapping[str, str]:
    return pod["metadata"].get("labels") or {}
