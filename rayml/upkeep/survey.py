"""Reads a shard as readers do, and goes on where they stop: what is damaged, and whose it was."""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from rayml.errors import JournalCorrupt, NotFound
from rayml.tracker.checkpoints import checkpoint_key, decode_checkpoint
from rayml.tracker.records import is_known
from rayml.tracker.segments import Batch, corrupt, decode_segment, segment_key
from rayml.tracker.shards import ShardFold
from rayml.tracker.stored import StoredRun, load_run
from rayml.tracker.tables import POINTS, RUNS, table_key
from rayml.upkeep.damage import Damage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rayml.store import Store
    from rayml.tracker.checkpoints import Checkpoint, Span
    from rayml.tracker.runs import RunRecord
    from rayml.tracker.segments import Segment
    from rayml.upkeep.crew import Crew

_SEGMENT = re.compile(r"(\d{12})\.jsonl")
_POINTS_PREFIX = b'{"type":"points"'
_TRIES = 5


@dataclass
class Survey:
    """What one shard holds.

    Attributes:
        damages: All that is wrong with it.
        has_unknown: It has records that only a newer rayml knows.
        newest: The newest checkpoint that can be read.
    """

    damages: list[Damage] = field(default_factory=list)
    has_unknown: bool = False
    newest: Checkpoint | None = None


def list_shards(store: Store) -> list[str]:
    """Return all shards, also those of which only a part is left."""
    prefixes = ("shards/", "checkpoints/", "tables/")
    return sorted({shard for prefix in prefixes for shard in store.folders(prefix)})


def survey_shard(
    store: Store,
    shard: str,
    crew: Crew,
    see: Callable[[RunRecord], None],
    tick: Callable[[int], None],
) -> Survey:
    """Read all of a shard; its points are checked and not kept.

    Args:
        store: Where.
        shard: Which.
        crew: Who fetches.
        see: Gets each run that a reader finds there, some of them twice.
        tick: Gets the size of each object that was read.

    Raises:
        StoreError: The store cannot be read.
    """
    prefix, found = f"checkpoints/{shard}/", Survey()
    for _ in range(_TRIES):
        before = store.list(prefix)
        found = _Surveyor(store, shard, crew, tick).survey(before, see)
        # Else a compaction under our eyes may have deleted what we looked for.
        if not found.damages or store.list(prefix) == before:
            break
    return found


def is_cut(data: bytes) -> bool:
    """Tell whether these are the first bytes of a segment, as a crash may leave them.

    >>> from rayml.tracker.segments import seal
    >>> whole = seal([b'{"format":1}'])
    >>> is_cut(whole[:-3]), is_cut(whole[:8]), is_cut(whole.replace(b"1", b"2"))
    (True, True, False)
    """
    head, newline, tail = data.rpartition(b"\n")
    if not tail:
        return b'"crc32":' not in head.rpartition(b"\n")[2]
    if not tail.startswith(b'{"batches":'):
        return True
    checked = b'"crc32":%d}' % zlib.crc32(head + newline)
    return checked.startswith(tail[tail.find(b'"crc32":') :]) if b'"crc32":' in tail else True


