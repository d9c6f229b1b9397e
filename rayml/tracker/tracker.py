"""The tracker: the single writer of one shard; an actor in Ray, a plain object without it.

What `append` has acknowledged is durable, once and only once. Many callers share one write: while
a segment is being made durable, the next one gathers (group commit), so that there is exactly one
write in flight and never a hole in the numbering.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rayml.errors import JournalFenced, NotFound, RaymlError, SpecError, StoreError
from rayml.tracker.checkpoints import RECENT
from rayml.tracker.journal import Journal
from rayml.tracker.live import LiveMark
from rayml.tracker.load import Load
from rayml.tracker.records import TERMINAL, CancelRequested, Started, Submitted, decode_record
from rayml.tracker.runs import RunRecord, Sent, apply, is_repeated
from rayml.tracker.segments import SEGMENT_BYTES, Batch, Owner
from rayml.tracker.stored import load_run, run_id_of
from rayml.tracker.tables import ended_lines

if TYPE_CHECKING:
    from rayml.store import Store
    from rayml.tracker.checkpoints import Checkpoint
    from rayml.tracker.records import ReadRecord
    from rayml.tracker.segments import Segment

_logger = logging.getLogger("rayml.tracker")
_logger.addHandler(logging.NullHandler())  # whoever waits is told; this is for who wants more
_LAST_VERSION = (1 << 32) - 1
_POINTS_PREFIX = b'{"type":"points"'


class Status(NamedTuple):
    """What a supervisor waits to hear about its run; `version` rises with every change."""

    version: int
    state: str
    ranks: list[Started]
    cancel: CancelRequested | None


@dataclass
class Unstored:
    """What was written since the last checkpoint: segments, their bytes, and when the last."""

    segments: int = 0
    size: int = 0
    last_at: float = field(default_factory=time.monotonic)

    def add(self, size: int) -> None:
        """Count one more segment."""
        self.segments, self.size, self.last_at = (
            self.segments + 1,
            self.size + size,
            time.monotonic(),
        )

    def clear(self) -> None:
        """Begin to count anew."""
        self.segments = self.size = 0


class _Entry(NamedTuple):
    batch: Batch
    data: bytes
    done: asyncio.Future[int]
    at: float


class Tracker:
    """Records runs in one shard of a store.

    Its memory is a cache of the journal: it holds the runs that have not ended, of those neither
    points nor artifacts' bytes, and the ids of the others.

    Attributes:
        store: Where it records.
        shard: Which shard.
        unstored: What the next checkpoint will have to cover.
        load: What it has done, for whoever watches it.
    """

    def __init__(self, store: Store, shard: str, owner: Owner) -> None:
        """Open the shard: replay it and fence every older writer.

        Raises:
            StoreError: The store cannot be read or written.
        """
        self.store = store
        self.shard = shard
        self._owner = owner
        self._journal = Journal(store, shard)
        self._runs: dict[str, RunRecord] = {}
        self._ended: set[str] = set()
        self._recent: list[str] = []
        self._versions: dict[str, int] = {}
        self._producers: dict[str, Sent] = {}
        self._queue: list[_Entry] = []
        self._pending: dict[tuple[str, int], _Entry] = {}
        self._committer: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._doubtful = False
        self._heard: dict[str, float] = {}
        self.unstored = Unstored()
        self.load = Load()
        began = time.monotonic()
        self._journal.open(owner, self)
        self._live = LiveMark(store, shard)
        self.mark()
        _logger.info(
            "opened",
            extra={
                "store": store.uri,
                "shard": shard,
                "epoch": self._journal.epoch,
                "open_runs": self.open_runs,
                "seconds": round(time.monotonic() - began, 3),
            },
        )

    @property
    def open_runs(self) -> int:
        """How many runs have not ended."""
        return len(self._runs)

    @property
    def waiting(self) -> int:
        """How many batches are not durable yet."""
        return len(self._pending)

    @property
    def lag_s(self) -> float:
        """How long the oldest of these waits."""
        oldest = next(iter(self._pending.values()), None)
        return 0.0 if oldest is None else time.monotonic() - oldest.at

    async def append(self, data: bytes) -> int:
        """Make one encoded `Batch` durable and return its number; a repeated one is written once.

        Raises:
            SpecError: It submits a run whose id is taken.
            NotFound: It is about a run that was never submitted here.
            JournalFenced: Its run has ended or gone on to a newer attempt, or this tracker is
                stale.
            StoreError: The store refused; the same batch may be sent again.
        """
        batch = msgspec.json.decode(data, type=Batch)
        key = (batch.producer, batch.n)
        if key not in self._pending:
            done = asyncio.get_running_loop().create_future()
            self._pending[key] = _Entry(batch, data, done, time.monotonic())
            self._queue.append(self._pending[key])
            if self._committer is None or self._committer.done():
                self._committer = asyncio.create_task(self._commit_all())
        return await asyncio.shield(self._pending[key].done)

    async def watch(self, run: str, seen: int) -> Status:
        """Return the run's status as soon as its version is above `seen`.

        Raises:
            NotFound: The run has ended long ago or was never submitted here.
        """
        while (status := self._status(run)).version <= seen:
            await self._changed.wait()
        return status

    def mark(self) -> None:
        """Let others see that the shard has a writer, and who.

        Raises:
            JournalFenced: It has another one by now.
            StoreError: The store cannot be written.
        """
        self._journal.check()
        self._live.set(self._owner)

    def is_current(self) -> bool:
        """Tell whether the shard is still there, and ends with this tracker's last segment.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._journal.is_current()

    def beat(self, run: str) -> None:
        """Note that whoever sees a run through is alive."""
        self._heard[run] = time.monotonic()

    def silent_runs(self, silence_s: float) -> list[RunRecord]:
        """Return the unended runs of which nothing was heard for so long."""
        now = time.monotonic()
        heard = ((self._heard.setdefault(name, now), run) for name, run in self._runs.items())
        return [run for at, run in heard if now - at >= silence_s]

    async def close(self) -> None:
        """Say that the shard is left in good order; nothing may be appended afterwards.

        Raises:
            JournalFenced: It has another writer by now.
            StoreError: The store cannot be written.
        """
        if not self._runs:
            self._journal.check()
            self._live.clear()

    def restart(self, checkpoint: Checkpoint | None) -> None:
        """Begin with what a checkpoint says: the journal calls this when it is read."""
        self._runs, self._ended, self._recent, self._producers = {}, set(), [], {}
        self.unstored.clear()
        if checkpoint is not None:
            self._runs = {stored.run: load_run(stored, None) for stored in checkpoint.runs}
            spans = checkpoint.header.spans
            self._ended = {run_id_of(r) for r in ended_lines(self.store, self.shard, spans)}
            self._recent = list(checkpoint.header.recent)
            self._producers = dict(checkpoint.header.producers)

    def add(self, segment: Segment) -> None:
        """Take in a segment that is durable: the journal calls this when it is read."""
        self.unstored.add(segment.size)
        for batch in segment.batches:
            if not is_repeated(self._producers, batch):
                self._apply(batch, _decode(batch), segment.seq)

    def _status(self, run: str) -> Status:
        # A tracker that comes back has counted other changes: its versions are above all before.
        first = self._journal.epoch << 32
        if run in self._ended:
            return Status(first + _LAST_VERSION, "ended", [], None)
        if run not in self._runs:
            raise NotFound(f"this tracker has no run {run!r}; it was submitted elsewhere")
        record = self._runs[run]
        version = first + self._versions.get(run, 0)
        return Status(version, record.state, record.ranks, record.cancel)

    async def _commit_all(self) -> None:
        while self._queue:
            group = self._next_group()
            try:
                await self._commit(group)
            except Exception as exc:  # noqa: BLE001 - every waiter must hear of it, whatever it is
                self._fail(group, exc)

    def _next_group(self) -> list[_Entry]:
        size = count = 0
        while count < len(self._queue) and size < SEGMENT_BYTES:
            size += len(self._queue[count].data)
            count += 1
        group, self._queue = self._queue[:count], self._queue[count:]
        return group

    async def _commit(self, group: list[_Entry]) -> None:
        if self._doubtful:
            # After a failed write, memory may be ahead of the journal.
            await asyncio.to_thread(self._journal.recover, self)
            self._doubtful = False
        admitted = [entry for entry in group if self._admit(entry)]
        if admitted:
            self._doubtful = True
            await asyncio.to_thread(self._journal.append, [entry.data for entry in admitted])
            self._doubtful = False
            self.unstored.add(sum(len(entry.data) for entry in admitted))
        for entry in admitted:
            self.load.add(len(entry.data), time.monotonic() - entry.at)
            self._resolve(entry)
        self._changed.set()
        self._changed = asyncio.Event()

    def _admit(self, entry: _Entry) -> bool:
        batch = entry.batch
        if is_repeated(self._producers, batch):
            self._resolve(entry)
            return False
        try:
            records = _decode(batch)
            self._check(batch, records)
        except (RaymlError, msgspec.DecodeError) as exc:
            self._pending.pop((batch.producer, batch.n), None)
            entry.done.set_exception(exc)
            return False
        self._apply(batch, records, self._journal.seq + 1)
        return True

    def _check(self, batch: Batch, records: list[ReadRecord]) -> None:
        submits = bool(records) and isinstance(records[0], Submitted)
        known = batch.run in self._runs or batch.run in self._ended
        if submits and known:
            raise SpecError(f"run {batch.run} exists already; leave the id out to get a new one")
        if not submits and not known:
            raise NotFound(f"this tracker has no run {batch.run!r}; it was submitted elsewhere")
        if batch.run in self._ended:
            raise JournalFenced(f"run {batch.run} has ended; nothing can be logged to it any more")
        if not submits and batch.attempt < self._runs[batch.run].attempt:
            raise JournalFenced(
                f"attempt {batch.attempt} of run {batch.run} was given up and attempt "
                f"{self._runs[batch.run].attempt} has taken over; this one may not log any more"
            )

    def _apply(self, batch: Batch, records: list[ReadRecord], seq: int) -> None:
        self._producers[batch.producer] = Sent(batch.n, batch.run)
        self.beat(batch.run)
        for record in records:
            apply(self._runs, record, seq)
        if records:
            self._versions[batch.run] = self._versions.get(batch.run, 0) + 1
        run = self._runs.get(batch.run)
        if run is not None and run.state in TERMINAL:
            self._end(batch.run)

    def _end(self, run: str) -> None:
        del self._runs[run]
        self._heard.pop(run, None)
        self._versions.pop(run, None)
        self._ended.add(run)
        self._recent.append(run)
        if len(self._recent) >= 2 * RECENT:
            del self._recent[:-RECENT]
            wanted = {*self._recent, *self._runs}
            self._producers = {p: s for p, s in self._producers.items() if s.run in wanted}

    def _resolve(self, entry: _Entry) -> None:
        self._pending.pop((entry.batch.producer, entry.batch.n), None)
        if not entry.done.done():
            entry.done.set_result(entry.batch.n)

    def _fail(self, group: list[_Entry], exc: Exception) -> None:
        error = (
            exc if isinstance(exc, RaymlError) else StoreError(f"journal write failed: {exc!r}")
        )
        self.load.failures += 1
        _logger.warning("write failed", extra={"shard": self.shard, "why": str(error)})
        for entry in group:
            self._pending.pop((entry.batch.producer, entry.batch.n), None)
            if not entry.done.done():
                entry.done.set_exception(error)


def _decode(batch: Batch) -> list[ReadRecord]:
    """Return a batch's records; points stay encoded, since the tracker keeps none."""
    plain = (raw for raw in batch.records if not bytes(raw).startswith(_POINTS_PREFIX))
    return [record for raw in plain if (record := decode_record(raw)) is not None]
