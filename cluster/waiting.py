"""What a run waits for, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rayml.cluster.admission import Verdict
    from rayml.cluster.observation import Observation
    from rayml.cluster.pool import Pool

_MAX_PODS = 2


def explain(
    verdicts: Iterable[Verdict], pools: Mapping[str, Pool], observation: Observation
) -> dict[str, str]:
    """Return for each run that waits what it waits for."""
    return {verdict.demand.run: _explain(verdict, pools, observation) for verdict in verdicts}


def _explain(verdict: Verdict, pools: Mapping[str, Pool], observation: Observation) -> str:
    if verdict.kind == "admitted":
        pool = pools[verdict.demand.shape.key]
        workers = verdict.demand.workers
        count = f"{min(len(pool.available()), workers)} of {workers} workers ready"
        return f"{count}: {_hindrance(pool, pools, observation)}"
    if verdict.kind == "behind":
        front = f"behind run {verdict.front}" if verdict.front else "until lost workers are back"
        return f"position {verdict.position} in the queue, {front}"
    return verdict.text


def _hindrance(pool: Pool, pools: Mapping[str, Pool], observation: Observation) -> str:
    """Return why a pool's workers are not all ready: the nearest cause first."""
    if observation.invalid:
        return f"KubeRay refuses the RayCluster: {observation.invalid}"
    missing = pool.wanted - len(pool.alive)
    problem = observation.problems.get(pool.name) or observation.problems.get("")
    if missing > 0 and problem:
        return f"KubeRay cannot create {_count(missing, 'pod')}: {problem}"
    starting = [worker for worker in pool.alive if worker.state != "ready"]
    if stuck := [worker for worker in starting if worker.is_unschedulable]:
        return _list([worker.reason for worker in stuck]) + _making_room(pools)
    reasons = [worker.reason for worker in starting if worker.reason]
    if missing > 0:
        reasons.append(f"{_count(missing, 'pod')} to be created{_making_room(pools)}")
    if last := observation.failures.get(pool.name):
        reasons = [last, *reasons]
    return _list(reasons) or "its workers are busy for a moment"


def _making_room(pools: Mapping[str, Pool]) -> str:
    going = sum(len(pool.leaving) + len(pool.victims) for pool in pools.values())
    return f", and {_count(going, 'worker')} of others leaving to make room" if going else ""


def _list(reasons: list[str]) -> str:
    more = len(reasons) - _MAX_PODS
    return "; ".join(reasons[:_MAX_PODS]) + (f"; and {more} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
