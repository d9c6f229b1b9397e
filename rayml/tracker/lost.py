"""Runs that nobody sees through any more: they are tried again, or end as lost."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from rayml import policy
from rayml.errors import RaymlError
from rayml.spec import has_jobs_api
from rayml.tracker.records import Problem, Retrying
from rayml.tracker.runs import end_of
from rayml.tracker.segments import encode_batch

if TYPE_CHECKING:
    from rayml.spec import Spec
    from rayml.tracker.runs import RunRecord
    from rayml.tracker.tracker import Tracker

SUSPECT_S = 20.0
SILENCE_S = 60.0
_logger = logging.getLogger("rayml.tracker")


class DriverState(NamedTuple):
    """What the cluster knows of whoever sees a run through.

    Attributes:
        is_over: It has surely ended.
        words: How, for a sentence; empty if nothing is known.
    """

    is_over: bool
    words: str


class Drivers(Protocol):
    """The cluster's view of the drivers of runs."""

    async def look(self, run: str) -> DriverState:
        """Return what is known of a run's driver."""

    async def restart(self, spec: Spec, attempt: int) -> None:
        """Start a new driver, which goes on with this attempt.

        Raises:
            RaymlError: The cluster refused.
        """


class LostRuns:
    """Finds the runs of a tracker that are lost, and does with each what its policy says.

    A run is suspected after 20 seconds without a sign of life, and then lost if Ray says that its
    driver has ended; after 60 seconds it is lost in any case.
    """

    def __init__(self, tracker: Tracker, drivers: Drivers) -> None:
        self._tracker = tracker
        self._drivers = drivers
        self._restarts: dict[str, asyncio.Task[None]] = {}

    async def settle(self) -> None:
        """Look at every run that is silent.

        Raises:
            RaymlError: What was decided could not be recorded.
        """
        silent = {run.spec.run for run in self._tracker.silent_runs(SILENCE_S)}
        for run in self._tracker.silent_runs(SUSPECT_S):
            if run.spec.run in self._restarts:
                continue
            state = await self._drivers.look(run.spec.run)
            if state.is_over or run.spec.run in silent:
                await self._settle(run, state)

    async def _settle(self, run: RunRecord, state: DriverState) -> None:
        known = f" ({state.words})" if state.words else ""
        problem = Problem(kind="lost", message=f"whoever saw it through is gone or silent{known}")
        decision = policy.decide(run.attempt, problem.kind, run.spec.retry)
        _logger.warning("run lost", extra={"run": run.spec.run, "why": state.words})
        if run.cancel is not None or isinstance(decision, policy.GiveUp):
            await self._end(run, problem)
        elif why := obstacle(run.spec):
            message = f"{problem.message}; it was not tried again, because {why}"
            await self._end(run, Problem(kind="lost", message=message))
        else:
            await self._retry(run, decision, problem)

    async def _end(self, run: RunRecord, problem: Problem) -> None:
        end = end_of(run, problem)
        await self._tracker.append(encode_batch(run.spec.run, run.attempt, end))

    async def _retry(self, run: RunRecord, decision: policy.TryAgain, problem: Problem) -> None:
        record = Retrying(
            run=run.spec.run,
            time=time.time(),
            attempt=run.attempt,
            delay_s=decision.delay_s,
            reason=decision.reason,
            problem=problem,
        )
        await self._tracker.append(encode_batch(run.spec.run, run.attempt, record))
        restart = self._restart(run, decision.delay_s)
        self._restarts[run.spec.run] = asyncio.create_task(restart)

    async def _restart(self, run: RunRecord, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        try:
            await self._drivers.restart(run.spec, run.attempt)
        except RaymlError as exc:
            await self._end(run, Problem(kind="lost", message=f"it could not be restarted: {exc}"))
        finally:
            self._tracker.beat(run.spec.run)
            del self._restarts[run.spec.run]


def obstacle(spec: Spec) -> str:
    """Return why a run cannot be given to a new driver; nothing if it can."""
    if not has_jobs_api(spec.cluster):
        return "its code was with the process that submitted it"
    if spec.secrets:
        return "its secrets are nowhere written down"
    return ""
