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
from typing import TYPE_CHECKING

from rayml.errors import StoreError
from rayml.tracker.live import LiveMark, live_shards

if TYPE_CHECKING:
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


def lease_shard(store: Store) -> Lease:
    """Return a shard that nobody else on this machine writes: an older one, or else a new one.

    Raises:
        StoreError: The lock cannot be written.
    """
    folder = store.lock_folder()
    for path in sorted(folder.glob("*.lock")):
        lease = _try(path)
        if lease is not None:
            # A mark says that somebody lives who lost the lock, or died and left runs behind.
            if LiveMark(store, lease.shard).get() is None:
                return lease
            lease.release()
    new = _try(folder / f"{uuid.uuid4().hex[:16]}.lock")
    if new is None:
        raise StoreError(f"no file below {folder} can be locked; use another file system")
    return new


def own_shard(store: Store, owner: Owner) -> str | None:
    """Return the shard that this owner's tracker was writing when it died, if it has one.

    Raises:
        StoreError: The store cannot be read.
    """
    marks = ((shard, LiveMark(store, shard).get()) for shard in live_shards(store))
    return next((shard for shard, found in marks if found == owner), None)


def _try(path: Path) -> Lease | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise StoreError(f"{path} cannot be opened: {exc.strerror}; mend its permissions") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return Lease(path.stem, descriptor)
