"""What stands in a demand's way: the cluster's limit, its group's, and Kubernetes' quotas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rayml.cluster.quota import counted, lines, show

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rayml.cluster.demand import Demand
    from rayml.cluster.observation import Worker
    from rayml.cluster.pool import Pool
    from rayml.cluster.quota import Line
    from rayml.cluster.settings import Settings

    Object = Mapping[str, Any]


def beyond(workers: int, most: int | None, group: str, maximum: int) -> str:
    """Return which limit on workers a demand is above even alone, in words; empty if none."""
    if most is not None and workers > most:
        return (
            f"asks for {workers} workers and the cluster's limit is {most}; ask for fewer, or "
            "raise the RayCluster's annotation rayml.io/max-workers"
        )
    if workers > maximum:
        return (
            f"asks for {workers} workers and worker group {group} may have {maximum}; ask for "
            "fewer, or raise the group's maxReplicas"
        )
    return ""


@dataclass(frozen=True)
class Limits:
    """The limits of one cluster at one moment, in words for whoever meets them.

    Attributes:
        pools: The pools of all shapes.
        settings: The cluster's own limits.
        quotas: As they were before the pools' workers were listed.
        gone: Workers that went a moment ago, which quotas may still count.
    """

    pools: Mapping[str, Pool]
    settings: Settings
    quotas: Sequence[Object]
    gone: Sequence[Worker] = ()

    def never(self, demand: Demand) -> str:
        """Return what keeps a demand out even if all of our runs had ended; empty if nothing."""
        pool, most = self.pools[demand.shape.key], self.settings.max_workers
        if text := beyond(demand.workers, most, pool.name, pool.maximum):
            return f"it {text}"
        for line, others, asked in self._asked(demand):
            # Without those that a quota may count though they have gone: it will have room.
            lasting = max(0.0, others - _taken(line, self.gone))
            if line.is_below(lasting + asked):
                return (
                    f"it asks for {show(line.resource, asked)} of {line.resource} and "
                    f"ResourceQuota {line.quota!r} allows {show(line.resource, line.hard)}, of "
                    f"which others than rayml's workers have {show(line.resource, lasting)}"
                )
        return ""

    def reached(self, demand: Demand, used: int) -> str:
        """Return what a demand has to wait for while workers are in use; empty if nothing."""
        pool, most = self.pools[demand.shape.key], self.settings.max_workers
        if most is not None and used + demand.workers > most:
            return (
                f"the cluster's limit of {most} workers is reached: "
                f"{used} in use, {demand.workers} needed"
            )
        if pool.wanted + demand.workers > pool.maximum:
            return (
                f"the limit of {pool.maximum} workers of worker group {pool.name} is reached: "
                f"{pool.wanted} in use, {demand.workers} needed"
            )
        for line, others, asked in self._asked(demand):
            if line.used is None:  # Kubernetes refuses all pods as long as that is so
                return (
                    f"ResourceQuota {line.quota!r} is new: its {line.resource} are not counted yet"
                )
            taken = others + self._of_ours(line)
            if line.is_below(taken + asked):
                return (
                    f"ResourceQuota {line.quota!r} of {show(line.resource, line.hard)} "
                    f"{line.resource} is reached: {show(line.resource, taken)} in use, "
                    f"{show(line.resource, asked)} needed"
                )
        return ""

    @cached_property
    def _lines(self) -> list[tuple[Line, float]]:
        """The quotas' lines, and what others have of each: the same for a thousand demands."""
        return [(line, self._of_others(line)) for line in lines(self.quotas)]

    def _asked(self, demand: Demand) -> Iterator[tuple[Line, float, float]]:
        """Yield the lines of which a demand needs more, what others have, and what it asks."""
        pool = self.pools[demand.shape.key]
        if not self._lines or len(pool.available()) >= demand.workers:
            return
        for line, others in self._lines:
            if asked := counted(line.resource, pool.each) * demand.workers:
                yield line, others, asked

    def _of_ours(self, line: Line) -> float:
        """Return what is taken by the workers that are needed: idle ones make room."""
        return sum(
            counted(line.resource, pool.each) * (pool.wanted - len(pool.lost))
            for pool in self.pools.values()
        )

    def _of_others(self, line: Line) -> float:
        """Return what others have of it, and dead nodes as long as Kubernetes counts those."""
        there = [
            worker
            for pool in self.pools.values()
            for worker in (*pool.alive, *pool.victims, *pool.leaving)
            if worker not in pool.lost
        ]
        return max(0.0, (line.used or 0.0) - _taken(line, there))


def _taken(line: Line, workers: Iterable[Worker]) -> float:
    return sum(counted(line.resource, worker.takes) for worker in workers)
