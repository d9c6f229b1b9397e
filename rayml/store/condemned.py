"""How writers and the garbage collection keep out of each other's way, without waiting as a rule.

A writer that finds its bytes stored already does not send them again. Were they nobody's and being
deleted at that moment, its record would name what is not there. So:

- The collection deletes only blobs that no record names and that were stored more than `SPARED_S`
  ago, by the store's own clock. A writer does not rely on a blob older than `RENEWED_S`, which is
  half of that: it stores it anew, so that it is young again. What it relied on it has to record
  before the other half is over.
- There remains the writer that renews a blob in the moment between the collection's last look at
  it and its deletion. So the collection first writes down what it is about to delete, under `KEY`,
  then looks at each once more, and deletes. A writer first renews, then looks there. Whichever
  comes first, one of them sees the other: the collection sees that the blob is young, or the
  writer sees that it is condemned, waits until that is over, and stores it again.
- The list may come and go between the writer's two steps. It stays `Store.settle_s` longer than
  the last deletion took; a writer whose steps took longer looks whether the blob is there.
- A collection stops deleting `DELETING_S` after it has written the list, so that a list older than
  `STALE_S` belongs to one that died, and binds nobody. That the kernel holds it up for minutes
  between a look at its clock and the deletion right behind it is the one thing nobody guards
  against.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from rayml.errors import NotFound, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rayml.store.base import Store

KEY = "condemned.json"
SPARED_S = 7 * 86400.0
RENEWED_S = SPARED_S / 2
# One as old as this, and not older than the above, was not renewed a moment ago: it is safe.
SURE_S = 3600.0
DELETING_S = 60.0
STALE_S = 600.0
_POLL_S = 0.5


class _Condemned(msgspec.Struct):
    nonce: str
    digests: set[str]


def read_clock(store: Store) -> float:
    """Return the time by the store's own clock, in Unix seconds.

    Raises:
        StoreError: The store cannot be read or written.
    """
    key = f"clocks/{uuid.uuid4().hex}"
    store.put(key, b"")
    now = store.modified(key)
    store.delete(key)
    if now is None:
        raise StoreError(f"store {store.uri} lost {key} at once; is somebody emptying it?")
    return now


def monotonic_s() -> float:
    """Return seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def find_condemned(store: Store, digests: Iterable[str]) -> set[str]:
    """Return those of these blobs that are being deleted."""
    try:
        found = msgspec.json.decode(store.get(KEY), type=_Condemned).digests
    except (NotFound, msgspec.DecodeError):
        return set()
    named = found.intersection(digests)
    return named if named and not _is_stale(store) else set()


def wait_until_spared(store: Store, digest: str) -> bool:
    """Return when a blob is not being deleted, and whether it was."""
    was_condemned = False
    while find_condemned(store, [digest]):
        was_condemned = True
        time.sleep(_POLL_S)
    return was_condemned


@contextmanager
def condemn(store: Store, digests: Iterable[str]) -> Iterator[Callable[[], bool]]:
    """Announce that blobs are about to be deleted; yield what tells whether that is allowed still.

    Raises:
        StoreError: Another collection is deleting, or the store cannot be written.
    """
    began, nonce = monotonic_s(), uuid.uuid4().hex
    data = msgspec.json.encode(_Condemned(nonce, set(digests)))
    if not _take(store, data, nonce):
        raise StoreError(
            f"store {store.uri} is being collected already; wait, ten minutes at most if that died"
        )
    # After an error or Ctrl-C a deletion may be done yet: then the list stays until it is stale.
    yield lambda: monotonic_s() - began < DELETING_S
    _release(store, nonce)


def _take(store: Store, data: bytes, nonce: str) -> bool:
    if store.create(KEY, data) or _is_ours(store, nonce):
        return True
    dead = _find_nonce(store)
    # Of several that find the list stale, one removes it, or it could remove another's new one.
    if dead is None or not _is_stale(store) or not store.create(f"probes/{dead}-dead", b""):
        return False
    store.delete(KEY)
    return store.create(KEY, data) or _is_ours(store, nonce)


def _release(store: Store, nonce: str) -> None:
    time.sleep(store.settle_s)
    if _is_ours(store, nonce):
        store.delete(KEY)


def _is_ours(store: Store, nonce: str) -> bool:
    return _find_nonce(store) == nonce


def _find_nonce(store: Store) -> str | None:
    try:
        data = store.get(KEY)
    except NotFound:
        return None
    try:
        return msgspec.json.decode(data, type=_Condemned).nonce
    except msgspec.DecodeError:  # it is damaged, and becomes stale as any other
        return hashlib.sha256(data).hexdigest()


def _is_stale(store: Store) -> bool:
    set_at = store.modified(KEY)
    return set_at is None or read_clock(store) - set_at >= STALE_S
