"""The workers of one shape, sorted by what can be done with them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rayml.cluster.observation import STALE_S, Group, Worker
from rayml.cluster.quota import NOTHING, Amounts, amounts_planned
from rayml.cluster.shape import NO_MAXIMUM

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from rayml.cluster.demand import Demand
    from rayml.cluster.observation import Observation


# For this long Ray's end on a running pod may be no more than a view of it that is late.
LOST_S = 30.0
# For so long a job whose pods do not come keeps its place while others wait behind it.
PATIENCE_S = 600.0
# Within so long of a run's end all of its workers get idle, one a moment after the other. They go
# together: KubeRay takes seconds to act on a second change that comes right after a first.
_LEFT_S = 1.0


@dataclass(kw_only=True)
class Pool:
    """One shape's workers, and what is wanted of them.

    Attributes:
        name: The worker group's name.
        group: The group; None while there is none.
        alive: Workers that stay, the held ones included.
        free: Of those, the ones that no run holds and nobody else uses.
        victims: Workers that are to go from now on.
        leaving: Workers that go already.
        taken: How many are used by something that is no run of ours, or by nothing any more.
        lost: Those that are there by name only: their node is dead.
        unplaced: Of how many workers it is not known which of the free ones a run is getting.
        stuck: How many of its pods have found no node for longer than `PATIENCE_S`.
        is_refused: For so long its missing pods could not even be created.
        held: How many the runs hold that were told to start.
        need: Those, and how many have been promised.
        maximum: The most that its group may have.
        each: What one of its workers takes of the namespace's quotas.
    """

    name: str
    group: Group | None = None
    alive: list[Worker] = field(default_factory=list)
    free: list[Worker] = field(default_factory=list)
    victims: list[Worker] = field(default_factory=list)
    leaving: list[Worker] = field(default_factory=list)
    taken: int = 0
    lost: list[Worker] = field(default_factory=list)
    unplaced: int = 0
    stuck: int = 0
    is_refused: bool = False
    held: int = 0
    need: int = 0
    maximum: int = NO_MAXIMUM
    each: Amounts = NOTHING

    @property
    def wanted(self) -> int:
        """How many workers there have to be."""
        return self.need + self.taken

    @property
    def bound(self) -> int:
        """How many workers have a node and can serve runs."""
        there = sum(worker.is_bound for worker in self.alive if worker not in self.lost)
        return there - (self.taken - len(self.lost))

    @property
    def hopeless(self) -> int:
        """How many workers need not be waited for: they have not come for too long."""
        missing = max(0, self.wanted - len(self.alive))
        return self.stuck + (missing if self.is_refused else max(0, self.wanted - self.maximum))

    @property
    def ended(self) -> list[Worker]:
        """Workers that go without having been named: the operator still counts them."""
        return [worker for worker in self.leaving if not worker.is_named]

    @property
    def has_users(self) -> bool:
        """A worker of it is held or used, or may be in a moment."""
        return len(self.free) < len(self.alive) or self.unplaced > 0

    def is_being_left(self, now: float) -> bool:
        """Tell whether a run has just left workers of it, of which Ray still calls some busy."""
        return any(worker.is_busy and is_just_left(worker, now) for worker in self.free)

    def spare(self) -> list[Worker]:
        """Return the workers that nobody needs, those first that should go first.

        Busy ones are never among them; and none that has a node while a run is getting some. None
        either whose Ray is gone: KubeRay makes no other of the group while one that it deletes
        stays, and on a dead node that is for ever.
        """
        count = len(self.alive) - self.wanted
        if count <= 0:
            return []
        candidates = [
            worker
            for worker in self.free
            if not worker.is_busy
            and worker.lost_since is None
            and not (self.unplaced and worker.is_bound)
        ]
        candidates.sort(key=going_order)
        return candidates[:count]

    def available(self) -> list[Worker]:
        """Return the workers that runs can have now, those first that they should get."""
        ready = [worker for worker in self.free if worker.state == "ready"]
        # The one used last is taken first, so that those long idle can leave.
        ready.sort(key=lambda worker: (worker.is_busy, -(worker.idle_since or 0.0), worker.name))
        return ready[: max(0, len(ready) - self.unplaced)]

    def give_up(self, worker: Worker) -> None:
        """Let a worker go."""
        self.alive.remove(worker)
        if worker in self.free:
            self.free.remove(worker)
        self.victims.append(worker)


def make_pools(
    observation: Observation,
    demands: Iterable[Demand],
    held: Mapping[str, Collection[str]],
    drained: Collection[str],
    now: float,
) -> dict[str, Pool]:
    """Return the pools of all shapes that have a group or a demand, by the shape's key."""
    pools = {
        group.shape: Pool(name=group.name, group=group, maximum=group.maximum)
        for group in observation.groups
    }
    shapes = {}
    for worker in observation.workers:
        shapes[worker.name] = worker.shape
        pool = pools[worker.shape]
        is_going = worker.is_leaving and worker.lost_since is None
        (pool.leaving if is_going else pool.alive).append(worker)
        pool.each = worker.takes
    for demand in demands:
        key, names = demand.shape.key, held.get(demand.run)
        pool = pools.get(key) or pools.setdefault(key, Pool(name=demand.shape.group))
        if not (pool.alive or pool.leaving):
            pool.each = amounts_planned(demand.shape.template)
        if names is not None:
            # What a run holds stays what it is when its shape becomes another: a new image, say.
            pool = pools[next((shapes[name] for name in names if name in shapes), key)]
            pool.held += demand.workers
            pool.need += demand.workers
            pool.unplaced += 0 if names else demand.workers
    all_held = {name for workers in held.values() for name in workers}
    for pool in pools.values():
        _sort_out(pool, all_held, drained, now)
        pool.is_refused = _is_refused(pool.name, observation, now)
    return pools


