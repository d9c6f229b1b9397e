"""What is there: a RayCluster's groups and workers, read from what Kubernetes and Ray report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from rayml.cluster.quota import NOTHING, Amounts, amounts_of
from rayml.cluster.reasons import (
    creation_problems,
    invalid_spec,
    is_unschedulable,
    lacks_room,
    pod_reason,
    recent_failures,
    time_of,
)
from rayml.cluster.shape import NO_MAXIMUM, shape_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    Object = Mapping[str, Any]

State = Literal["pending", "scheduled", "started", "ready", "leaving"]
# For this long after a run has left a worker, Ray may still call it busy: it reports with delay.
STALE_S = 10.0
# For so long Kubernetes may count a pod that has gone.
QUOTA_S = 15.0
# So long after its end was due, a pod that is still there is on a node that is dead.
_OVERDUE_S = 30.0
# Whoever has just begun to look knows a worker without Ray for lost if it is as old as this.
_OLD_S = 120.0


class RayNode(Protocol):
    """A live node, as Ray sees it."""

    @property
    def id(self) -> str:
        """Ray's id of it."""

    @property
    def address(self) -> str:
        """Its IP address."""

    @property
    def is_busy(self) -> bool:
        """Something of it is taken."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A worker group of ours.

    Attributes:
        index: Its place in `spec.workerGroupSpecs`.
        name: Its name.
        shape: The key of its shape.
        replicas: How many pods it shall have; KubeRay never goes below `minimum`.
        minimum: `minReplicas`.
        maximum: `maxReplicas`.
        named: `scaleStrategy.workersToDelete`, as it stands.
        has_strategy: Whether there is a `scaleStrategy` at all.
    """

    index: int
    name: str
    shape: str
    replicas: int
    minimum: int = 0
    maximum: int = NO_MAXIMUM
    named: tuple[str, ...] = ()
    has_strategy: bool = False


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """One pod of ours.

    Attributes:
        name: The pod's name.
        shape: The key of its shape.
        state: `pending` without a node, `scheduled` to one, `started` once Ray's container runs,
            `ready` when it takes work, `leaving` once it is deleted, named for it, or has ended.
        is_named: It stands in `workersToDelete`.
        ip: Its address, once it has one.
        node_id: The live Ray node on it.
        is_busy: Ray says that something runs on it, or that something is reserved.
        is_unschedulable: The scheduler has found no node for it.
        lacks_room: And the reason is that nodes are full, so that others could make room.
        created_at: When, in seconds of Unix time.
        began_at: When the container began that Ray is in, in the same; 0 before it runs.
        ends_at: When it is to be gone, once it is deleted; 0 before.
        free_since: Since when no run holds it; None while one does, and before `after()`.
        idle_since: Since when, besides, nothing else uses it.
        lost_since: Since when the Ray that was on it is gone, though Kubernetes calls it running:
            its node may be dead, which Kubernetes believes only after minutes.
        takes: What it takes of the namespace's quotas.
        reason: Why it is not ready, in words.
    """

    name: str
    shape: str
    state: State
    is_named: bool = False
    ip: str | None = None
    node_id: str | None = None
    is_busy: bool = False
    is_unschedulable: bool = False
    lacks_room: bool = False
    created_at: float = 0.0
    began_at: float = 0.0
    ends_at: float = 0.0
    free_since: float | None = None
    idle_since: float | None = None
    lost_since: float | None = None
    takes: Amounts = NOTHING
    reason: str = ""

    @property
    def is_leaving(self) -> bool:
        """It is going, or gone but for its record."""
        return self.state == "leaving"

    @property
    def is_bound(self) -> bool:
        """It has a node, and stays."""
        return self.state in {"scheduled", "started", "ready"}


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A RayCluster at one moment.

    Attributes:
        resource_version: Which version of the RayCluster this is: a patch tests it.
        generation: Which version of its spec.
        is_settled: The operator has acted on that version.
        is_autoscaling: Ray's own autoscaler changes the cluster's size.
        groups: The worker groups of ours, in the order of the list.
        size: How many groups the whole list has; None if there is no list at all.
        workers: The pods of those groups.
        orphans: Pods of groups of ours that are no longer in the list: nobody will delete them.
        invalid: The operator's refusal of the spec as it is now.
        problems: Why pods could not be created, by group; under "" what concerns all.
        problems_since: Since when that has been so.
        failures: How the pods before those that are starting now have failed, by group.
        quotas: The namespace's ResourceQuotas, read before the pods.
        went: When each worker went that did so within the last `QUOTA_S` seconds.
    """

    resource_version: str
    generation: int = 0
    is_settled: bool = True
    is_autoscaling: bool = False
    groups: tuple[Group, ...] = ()
    size: int | None = None
    workers: tuple[Worker, ...] = ()
    orphans: tuple[Worker, ...] = ()
    invalid: str | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    problems_since: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    quotas: tuple[Object, ...] = ()
    went: tuple[tuple[float, Worker], ...] = ()

    @property
    def gone(self) -> tuple[Worker, ...]:
        """Workers that went a moment ago."""
        return tuple(worker for _, worker in self.went)

    @classmethod
    def read(
        cls,
        cluster: Object,
        pods: Iterable[Object],
        events: Iterable[Object] = (),
        quotas: Iterable[Object] = (),
        nodes_of_ray: Iterable[RayNode] = (),
    ) -> Observation:
        """Return what the API's objects and Ray's live nodes say.

        Get the RayCluster first and list the pods after it: then a settled observation shows every
        pod that the operator has made for this version.
        """
        metadata, spec, status = cluster["metadata"], cluster["spec"], cluster.get("status") or {}
        events = list(events)
        listed = spec.get("workerGroupSpecs")
        groups = _read_groups(listed or [])
        by_name = {group.name: group for group in groups}
        nodes = _by_address(nodes_of_ray)
        found = [
            (group, worker)
            for pod in pods
            if (group := _group_of(pod))
            and (worker := _worker(pod, group, by_name, nodes, events))
        ]
        generation = metadata.get("generation", 0)
        return cls(
            resource_version=metadata["resourceVersion"],
            generation=generation,
            is_settled=status.get("observedGeneration", 0) >= generation,
            is_autoscaling=bool(spec.get("enableInTreeAutoscaling")),
            groups=tuple(groups),
            size=None if listed is None else len(listed),
            workers=tuple(worker for group, worker in found if group in by_name),
            orphans=tuple(worker for group, worker in found if group not in by_name),
            invalid=invalid_spec(cluster, events),
            problems=creation_problems(cluster, [worker for _, worker in found], events),
            failures=recent_failures(cluster, [worker for _, worker in found], events),
            quotas=tuple(quotas),
        )

    def after(
        self, previous: Observation | None, held: Collection[str], now: float
    ) -> Observation:
        """Return this observation with the times since when things are as they are.

        Args:
            previous: The last one that `after()` gave; None if there was none.
            held: The names of the workers that runs hold.
            now: Seconds of Unix time.
        """
        before = {worker.name: worker for worker in previous.workers} if previous else {}
        workers = tuple(
            _since(worker, before.get(worker.name), worker.name in held, now)
            for worker in self.workers
        )
        if not self.is_autoscaling:  # Ray's autoscaler replaces them itself
            workers = tuple(_lost_since(w, before.get(w.name), now) for w in workers)
        here = {worker.name for worker in self.workers}
        left = [(now, worker) for name, worker in before.items() if name not in here]
        went = [entry for entry in (previous.went if previous else ()) if now - entry[0] < QUOTA_S]
        since = previous.problems_since if previous else {}
        problems_since = {group: since.get(group, now) for group in self.problems}
        # Kubernetes forgets events after an hour, and the operator does not repeat a refusal.
        is_same = previous is not None and previous.generation == self.generation
        still = previous.invalid if previous and is_same and not self.is_settled else None
        return replace(
            self,
            workers=workers,
            problems_since=problems_since,
            went=(*went, *left),
            invalid=self.invalid or still,
        )


def _since(worker: Worker, before: Worker | None, is_held: bool, now: float) -> Worker:  # noqa: FBT001
    if is_held:
        return worker
    free = now if before is None or before.free_since is None else before.free_since
    idle = now if before is None or before.idle_since is None else before.idle_since
    idle_since = None if worker.is_busy else idle
    return msgspec.structs.replace(worker, free_since=free, idle_since=idle_since)


def _lost_since(worker: Worker, before: Worker | None, now: float) -> Worker:
    """Return a worker with the time since when its Ray is gone, if that is so.

    A container that was begun anew is no lost one: its Ray is still to come.
    """
    if worker.node_id is not None or worker.is_named:
        return worker
    since = _loss(worker, before, now)
    if since is None:
        return worker
    reason = f"pod {worker.name} is up and its Ray is gone"
    return msgspec.structs.replace(worker, lost_since=since, reason=reason)


def _loss(worker: Worker, before: Worker | None, now: float) -> float | None:
    if worker.ends_at and now - worker.ends_at > _OVERDUE_S:
        return worker.ends_at
    is_started = worker.state == "started"
    if before is None:
        return now if is_started and 0 < worker.began_at < now - _OLD_S else None
    if before.began_at != worker.began_at:
        return None
    return now if is_started and before.node_id is not None else before.lost_since


def _read_groups(listed: Sequence[Object]) -> list[Group]:
    return [
        Group(
            index=index,
            name=entry["groupName"],
            shape=shape,
            replicas=entry.get("replicas") or 0,
            minimum=entry.get("minReplicas") or 0,
            maximum=NO_MAXIMUM if entry.get("maxReplicas") is None else entry["maxReplicas"],
            named=tuple((entry.get("scaleStrategy") or {}).get("workersToDelete") or ()),
            has_strategy=entry.get("scaleStrategy") is not None,
        )
        for index, entry in enumerate(listed)
        if (shape := shape_key(entry["groupName"])) is not None
    ]


def _group_of(pod: Object) -> str | None:
    """Return the name of the pod's worker group, if it is one of ours."""
    group: str = (pod["metadata"].get("labels") or {}).get("ray.io/group", "")
    return group if shape_key(group) else None


