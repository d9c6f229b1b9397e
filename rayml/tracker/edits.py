"""Runs as they are to be seen: what the journal tells, with what people changed afterwards."""

from __future__ import annotations

import copy
import gc
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rayml.errors import NotFound
from rayml.tracker.catalog import open_catalog
from rayml.tracker.changes import NO_EDITS, RunEdited
from rayml.tracker.reader import read_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.store import Store
    from rayml.tracker.changes import CatalogState, Change, Edits, RunsArchived, RunsDeleted
    from rayml.tracker.runs import RunRecord


def edited(record: RunRecord, edits: Edits | None) -> RunRecord:
    """Return a run's record with its edits; the record itself stays as it is."""
    if edits is None:
        return record
    seen = copy.copy(record)
    seen.edits = edits
    labels = record.labels | edits.labels
    seen.labels = {name: value for name, value in labels.items() if value is not None}
    return seen


def read_edited(store: Store) -> dict[str, RunRecord]:
    """Return all runs of a store by id, those that are archived or deleted among them.

    Raises:
        StoreError: The store cannot be read.
    """
    with _no_garbage():
        seen = read_runs(store).runs.copy()
    for run, edits in open_catalog(store).refresh().runs.items():
        if edits.is_collected:
            seen.pop(run, None)
        elif run in seen:
            seen[run] = edited(seen[run], edits)
    return seen


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Let Python not look for garbage: a hundred thousand records come, and all of them stay."""
    was_looking = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_looking:
            gc.enable()


def find_edited(store: Store, name: str) -> RunRecord:
    """Return the run with this id or the only one that begins so; `latest` is the newest.

    Raises:
        NotFound: There is none, or several, or it was deleted.
        StoreError: The store cannot be read.
    """
    reader, edits = read_runs(store), open_catalog(store).refresh().runs
    if name == "latest":
        kept = [run for run in reader.runs if run not in edits or edits[run].deleted_at is None]
        name = max(kept, key=lambda run: reader.runs[run].spec.submitted_at, default=name)
    record = reader.find(name)
    found = edited(record, edits.get(record.spec.run))
    if found.edits is not None and found.edits.deleted_at is not None:
        raise NotFound(_deleted(record.spec.run, found.edits))
    return found


def change_runs(store: Store, change: RunEdited | RunsArchived | RunsDeleted) -> None:
    """Make a change durable: all of it, or none.

    Raises:
        NotFound: The data of one of the runs has been collected.
        StoreError: The store cannot be written.
    """
    runs = [change.run] if isinstance(change, RunEdited) else change.runs

    def decide(state: CatalogState) -> Change:
        for run in runs:
            if (edits := state.runs.get(run, NO_EDITS)).is_collected:
                raise NotFound(_deleted(run, edits))
        return change

    open_catalog(store).append(decide)


def _deleted(run: str, edits: Edits) -> str:
    moment = datetime.fromtimestamp(edits.deleted_at or 0, UTC)
    when = f"run {run} was deleted at {moment:%Y-%m-%d %H:%M} UTC"
    if edits.is_collected:
        return f"{when} and its data has been collected; restore it from a copy of the store"
    return f"{when}; bring it back by `rayml undelete {run}` before its data is collected"
