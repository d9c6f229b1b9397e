"""A shard's state up to some segment, so that nobody has to read what came before.

    checkpoints/<shard>/<seq>.jsonl
    {"format":1,"shard":…,"seq":…,"epoch":…,"spans":[…],…}      header
    {"run":…,"spec":{…},…}                                      one line for each run not ended yet
    {"batches":3,"crc32":…}                                     trailer, as in a segment

A checkpoint is created once and never changed. The points up to it and the runs that ended before
it lie in tables, listed by span; see `rayml.tracker.tables`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rayml.errors import JournalCorrupt, NotFound
from rayml.tracker.runs import Sent
from rayml.tracker.segments import FORMAT, NewerFormat, corrupt, seal, unseal
from rayml.tracker.stored import StoredRun

if TYPE_CHECKING:
    from rayml.store import Store

RECENT = 1000  # of the ended runs, so many may still be heard of again


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of segments whose contents lie in tables.

    Attributes:
        first: Its first segment.
        last: Its last one.
        nonce: Part of the tables' names, so that nobody else writes there.
        runs: How many runs ended in it.
        points: How many metric points it has.
        size: Bytes of its tables.
        digests: SHA-256 of each table, by its name; a table without rows is not there.
    """

    first: int
    last: int
    nonce: str
    runs: int
    points: int
    size: int
    digests: dict[str, str]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says beside the unended runs.

    Attributes:
        format: Of this file.
        shard: Which shard.
        seq: The last segment that it covers.
        epoch: Of the writer of that segment.
        spans: The tables, oldest first; together they cover all segments from 1.
        kept: Segments up to `seq` that are never deleted: fences, and torn ones.
        producers: Of the unended runs, and of those that ended last: these may still try again.
        recent: The runs that ended last.
    """

    format: int = FORMAT
    shard: str
    seq: int
    epoch: int
    spans: list[Span]
    kept: list[int]
    producers: dict[str, Sent]
    recent: list[str]


class Checkpoint(msgspec.Struct, frozen=True):
    """A header, and the runs that had not ended."""

    header: Header
    runs: list[StoredRun]


def checkpoint_key(shard: str, seq: int) -> str:
    """Return the key of the checkpoint that covers a shard up to this segment."""
    return f"checkpoints/{shard}/{seq:012d}.jsonl"


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return a checkpoint's bytes."""
    runs = [msgspec.json.encode(run) for run in checkpoint.runs]
    return seal([msgspec.json.encode(checkpoint.header), *runs])


def decode_checkpoint(name: str, data: bytes) -> Checkpoint:
    """Return a checkpoint, checked against its trailer.

    Raises:
        JournalCorrupt: It is torn, changed, or from a newer format.
    """
    header, *runs = unseal(name, data)
    try:
        return Checkpoint(
            msgspec.json.decode(header, type=Header),
            [msgspec.json.decode(run, type=StoredRun) for run in runs],
        )
    except msgspec.DecodeError as exc:
        raise corrupt(name, "has a line that is not a checkpoint's") from exc


def find_checkpoint(store: Store, shard: str, after: int = 0) -> Checkpoint | None:
    """Return the newest checkpoint of a shard that can be read, or None.

    A damaged one is passed over: the segments behind the one before it are all still there.

    Args:
        store: Where.
        shard: Which shard.
        after: Only if it covers more than up to this segment.

    Raises:
        JournalCorrupt: There are some, and none can be read.
    """
    first = checkpoint_key(shard, after) if after else ""
    problem: JournalCorrupt | None = None
    for key in reversed(store.list(f"checkpoints/{shard}/", after=first)):
        try:
            return decode_checkpoint(key, store.get(key))
        except NewerFormat:
            raise
        except JournalCorrupt as exc:
            problem = exc
        except NotFound:  # a newer one has come, and this one went
            return find_checkpoint(store, shard, after)
    if problem is not None:
        raise problem
    return None