def _by_address(nodes: Iterable[RayNode]) -> dict[str, RayNode]:
    """Return nodes by address, without those of which Ray still counts a dead twin."""
    nodes = list(nodes)
    count = Counter(node.address for node in nodes)
    return {node.address: node for node in nodes if count[node.address] == 1}


def _worker(
    pod: Object,
    group: str,
    groups: Mapping[str, Group],
    nodes: Mapping[str, RayNode],
    events: Iterable[Object],
) -> Worker:
    metadata, status = pod["metadata"], pod.get("status") or {}
    name, ip = metadata["name"], status.get("podIP")
    is_named = group in groups and name in groups[group].named
    node = nodes.get(ip) if ip else None
    ray = _ray_container(pod)
    state = "leaving" if is_named else _state(pod, ray, node)
    return Worker(
        name=name,
        shape=shape_key(group) or "",
        state=state,
        is_named=is_named,
        ip=ip,
        node_id=node.id if node else None,
        is_busy=node.is_busy if node else False,
        is_unschedulable=state == "pending" and is_unschedulable(pod),
        lacks_room=state == "pending" and lacks_room(pod),
        created_at=time_of(metadata.get("creationTimestamp")),
        ends_at=time_of(metadata.get("deletionTimestamp")),
        began_at=time_of((ray.get("running") or {}).get("startedAt")),
        takes=amounts_of(pod["spec"]),
        reason="" if state == "ready" else pod_reason(pod, events),
    )


def _ray_container(pod: Object) -> Object:
    """Return the state of the container that Ray is in."""
    name = pod["spec"]["containers"][0]["name"]
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((c.get("state") or {} for c in statuses if c["name"] == name), {})


def _state(pod: Object, ray: Object, node: RayNode | None) -> State:
    status, spec = pod.get("status") or {}, pod["spec"]
    if (
        pod["metadata"].get("deletionTimestamp")
        or status.get("phase") in {"Failed", "Succeeded"}
        or (ray.get("terminated") and spec.get("restartPolicy") == "Never")
    ):
        return "leaving"
    if not spec.get("nodeName"):
        return "pending"
    if "running" not in ray:
        return "scheduled"
    # Kubernetes calls the pod ready seconds later, when all that serves Ray's dashboard is up.
    return "started" if node is None else "ready"
