"""Moves what will not change any more from segments to tables, and deletes what that makes spare.

    python -m rayml.tracker.compaction     takes a pickled (store, shard) from its standard input

It may run beside the tracker of the shard, twice at once, or be killed at any moment: tables have
names that nobody else uses, a checkpoint is created once, and only what the checkpoint *before*
the newest covers is deleted, so that whoever has just begun with either finds all it needs.
Fences stay for ever, as does the last segment: these are what a writer that slept runs into.
"""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import sys
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from rayml.errors import JournalCorrupt, NotFound
from rayml.tracker.checkpoints import (
    RECENT,
    Checkpoint,
    Header,
    Span,
    checkpoint_key,
    decode_checkpoint,
    encode_checkpoint,
)
from rayml.tracker.records import is_known
from rayml.tracker.shards import ShardFold, ShardReader
from rayml.tracker.stored import encode_run, store_run
from rayml.tracker.tables import (
    POINTS,
    RUNS,
    encode_points,
    encode_runs,
    merge_points,
    points_table,
    read_points,
    read_runs_table,
    table_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from rayml.store import Store
    from rayml.tracker.segments import Segment
    from rayml.tracker.series import Columns, Source

_SPAN_BYTES = 64 * 1024 * 1024
_MERGED_AT_ONCE = 8
_MERGED_POINTS = 4_000_000
_POINTS_PER_RUN = 1000  # a run's line is about as long as so many points
_SMALL = 10_000
_NICE = 15


def compact(store: Store, shard: str) -> int:
    """Write checkpoints until the newest covers the shard, and return how many.

    Raises:
        JournalCorrupt: A segment or table is corrupt; nothing is lost by trying.
        StoreError: The store cannot be read or written.
    """
    count = 0
    while _add_checkpoint(store, shard):
        for key in spare_keys(store, shard):
            store.delete(key)
        count += 1
    return count


class _Enough(Exception):
    """The stretch is long enough, or the next segment holds what only a newer rayml knows."""


class _Stretch:
    """Segments that no checkpoint covers yet, folded: a `State`."""

    def __init__(self, shard: str) -> None:
        self.state = ShardFold()
        self.header = Header(
            shard=shard, seq=0, epoch=0, spans=[], kept=[], producers={}, recent=[]
        )
        self.last = self.epoch = self._size = 0
        self.kept: list[int] = []
        self.is_empty = True

    def restart(self, checkpoint: Checkpoint | None) -> None:
        self.__init__(self.header.shard)  # type: ignore[misc]
        self.state.restart(checkpoint)
        if checkpoint is not None:
            self.header = checkpoint.header

    def add(self, segment: Segment) -> None:
        known = all(is_known(raw) for batch in segment.batches for raw in batch.records)
        if self._size >= _SPAN_BYTES or not known:
            raise _Enough
        self.state.add(segment)
        self.last, self.epoch = segment.seq, segment.epoch
        self._size += segment.size
        if segment.fence is not None:
            self.kept += [*segment.fence.torn, segment.seq]
        self.is_empty = self.is_empty and not segment.batches

    def parts(self) -> Iterator[tuple[str, str, Source, Columns]]:
        """Yield the points of the stretch, by run, metric and who logged them."""
        for run, record in self.state.fold.runs.items():
            for metric, sources in record.series.items():
                for source, series in sources.items():
                    if series.recent is not None:
                        yield run, metric, source, series.recent


def _add_checkpoint(store: Store, shard: str) -> bool:
    stretch = _Stretch(shard)
    with suppress(_Enough):
        ShardReader(store, shard).read_into(stretch)
    if stretch.is_empty:
        return False
    made = [_write_stretch(store, stretch)]
    if not _write_checkpoint(store, stretch, made):
        for unused in made:
            _delete_tables(store, shard, unused)
    return True


def _write_checkpoint(store: Store, stretch: _Stretch, made: list[Span]) -> bool:
    """Merge what there is to merge, and tell whether nobody else was here at the same moment.

    Spans that it makes are added to `made`.
    """
    shard, before = stretch.header.shard, stretch.header
    try:
        spans = _merge(store, shard, [*before.spans, *made], made)
    except NotFound:
        if _is_overtaken(store, shard, before.seq):
            return False
        raise
    encoded = encode_checkpoint(_checkpoint(stretch, spans))
    return store.create(checkpoint_key(shard, stretch.last), encoded)


def _is_overtaken(store: Store, shard: str, seq: int) -> bool:
    """Return whether somebody else has written a checkpoint after this one."""
    return any(key > checkpoint_key(shard, seq) for key in store.list(f"checkpoints/{shard}/"))


def _merge(store: Store, shard: str, spans: list[Span], made: list[Span]) -> list[Span]:
    """Merge the newest spans while there are many of about one size; add new ones to `made`."""
    while merged := _merge_last(store, shard, spans):
        made.append(merged)
        spans = [span for span in spans if span.last < merged.first] + [merged]
    return spans


def _write_stretch(store: Store, stretch: _Stretch) -> Span:
    ended = [run for run in stretch.state.fold.runs.values() if run.is_terminal]
    parts = list(stretch.parts())
    return _write_tables(
        store,
        stretch.header.shard,
        (stretch.header.seq + 1, stretch.last),
        points_table(parts) if parts else None,
        [encode_run(run) for run in ended],
    )


def _write_tables(
    store: Store, shard: str, ends: tuple[int, int], points: pa.Table | None, runs: list[bytes]
) -> Span:
    tables = {}
    if points is not None:
        tables[POINTS] = encode_points(points)
    if runs:
        tables[RUNS] = encode_runs(runs)
    span = Span(
        first=ends[0],
        last=ends[1],
        nonce=uuid.uuid4().hex[:16],
        runs=len(runs),
        points=0 if points is None else points.num_rows,
        size=sum(map(len, tables.values())),
        digests={name: hashlib.sha256(data).hexdigest() for name, data in tables.items()},
    )
    for name, data in tables.items():
        store.create(table_key(shard, span, name), data)
    return span


def _merge_last(store: Store, shard: str, spans: list[Span]) -> Span | None:
    """Write the newest spans as one, if there are many of about one size; return it."""
    count = mergeable(spans)
    if not count:
        return None
    taken = spans[-count:]
    tables = [read_points(store, table_key(shard, s, POINTS)) for s in taken if s.points]
    runs = [
        line
        for span in taken
        if span.runs
        for line in read_runs_table(store, table_key(shard, span, RUNS))
    ]
    points = merge_points(tables) if tables else None
    return _write_tables(store, shard, (taken[0].first, taken[-1].last), points, runs)


def mergeable(spans: list[Span]) -> int:
    """Return how many of the newest spans should become one; 0 for none.

    Each span is merged about once for every factor of eight that the shard grows by, so that the
    work stays proportional and a shard of any size has a few dozen spans. Very long ones stay.
    """
    if not spans:
        return 0
    limit = _tier(spans[-1])
    count = next((i for i, span in enumerate(reversed(spans)) if _tier(span) > limit), len(spans))
    points = sum(span.points for span in spans[-count:])
    return count if count >= _MERGED_AT_ONCE and points <= _MERGED_POINTS else 0


def _tier(span: Span) -> int:
    weight = span.points + _POINTS_PER_RUN * span.runs
    return int(math.log(max(weight, _SMALL) / _SMALL, _MERGED_AT_ONCE))


def _checkpoint(stretch: _Stretch, spans: list[Span]) -> Checkpoint:
    fold, before = stretch.state.fold, stretch.header
    ended = [name for name, run in fold.runs.items() if run.is_terminal]
    unended = [run for run in fold.runs.values() if not run.is_terminal]
    recent = [*before.recent, *ended][-RECENT:]
    wanted = {*recent, *(run.spec.run for run in unended)}
    header = Header(
        shard=before.shard,
        seq=stretch.last,
        epoch=stretch.epoch,
        spans=spans,
        kept=[*before.kept, *stretch.kept],
        producers={name: sent for name, sent in fold.producers.items() if sent.run in wanted},
        recent=recent,
    )
    return Checkpoint(header, [store_run(run) for run in unended])


def spare_keys(store: Store, shard: str) -> Iterator[str]:
    """Yield, in the order to delete them, what only checkpoints before the last two need.

    Raises:
        StoreError: The store cannot be read.
    """
    keys = store.list(f"checkpoints/{shard}/")
    try:
        *older, previous, newest = (decode_checkpoint(key, store.get(key)).header for key in keys)
    except (JournalCorrupt, NotFound, ValueError):
        return  # only one, or one that cannot be read, or somebody else collects
    used = {span.nonce for header in (previous, newest) for span in header.spans}
    for header in older:
        for span in header.spans:
            if span.nonce not in used:
                yield from (table_key(shard, span, table) for table in span.digests)
        yield checkpoint_key(shard, header.seq)
    kept = set(newest.kept)
    for key in store.list(f"shards/{shard}/"):
        seq = int(key.rpartition("/")[2].partition(".")[0])
        if seq <= previous.seq and seq not in kept:
            yield key


def _delete_tables(store: Store, shard: str, span: Span) -> None:
    for table in span.digests:
        store.delete(table_key(shard, span, table))


if __name__ == "__main__":
    os.nice(_NICE)
    compact(*pickle.loads(sys.stdin.buffer.read()))  # noqa: S301 - from the tracker, its parent
