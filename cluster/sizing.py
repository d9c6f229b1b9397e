"""How large each worker group shall be, and which idle workers go."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rayml.cluster.pool import going_order
from rayml.cluster.shape import NO_MAXIMUM

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rayml.cluster.demand import Demand
    from rayml.cluster.observation import Observation, Worker
    from rayml.cluster.pool import Pool
    from rayml.cluster.settings import Settings


def choose_victims(
    pools: Mapping[str, Pool], settings: Settings, observation: Observation, now: float
) -> None:
    """Let those workers go that nobody needs, and that have no grace left or are in the way."""
    for pool in pools.values():
        for worker in pool.spare():
            is_tired = (
                worker.idle_since is not None and now - worker.idle_since >= settings.grace_s
            )
            if (is_tired and not pool.is_being_left(now)) or not worker.is_bound:
                pool.give_up(worker)
    spare = [
        (going_order(worker), pool, worker) for pool in pools.values() for worker in pool.spare()
    ]
    spare.sort(key=lambda entry: entry[0])
    for _, pool, worker in spare[: _in_the_way(pools, settings, observation)]:
        pool.give_up(worker)


def size_groups(
    pools: Mapping[str, Pool],
    admitted: Iterable[Demand],
    settings: Settings,
    observation: Observation,
) -> tuple[dict[str, int], frozenset[str]]:
    """Return each group's size, and the names of all workers that are to go.

    Growth is handed out in the order of the demands, within the limit on pods that exist: those
    that leave count until they are gone.
    """
    admitted = list(admitted)
    for key, pool in pools.items():
        if pool.is_refused and any(demand.shape.key != key for demand in admitted):
            # KubeRay makes no pod of the groups after one of which it cannot make one.
            lacking = pool.held + pool.taken - len(pool.alive) - len(pool.ended)
            pool.need -= max(0, lacking)
    named = {pool.name: _excess(pool, observation) for pool in pools.values()}
    sizes = {pool.name: _least(pool, named[pool.name], observation) for pool in pools.values()}
    room = _room(pools, sizes, settings, observation)
    goals = {key: pool.wanted for key, pool in pools.items()}
    for demand in admitted:
        goals[demand.shape.key] -= demand.workers
    for key, workers in [(key, 0) for key in pools] + [(d.shape.key, d.workers) for d in admitted]:
        goals[key] += workers
        pool = pools[key]
        goal = min(goals[key], pool.maximum)
        growth = max(0, min(goal - sizes[pool.name], room))
        sizes[pool.name] += int(growth)
        room -= growth
    victims = {w.name for pool in pools.values() for w in (*pool.victims, *named[pool.name])}
    is_new = {pool.name for pool in pools.values() if pool.group is None}
    return {n: size for n, size in sizes.items() if size or n not in is_new}, frozenset(victims)


def removable_groups(
    pools: Mapping[str, Pool],
    demands: Iterable[Demand],
    replicas: Mapping[str, int],
    observation: Observation,
) -> tuple[str, ...]:
    """Return the groups that can be taken out of the list without leaving a pod behind.

    That is so when the operator has acted on a size of zero, and no pod is left. While Ray's
    autoscaler is on, it writes to groups by their place in the list: nothing is taken out. A limit
    that somebody has set by hand stays, and its group with it.
    """
    if observation.is_autoscaling or not observation.is_settled:
        return ()
    asked = {demand.shape.key for demand in demands}
    return tuple(
        pool.name
        for key, pool in pools.items()
        if pool.group is not None
        and pool.group.maximum == NO_MAXIMUM
        and key not in asked
        and not (pool.group.replicas or pool.group.minimum or replicas.get(pool.name))
        and not (pool.alive or pool.leaving or pool.victims)
    )


def _in_the_way(pools: Mapping[str, Pool], settings: Settings, observation: Observation) -> int:
    """Return how many idle workers have to make room at once, besides those that go already."""
    going = sum(len(pool.leaving) for pool in pools.values())
    going += sum(worker.is_bound for pool in pools.values() for worker in pool.victims)
    full = sum(worker.lacks_room for pool in pools.values() for worker in pool.alive)
    sizes = {pool.name: _least(pool, [], observation) for pool in pools.values()}
    growth = sum(max(0, pool.wanted - sizes[pool.name]) for pool in pools.values())
    growth -= sum(len(pool.victims) for pool in pools.values())
    growth -= sum(worker.is_named for pool in pools.values() for worker in pool.leaving)
    beyond = growth - _room(pools, sizes, settings, observation)
    return int(max(0, full - going, _refused(pools, observation) - going, beyond))


def _refused(pools: Mapping[str, Pool], observation: Observation) -> int:
    """Return how many pods a quota keeps from being created."""
    return sum(
        max(0, pool.wanted - len(pool.alive))
        for pool in pools.values()
        for text in [observation.problems.get(pool.name, observation.problems.get("", ""))]
        if "exceeded quota" in text
    )


def _now(pool: Pool, observation: Observation) -> int:
    """Return the size that the group has been given."""
    if pool.group is None:
        return 0
    if observation.is_autoscaling:
        return pool.group.minimum
    return max(pool.group.replicas, pool.group.minimum)


def _excess(pool: Pool, observation: Observation) -> list[Worker]:
    """Return workers that have ended by themselves and need no successor."""
    if observation.is_autoscaling:
        return []
    spare = _now(pool, observation) - len(pool.victims) - max(pool.wanted, len(pool.alive))
    return sorted(pool.ended, key=going_order)[: max(0, spare)]


def _least(pool: Pool, named: Iterable[Worker], observation: Observation) -> int:
    """Return the size to which the group can be lowered now.

    KubeRay deletes pods of its own choice, busy or not, when there are more than the size. So it
    is lowered by as many as are named; and further, below what it was given but not yet filled,
    only if no worker of the group is in use, or the operator has made what it could make.
    """
    size = _now(pool, observation)
    if observation.is_autoscaling:  # which deletes idle workers only
        return min(size, pool.wanted)
    size = max(0, size - len(pool.victims) - len(list(named)))
    kept = max(pool.wanted, len(pool.alive) + len(pool.ended) - len(list(named)))
    return min(size, kept) if observation.is_settled or not pool.has_users else size


def _room(
    pools: Mapping[str, Pool],
    sizes: Mapping[str, int],
    settings: Settings,
    observation: Observation,
) -> float:
    """Return how many more pods there may be.

    What a dead node has is there by name only, for as long as Kubernetes waits for the node.
    """
    if settings.max_workers is None:
        return math.inf
    present = len(observation.orphans)
    for pool in pools.values():
        present += max(sizes[pool.name], len(pool.alive) + len(pool.ended))
        present += len(pool.victims) + sum(worker.is_named for worker in pool.leaving)
        present -= len(pool.lost)
    return settings.max_workers - present