class _Surveyor:
    def __init__(self, store: Store, shard: str, crew: Crew, tick: Callable[[int], None]) -> None:
        self._store = store
        self._shard = shard
        self._crew = crew
        self._tick = tick
        self._state = ShardFold()
        self._found = Survey()
        self._blocks: list[Damage] = []  # without these objects, readers leave the shard alone
        self._metered: dict[str, int] = {}  # since when runs log metrics: whom lost points hurt

    def survey(self, checkpoints: list[str], see: Callable[[RunRecord], None]) -> Survey:
        readable = self._read_checkpoints(checkpoints)
        newest = self._found.newest = max(readable, key=lambda c: c.header.seq, default=None)
        self._state.restart(newest)
        for span, is_used in _spans(readable):
            self._read_runs(span, see, is_used=is_used)
        behind = self._read_segments(newest)
        for damage in self._blocks:
            runs = sorted({*damage.runs, *behind})
            self._found.damages.append(replace(damage, runs=runs))
        for run in self._state.fold.runs.values():
            see(run)
            self._metered[run.spec.run] = run.since
        self._check_points(readable)
        return self._found

    def _add(self, key: str, what: str, loss: str = "", runs: set[str] | None = None) -> None:
        self._found.damages.append(
            Damage(key=key, what=what, loss=loss, runs=sorted(runs or set()))
        )

    def _read_checkpoints(self, keys: list[str]) -> list[Checkpoint]:
        readable, broken = [], []
        for key, data in self._fetch(keys):
            try:
                readable.append(_checkpoint(self._shard, key, data))
            except JournalCorrupt as exc:
                broken.append((key, _words(key, exc)))
        for key, what in broken:
            if readable:
                self._add(key, what, "another one is read instead")
            else:
                loss = f"no run of shard {self._shard} can be read"
                self._blocks.append(Damage(key=key, what=what, loss=loss))
        return readable

    def _read_runs(self, span: Span, see: Callable[[RunRecord], None], *, is_used: bool) -> None:
        """Check and read a table of runs."""
        if not span.runs:
            return
        key = table_key(self._shard, span, RUNS)
        try:
            data = self._store.get(key)
        except NotFound:
            self._lose_runs(Damage(key=key, what="is missing"), span, is_used=is_used)
            return
        self._tick(len(data))
        if hashlib.sha256(data).hexdigest() != span.digests.get(RUNS):
            damage = Damage(key=key, what="is not what was written", runs=sorted(_salvaged(data)))
            self._lose_runs(damage, span, is_used=is_used)
            return
        for line in gzip.decompress(data).splitlines() if is_used else ():
            stored = msgspec.json.decode(line, type=StoredRun)
            if stored.metrics:
                self._metered[stored.run] = stored.since
            see(load_run(stored, None))

    def _lose_runs(self, damage: Damage, span: Span, *, is_used: bool) -> None:
        if is_used:
            loss = f"{span.runs} runs that ended, and no run of shard {self._shard} can be read"
            self._blocks.append(replace(damage, loss=loss))
        else:
            self._found.damages.append(replace(damage, runs=[]))

    def _check_points(self, checkpoints: list[Checkpoint]) -> None:
        spans = [(span, used) for span, used in _spans(checkpoints) if POINTS in span.digests]

        def check(pair: tuple[Span, bool]) -> str:
            key = table_key(self._shard, pair[0], POINTS)
            return check_bytes(self._store, key, pair[0].digests[POINTS], self._crew, self._tick)

        for (span, is_used), what in zip(spans, self._crew.map(check, spans), strict=True):
            if what:
                runs = {run for run, since in self._metered.items() if since <= span.last}
                loss = f"{span.points} metric points" if is_used else ""
                key = table_key(self._shard, span, POINTS)
                self._add(key, what, loss, runs if is_used else None)

    def _read_segments(self, newest: Checkpoint | None) -> set[str]:
        """Walk through all segments; return the runs that readers do not come to."""
        keys = self._store.list(f"shards/{self._shard}/")
        for key in [k for k in keys if not _SEGMENT.fullmatch(k.rpartition("/")[2])]:
            keys.remove(key)
            self._add(key, "is no name of a segment")
        walk = _Walk(self._shard, newest, self._state, self._found, is_broken=bool(self._blocks))
        for key, data in self._fetch(keys):
            walk.step(key, data)
        walk.finish()
        return walk.behind

    def _fetch(self, keys: list[str]) -> Iterator[tuple[str, bytes]]:
        """Yield objects in this order; those that have gone meanwhile are left out."""

        def get(key: str) -> bytes | None:
            try:
                return self._store.get(key)
            except NotFound:
                return None

        for key, data in zip(keys, self._crew.map(get, keys), strict=True):
            if data is not None:
                self._tick(len(data))
                yield key, data


