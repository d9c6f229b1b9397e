"""Closes the runs of a tracker that has gone, so that none stays `running` for ever."""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from rayml.errors import JournalCorrupt, JournalFenced
from rayml.processes import identify, is_elsewhere, is_gone
from rayml.tracker.journal import Journal
from rayml.tracker.live import LiveMark, live_shards
from rayml.tracker.reader import read_runs
from rayml.tracker.records import Ended, Problem, Submitted
from rayml.tracker.runs import end_of
from rayml.tracker.segments import encode_batch
from rayml.tracker.shards import ShardFold

if TYPE_CHECKING:
    from rayml.spec import Spec
    from rayml.store import Store

LOST = Problem(
    kind="node_lost",
    message="the process or Ray that it ran in went away without recording its end",
)
HEAD_LOST = Problem(
    kind="node_lost", message="the cluster's head was replaced before its driver had begun"
)


def close_abandoned(store: Store) -> list[str]:
    """Close the runs of shards whose writer is gone; return their ids.

    A writer on this machine is gone when its process is; another machine's, when it has not
    renewed its mark for ten minutes. Taking such a shard over is safe: should its writer be alive
    after all, it is fenced.

    Raises:
        StoreError: The store cannot be read or written.
    """
    closed = []
    for shard in live_shards(store):
        mark = LiveMark(store, shard)
        owner = mark.get()
        if owner is None:
            continue
        if is_gone(owner) or (is_elsewhere(owner) and mark.is_stale()):
            # A corrupt shard is reported to whoever reads its runs; new runs do not wait for it.
            with suppress(JournalCorrupt):
                closed += _close(store, shard, LOST)
                mark.clear()
    return closed


def close_shard_of(store: Store, run: str, problem: Problem) -> None:
    """Take over the shard that holds a run, and end all its runs for this reason.

    Raises:
        StoreError: The store cannot be read or written.
    """
    shard = read_runs(store).shard_of.get(run)
    if shard is not None:
        _close(store, shard, problem)
        LiveMark(store, shard).clear()


def _close(store: Store, shard: str, problem: Problem) -> list[str]:
    journal, state = Journal(store, shard), ShardFold()
    try:
        journal.open(identify(psutil.Process()), state)
        unended = [run for run in state.fold.runs.values() if not run.is_terminal]
        if unended:
            ends = (end_of(run, problem) for run in unended)
            journal.append([encode_batch(end.run, end.attempt, end) for end in ends])
    except JournalFenced:
        return []  # another process is closing this shard at the same moment
    return [run.spec.run for run in unended]


def end_unstarted(store: Store, spec: Spec, state: str, problem: Problem) -> None:
    """Record the end of a run that no tracker has taken, in a shard of its own.

    Raises:
        StoreError: The store cannot be written.
    """
    shard, now = uuid.uuid4().hex[:16], time.time()
    journal = Journal(store, shard)
    journal.open(identify(psutil.Process()), ShardFold())
    ended = Ended(run=spec.run, time=now, attempt=1, state=state, problem=problem)
    submitted = Submitted(run=spec.run, time=now, spec=spec)
    journal.append([encode_batch(spec.run, 1, submitted, ended)])
