"""What to do after a failed attempt: a pure decision, with its reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayml.config import Failure, Retry

_MAX_BACKOFF_S = 600.0
_MAX_DOUBLINGS = 1000  # more would leave the range of a float

# Kinds that are not here (a timeout, a cancel, a result that cannot be stored) would end the same
# way again, or were asked for.
_RETRIED_AS: dict[str, Failure] = {
    "error": "error",
    "exit": "error",
    "killed": "error",
    "engine": "error",
    "oom": "oom",
    "node_lost": "node_lost",
    "lost": "node_lost",
}


@dataclass(frozen=True)
class TryAgain:
    """Start the next attempt after `delay_s` seconds."""

    delay_s: float
    reason: str


@dataclass(frozen=True)
class GiveUp:
    """The run has failed."""

    reason: str


def decide(attempt: int, kind: str, retry: Retry | None) -> TryAgain | GiveUp:
    """Return what follows the failure of an attempt.

    >>> from rayml.config import Retry
    >>> decide(1, "oom", Retry(attempts=3, backoff_s=5))
    TryAgain(delay_s=5, reason='attempt 1 of 3 ended with oom')
    >>> decide(3, "oom", Retry(attempts=3))
    GiveUp(reason='attempt 3 of 3 ended with oom')
    """
    if retry is None:
        return GiveUp(f"attempt {attempt} ended with {kind} and no retry was asked for")
    reason = f"attempt {attempt} of {retry.attempts} ended with {kind}"
    if _RETRIED_AS.get(kind) not in retry.on:
        return GiveUp(f"{reason}, which is not retried")
    if attempt >= retry.attempts:
        return GiveUp(reason)
    doublings = min(attempt - 1, _MAX_DOUBLINGS)
    return TryAgain(min(retry.backoff_s * 2**doublings, _MAX_BACKOFF_S), reason)