def is_just_left(worker: Worker, now: float) -> bool:
    """Tell whether a run has left a worker only a moment ago."""
    return worker.free_since is not None and now - worker.free_since < _LEFT_S


def going_order(worker: Worker) -> tuple[bool, float, str]:
    """Order workers: without a node, the youngest first; then those that are longest idle."""
    if not worker.is_bound:
        return (False, -worker.created_at, worker.name)
    return (True, math.inf if worker.idle_since is None else worker.idle_since, worker.name)


def _sort_out(pool: Pool, held: Collection[str], drained: Collection[str], now: float) -> None:
    pool.victims = [
        worker
        for worker in pool.alive
        if worker.name not in held and (worker.name in drained or _is_without_ray(worker, now))
    ]
    pool.alive = [worker for worker in pool.alive if worker not in pool.victims]
    pool.stuck = sum(
        worker.is_unschedulable and _is_long(worker.free_since, PATIENCE_S, now)
        for worker in pool.alive
    )
    pool.lost = [worker for worker in pool.alive if _is_lost(worker, now)]
    there = [worker for worker in pool.alive if worker not in pool.lost]
    others = [worker for worker in there if worker.name not in held]
    pool.free = [worker for worker in others if not _is_taken(worker, now)]
    # Of a run whose workers are not known, Ray says only that they are busy.
    pool.taken = len(pool.lost) + max(0, len(others) - len(pool.free) - pool.unplaced)


def _is_lost(worker: Worker, now: float) -> bool:
    """Tell whether a pod serves nobody any more, the run that holds it included."""
    is_sure = worker.is_leaving and worker.lost_since is not None
    return is_sure or _is_long(worker.lost_since, LOST_S, now)


def _is_without_ray(worker: Worker, now: float) -> bool:
    """Tell whether its Ray alone is gone: Kubernetes would have given up the node by now."""
    return worker.state == "started" and _is_long(worker.lost_since, PATIENCE_S, now)


def _is_refused(group: str, observation: Observation, now: float) -> bool:
    since = observation.problems_since
    return _is_long(since.get(group, since.get("")), PATIENCE_S, now)


def _is_long(since: float | None, patience_s: float, now: float) -> bool:
    return since is not None and now - since > patience_s


def _is_taken(worker: Worker, now: float) -> bool:
    is_sure = worker.free_since is None or now - worker.free_since > STALE_S
    return worker.is_busy and is_sure
