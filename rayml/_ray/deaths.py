"""Why an attempt's process ended before its function returned, in words."""

from __future__ import annotations

from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RaySystemError,
    RayTaskError,
    RuntimeEnvSetupError,
    TaskUnschedulableError,
    WorkerCrashedError,
)

from rayml._ray.connection import is_alive
from rayml.memory import OUT_OF_MEMORY, oom_kills
from rayml.ranks import RankFailed
from rayml.tracker.records import Problem

# What a task raises whose node goes away, before or after it has begun.
NODE_LOSSES = (GetTimeoutError, NodeDiedError, TaskUnschedulableError, WorkerCrashedError)
RAY_DIED = Problem(kind="node_lost", message="the Ray it ran on went away")


def explain_death(exc: RayError, pid: int, oom_kills_before: int) -> Problem:
    """Return what Ray and the kernel know about an attempt that has no outcome.

    Args:
        exc: What Ray raised in its place.
        pid: Of its process; 0 if that never began.
        oom_kills_before: How many processes the kernel had killed for memory when it began.
    """
    if isinstance(exc, OutOfMemoryError) or oom_kills() > oom_kills_before:
        return Problem(kind="oom", message=OUT_OF_MEMORY)
    # A node that is gone closes its connections some time before Ray calls it dead.
    if isinstance(exc, NodeDiedError | ActorUnavailableError | RaySystemError) or not is_alive():
        return RAY_DIED
    if isinstance(exc, WorkerCrashedError | ActorDiedError):
        if "its node has died" in str(exc):
            return RAY_DIED
        shown = f" (pid {pid})" if pid else ""
        return Problem(
            kind="killed",
            message=f"its process{shown} ended before the function returned: it called "
            "os._exit, crashed, or was killed",
        )
    if isinstance(exc, RuntimeEnvSetupError):
        return Problem(kind="error", message=f"its environment could not be set up: {exc}")
    return Problem(kind="error", message=str(exc).strip())


def rank_failure(exc: BaseException, oom_kills_before: int) -> RankFailed:
    """Return how a rank failed whose call raised this.

    Args:
        exc: What was raised where the call was waited for.
        oom_kills_before: As for `explain_death`.
    """
    cause = exc.cause if isinstance(exc, RayTaskError) else exc
    if isinstance(cause, RankFailed):
        return cause
    if isinstance(cause, RayError):
        return RankFailed(explain_death(cause, 0, oom_kills_before))
    return RankFailed(Problem(kind="error", message=str(cause).strip()))
