"""Which shard a tracker writes: one that was left in good order, so that a store has few of them.

Every process that tracks runs needs a shard that no other writes. Were it always a new one, a
thousand short runs would leave a thousand shards for each reader to visit. So shards are used
again on the machine, or in the folder, that they come from: whoever holds the lock of a shard's
name may write it, and the operating system frees the lock when its holder dies.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from rayml.errors import JournalCorrupt, StoreError
from rayml.processes import is_before
from rayml.store import check_store
from rayml.tracker.live import LiveMark, live_shards
from rayml.tracker.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from rayml.store import Store
    from rayml.tracker.segments import Owner


class Lease:
    """The right to write a shard, for as long as this process lives."""

    def __init__(self, shard: str, descriptor: int) -> None:
        self.shard = shard
        self._descriptor = descriptor

    def release(self) -> None:
        """Let another process write the shard."""
        os.close(self._descriptor)


def open_tracker(store: Store, owner: Owner) -> tuple[Tracker, Lease]:
    """Return a tracker of a shard that is leased for it; a damaged shard is left to whoever reads.

    Raises:
        StoreError: The store cannot be read or written, or not trusted to write a key only once.
    """
    check_store(store)
    damaged: set[str] = set()
    while True:
        lease = lease_shard(store, damaged)
        try:
            return Tracker(store, lease.shard, owner), lease
        except JournalCorrupt:
            lease.release()
            damaged.add(lease.shard)
        except BaseException:
            lease.release()
            raise


def reopen_tracker(store: Store, owner: Owner) -> Tracker | None:
    """Return the tracker that this owner had when it died, or the head that it replaced.

    Raises:
        StoreError: The store cannot be read or written.
    """
    for shard in live_shards(store):
        mark = LiveMark(store, shard).get()
        if mark is not None and (mark == owner or is_before(mark, owner)):
            with suppress(JournalCorrupt):
                return Tracker(store, shard, owner)
    return None


def lease_shard(store: Store, damaged: Container[str] = ()) -> Lease:
    """Return a shard that nobody else on this machine writes: an older one, or else a new one.

    Raises:
        StoreError: The lock cannot be written.
    """
    folder = store.lock_folder()
    for path in sorted(folder.glob("*.lock")):
        lease = None if path.stem in damaged else _try(path)
        if lease is not None:
            # A mark says that somebody lives who lost the lock, or died and left runs behind.
            if LiveMark(store, lease.shard).get() is None:
                return lease
            lease.release()
    while True:
        # Somebody who looks for a shard at this moment may find the new file, and be faster.
        new = _try(folder / f"{uuid.uuid4().hex[:16]}.lock")
        if new is not None:
            return new


def _try(path: Path) -> Lease | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise StoreError(f"{path} cannot be opened: {exc.strerror}; mend its permissions") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as exc:
        os.close(descriptor)
        raise StoreError(
            f"{path} cannot be locked: {exc.strerror}; use another file system"
        ) from exc
    return Lease(path.stem, descriptor)
