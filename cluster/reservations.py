"""Which runs hold workers of a RayCluster, and the loop that makes the cluster fit them.

A reservation lives by the heartbeats of the driver that sees its run through. Nothing of it is
written down: how large the cluster is, the RayCluster says; who needs workers, the drivers say
again after a restart. Until they had the time for it, nobody's worker goes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from rayml.cluster.answers import Conflict, Refused
from rayml.cluster.book import is_written, write_book
from rayml.cluster.demand import Demand
from rayml.cluster.fit import check_fit
from rayml.cluster.grants import SILENCE_S, Grant
from rayml.cluster.observation import Observation
from rayml.cluster.patch import patch_ops, trial_ops
from rayml.cluster.plan import Plan, plan
from rayml.cluster.pool import is_just_left
from rayml.cluster.reasons import ends_of
from rayml.cluster.settings import PREFIX, Settings, check_resizable
from rayml.cluster.shape import GROUP_PREFIX, Base, Shape, shape_key, shape_of
from rayml.errors import CapacityError, NotFound, RaymlError, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rayml.cluster.address import ClusterName
    from rayml.cluster.client import KubeClient
    from rayml.cluster.grants import Wish
    from rayml.cluster.observation import Worker

RUN_LABEL = f"{PREFIX}run"
# After a start: two heartbeats of every driver that already holds workers.
SETTLE_S = 25.0
_logger = logging.getLogger("rayml.cluster")


class Nodes(Protocol):
    """The cluster's nodes as Ray sees them."""

    def live(self) -> Sequence[Any]:
        """Return the live ones, each with `id`, `address` and `is_busy`."""

    def drain_idle(self, node_id: str) -> bool:
        """Let a node take nothing new if it is idle; tell whether that was so."""


class _Held:
    """One reservation."""

    def __init__(self, wish: Wish, now: float) -> None:
        self.wish = wish
        self.until = now
        self.grant = Grant(version=1, is_ready=bool(wish.holding))
        self.shape: Shape | None = None
        self.base: Base | None = None
        self.is_checked = self.grant.is_ready
        self.since = wish.since
        self.workers = frozenset(wish.holding)
        self.held_at = time.time()

    def tell(self, **facts: Any) -> bool:  # noqa: ANN401 - a Grant's fields
        """Note how it stands; tell whether that is new."""
        new = self.grant._replace(**facts)
        if new == self.grant:
            return False
        self.grant = new._replace(version=self.grant.version + 1)
        return True


