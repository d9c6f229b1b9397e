"""Reading a shard: from its newest checkpoint on, segment by segment, as far as it goes."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from rayml.errors import JournalCorrupt, NotFound
from rayml.tracker.checkpoints import find_checkpoint
from rayml.tracker.runs import Fold
from rayml.tracker.segments import (
    NewerFormat,
    Segment,
    corrupt,
    decode_segment,
    segment_key,
)
from rayml.tracker.stored import load_run

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping, Sequence
    from concurrent.futures import Future

    from rayml.store import Store
    from rayml.tracker.checkpoints import Checkpoint
    from rayml.tracker.runs import RunRecord, Stored

_GETS_AT_ONCE = 32


class State(Protocol):
    """Whatever somebody makes of a shard."""

    def restart(self, checkpoint: Checkpoint | None) -> None:
        """Forget all and begin with this checkpoint, or with nothing."""

    def add(self, segment: Segment) -> None:
        """Take in the next segment."""


class _Missing(JournalCorrupt):
    """Corrupt, unless a newer checkpoint says that it was collected."""


@dataclass
class ShardReader:
    """Reads one shard's segments in order and remembers how far it came.

    A torn segment counts as never written once a later fence says so: its writer died before it
    could acknowledge. At the end of a shard it is passed over and looked at again the next time.
    """

    store: Store
    shard: str
    position: int = 0
    epoch: int = 0
    torn: list[int] = field(default_factory=list)
    is_started: bool = False

    def read_into(self, state: State) -> None:
        """Bring the state up to date, from the newest checkpoint where that is needed.

        Raises:
            JournalCorrupt: A segment or checkpoint is corrupt or missing, and nothing explains it.
            StoreError: The store cannot be read.
        """
        if not self.is_started:
            self._start(state, find_checkpoint(self.store, self.shard))
        while True:
            try:
                for segment in self.read():
                    state.add(segment)
            except _Missing:
                # What a checkpoint covers is collected after a while, also under a reader's eyes.
                newer = find_checkpoint(self.store, self.shard, after=self.position)
                if newer is None:
                    raise
                self._start(state, newer)
            else:
                return

    def _start(self, state: State, checkpoint: Checkpoint | None) -> None:
        state.restart(checkpoint)
        if checkpoint is not None:
            self.position, self.epoch = checkpoint.header.seq, checkpoint.header.epoch
        self.torn, self.is_started = [], True

    def read(self) -> Iterator[Segment]:
        """Yield the segments that came since the last call.

        Raises:
            JournalCorrupt: A segment is corrupt and no fence explains it.
        """
        last = segment_key(self.shard, self.position) if self.position else ""
        keys = self.store.list(f"shards/{self.shard}/", after=last)
        doubtful: list[tuple[int, JournalCorrupt]] = []
        expected = self.position
        for key, segment in _decoded(self.store, keys):
            expected += 1
            if key != segment_key(self.shard, expected):
                raise _Missing(str(corrupt(segment_key(self.shard, expected), "is missing")))
            if isinstance(segment, JournalCorrupt):
                doubtful.append((expected, segment))
                continue
            self._check(segment, expected)
            self._clear(doubtful, segment)
            self.position, self.epoch = expected, segment.epoch
            yield segment
        self.torn = [seq for seq, _ in doubtful]

    def _check(self, segment: Segment, seq: int) -> None:
        if (segment.shard, segment.seq) != (self.shard, seq):
            key = segment_key(self.shard, seq)
            raise corrupt(key, f"is segment {segment.seq} of shard {segment.shard}")

    def _clear(self, doubtful: list[tuple[int, JournalCorrupt]], segment: Segment) -> None:
        explained = segment.fence.torn if segment.fence else []
        for seq, error in doubtful:
            if seq not in explained:
                raise error
        doubtful.clear()


class ShardFold:
    """The runs of one shard, but for those that lie in tables: a `State`.

    Attributes:
        fold: The runs since then, and those that had not ended.
    """

    def __init__(self, runs: MutableMapping[str, RunRecord] | None = None) -> None:
        self.fold = Fold(runs)

    def restart(self, checkpoint: Checkpoint | None, points: Stored | None = None) -> None:
        """Begin with the unended runs of a checkpoint, whose points lie there."""
        self.fold.producers.clear()
        if checkpoint is not None:
            self.fold.producers |= checkpoint.header.producers
            for stored in checkpoint.runs:
                self.fold.runs[stored.run] = load_run(stored, points)

    def add(self, segment: Segment) -> None:
        """Fold the next segment."""
        for batch in segment.batches:
            self.fold.add(batch, segment.seq)


def _decoded(store: Store, keys: Sequence[str]) -> Iterator[tuple[str, Segment | JournalCorrupt]]:
    for key, data in _fetched(store, keys):
        try:
            yield key, decode_segment(key, data)
        except NewerFormat:
            raise
        except JournalCorrupt as exc:
            yield key, exc


def _fetched(store: Store, keys: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield objects in this order; from a bucket, many are on their way at once."""
    if store.is_local or len(keys) < 2:
        yield from ((key, _get(store, key)) for key in keys)
        return
    with ThreadPoolExecutor(_GETS_AT_ONCE) as pool:
        rest = iter(keys)
        coming: deque[tuple[str, Future[bytes]]] = deque(
            (key, pool.submit(_get, store, key)) for key in islice(rest, _GETS_AT_ONCE)
        )
        while coming:
            key, data = coming.popleft()
            coming += ((more, pool.submit(_get, store, more)) for more in islice(rest, 1))
            yield key, data.result()


def _get(store: Store, key: str) -> bytes:
    try:
        return store.get(key)
    except NotFound as exc:
        raise _Missing(str(corrupt(key, "is missing"))) from exc
