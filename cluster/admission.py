"""Who is served: first come, first served within priority, all of a job's workers or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rayml.cluster.demand import Demand
    from rayml.cluster.pool import Pool
    from rayml.cluster.settings import Settings

# For so long a job whose pods find no node keeps its place while others wait behind it.
PATIENCE_S = 600.0


Kind = Literal["admitted", "limit", "behind", "never"]


@dataclass(frozen=True)
class Verdict:
    """What was decided about a waiting demand.

    Attributes:
        demand: The demand.
        kind: `admitted`; `limit`, it waits for others to end; `behind` another; `never`, unless
            somebody changes a limit.
        position: Its place in the queue, counted from 1.
        front: The run that is served before it; empty if there is none.
        text: The limit in words; empty if none stands in the way.
    """

    demand: Demand
    kind: Kind
    position: int
    front: str
    text: str


def in_order(demands: Iterable[Demand], held: Collection[str]) -> list[Demand]:
    """Return the demands that wait, in the order in which they are served."""
    waiting = [demand for demand in demands if demand.run not in held]
    return sorted(waiting, key=lambda demand: (-demand.priority, demand.since, demand.run))


def admit(
    waiting: Sequence[Demand], pools: Mapping[str, Pool], settings: Settings
) -> list[Verdict]:
    """Decide about each waiting demand, and add the admitted ones to the need of their pools.

    Nobody overtakes: whoever cannot be admitted holds back all that come after, unless what it
    asks for is beyond a limit even alone. And a job is admitted only when those before it have a
    node for each of their pods, so that no two half-started ones wait for each other.
    """
    verdicts: list[Verdict] = []
    used = sum(pool.wanted for pool in pools.values())
    is_bound, is_blocked, front = (
        all(pool.bound >= pool.need for pool in pools.values()),
        False,
        "",
    )
    for position, demand in enumerate(waiting, 1):
        pool = pools[demand.shape.key]
        kind: Kind = "behind"
        if text := _never(demand, pool, settings):
            kind = "never"
        elif is_bound and not is_blocked:
            text = _limit(demand, pool, used, settings)
            kind = "limit" if text else "admitted"
        verdicts.append(Verdict(demand, kind, position, front, text))
        if kind == "admitted":
            used += demand.workers
            pool.need += demand.workers
            is_bound = pool.bound >= pool.need
        if kind in {"admitted", "limit"}:
            front, is_blocked = demand.run, kind == "limit"
    return verdicts


def postponed(
    verdicts: Sequence[Verdict], pools: Mapping[str, Pool], now: float
) -> tuple[str, ...]:
    """Return the run that has to queue anew: nodes for its pods have not come, and others wait."""
    admitted = [verdict.demand for verdict in verdicts if verdict.kind == "admitted"]
    behind = {verdict.demand.shape.key for verdict in verdicts if verdict.kind == "behind"}
    if not admitted or not behind - {admitted[-1].shape.key}:
        return ()
    pool = pools[admitted[-1].shape.key]
    waits = [
        now - worker.free_since
        for worker in pool.alive
        if worker.is_unschedulable and worker.free_since is not None
    ]
    is_stuck = pool.bound < pool.need and max(waits, default=0.0) > PATIENCE_S
    return (admitted[-1].run,) if is_stuck else ()


def _never(demand: Demand, pool: Pool, settings: Settings) -> str:
    if settings.max_workers is not None and demand.workers > settings.max_workers:
        return (
            f"it asks for {demand.workers} workers and the cluster's limit is "
            f"{settings.max_workers}; ask for fewer, or raise the RayCluster's annotation "
            "rayml.io/max-workers"
        )
    if demand.workers > pool.maximum:
        return (
            f"it asks for {demand.workers} workers and worker group {pool.name} may have "
            f"{pool.maximum}; ask for fewer, or raise the group's maxReplicas"
        )
    return ""


def _limit(demand: Demand, pool: Pool, used: int, settings: Settings) -> str:
    if settings.max_workers is not None and used + demand.workers > settings.max_workers:
        return (
            f"the cluster's limit of {settings.max_workers} workers is reached: "
            f"{used} in use, {demand.workers} needed"
        )
    if pool.wanted + demand.workers > pool.maximum:
        return (
            f"the limit of {pool.maximum} workers of worker group {pool.name} is reached: "
            f"{pool.wanted} in use, {demand.workers} needed"
        )
    return ""
