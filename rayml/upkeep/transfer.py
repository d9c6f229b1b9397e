"""Copies a whole store, which may be written meanwhile: the copy is what it was at some moment.

Whatever names something is copied before what it names is listed: the catalog first, then the
journal, then logs and blobs. A writer stores the bytes first and names them afterwards, so all
that a copied record names is in the later listings. Within the catalog and within a shard, a
listing is a beginning of the log, as numbers are taken in order. A compaction that moves segments
to tables under our eyes is noticed by its new checkpoint, and the shard is listed again.

While this goes on the destination bears a marker that lets nobody read or write it; the source's
own marker is what is copied last. So an unfinished copy cannot be mistaken for a store; the same
call goes on with it. A copy of a folder made by other means (`cp -r`) lacks that order: make it
while nobody writes to the store.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rayml.errors import NotFound, SpecError, StoreError
from rayml.store import check_format
from rayml.store.probe import COPYING, FORMAT, MARKER, probe_store
from rayml.upkeep.crew import Crew
from rayml.upkeep.survey import list_shards

if TYPE_CHECKING:
    from collections.abc import Callable

    from rayml.store import Store

_TRIES = 20
_BLOBS = "blobs/sha256/"


@dataclass
class Copied:
    """What a copy came to.

    Attributes:
        objects: How many were copied.
        size: Their bytes.
        skipped: How many were there already.
        damaged: Keys of blobs that hold other bytes than their names say; these were left out.
    """

    objects: int = 0
    size: int = 0
    skipped: int = 0
    damaged: list[str] = field(default_factory=list)


def copy_store(
    source: Store, target: Store, tick: Callable[[int], None] = lambda _: None
) -> Copied:
    """Make the target a copy of the source, or bring an older copy up to date.

    What is there already in its full size is not copied again.

    Args:
        source: What is copied.
        target: Where to; empty, or an earlier copy that nobody has written to.
        tick: Gets the size of each object that was copied, from any thread.

    Raises:
        SpecError: The source is empty, or the target is another store.
        StoreError: One of them cannot be read or written, or the target was written to since.
    """
    copier = _Copier(source, target, tick)
    try:
        return copier.copy()
    finally:
        copier.crew.stop()


class _Copier:
    def __init__(self, source: Store, target: Store, tick: Callable[[int], None]) -> None:
        self.crew = Crew(source, target)
        self._source = source
        self._target = target
        self._tick = tick
        self._copied = Copied()
        self._lock = threading.Lock()

    def copy(self) -> Copied:
        marker = self._open()
        # States before entries: a state that is ahead of them would leave a gap.
        states = self._source.list("catalog_states/")
        entries = self._source.list("catalog/")
        self._check_log("catalog/", entries)
        self._copy_keys("catalog/", entries)
        self._copy_keys("catalog_states/", states)
        for shard in list_shards(self._source):
            self._copy_shard(shard)
        for prefix in ("submissions/", "claims/"):
            self._copy_keys(prefix, self._source.list(prefix))
        for prefix in ("cancels/", "live/"):
            for key in self._source.list(prefix):
                self._replace(key)
        for run in self._source.folders("logs/"):
            self._copy_keys(f"logs/{run}/", self._source.list(f"logs/{run}/"))
        for folder in self._source.folders(_BLOBS):
            self._copy_blobs(f"{_BLOBS}{folder}/")
        self._close(marker)
        return self._copied

    def _open(self) -> bytes | None:
        """Make sure that the target may be written; return the source's marker, if it has one."""
        check_format(self._source)
        marker = _get(self._source, MARKER)
        if marker is None and not (list_shards(self._source) or self._source.list("catalog/")):
            raise SpecError(f"store {self._source.uri} is empty; is it the right one?")
        if pickle.dumps(self._source) == pickle.dumps(self._target):
            raise SpecError(f"store {self._source.uri} cannot be copied to itself")
        identity = hashlib.sha256(marker or self._source.uri.encode()).hexdigest()[:32]
        copying = json.dumps({"format": FORMAT, COPYING: identity}).encode()
        self._check_target(marker, copying)
        probe_store(self._target)
        self._target.put(MARKER, copying)
        return marker

    def _check_target(self, marker: bytes | None, copying: bytes) -> None:
        there = _get(self._target, MARKER)
        others = set(list_shards(self._target)) - set(list_shards(self._source))
        is_ours = there in {marker, copying} if there is not None else not self._has_objects()
        if not is_ours or others:
            raise SpecError(
                f"{self._target.uri} is not empty and no copy of {self._source.uri}; "
                "choose another place"
            )

    def _has_objects(self) -> bool:
        prefixes = ("blobs/", "logs/", "shards/")
        return any(self._target.folders(p) for p in prefixes) or bool(
            self._target.list("catalog/")
        )

    def _close(self, marker: bytes | None) -> None:
        if marker is None:
            self._target.delete(MARKER)
        else:
            self._target.put(MARKER, marker)

    def _copy_shard(self, shard: str) -> None:
        prefix = f"checkpoints/{shard}/"
        for _ in range(_TRIES):
            checkpoints = self._source.list(prefix)
            segments = self._source.list(f"shards/{shard}/")
            tables = self._source.list(f"tables/{shard}/")
            self._check_log(f"shards/{shard}/", segments)
            is_whole = (
                self._copy_keys(f"tables/{shard}/", tables)
                and self._copy_keys(f"shards/{shard}/", segments)
                and self._copy_keys(prefix, checkpoints)
            )
            if is_whole and self._source.list(prefix) == checkpoints:
                return
        raise StoreError(
            f"shard {shard} of {self._source.uri} was compacted {_TRIES} times while it was "
            "copied; try again"
        )

    def _check_log(self, prefix: str, keys: list[str]) -> None:
        """Make sure that nobody has written to the target's own log."""
        there = self._target.list(prefix)
        if not there:
            return
        common = [key for key in keys if key <= there[-1]]
        if not keys or there[-1] > keys[-1] or not common:
            raise self._diverged(there[-1])
        if there[-1] == common[-1] and _get(self._target, there[-1]) != self._source.get(
            there[-1]
        ):
            raise self._diverged(there[-1])

    def _diverged(self, key: str) -> StoreError:
        return StoreError(
            f"{self._target.uri} has another {key} than {self._source.uri}: somebody has written "
            "to it since it was copied, or it is damaged; copy to an empty place"
        )

    def _copy_keys(self, prefix: str, keys: list[str]) -> bool:
        """Copy objects that never change; False if one of them has gone meanwhile."""
        there = self._target.stats(prefix) if keys else {}
        stats = self._source.stats(prefix) if there else {}
        for key in keys:
            if key in there and there[key].size != stats.get(key, there[key]).size:
                raise self._diverged(key)
        self._copied.skipped += sum(key in there for key in keys)
        return all([*self.crew.map(self._copy_object, [k for k in keys if k not in there])])

    def _copy_object(self, key: str) -> bool:
        data = _get(self._source, key)
        if data is None or self.crew.is_stopped:
            return False
        if not self._target.create(key, data) and self._target.get(key) != data:
            raise self._diverged(key)
        self._count(len(data))
        return True

    def _replace(self, key: str) -> None:
        data = _get(self._source, key)
        if data is not None:
            self._target.put(key, data)
            self._count(len(data))

    def _copy_blobs(self, prefix: str) -> None:
        stats, there = self._source.stats(prefix), self._target.stats(prefix)
        missing = [k for k in stats if k not in there or there[k].size != stats[k].size]
        self._copied.skipped += len(stats) - len(missing)
        for _ in self.crew.map(self._copy_blob, missing):
            pass

    def _copy_blob(self, key: str) -> None:
        if self.crew.is_stopped:
            return
        try:
            with self._source.open(key) as file:
                blob = self._target.add(file)
        except NotFound:
            return  # the garbage collection was here: no record that was copied names it
        if key.rpartition("/")[2] == blob.digest:
            self._count(blob.size)
        else:
            with self._lock:
                self._copied.damaged.append(key)

    def _count(self, size: int) -> None:
        with self._lock:
            self._copied.objects += 1
            self._copied.size += size
        self._tick(size)


def _get(store: Store, key: str) -> bytes | None:
    try:
        return store.get(key)
    except NotFound:
        return None
