"""The durable log of one tracker: numbered segments, each created once and never changed.

A *shard* has one writer at a time. See `segments` for one segment, and `checkpoints` for what
spares readers the old ones.

*Fencing.* A writer opens a shard by creating the next segment with a higher epoch. From then on
the older writer's next create collides with it, for ever, because segments are never renamed or
reused: a stale twin cannot write, however long it slept. That is why the garbage collection keeps
fences.

*Ambiguity.* A create whose answer was lost may have landed. The header's nonce tells: if the
segment that is there has our nonce, our write succeeded.

*Exactly once.* Each batch has a producer and a dense number. One that is already in the journal is
acknowledged again and not written again.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import msgspec

from rayml.errors import JournalCorrupt, JournalFenced, NotFound, StoreError
from rayml.tracker.checkpoints import checkpoint_key
from rayml.tracker.segments import (
    Fence,
    FenceLine,
    Owner,
    Segment,
    decode_segment,
    encode_segment,
    segment_key,
)
from rayml.tracker.shards import ShardReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rayml.store import Store
    from rayml.tracker.shards import State


class Journal:
    """The only writer of a shard. `open` replays what is there and fences every older writer."""

    def __init__(self, store: Store, shard: str) -> None:
        self._store = store
        self._shard = shard
        self._reader = ShardReader(store, shard)
        self._seq = 0
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """How many writers this shard has had."""
        return self._epoch

    @property
    def seq(self) -> int:
        """The last segment."""
        return self._seq

    def open(self, owner: Owner, state: State) -> None:
        """Take the shard over, and let the state be what all that is in it amounts to.

        Raises:
            JournalCorrupt: A segment in the middle is corrupt.
            StoreError: The store cannot be written.
        """
        while True:
            self._reader.read_into(state)
            if self._claim(owner):
                return

    def _claim(self, owner: Owner) -> bool:
        torn = self._reader.torn
        seq, epoch = max([self._reader.position, *torn]) + 1, self._reader.epoch + 1
        fence = FenceLine(Fence(epoch=epoch, owner=owner, torn=torn))
        if not self._create(seq, epoch, [msgspec.json.encode(fence)]):
            return False
        if self._is_behind(seq):
            return False
        self._seq, self._epoch = seq, epoch
        return True

    def _is_behind(self, seq: int) -> bool:
        """Tell whether the shard had gone on from here, and its segment of this number is gone.

        A writer that slept between reading and claiming may have found a number free again that
        the garbage collection has freed; its claim is then worth nothing, and harms nobody.
        """
        newer = self._store.list(
            f"checkpoints/{self._shard}/", after=checkpoint_key(self._shard, seq - 1)
        )
        return bool(newer)

    def append(self, batches: Sequence[bytes]) -> None:
        """Make encoded batches durable in one segment: all of them or none.

        Raises:
            JournalFenced: Another writer has taken the shard over; this one may never write again.
            StoreError: The store refused or was silent; `recover` tells what was written.
        """
        if not self._create(self._seq + 1, self._epoch, batches):
            raise self._refusal()
        self._seq += 1

    def _refusal(self) -> StoreError:
        taken = self._find(segment_key(self._shard, self._seq + 1))
        if taken is not None and taken.epoch == self._epoch:
            return StoreError(
                f"shard {self._shard} has got segment {taken.seq} from an earlier write that had "
                "been given up; send the same again"
            )
        return JournalFenced(
            f"shard {self._shard} was taken over by another tracker after segment "
            f"{self._seq}; this tracker stops, its clients go on with the new one"
        )

    def is_current(self) -> bool:
        """Tell whether the shard is still there, and ends with this writer's last segment.

        Raises:
            StoreError: The store cannot be read.
        """
        last, after = (segment_key(self._shard, seq) for seq in (self._seq, self._seq + 1))
        return self._store.size(last) is not None and self._store.size(after) is None

    def check(self) -> None:
        """Make sure that no other writer has taken the shard over since the last segment.

        Raises:
            JournalFenced: One has; this one may never write again.
            StoreError: The store cannot be read.
        """
        last = segment_key(self._shard, self._seq)
        # Not just the next one: that may be our own, whose answer was lost.
        keys = self._store.list(f"shards/{self._shard}/", after=last)
        newest = self._find(keys[-1]) if keys else None
        if newest is not None and newest.epoch > self._epoch:
            raise self._fenced()

    def recover(self, state: State) -> None:
        """Let the state be what is durable, after an append whose outcome is not known.

        Raises:
            JournalFenced: Another writer has taken the shard over.
            StoreError: Segments are missing that were there, as when a disk is not mounted.
        """
        reader = ShardReader(self._store, self._shard)
        reader.read_into(state)
        if reader.epoch > self._epoch:
            raise self._fenced()
        if reader.position < self._seq:
            raise StoreError(
                f"shard {self._shard} in {self._store.uri} ends at segment {reader.position} and "
                f"{self._seq} were written; is the store still in its place?"
            )
        self._seq = reader.position

    def _fenced(self) -> JournalFenced:
        return JournalFenced(
            f"shard {self._shard} was taken over by another tracker; stop this one"
        )

    def _create(self, seq: int, epoch: int, body: Sequence[bytes]) -> bool:
        key, nonce = segment_key(self._shard, seq), uuid.uuid4().hex
        if self._store.create(key, encode_segment(self._shard, seq, epoch, nonce, body)):
            return True
        taken = self._find(key)
        return taken is not None and taken.nonce == nonce

    def _find(self, key: str) -> Segment | None:
        try:
            return decode_segment(key, self._store.get(key))
        except (JournalCorrupt, NotFound):
            return None
