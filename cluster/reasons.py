"""Why a pod is not ready, or not even there, in the words of whoever decided it."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from rayml.cluster.settings import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Object = Mapping[str, Any]

# Up to when refusals may be of an earlier spec: the operator was made to look again after that.
DOUBTED = f"{PREFIX}refusal-doubted"
# What a container waits for when nothing is wrong.
_USUAL = {"ContainerCreating", "PodInitializing"}
_MAX_SHOWN = 400
# How KubeRay words the end of a pod that has ended by itself.
_DELETED = re.compile(r"worker Pod \S+/(\S+); Pod status: (\w+);")
_ENDED = re.compile(r"ExitCode:(\d+),.*?Reason:(\w+)")
_SOON_S = 30.0
# Why Kubernetes deletes a pod that nobody wanted to go.
_REMOVALS = {"Preempted", "TaintManagerEviction", "Evicted"}


class _Made(Protocol):
    @property
    def shape(self) -> str: ...

    @property
    def created_at(self) -> float: ...


def time_of(text: str | None) -> float:
    """Return a time of the Kubernetes API in seconds of Unix time; 0 if there is none.

    >>> time_of("2026-11-25T01:00:00Z")
    1795568400.0
    """
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def event_time(event: Object) -> float:
    """Return when an event was last seen; both of Kubernetes' event APIs are understood."""
    series = event.get("series") or {}
    times = (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("deprecatedLastTimestamp"),
        event.get("eventTime"),
        event.get("metadata", {}).get("creationTimestamp"),
    )
    return max(map(time_of, times))


def is_unschedulable(pod: Object) -> bool:
    """Tell whether the scheduler has looked for a node for this pod and found none."""
    condition = _condition(pod, "PodScheduled")
    return condition.get("status") == "False" and condition.get("reason") == "Unschedulable"


def has_failed(pod: Object) -> bool:
    """Tell whether a pod has ended in a way that it should not have."""
    status = pod.get("status") or {}
    states = [c.get("state") or {} for c in status.get("containerStatuses") or []]
    ended = [state["terminated"] for state in states if state.get("terminated")]
    is_over = pod["spec"].get("restartPolicy") == "Never" and bool(ended)
    return status.get("phase") == "Failed" or (
        is_over and not pod["metadata"].get("deletionTimestamp")
    )


def lacks_room(pod: Object) -> bool:
    """Tell whether a pod found no node because nodes are full, as the scheduler words it."""
    message = _condition(pod, "PodScheduled").get("message", "")
    return is_unschedulable(pod) and ("Insufficient" in message or "Too many pods" in message)


