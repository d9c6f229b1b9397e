"""How a command ends: its exit code, and what it says on stderr when that is not 0."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rayml.errors import ClusterError, JobFailed, NotFound, RaymlError, SpecError, StoreError

if TYPE_CHECKING:
    from typing import TextIO

INTERRUPTED = 130


def exit_code(error: RaymlError | None) -> int:
    """Return 0 for success, 1 for a failed job, 2 for a wrong call, 3 for a cluster or store.

    >>> exit_code(None), exit_code(SpecError("x")), exit_code(ClusterError("x"))
    (0, 2, 3)
    """
    match error:
        case None:
            return 0
        case SpecError() | NotFound():
            return 2
        case ClusterError() | StoreError():
            return 3
    return 1


def say(message: str) -> None:
    """Print one of rayml's own lines on stderr."""
    print(f"rayml: {message}", file=sys.stderr, flush=True)


def drop_output(stream: TextIO) -> None:
    """Write to nowhere from now on: whoever read the stream has seen enough."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def report(error: RaymlError, *, with_traceback: bool = True) -> None:
    """Print an error on stderr: the user's own traceback first, then one line of ours."""
    if isinstance(error, JobFailed):
        if with_traceback and error.traceback:
            print(error.traceback.rstrip(), file=sys.stderr)
        error = JobFailed(error.run_id, error.message, attempt=error.attempt)
    say(str(error))
