"""A hint beside the journal that a shard has a writer, so that a dead one is found quickly."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from rayml.errors import NotFound
from rayml.store.condemned import read_clock
from rayml.tracker.segments import Owner

if TYPE_CHECKING:
    from rayml.store import Store

STALE_S = 600.0


class LiveMark:
    """Names the process that a shard lives and dies with."""

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

    def is_stale(self) -> bool:
        """Tell whether the mark was not renewed for ten minutes, by the clock of the store.

        This machine's clock only decides whether it is worth asking.

        Raises:
            StoreError: The store cannot be read or written.
        """
        set_at = self._store.modified(self._key)
        if set_at is None or time.time() - set_at < STALE_S:
            return False
        return read_clock(self._store) - set_at >= STALE_S

    def clear(self) -> None:
        """Say that nobody writes the shard."""
        self._store.delete(self._key)


def live_shards(store: Store) -> list[str]:
    """Return the shards that have a writer, or had one that died."""
    return [k.removeprefix("live/").removesuffix(".json") for k in store.list("live/")]