def pod_reason(pod: Object, events: Iterable[Object]) -> str:
    """Return what a pod that is not ready waits for, or why it ended."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if has_failed(pod):
        return f"pod {name} has failed: {_short(_failure(status))}"
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        is_odd = scheduled.get("reason") != "Unschedulable"
        how = f"not scheduled ({scheduled.get('reason')})" if is_odd else "unschedulable"
        return f"pod {name} is {how}: {_short(scheduled.get('message', ''))}"
    if (waiting := _waiting(status)) is not None:
        return f"pod {name} does not start: {_short(waiting)}"
    if _is_running(pod):
        return f"pod {name} is up and its Ray is starting"
    return f"pod {name} {_startup(pod, events)}"


def _startup(pod: Object, events: Iterable[Object]) -> str:
    latest = max(_events_of(pod["metadata"]["name"], events), key=event_time, default={})
    if latest.get("type") == "Warning":
        return f"does not start: {latest.get('reason')}: {_short(_message(latest))}"
    if latest.get("reason") == "Pulling":
        return "pulls its image"
    return "is starting" if pod["spec"].get("nodeName") else "is waiting for a node"


def invalid_spec(cluster: Object, events: Iterable[Object]) -> str | None:
    """Return the operator's refusal of the RayCluster's spec as it stands; None if there is none.

    KubeRay says so in an event alone, anew for each version that it refuses, and then does not act
    on the spec. Of one that it takes it says nothing where no count in the status moves.
    """
    refusal = _last_refusal(cluster, events)
    return _short(_message(refusal)) if refusal is not None else None


def refused_at(cluster: Object, events: Iterable[Object]) -> float | None:
    """Return when the operator refused the spec last, as the value that `DOUBTED` takes."""
    refusal = _last_refusal(cluster, events)
    return event_time(refusal) if refusal is not None else None


def _last_refusal(cluster: Object, events: Iterable[Object]) -> Object | None:
    metadata, status = cluster["metadata"], cluster.get("status") or {}
    if status.get("observedGeneration", 0) >= metadata.get("generation", 0):
        return None
    refusals = (
        event
        for event in events
        if str(event.get("reason", "")).startswith("InvalidRayCluster")
        and _object(event).get("name") == metadata["name"]
    )
    last = max(refusals, key=event_time, default=None)
    if last is None or event_time(last) <= _doubted(metadata):
        return None
    return last if event_time(last) >= _changed_at(metadata) else None


def _doubted(metadata: Object) -> float:
    with suppress(ValueError):
        return float((metadata.get("annotations") or {}).get(DOUBTED, 0))
    return 0.0


def _changed_at(metadata: Object) -> float:
    """Return when something was last written into the spec; nobody notes what is taken out."""
    writes = metadata.get("managedFields") or ()
    times = (time_of(w.get("time")) for w in writes if "f:spec" in (w.get("fieldsV1") or {}))
    return max(times, default=0.0)


def creation_problems(
    cluster: Object, made: Iterable[_Made], events: Iterable[Object]
) -> dict[str, str]:
    """Return why pods could not be created: by worker group, and under "" where none is named.

    A failure is over when a pod of the same group has been created after it.
    """
    made = list(made)
    found: dict[str, str] = {}
    name = cluster["metadata"]["name"]
    failures = [
        event
        for event in events
        if event.get("reason") == "FailedToCreateWorkerPod" and _object(event).get("name") == name
    ]
    for event in sorted(failures, key=event_time):
        group = _group_in(_message(event), cluster)
        shape = group.removeprefix("rayml-")
        if not any(
            m.created_at > event_time(event) for m in made if not group or m.shape == shape
        ):
            found[group] = _short(_message(event))
    condition = _condition(cluster, "ReplicaFailure")
    if not found and condition.get("status") == "True":
        found[""] = _short(condition.get("message", ""))
    return found


def recent_failures(
    cluster: Object, made: Iterable[_Made], events: Iterable[Object]
) -> dict[str, str]:
    """Return by worker group how its last pod has failed, if its present pods came soon after.

    The operator deletes a pod that has ended at once and makes another, again and again, so that
    its event is often all that can be seen of it.
    """
    newest: dict[str, float] = {}
    for one in made:
        newest[one.shape] = max(one.created_at, newest.get(one.shape, 0.0))
    found: dict[str, str] = {}
    for event in sorted(events, key=event_time):
        match = _DELETED.search(_message(event)) if _is_about(event, cluster) else None
        group = _group_in(_message(event), cluster)
        after = newest.get(group.removeprefix("rayml-"))
        if match and after is not None and after - event_time(event) < _SOON_S:
            found[group] = f"pod {match[1]} has failed: {_end_told(event, match[2])}"
    return found


def ends_of(
    names: Iterable[str], since: float, pods: Iterable[Object], events: Iterable[Object]
) -> list[str]:
    """Return how those of some pods have ended that have, or whose Ray has.

    Args:
        names: Of the pods.
        since: When they were last known to be well, in seconds of Unix time.
        pods: Those that there are.
        events: Of their namespace.
    """
    events = [event for event in events if event_time(event) >= since]
    there = {pod["metadata"]["name"]: pod for pod in pods}
    found = (_end_of(name, there.get(name), since, events) for name in sorted(names))
    return [end for end in found if end]


def _end_of(name: str, pod: Object | None, since: float, events: list[Object]) -> str:
    if pod is not None and has_failed(pod):
        return pod_reason(pod, events)
    for event in sorted(events, key=event_time, reverse=True):
        match = _DELETED.search(_message(event))
        if event.get("reason") == "DeletedWorkerPod" and match and match[1] == name:
            return f"pod {name} has failed: {_end_told(event, match[2])}"
    if pod is None or pod["metadata"].get("deletionTimestamp"):
        removals = [e for e in _events_of(name, events) if e.get("reason") in _REMOVALS]
        why = max(removals, key=event_time, default={})
        return f"pod {name} was deleted" + (f": {_short(_message(why))}" if why else "")
    return f"pod {name} has failed: {last}" if (last := _last_end(pod, since)) else ""


def _last_end(pod: Object, since: float) -> str:
    """Return how a container of a pod ended that has been started again; "" if none has."""
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        states = (container.get(state) or {} for state in ("state", "lastState"))
        for ended in filter(None, (state.get("terminated") for state in states)):
            if time_of(ended.get("finishedAt")) >= since - 1:  # in whole seconds
                return f"{ended.get('reason')}, exit code {ended.get('exitCode')}"
    return ""


def _end_told(event: Object, phase: str) -> str:
    end = _ENDED.search(_message(event))
    return f"{end[2]}, exit code {end[1]}" if end else phase


def _is_about(event: Object, cluster: Object) -> bool:
    return (
        event.get("reason") == "DeletedWorkerPod"
        and _object(event).get("name") == cluster["metadata"]["name"]
    )


def _group_in(message: str, cluster: Object) -> str:
    groups = [entry["groupName"] for entry in cluster["spec"].get("workerGroupSpecs") or []]
    return next((group for group in groups if f"-{group}-" in message), "")


def _failure(status: Object) -> str:
    parts = [status.get("reason"), status.get("message")]
    for container in status.get("containerStatuses") or []:
        ended = (container.get("state") or {}).get("terminated")
        if ended:
            code = f"exit code {ended.get('exitCode')}"
            parts += [ended.get("reason"), code, ended.get("message")]
    return ", ".join(part for part in parts if part)


def _waiting(status: Object) -> str | None:
    fields = ("initContainerStatuses", "containerStatuses")
    for container in (c for field in fields for c in status.get(field) or []):
        waiting = (container.get("state") or {}).get("waiting")
        if waiting and waiting.get("reason") not in _USUAL:
            return f"{waiting.get('reason')}: {waiting.get('message', '')}".rstrip(": ")
    return None


def _is_running(pod: Object) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return any("running" in (container.get("state") or {}) for container in statuses)


def _events_of(pod: str, events: Iterable[Object]) -> Iterator[Object]:
    for event in events:
        thing = _object(event)
        if thing.get("kind") == "Pod" and thing.get("name") == pod:
            yield event


def _object(event: Object) -> Object:
    found: Object = event.get("involvedObject") or event.get("regarding") or {}
    return found


def _message(event: Object) -> str:
    return str(event.get("message") or event.get("note") or "")


def _condition(thing: Object, kind: str) -> Object:
    conditions = (thing.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind), {})


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
