"""The durable log of one tracker: numbered segments, each created once and never changed.

A *shard* has one writer at a time. Every segment is a small JSON-lines object:

    {"format":1,"shard":…,"epoch":…,"seq":…,"nonce":…,"time":…}     header
    {"fence":{…}}                                                   a new writer took over, or
    {"producer":…,"n":…,"run":…,"attempt":…,"records":[…]}          batches
    {"batches":2,"crc32":…}                                         trailer: checks all lines above

*Fencing.* A writer opens a shard by creating the next segment with a higher epoch. From then on
the older writer's next create collides with it, for ever, because segments are never renamed or
reused: a stale twin cannot write, however long it slept.

*Ambiguity.* A create whose answer was lost may have landed. The header's nonce tells: if the
segment that is there has our nonce, our write succeeded.

*Exactly once.* Each batch has a producer and a dense number. One that is already in the journal is
acknowledged again and not written again.
"""

from __future__ import annotations

import time
import uuid
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from rayml.errors import JournalCorrupt, JournalFenced, NotFound, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rayml.store import Store

FORMAT = 1
SEGMENT_BYTES = 4 * 1024 * 1024


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one attempt that become durable together, numbered by their producer from 1."""

    producer: str
    n: int
    run: str
    attempt: int
    records: list[msgspec.Raw]


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """The process that a shard lives and dies with, to tell later whether it is gone."""

    host: str
    boot: str
    pid: int
    started_at: float
    address: str = ""


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """A writer's claim: its epoch, and the segments before it that were found torn."""

    epoch: int
    owner: Owner
    torn: list[int] = []


class _NewerFormat(JournalCorrupt):
    """Not torn, so no writer may step over it."""


class _Format(msgspec.Struct, frozen=True):
    format: int


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    shard: str
    epoch: int
    seq: int
    nonce: str
    time: float


class _FenceLine(msgspec.Struct, frozen=True):
    fence: Fence


class _Trailer(msgspec.Struct, frozen=True):
    batches: int
    crc32: int


@dataclass(frozen=True)
class Segment:
    """One decoded segment."""

    seq: int
    epoch: int
    nonce: str
    fence: Fence | None
    batches: list[Batch]


def encode_segment(shard: str, seq: int, epoch: int, nonce: str, body: Sequence[bytes]) -> bytes:
    """Return a segment's bytes; each of `body` is one encoded line."""
    header = _Header(
        format=FORMAT, shard=shard, epoch=epoch, seq=seq, nonce=nonce, time=time.time()
    )
    head = b"\n".join([msgspec.json.encode(header), *body, b""])
    return head + msgspec.json.encode(_Trailer(len(body), zlib.crc32(head))) + b"\n"


def decode_segment(name: str, data: bytes) -> Segment:
    """Return a segment, checked against its trailer.

    Raises:
        JournalCorrupt: It is torn, changed, or from a newer format.
    """
    head, _, tail = data.rstrip(b"\n").rpartition(b"\n")
    head += b"\n"
    try:
        trailer = msgspec.json.decode(tail, type=_Trailer)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise _corrupt(name, "is torn") from exc
    lines = head.splitlines()
    if zlib.crc32(head) != trailer.crc32 or len(lines) - 1 != trailer.batches:
        raise _corrupt(name, "does not have the checksum it was written with")
    found = msgspec.json.decode(lines[0], type=_Format).format
    if found > FORMAT:
        raise _NewerFormat(
            f"journal segment {name} has format {found} and this rayml reads up to {FORMAT}; "
            "upgrade rayml"
        )
    return _segment(name, msgspec.json.decode(lines[0], type=_Header), lines[1:])


def _segment(name: str, header: _Header, lines: list[bytes]) -> Segment:
    try:
        if lines and lines[0].startswith(b'{"fence"'):
            fence = msgspec.json.decode(lines[0], type=_FenceLine).fence
            return Segment(header.seq, header.epoch, header.nonce, fence, [])
        batches = [msgspec.json.decode(line, type=Batch) for line in lines]
    except msgspec.DecodeError as exc:
        raise _corrupt(name, "has a line that is not a batch") from exc
    return Segment(header.seq, header.epoch, header.nonce, None, batches)


