"""Runs that were handed to a remote cluster: `submissions/<run>.json`, one sealed line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rayml.errors import JournalCorrupt
from rayml.tracker.records import Submission
from rayml.tracker.sealed import seal_line, unseal_line

if TYPE_CHECKING:
    from rayml.store import Store


def submission_key(run: str) -> str:
    """Return the key of a run's submission."""
    return f"submissions/{run}.json"


def claim_key(run: str, attempt: int = 1) -> str:
    """Return the key by which one driver alone executes a run from an attempt on."""
    return f"claims/{run}.json" if attempt == 1 else f"claims/{run}-{attempt}.json"


def run_of(key: str) -> str:
    """Return the run that a submission, or a claim or request of that name, is about.

    >>> run_of("submissions/r1.json")
    'r1'
    """
    return key.rpartition("/")[2].removesuffix(".json")


def create_submission(store: Store, submission: Submission) -> bool:
    """Record a submission; False if the run's id is taken.

    Raises:
        StoreError: The store cannot be written.
    """
    line = msgspec.json.encode(submission)
    return store.create(submission_key(submission.spec.run), seal_line(line))


def read_submission(store: Store, run: str) -> Submission:
    """Return a run's submission.

    Raises:
        NotFound: It has none.
        JournalCorrupt: It is not what was written.
        StoreError: The store cannot be read.
    """
    return decode_submission(submission_key(run), store.get(submission_key(run)))


def decode_submission(key: str, data: bytes) -> Submission:
    """Return a submission; one from before they were sealed is a line without an end.

    Raises:
        JournalCorrupt: It is not what was written.
    """
    try:
        line = unseal_line(data) if b"\n" in data else data
        found = msgspec.json.decode(line, type=Submission)
    except (msgspec.DecodeError, ValueError) as exc:
        raise _corrupt(key, "is not what was written") from exc
    if found.spec.run != run_of(key):
        raise _corrupt(key, f"is that of run {found.spec.run}")
    return found


def _corrupt(key: str, what: str) -> JournalCorrupt:
    return JournalCorrupt(f"{key} {what}; restore it from a copy of the store")