class _Walk:
    """Goes through a shard's segments in order, and notes where readers have to stop."""

    def __init__(
        self,
        shard: str,
        start: Checkpoint | None,
        state: ShardFold,
        found: Survey,
        *,
        is_broken: bool,
    ) -> None:
        self._shard = shard
        self._state = state
        self._found = found
        self._base = start.header.seq if start else 0
        self._epoch = start.header.epoch if start else 0
        self._kept = set(start.header.kept) if start else set()
        self._expected = self._base + 1
        self._doubtful: dict[int, tuple[Damage, bytes]] = {}
        self._breaks: list[Damage] = []
        self._is_broken = is_broken
        self.behind: set[str] = set()

    def step(self, key: str, data: bytes) -> None:
        seq = int(_number(key))
        self._kept.discard(seq)
        if seq > self._base:
            if seq > self._expected:
                self._break(self._gap(seq))
            self._expected = seq + 1
        try:
            segment = decode_segment(key, data)
        except JournalCorrupt as exc:
            damage = Damage(key=key, what=_words(key, exc))
            if "format" in damage.what:
                self._break(damage, _salvaged(data))
            else:
                self._doubtful[seq] = damage, data
            return
        self._settle(segment.fence.torn if segment.fence else [])
        if (segment.shard, segment.seq) != (self._shard, seq):
            what = f"is segment {segment.seq} of shard {segment.shard}"
            self._break(Damage(key=key, what=what))
        elif seq > self._base:
            self._fold(key, segment)

    def finish(self) -> None:
        """Judge what is damaged at the end, where readers pass it over, and what is missing."""
        for seq, (damage, data) in self._doubtful.items():
            if is_cut(data):
                what = f"{damage.what}: a crash has cut off its writing"
                self._found.damages.append(replace(damage, what=what, is_expected=True))
            elif seq <= self._base:
                self._found.damages.append(damage)
            else:
                runs = sorted(_salvaged(data) | self._open_runs())
                loss = "what was logged in it"
                self._found.damages.append(replace(damage, loss=loss, runs=runs))
        for damage in self._breaks:
            runs = sorted({*damage.runs, *self.behind})
            loss = "all that was logged in it and behind it"
            self._found.damages.append(replace(damage, loss=loss, runs=runs))
        for seq in sorted(self._kept):
            what = "is missing, which would stop an older writer that slept"
            self._found.damages.append(Damage(key=segment_key(self._shard, seq), what=what))

    def _gap(self, seq: int) -> Damage:
        last = f" with all up to segment {seq - 1}" if seq - 1 > self._expected else ""
        return Damage(key=segment_key(self._shard, self._expected), what=f"is missing{last}")

    def _settle(self, torn: list[int]) -> None:
        """Judge what was damaged before a segment that can be read."""
        for seq, (damage, data) in self._doubtful.items():
            if seq in torn:
                continue  # its successor has said so: it was never acknowledged
            if seq <= self._base:
                self._found.damages.append(damage)
            else:
                self._break(damage, _salvaged(data))
        self._doubtful.clear()

    def _break(self, damage: Damage, named: set[str] | None = None) -> None:
        runs = sorted((named or set()) | (self._open_runs() if not self._is_broken else set()))
        self._breaks.append(replace(damage, runs=runs))
        self._is_broken = True

    def _open_runs(self) -> set[str]:
        runs = self._state.fold.runs
        return {name for name in runs if not runs[name].is_terminal}

    def _fold(self, key: str, segment: Segment) -> None:
        if self._is_broken:
            self.behind |= {batch.run for batch in segment.batches}
            return
        self._check_epoch(key, segment)
        try:
            for batch in segment.batches:
                plain = [r for r in batch.records if not bytes(r).startswith(_POINTS_PREFIX)]
                self._found.has_unknown |= not all(map(is_known, plain))
                self._state.fold.add(msgspec.structs.replace(batch, records=plain), segment.seq)
        except msgspec.DecodeError:
            runs = {batch.run for batch in segment.batches}
            self._break(Damage(key=key, what="has a record that cannot be read"), runs)

    def _check_epoch(self, key: str, segment: Segment) -> None:
        last, self._epoch = self._epoch, segment.epoch
        if segment.fence is None:
            is_right = segment.epoch == last
        else:
            is_right = segment.epoch == segment.fence.epoch > last
        if not is_right:
            what = f"has epoch {segment.epoch} after epoch {last}"
            runs = sorted({batch.run for batch in segment.batches})
            loss = "whether its writer had been fenced is not known"
            self._found.damages.append(Damage(key=key, what=what, loss=loss, runs=runs))


def _checkpoint(shard: str, key: str, data: bytes) -> Checkpoint:
    checkpoint = decode_checkpoint(key, data)
    header = checkpoint.header
    if key != checkpoint_key(shard, header.seq) or header.shard != shard:
        raise corrupt(key, f"is that of segment {header.seq} of shard {header.shard}")
    return checkpoint


def check_bytes(
    store: Store, key: str, digest: str, crew: Crew, tick: Callable[[int], None]
) -> str:
    """Return what is wrong with an object that is to have this SHA-256; nothing if it has."""
    checksum = hashlib.sha256()
    try:
        for chunk in store.chunks(key):
            checksum.update(chunk)
            tick(len(chunk))
            if crew.is_stopped:
                return ""
    except NotFound:
        return "is missing"
    return "" if checksum.hexdigest() == digest else "is not what was written"


def _spans(checkpoints: list[Checkpoint]) -> list[tuple[Span, bool]]:
    """Return the spans of all checkpoints, and whether the newest has them."""
    ordered = sorted(checkpoints, key=lambda checkpoint: checkpoint.header.seq)
    used = {span.nonce for span in ordered[-1].header.spans} if ordered else set()
    every = {span.nonce: span for checkpoint in ordered for span in checkpoint.header.spans}
    return [(span, nonce in used) for nonce, span in every.items()]


def _salvaged(data: bytes) -> set[str]:
    """Return the runs that the lines of a damaged object name, where they can still be read."""
    runs = set()
    with suppress(OSError, EOFError, zlib.error):
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    for line in data.splitlines():
        for kind in (Batch, StoredRun):
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                runs.add(msgspec.json.decode(line, type=kind).run)  # type: ignore[attr-defined]
    return runs


def _number(key: str) -> str:
    return key.rpartition("/")[2].partition(".")[0]


def _words(key: str, exc: JournalCorrupt) -> str:
    """Return what an error says about an object, without its name and the way out."""
    text = str(exc).partition(";")[0]
    return text.removeprefix(key).removeprefix(" in the journal").strip()
