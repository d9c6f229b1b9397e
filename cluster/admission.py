"""Who is served: first come, first served within priority, all of a job's workers or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rayml.cluster.demand import Demand
    from rayml.cluster.limits import Limits
    from rayml.cluster.pool import Pool

# Demands that come within so long of each other count as having come at the same time.
TOGETHER_S = 30.0


Kind = Literal["admitted", "limit", "behind", "never"]


class Verdict(NamedTuple):
    """What was decided about a waiting demand.

    Attributes:
        demand: The demand.
        kind: `admitted`; `limit`, it waits for others to end; `behind` another; `never`, unless
            somebody changes a limit.
        front: The run that is served before it; empty if there is none.
        text: The limit in words; empty if none stands in the way.
        position: Its place in the queue, counted from 1.
    """

    demand: Demand
    kind: Kind
    front: str
    text: str
    position: int


def in_order(demands: Iterable[Demand], held: Collection[str]) -> list[Demand]:
    """Return the demands that wait, in the order in which they are served."""
    waiting = [demand for demand in demands if demand.run not in held]
    return sorted(waiting, key=lambda demand: (-demand.priority, demand.since, demand.run))


def admit(waiting: Sequence[Demand], limits: Limits) -> list[Verdict]:
    """Decide about each waiting demand, and add the admitted ones to the need of their pools.

    Nobody overtakes: whoever cannot be admitted holds back all that come after, unless what it
    asks for is beyond a limit even alone. Only those that came within `TOGETHER_S` of it may go
    first, if they fit: so that a burst of jobs fills the cluster and uses warm workers.

    A job is admitted only when those before it have a node for each of their pods, or when it
    needs no new pod itself: no two half-started ones ever wait for each other.
    """
    desk = _Desk(limits)
    early = {
        demand.run: desk.decide(demand, position)
        for position, demand in _served_at_once(waiting, limits)
    }
    return [
        early.get(demand.run) or desk.decide(demand, position)
        for position, demand in enumerate(waiting, 1)
    ]


class _Desk:
    """Where demands are decided about, one after another."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pools = pools = limits.pools
        self._used = sum(pool.wanted - len(pool.lost) for pool in pools.values())
        self._is_bound = all(pool.bound + pool.hopeless >= pool.need for pool in pools.values())
        # A pod that finds no room may need that of idle workers.
        self._is_crowded = any(w.lacks_room for pool in pools.values() for w in pool.alive)
        self._held_back: Demand | None = None
        self._is_closed = False
        self._front = ""

    def decide(self, demand: Demand, position: int) -> Verdict:
        """Return the verdict about a demand; they come in the order in which they are served."""
        pool, front = self._pools[demand.shape.key], self._front
        if text := self._limits.never(demand):
            return Verdict(demand, "never", "", text, position)
        if self._is_closed or not self._may_be_admitted(demand, pool):
            self._held_back = self._held_back or demand
            return Verdict(demand, "behind", front, "", position)
        self._front = demand.run
        if text := self._limits.reached(demand, self._used):
            self._held_back = self._held_back or demand
            return Verdict(demand, "limit", front, text, position)
        self._used += demand.workers
        pool.need += demand.workers
        self._is_bound = self._is_bound and pool.bound >= pool.need
        return Verdict(demand, "admitted", front, "", position)

    def _may_be_admitted(self, demand: Demand, pool: Pool) -> bool:
        if self._held_back is not None and not came_together(self._held_back, demand):
            self._is_closed = True  # whoever comes later came later still
            return False
        if self._is_bound:
            return True
        needs_pods = pool.bound < pool.need + demand.workers
        return not (needs_pods or self._is_crowded)


def came_together(first: Demand, second: Demand) -> bool:
    """Tell whether the order of two demands, of which the first goes first, is a mere accident."""
    is_close = second.since <= first.since + TOGETHER_S
    return is_close and first.priority == second.priority


def _served_at_once(waiting: Sequence[Demand], limits: Limits) -> list[tuple[int, Demand]]:
    """Return those of the first in the queue whose workers are all there, with their positions.

    Of one shape, they keep their order.
    """
    early: list[tuple[int, Demand]] = []
    left: dict[str, int] = {}
    first: Demand | None = None
    for position, demand in enumerate(waiting, 1):
        key = demand.shape.key
        if limits.never(demand):
            continue
        first = first or demand
        if not came_together(first, demand):
            break
        left.setdefault(key, len(limits.pools[key].available()))
        if left[key] >= demand.workers:
            early.append((position, demand))
        left[key] -= demand.workers
    return early


def postponed(verdicts: Sequence[Verdict], pools: Mapping[str, Pool]) -> tuple[str, ...]:
    """Return the run that has to queue anew: its pods have not come, and others wait."""
    admitted = [verdict.demand for verdict in verdicts if verdict.kind == "admitted"]
    behind = {verdict.demand.shape.key for verdict in verdicts if verdict.kind == "behind"}
    if not admitted or not behind - {admitted[-1].shape.key}:
        return ()
    pool = pools[admitted[-1].shape.key]
    # What a run that goes on has lost is not this one's.
    is_stuck = pool.hopeless > max(0, pool.held - pool.bound)
    return (admitted[-1].run,) if pool.bound < pool.need and is_stuck else ()
