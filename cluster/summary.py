"""What a cluster is doing, as plain data; Kubernetes alone is asked."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rayml.cluster.book import left_out, reservations_of
from rayml.cluster.observation import Observation
from rayml.cluster.readiness import head_of, head_problem, is_ready
from rayml.cluster.reasons import time_of
from rayml.cluster.settings import PREFIX, Settings
from rayml.cluster.shape import SHAPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rayml.cluster.address import ClusterName
    from rayml.cluster.client import KubeClient
    from rayml.cluster.observation import Worker

    Item = Mapping[str, Any]

RUN = f"{PREFIX}run"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A cluster at one moment.

    Attributes:
        cluster: Its address.
        managed: `up`, `adopted`, or None if it is not ours.
        state: `ready` if its head takes jobs, else `starting`.
        reason: What the head waits for; empty if it is ready.
        image: Of the head.
        ray_version: As the RayCluster says.
        settings: Limits, grace, store, the rayml whose code is mounted.
        workers: Ours, each with `name`, `shape`, `words`, `state`, `run`, `node`, `age_s`,
            `reason`.
        reservations: Each with `run`, `owner`, `experiment`, `shape`, `workers`, `state`
            (`held` or `waiting`), and the `reason` to wait; `worker_s` where it is known.
        more: How many reservations there are besides.
        ended: The last runs that have ended, as far as the store can be read, each with `run`,
            `state`, `owner`, `experiment`, `ended_at`, `worker_s`.
        problems: What stands in the way of more workers, and workers that nobody will delete.
    """

    cluster: str
    managed: str | None
    state: str
    reason: str
    image: str
    ray_version: str | None
    settings: dict[str, object]
    workers: list[dict[str, object]] = field(default_factory=list)
    reservations: list[dict[str, Any]] = field(default_factory=list)
    more: int = 0
    ended: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Node:
    """A worker whose probe finds a live Ray node on it."""

    id: str
    address: str
    is_busy: bool


def read_summary(name: ClusterName, client: KubeClient) -> Summary:
    """Return what a cluster is doing.

    Raises:
        NotFound: There is none of this name.
        ClusterUnreachable: The kube-apiserver does not answer, or refuses.
    """
    cluster = client.ray_cluster(name)
    pods, events = client.pods(name), client.events(name.namespace)
    return summarise(name, cluster, pods, events, time.time())


def summarise(
    name: ClusterName,
    cluster: Item,
    pods: Iterable[Item],
    events: Iterable[Item],
    now: float,
) -> Summary:
    """Return what objects of the Kubernetes API say about a cluster; `now` in Unix seconds."""
    pods, events = list(pods), list(events)
    seen = Observation.read(cluster, pods, events, (), _nodes(pods))
    by_name = {pod["metadata"]["name"]: pod for pod in pods}
    reason = head_problem(cluster, pods, events)
    settings = Settings.read(cluster)
    workers = [*seen.workers, *seen.orphans]
    return Summary(
        cluster=str(name),
        managed=settings.managed,
        state="starting" if reason else "ready",
        reason=reason,
        image=_image(cluster, pods),
        ray_version=cluster["spec"].get("rayVersion"),
        settings=_plain(settings, is_autoscaling=seen.is_autoscaling),
        workers=[_worker(one, by_name[one.name], now) for one in workers],
        reservations=reservations_of(cluster),
        more=left_out(cluster),
        problems=list(_problems(seen)),
    )


def _nodes(pods: Iterable[Item]) -> list[_Node]:
    return [
        _Node(pod["metadata"]["name"], pod["status"]["podIP"], RUN in pod["metadata"]["labels"])
        for pod in pods
        if is_ready(pod) and pod["status"].get("podIP")
    ]


def _image(cluster: Item, pods: Iterable[Item]) -> str:
    """Return the image of the head that runs, or of the one that shall."""
    head = head_of(pods)
    pod = head or cluster["spec"]["headGroupSpec"]["template"]
    return str(pod["spec"]["containers"][0].get("image"))


def _plain(settings: Settings, *, is_autoscaling: bool) -> dict[str, object]:
    return {
        "max_workers": settings.max_workers,
        "grace_s": settings.grace_s,
        "store": settings.store,
        "store_secret": settings.store_secret,
        "rayml": settings.version,
        "is_autoscaling": is_autoscaling,
    }


def _worker(worker: Worker, pod: Item, now: float) -> dict[str, object]:
    metadata = pod["metadata"]
    return {
        "name": worker.name,
        "shape": worker.shape,
        "words": (metadata.get("annotations") or {}).get(SHAPE, ""),
        "state": worker.state,
        "run": (metadata.get("labels") or {}).get(RUN),
        "node": pod["spec"].get("nodeName"),
        "age_s": round(max(0.0, now - time_of(metadata.get("creationTimestamp"))), 1),
        "reason": worker.reason,
    }


def _problems(seen: Observation) -> Iterable[str]:
    if seen.invalid:
        yield f"KubeRay refuses the RayCluster: {seen.invalid}"
    for group, problem in dict(seen.problems).items():
        where = f"workers of {group}" if group else "some pods"
        yield f"{where} cannot be made: {problem}"
    for worker in seen.orphans:
        yield f"nobody will delete pod {worker.name}: its worker group is gone"