class Reservations:
    """All reservations of one RayCluster; safe to share among threads."""

    def __init__(
        self,
        name: ClusterName,
        client: KubeClient,
        nodes: Nodes,
    ) -> None:
        self._name = name
        self._client = client
        self._nodes = nodes
        self._held: dict[str, _Held] = {}
        self._lock = threading.RLock()
        self._began = time.monotonic()
        self._seen: Observation | None = None
        self._drained: set[str] = set()
        self._refused: dict[str, RaymlError] = {}

    def is_ours(self) -> bool:
        """Tell whether the cluster's size is ours to change.

        Raises:
            RaymlError: Kubernetes does not answer or refuses.
        """
        return Settings.read(self._client.ray_cluster(self._name)).managed is not None

    def reserve(self, wish: Wish, patience_s: float = SILENCE_S) -> bool:
        """Note that a run needs workers, or still does: its heartbeat; tell whether it is new.

        Args:
            wish: What it needs.
            patience_s: For how long that holds if nothing more is heard.
        """
        with self._lock:
            held = self._held.get(wish.run)
            is_new = held is None or held.wish.attempt != wish.attempt
            if is_new:
                self._held[wish.run] = _Held(wish, time.monotonic())
            self._held[wish.run].until = time.monotonic() + patience_s
            return is_new

    def grant(self, run: str) -> Grant | None:
        """Return how a reservation stands; None if there is none."""
        with self._lock:
            held = self._held.get(run)
            return None if held is None else held.grant

    def hold(self, run: str, addresses: Iterable[str]) -> list[str]:
        """Note on which workers a run is, by their addresses; return their names."""
        pods = {_address(pod): pod["metadata"]["name"] for pod in self._client.pods(self._name)}
        workers = [pods[address] for address in addresses if address in pods]
        with self._lock:
            if (held := self._held.get(run)) is not None:
                held.workers, held.held_at = frozenset(workers), time.time()
        return workers

    def ends(self, run: str) -> list[str]:
        """Return how those of a run's workers have ended that have."""
        with self._lock:
            held = self._held.get(run)
        if held is None or not held.workers:
            return []
        pods, events = self._client.pods(self._name), self._client.events(self._name.namespace)
        return ends_of(held.workers, held.held_at, pods, events)

    def release(self, run: str) -> None:
        """Give a run's workers back."""
        with self._lock:
            self._held.pop(run, None)

    def step(self) -> bool:
        """Look, plan and act once; tell whether anything is on its way.

        Raises:
            RaymlError: Kubernetes does not answer or refuses; the next step tries again.
        """
        self._drop_silent()
        cluster = self._client.ray_cluster(self._name)
        settings = Settings.read(cluster)
        if settings.managed is None:
            return False
        check_resizable(cluster)
        with self._lock:
            held = dict(self._held)
        self._shape(held, Base.read(cluster))
        is_growing = any(not one.grant.is_ready for one in held.values())
        # Before the pods: what a quota counts then is there, or has gone.
        quotas = self._client.quotas(self._name.namespace) if is_growing else ()
        pods = self._client.pods(self._name)
        events = self._client.events(self._name.namespace) if is_growing else ()
        seen = self._observe(cluster, pods, events, quotas, held)
        demands = [
            demand
            for demand in self._demands(held)
            if self._fits(held[demand.run], demand, seen, settings)
        ]
        decided = plan(demands, seen, settings, _granted(held), time.time(), self._drained)
        self._tell(held, decided)
        self._change(self._drain(self._spare(decided, seen), seen), seen, demands)
        self._publish(cluster, held)
        self._label(pods, held)
        return bool(decided.waiting or self._drained)

    def fail(self, problem: RaymlError) -> None:
        """Let those who wait know why nothing moves."""
        with self._lock:
            for held in self._held.values():
                if not held.grant.is_ready:
                    held.tell(reason=str(problem))

    # --- a step's parts ---

    def _drop_silent(self) -> None:
        now = time.monotonic()
        with self._lock:
            silent = [run for run, held in self._held.items() if now > held.until]
        for run in silent:
            _logger.warning("reservation dropped", extra={"run": run})
            self.release(run)

    def _shape(self, held: Mapping[str, _Held], base: Base) -> None:
        for one in held.values():
            if one.grant.problem is not None or (one.shape is not None and one.grant.is_ready):
                continue  # what it holds does not change with the cluster's settings
            try:
                if one.shape is None or one.base != base:  # its hash takes a while
                    one.shape = shape_of(one.wish.resources, one.wish.image, base)
                    one.base = base
                if (refusal := self._refused.get(one.shape.key)) is not None:
                    raise refusal
            except RaymlError as exc:
                one.shape = None
                one.tell(problem=exc)
        self._refused.clear()  # whoever asks anew may find that the rule is gone

    def _observe(
        self,
        cluster: Mapping[str, Any],
        pods: Iterable[Mapping[str, Any]],
        events: Iterable[Mapping[str, Any]],
        quotas: Iterable[Mapping[str, Any]],
        held: Mapping[str, _Held],
    ) -> Observation:
        seen = Observation.read(cluster, pods, events, quotas, self._nodes.live())
        workers = {name for one in held.values() for name in one.workers}
        self._seen = seen.after(self._seen, workers, time.time())
        self._drained &= {worker.name for worker in seen.workers}
        return self._seen

    def _fits(self, one: _Held, demand: Demand, seen: Observation, settings: Settings) -> bool:
        """Refuse what is beyond a limit even alone; one that is lowered later may be raised again.

        Whoever submits from outside is told at once; here the nodes are nobody's to see.
        """
        if one.is_checked:
            return True
        one.is_checked = True
        try:
            check_fit(demand, settings, seen.quotas, None, seen.groups)
        except CapacityError as exc:
            one.shape = None
            one.tell(problem=exc)
            return False
        return True

    def _demands(self, held: Mapping[str, _Held]) -> list[Demand]:
        return [
            Demand(
                run=run,
                shape=one.shape,
                workers=one.wish.resources.workers,
                priority=one.wish.priority,
                since=one.since,
                owner=one.wish.owner,
            )
            for run, one in held.items()
            if one.shape is not None
        ]

    def _tell(self, held: Mapping[str, _Held], decided: Plan) -> None:
        with self._lock:
            for run, one in held.items():
                if one.shape is None or one.grant.is_ready:
                    continue
                if run in decided.postponed:
                    one.since = time.time()
                one.tell(
                    is_ready=run in decided.ready,
                    reason="" if run in decided.ready else decided.waiting.get(run, ""),
                    bundle=one.shape.bundle(),
                    selector=one.shape.selector(),
                    shape=one.shape.key,
                )

    def _spare(self, decided: Plan, seen: Observation) -> Plan:
        """Return a plan by which nothing shrinks while drivers may not have been heard of yet."""
        if time.monotonic() - self._began >= SETTLE_S:
            return decided
        is_auto = seen.is_autoscaling
        sizes = {g.name: g.minimum if is_auto else g.replicas for g in seen.groups}
        replicas = {name: max(n, sizes.get(name, 0)) for name, n in decided.replicas.items()}
        return replace(decided, replicas=replicas, victims=frozenset(), removable=())

    def _drain(self, decided: Plan, seen: Observation) -> Plan:
        """Let the victims take nothing new; one that has just become busy is no victim."""
        refused = [
            worker
            for worker in seen.workers
            if worker.name in decided.victims - self._drained and not self._is_drained(worker)
        ]
        self._drained |= decided.victims - {worker.name for worker in refused}
        now = time.time()
        # All of a run's workers go together.
        if any(is_just_left(worker, now) for worker in refused):
            refused = [worker for worker in seen.workers if worker.name in decided.victims]
        replicas = Counter(decided.replicas)
        replicas.update(f"{GROUP_PREFIX}{worker.shape}" for worker in refused)
        victims = decided.victims - {worker.name for worker in refused}
        return replace(decided, replicas=replicas, victims=victims)

    def _is_drained(self, worker: Worker) -> bool:
        return worker.node_id is None or self._nodes.drain_idle(worker.node_id)

    def _change(self, decided: Plan, seen: Observation, demands: list[Demand]) -> None:
        shapes = {demand.shape.key: demand.shape for demand in demands}
        ops = patch_ops(decided, seen, shapes)
        if not ops:
            return
        try:
            # Somebody else changed the cluster between our look and this: the next step sees it.
            with suppress(Conflict):
                self._client.patch_ray_cluster(self._name, ops)
        except (SpecError, Refused):
            if not self._note_refusals(shapes.values(), seen, decided):
                raise

    def _note_refusals(self, shapes: Iterable[Shape], seen: Observation, decided: Plan) -> bool:
        """Find the shapes that the server does not take, so that no other run waits for them."""
        before = len(self._refused)
        for shape in shapes:
            if not (ops := trial_ops(shape, seen, decided.replicas.get(shape.group, 1))):
                continue
            try:
                self._client.patch_ray_cluster(self._name, ops, is_trial=True)
            except (SpecError, Refused) as exc:
                self._refused[shape.key] = exc
        return len(self._refused) > before

    def _publish(self, cluster: Mapping[str, Any], held: Mapping[str, _Held]) -> None:
        """Let whoever may read the RayCluster see its reservations."""
        book = write_book([_line(one) for one in held.values()])
        if not is_written(book, cluster):
            with suppress(Conflict):
                changes = {"metadata": {"annotations": book}}
                self._client.patch_ray_cluster(self._name, changes)

    def _label(self, pods: Iterable[Mapping[str, Any]], held: Mapping[str, _Held]) -> None:
        """Let each pod show which run is on it."""
        runs = {worker: run for run, one in held.items() for worker in one.workers}
        for metadata in (pod["metadata"] for pod in pods):
            labels, run = metadata.get("labels") or {}, runs.get(metadata["name"])
            is_ours = shape_key(labels.get("ray.io/group", "")) is not None
            if is_ours and labels.get(RUN_LABEL) != run and "deletionTimestamp" not in metadata:
                with suppress(NotFound):
                    self._client.label_pod(
                        self._name.namespace, metadata["name"], {RUN_LABEL: run}
                    )


def _granted(held: Mapping[str, _Held]) -> dict[str, frozenset[str]]:
    return {run: one.workers for run, one in held.items() if one.grant.is_ready}


def _line(held: _Held) -> dict[str, object]:
    wish, grant = held.wish, held.grant
    return {
        "run": wish.run,
        "owner": wish.owner,
        "experiment": wish.experiment,
        "shape": grant.shape,
        "workers": wish.resources.workers,
        "state": "held" if grant.is_ready else "waiting",
        "reason": str(grant.problem or grant.reason),
    }


def _address(pod: Mapping[str, Any]) -> str:
    return str(pod.get("status", {}).get("podIP", ""))
