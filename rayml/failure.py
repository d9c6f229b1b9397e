"""Why a run failed, as the error that whoever waits for it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayml.errors import JobCancelled, JobFailed, JobTimeout, StoreError

if TYPE_CHECKING:
    from rayml.errors import RaymlError
    from rayml.tracker.records import Problem
    from rayml.tracker.runs import RunRecord


def failure_of(record: RunRecord) -> RaymlError | None:
    """Return the error of a run that failed or was cancelled, or None."""
    run, problem = record.spec.run, record.problem
    if record.state == "cancelled":
        reason = problem.message if problem else "it was cancelled"
        return JobCancelled(f"run {run}: {reason}; what it had logged is kept")
    if record.state != "failed" or problem is None:
        return None
    return _failure(run, record.attempt, problem)


def _failure(run: str, attempt: int, problem: Problem) -> RaymlError:
    if problem.kind in ("timeout", "start_timeout"):
        return JobTimeout(f"run {run}: {problem.message}; give it longer, or make it do less")
    if problem.kind == "store":
        return StoreError(f"run {run}: {problem.message}")
    return JobFailed(run, problem.message, problem.traceback, attempt, problem.rank, problem.kind)
