"""One object of the journal: JSON lines that check themselves, created once, never changed.

{"format":1,"shard":…,"epoch":…,"seq":…,"nonce":…,"time":…}     header
{"fence":{…}}                                                   a new writer took over, or
{"producer":…,"n":…,"run":…,"attempt":…,"records":[…]}          batches
{"batches":2,"crc32":…}                                         trailer: checks all lines above
"""

from __future__ import annotations

import time
import uuid
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from rayml.errors import JournalCorrupt

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """The process that a shard lives and dies with, to tell later whether it is gone.

    Attributes:
        address: Where it takes requests, if it does.
        cluster: Of whose head it is a part: there is only one at a time. Empty if it is of none.
    """

    host: str
    boot: str
    pid: int
    started_at: float
    address: str = ""
    cluster: str = ""


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """A writer's claim: its epoch, and the segments before it that were found torn."""

    epoch: int
    owner: Owner
    torn: list[int] = []


class NewerFormat(JournalCorrupt):
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


class FenceLine(msgspec.Struct, frozen=True):
    """How a fence stands in its segment."""

    fence: Fence


class _Trailer(msgspec.Struct, frozen=True):
    batches: int
    crc32: int


@dataclass(frozen=True)
class Segment:
    """One decoded segment, of `size` bytes."""

    shard: str
    seq: int
    epoch: int
    nonce: str
    fence: Fence | None
    batches: list[Batch]
    size: int = field(compare=False)


def encode_batch(run: str, attempt: int, *records: msgspec.Struct) -> bytes:
    """Return a batch whose producer sends no other."""
    raws = [msgspec.Raw(msgspec.json.encode(record)) for record in records]
    batch = Batch(producer=uuid.uuid4().hex, n=1, run=run, attempt=attempt, records=raws)
    return msgspec.json.encode(batch)


def encode_segment(shard: str, seq: int, epoch: int, nonce: str, body: Sequence[bytes]) -> bytes:
    """Return a segment's bytes; each of `body` is one encoded line."""
    header = _Header(
        format=FORMAT, shard=shard, epoch=epoch, seq=seq, nonce=nonce, time=time.time()
    )
    return seal([msgspec.json.encode(header), *body])


def decode_segment(name: str, data: bytes) -> Segment:
    """Return a segment, checked against its trailer.

    Raises:
        JournalCorrupt: It is torn, changed, or from a newer format.
    """
    lines = unseal(name, data)
    return _segment(name, msgspec.json.decode(lines[0], type=_Header), lines[1:], len(data))


def seal(lines: Sequence[bytes]) -> bytes:
    """Return a header and further lines with a trailer that checks them all."""
    head = b"\n".join([*lines, b""])
    return head + msgspec.json.encode(_Trailer(len(lines) - 1, zlib.crc32(head))) + b"\n"


def unseal(name: str, data: bytes) -> list[bytes]:
    """Return the lines that were sealed; the first is the header.

    Raises:
        JournalCorrupt: They are torn, changed, or from a newer format.
    """
    *lines, tail = data.rstrip(b"\n").splitlines() or [b""]
    try:
        trailer = msgspec.json.decode(tail, type=_Trailer)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise corrupt(name, "is torn") from exc
    head = memoryview(data)[: data.rindex(tail)]
    if not lines or zlib.crc32(head) != trailer.crc32 or len(lines) - 1 != trailer.batches:
        raise corrupt(name, "does not have the checksum it was written with")
    found = msgspec.json.decode(lines[0], type=_Format).format
    if found > FORMAT:
        raise NewerFormat(
            f"{name} has format {found} and this rayml reads up to {FORMAT}; upgrade rayml"
        )
    return lines


def _segment(name: str, header: _Header, lines: list[bytes], size: int) -> Segment:
    try:
        if lines and lines[0].startswith(b'{"fence"'):
            fence = msgspec.json.decode(lines[0], type=FenceLine).fence
            return Segment(header.shard, header.seq, header.epoch, header.nonce, fence, [], size)
        batches = [msgspec.json.decode(line, type=Batch) for line in lines]
    except msgspec.DecodeError as exc:
        raise corrupt(name, "has a line that is not a batch") from exc
    return Segment(header.shard, header.seq, header.epoch, header.nonce, None, batches, size)


def corrupt(name: str, what: str) -> JournalCorrupt:
    """Return the error for a part of the journal that is not as it was written."""
    return JournalCorrupt(
        f"{name} in the journal {what}; restore it from a copy of the store, "
        "nothing behind it was read"
    )


def segment_key(shard: str, seq: int) -> str:
    """Return the key of a shard's segment."""
    return f"shards/{shard}/{seq:012d}.jsonl"