def _corrupt(name: str, what: str) -> JournalCorrupt:
    return JournalCorrupt(
        f"journal segment {name} {what}; restore it from a copy of the store, "
        "nothing behind it was read"
    )


def segment_key(shard: str, seq: int) -> str:
    """Return the key of a shard's segment."""
    return f"shards/{shard}/{seq:012d}.jsonl"


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

    @property
    def last_key(self) -> str:
        """The key of the last segment read; empty before the first."""
        return segment_key(self.shard, self.position) if self.position else ""

    def read(self) -> Iterator[Segment]:
        """Yield the segments that came since the last call.

        Raises:
            JournalCorrupt: A segment is corrupt and no fence explains it.
        """
        keys = self.store.list(f"shards/{self.shard}/", after=self.last_key)
        yield from self.read_segments(keys)

    def read_segments(self, keys: list[str]) -> Iterator[Segment]:
        """Yield the segments of these keys, which follow the last one read."""
        doubtful: list[tuple[int, JournalCorrupt]] = []
        for key in keys:
            seq = int(key.rpartition("/")[2].partition(".")[0])
            try:
                segment = decode_segment(key, self.store.get(key))
            except _NewerFormat:
                raise
            except JournalCorrupt as exc:
                doubtful.append((seq, exc))
                continue
            self._clear(doubtful, segment)
            self.position, self.epoch = seq, segment.epoch
            yield segment
        self.torn = [seq for seq, _ in doubtful]

    def _clear(self, doubtful: list[tuple[int, JournalCorrupt]], segment: Segment) -> None:
        explained = segment.fence.torn if segment.fence else []
        for seq, error in doubtful:
            if seq not in explained:
                raise error
        doubtful.clear()


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

    def open(self, owner: Owner) -> Iterator[Batch]:
        """Take the shard over and yield every batch in it, oldest first.

        Iterate to the end: only then is the journal open for `append`.

        Raises:
            JournalCorrupt: A segment in the middle is corrupt.
            StoreError: The store cannot be written.
        """
        while True:
            for segment in self._reader.read():
                yield from segment.batches
            if self._claim(owner):
                return

    def _claim(self, owner: Owner) -> bool:
        torn = self._reader.torn
        seq, epoch = max([self._reader.position, *torn]) + 1, self._reader.epoch + 1
        fence = _FenceLine(Fence(epoch=epoch, owner=owner, torn=torn))
        if not self._create(seq, epoch, [msgspec.json.encode(fence)]):
            return False
        self._seq, self._epoch = seq, epoch
        return True

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

    def recover(self) -> Iterator[Batch]:
        """Yield every durable batch again, after an append whose outcome is not known.

        Raises:
            JournalFenced: Another writer has taken the shard over.
            StoreError: Segments are missing that were there, as when a disk is not mounted.
        """
        reader = ShardReader(self._store, self._shard)
        for segment in reader.read():
            yield from segment.batches
        if reader.epoch > self._epoch:
            raise JournalFenced(
                f"shard {self._shard} was taken over by another tracker; stop this one"
            )
        if reader.position < self._seq:
            raise StoreError(
                f"shard {self._shard} in {self._store.uri} ends at segment {reader.position} and "
                f"{self._seq} were written; is the store still in its place?"
            )
        self._seq = reader.position

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


class LiveMark:
    """A hint beside the journal that a shard has a writer, so that a dead one is found quickly."""

    def __init__(self, store: Store, shard: str) -> None:
        self._store = store
        self._key = f"live/{shard}.json"

    def set(self, owner: Owner) -> None:
        """Say who writes the shard."""
        self._store.put(self._key, msgspec.json.encode(owner))

    def get(self) -> Owner | None:
        """Return who writes the shard, or None if it was left in good order."""
        try:
            return msgspec.json.decode(self._store.get(self._key), type=Owner)
        except (NotFound, msgspec.DecodeError):
            return None

    def clear(self) -> None:
        """Say that nobody writes the shard."""
        self._store.delete(self._key)


def live_shards(store: Store) -> list[str]:
    """Return the shards that have a writer, or had one that died."""
    return [k.removeprefix("live/").removesuffix(".json") for k in store.list("live/")]
