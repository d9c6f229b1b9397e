"""Every error that rayml raises on purpose.

    RaymlError
    ├── SpecError (ValueError)      the call is wrong; nothing was started
    ├── JobFailed                   the user's code raised, exited or was killed
    ├── JobCancelled                someone cancelled the run
    ├── JobTimeout (TimeoutError)   the run took longer than its `timeout_s`
    ├── ClusterError
    │   ├── ClusterUnreachable
    │   ├── CapacityError           more than the cluster can ever give
    │   └── ResizeTimeout
    ├── StoreError
    │   ├── StoreUnreachable
    │   ├── JournalFenced           a newer writer or attempt has taken over
    │   ├── JournalCorrupt
    │   └── ArtifactCorrupt
    └── NotFound (LookupError)

A message is one sentence that names the object, the limit and the value seen, then a semicolon and
the way out. Every class passes exactly its arguments to `Exception.__init__`, so all of them
survive pickle and travel through Ray unharmed.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ArtifactCorrupt",
    "CapacityError",
    "ClusterError",
    "ClusterUnreachable",
    "JobCancelled",
    "JobFailed",
    "JobTimeout",
    "JournalCorrupt",
    "JournalFenced",
    "NotFound",
    "RaymlError",
    "ResizeTimeout",
    "SpecError",
    "StoreError",
    "StoreUnreachable",
]


class RaymlError(Exception):
    """Base of all errors that rayml raises on purpose."""


class SpecError(RaymlError, ValueError):
    """The call is wrong; nothing was started and nothing was recorded."""


class JobFailed(RaymlError):
    """The user's code raised, exited or was killed.

    Attributes:
        run_id: The run that failed.
        message: One sentence: what ended the last attempt.
        traceback: The user's own traceback, without rayml's frames; empty if the process died.
        attempt: The attempt that ended the run, counted from 1.
        rank: The worker that failed, counted from 0.
        kind: `error`, `exit`, `killed`, `oom`, `node_lost`, `result` or `store`.
    """

    def __init__(
        self,
        run_id: str,
        message: str,
        traceback: str = "",
        attempt: int = 1,
        rank: int = 0,
        kind: str = "error",
    ) -> None:
        super().__init__(run_id, message, traceback, attempt, rank, kind)
        self.run_id = run_id
        self.message = message
        self.traceback = traceback
        self.attempt = attempt
        self.rank = rank
        self.kind = kind

    def __str__(self) -> str:
        summary = (
            f"run {self.run_id}: {self.message} (attempt {self.attempt}); "
            f"its log: rayml logs {self.run_id}"
        )
        return f"{self.traceback.rstrip()}\n\n{summary}" if self.traceback else summary


class JobCancelled(RaymlError):
    """The run was cancelled; what it had logged until then is kept."""


class JobTimeout(RaymlError, TimeoutError):
    """The run took longer than `timeout_s` (or waited longer than `start_timeout_s`)."""


class ClusterError(RaymlError):
    """Something about the Ray cluster, not about the job."""


class ClusterUnreachable(ClusterError):
    """No answer, or a refusal, from the cluster."""


class CapacityError(ClusterError):
    """The job asks for more than the cluster can ever give."""


class ResizeTimeout(ClusterError):
    """The cluster did not grow in time."""


class StoreError(RaymlError):
    """The store refused or failed an operation."""


class StoreUnreachable(StoreError):
    """No answer from the store."""


class JournalFenced(StoreError):
    """A newer tracker, or a newer attempt of the run, has taken over; this one may not write."""


class JournalCorrupt(StoreError):
    """A journal segment is not what was written."""


class ArtifactCorrupt(StoreError):
    """The bytes read are not the bytes that were logged."""


class NotFound(RaymlError, LookupError):
    """No such run, metric, artifact or object."""


_MAX_SHOWN = 10


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the way out of a misspelt name: the nearest known one, or the first few.

    >>> suggestion("dept", ["depth", "seed"])
    "did you mean 'depth'?"
    >>> suggestion("zzz", ["depth", "seed"])
    "known: 'depth', 'seed'"
    >>> suggestion("zzz", map(str, range(100, 150)))
    "known: '100', '101', '102', '103', '104', '105', '106', '107', '108', '109' and 40 more"
    >>> suggestion("zzz", [])
    'there are none'
    """
    names = sorted(known)
    if near := get_close_matches(name, names, n=1):
        return f"did you mean {near[0]!r}?"
    shown = ", ".join(map(repr, names[:_MAX_SHOWN]))
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return f"known: {shown}{more}" if names else "there are none"
