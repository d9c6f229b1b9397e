"""What to do next: demands, observation and limits give sizes, who goes, who starts, who waits.

A pure function, called again and again. Nothing is remembered between two calls but what the
cluster shows, so that a new planner goes on where the last one ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rayml.cluster.admission import admit, in_order, postponed
from rayml.cluster.demand import Demand
from rayml.cluster.limits import Limits
from rayml.cluster.pool import make_pools
from rayml.cluster.sizing import choose_victims, removable_groups, size_groups
from rayml.cluster.waiting import explain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rayml.cluster.observation import Observation
    from rayml.cluster.pool import Pool
    from rayml.cluster.settings import Settings

__all__ = ["Demand", "Plan", "plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What follows from an observation.

    Attributes:
        replicas: How many workers each group of ours shall have, by its name: `replicas`, or with
            Ray's autoscaler on `minReplicas`. Groups that are not there yet are among them.
        victims: The workers to name for deletion: idle ones only.
        ready: The runs whose workers are all there, and which ones they get.
        waiting: The runs that wait on, and for what, in words.
        removable: The groups that can be taken out of the list: they are empty.
        postponed: Runs that have to queue anew (`since` becomes now): their pods have found
            no node, or could not be created, for ten minutes, and others wait.
    """

    replicas: Mapping[str, int] = field(default_factory=dict)
    victims: frozenset[str] = frozenset()
    ready: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    removable: tuple[str, ...] = ()
    postponed: tuple[str, ...] = ()


def plan(
    demands: Iterable[Demand],
    observation: Observation,
    settings: Settings,
    held: Mapping[str, Collection[str]],
    now: float,
    drained: Collection[str] = (),
) -> Plan:
    """Return what to do about a cluster.

    It is stable: the same again gives the same, and once it is done there is nothing left to do.
    No worker that a run holds, or that is busy, is ever among the victims.

    Args:
        demands: What runs hold and wait for.
        observation: The cluster, after `Observation.after()`.
        settings: Its limits.
        held: The names of the workers of each run that was told to start; none while it is not
            known which ones Ray gave it, and then no worker of their shape goes.
        now: Seconds of Unix time.
        drained: Workers that take no work any more and therefore have to go.
    """
    demands = list(demands)
    pools = make_pools(observation, demands, held, drained, now)
    limits = Limits(pools, settings, observation.quotas, observation.gone)
    verdicts = admit(in_order(demands, held), limits)
    admitted = [verdict.demand for verdict in verdicts if verdict.kind == "admitted"]
    ready = _hand_out(admitted, pools)
    if not observation.is_autoscaling:
        choose_victims(pools, settings, observation, now)
    replicas, victims = size_groups(pools, admitted, settings, observation)
    return Plan(
        replicas=replicas,
        victims=victims,
        ready=ready,
        waiting=explain([v for v in verdicts if v.demand.run not in ready], pools, observation),
        removable=removable_groups(pools, demands, replicas, observation),
        postponed=postponed(verdicts, pools),
    )


def _hand_out(admitted: Sequence[Demand], pools: Mapping[str, Pool]) -> dict[str, tuple[str, ...]]:
    """Return the runs that can start, with their workers, and let nobody else have those."""
    ready: dict[str, tuple[str, ...]] = {}
    left = {shape: pools[shape].available() for shape in {demand.shape.key for demand in admitted}}
    for demand in admitted:
        free = left[demand.shape.key]
        workers, left[demand.shape.key] = free[: demand.workers], free[demand.workers :]
        if len(workers) == demand.workers:
            ready[demand.run] = tuple(worker.name for worker in workers)
    for demand in admitted:
        # Ray chooses among all idle workers of the shape, and does so while we go on.
        pools[demand.shape.key].unplaced += demand.workers if demand.run in ready else 0
    return ready
