"""The tracker as a detached actor of the cluster."""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil
import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util import serialization_addons

from rayml._ray.connection import HEAD_ACTOR, NAMESPACE, connect, first_line, is_alive
from rayml._ray.drivers import RayJobs
from rayml._ray.metrics import TrackerMetrics
from rayml._ray.tracker_log import open_tracker_log
from rayml.errors import ClusterUnreachable
from rayml.processes import identify
from rayml.tracker.lease import open_tracker, reopen_tracker
from rayml.tracker.upkeep import Upkeep

if TYPE_CHECKING:
    from rayml.store import Store
    from rayml.tracker.segments import Owner
    from rayml.tracker.tracker import Tracker

_START_S = 60.0
_AUTHORITY = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
_CLOSE_S = 5.0
_trackers: dict[tuple[str, str], ray.actor.ActorHandle[TrackerActor]] = {}


def tracker_actor(store: Store) -> ray.actor.ActorHandle[TrackerActor]:
    """Return the tracker of a store in this cluster, serving; the first caller starts it.

    It is detached, needs no CPU, is kept on the head, and comes back after it was killed.

    Raises:
        StoreError: It cannot open the store.
        ClusterUnreachable: It does not start.
    """
    key = (ray.get_runtime_context().gcs_address, store.uri)
    if key not in _trackers:
        actor = _start_tracker(store)
        _await_tracker(actor)
        _trackers[key] = actor
    return _trackers[key]


def find_tracker(store: Store) -> ray.actor.ActorHandle[TrackerActor] | None:
    """Return the tracker of a store in this cluster, or None if it has none."""
    try:
        return ray.get_actor(_tracker_name(store), namespace=NAMESPACE)
    except ValueError:
        return None


def leave() -> None:
    """Let the trackers of a Ray that ends with this process leave their shards in good order."""
    connection = connect(None)
    if not connection.is_own or not is_alive():
        return
    handles = [
        handle for (address, _), handle in _trackers.items() if address == connection.address
    ]
    with suppress(GetTimeoutError, RayError):  # what is left open, the next start closes
        closed: list[Any] = [handle.close.remote() for handle in handles]
        ray.get(closed, timeout=_CLOSE_S)


def _tracker_name(store: Store) -> str:
    return f"tracker-{hashlib.sha256(store.uri.encode()).hexdigest()[:16]}"


def _start_tracker(store: Store) -> ray.actor.ActorHandle[TrackerActor]:
    name = _tracker_name(store)
    options = _tracker_class(store).options(name=name, **HEAD_ACTOR)
    actor = options.remote()
    return cast("ray.actor.ActorHandle[TrackerActor]", actor)


def _await_tracker(actor: Any) -> None:  # noqa: ANN401 - Ray's type for a handle has no methods
    try:
        problem = ray.get(actor.problem.remote(), timeout=_START_S)
    except (GetTimeoutError, RayError) as exc:
        raise ClusterUnreachable(
            f"the tracker actor did not start within {_START_S:g} s: {first_line(exc)}; "
            "look at the cluster's head"
        ) from exc
    if problem is not None:
        ray.kill(actor)
        raise problem


def _tracker_class(store: Store) -> ray.actor.ActorClass[TrackerActor]:
    # In the class, because Ray cannot read an argument before it has all its serializers.
    return ray.remote(type("TrackerActor", (TrackerActor,), {"store": store}))


class TrackerActor:
    """The tracker as an actor: reports a store that it cannot open as a value.

    An error in an actor's constructor would reach callers wrapped, without its type.

    Attributes:
        store: Where it records.
    """

    store: Store

    def __init__(self) -> None:
        _leave_out_serializers()
        store = self.store
        self._problem: Exception | None = None
        self._tracker: Tracker | None = None
        try:
            open_tracker_log(_tracker_name(store))
            owner = owner_of_cluster()
            self._tracker = reopen_tracker(store, owner)
            if self._tracker is None:
                self._tracker, self._lease = open_tracker(store, owner)
            self._upkeep = Upkeep(self._tracker)
            found = [run.spec.run for run in self._tracker.silent_runs(0)]
            # Nobody may ever call it after a restart, and still it has to look after its runs.
            loop = asyncio.get_running_loop()
            self._looking_after = [
                loop.create_task(self._upkeep.run(RayJobs(store, orphans=found))),
                loop.create_task(TrackerMetrics(self._tracker).publish()),
            ]
        except Exception as exc:  # noqa: BLE001 - handed to the caller, who raises it
            self._problem = exc

    async def problem(self) -> Exception | None:
        """Return why the store cannot be opened, or None."""
        return self._problem

    async def append(self, data: bytes) -> int:
        """As `Tracker.append`."""
        return await self._open().append(data)

    async def watch(self, run: str, seen: int) -> tuple[object, ...]:
        """As `Tracker.watch`."""
        return await self._open().watch(run, seen)

    async def beat(self, run: str) -> None:
        """As `Tracker.beat`."""
        self._open().beat(run)

    async def close(self) -> None:
        """As `Tracker.close`."""
        await self._open().close()
        for task in self._looking_after:
            task.cancel()
        self._upkeep.close()

    def _open(self) -> Tracker:
        if self._tracker is None:
            raise self._problem or RuntimeError("the tracker is not open")
        return self._tracker


def _leave_out_serializers() -> None:
    """Let Ray not import pydantic, starlette and Arrow in this process.

    It does so before it reads or answers the first call, to be able to send their objects, which a
    tracker never does; it takes longer than all that a killed tracker has to do to serve again.
    """
    serialization_addons.apply = lambda _: None


def owner_of_cluster() -> Owner:
    """Return this node's Ray daemon: a shard whose daemon is gone has no writer any more."""
    address = ray.get_runtime_context().gcs_address
    return identify(psutil.Process(os.getppid()), address, _kuberay_cluster())


def _kuberay_cluster() -> str:
    """Return which RayCluster this is, and of which Kubernetes; empty elsewhere.

    Its namespace and name alone would not tell it from its twin in another Kubernetes that shares
    the store, so what tells those apart goes with them: their certificate authority.
    """
    name, authority = os.environ.get("RAY_CLUSTER_NAME"), Path(_AUTHORITY)
    if name is None or not authority.exists():
        return ""
    kubernetes = hashlib.sha256(authority.read_bytes()).hexdigest()[:16]
    return f"{os.environ.get('RAY_CLUSTER_NAMESPACE', '')}/{name}@{kubernetes}"
