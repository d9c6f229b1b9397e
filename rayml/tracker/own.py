"""This process's own tracker of a store, for runs that need no Ray.

It stays open for a moment after its last run: a search over parameters makes thousands of short
ones, and to open a shard and leave it in good order takes longer than to record one of them.
"""

from __future__ import annotations

import os
import pickle
import threading
from contextlib import contextmanager
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING

import psutil

from rayml.processes import identify
from rayml.tracker.abandoned import close_abandoned
from rayml.tracker.client import LoopTransport
from rayml.tracker.lease import open_tracker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.store import Store

_IDLE_S = 2.0
_trackers: dict[tuple[int, bytes], OwnTracker] = {}


class OwnTracker:
    """A tracker in this process, opened by the first who needs it and closed after the last."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._users = 0
        self._lock = threading.Lock()
        self._transport: LoopTransport | None = None
        self._idle: threading.Timer | None = None

    def acquire(self) -> LoopTransport:
        """Return the way to it; `release` it afterwards.

        Raises:
            StoreError: The store cannot be read or written.
        """
        with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            if not self._users and self._transport and not self._transport.is_current():
                self._close()
            self._transport = self._transport or self._open()
            self._users += 1
            return self._transport

    def release(self) -> None:
        """Close it soon, unless it is acquired again."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._idle = threading.Timer(_IDLE_S, self.close)
                self._idle.daemon = True
                self._idle.start()

    def close(self) -> None:
        """Leave the shard in good order, unless somebody still writes to it."""
        with self._lock:
            if not self._users:
                self._close()

    def _open(self) -> LoopTransport:
        close_abandoned(self._store)
        tracker, self._lease = open_tracker(self._store, identify(psutil.Process()))
        return LoopTransport(tracker)

    def _close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
            self._lease.release()


def own_tracker(store: Store) -> OwnTracker:
    """Return this process's tracker of a store, which is opened when it is acquired."""
    # A forked child has none of its parent's threads, and a store may have other credentials.
    key = (os.getpid(), pickle.dumps(store))
    if key not in _trackers:
        tracker = _trackers.setdefault(key, OwnTracker(store))
        # Called in forked children as well, but by that process alone which made it.
        Finalize(None, tracker.close, exitpriority=10)
    return _trackers[key]


@contextmanager
def own_transport(store: Store) -> Iterator[LoopTransport]:
    """Give the way to this process's tracker of a store.

    Raises:
        StoreError: The store cannot be read or written.
    """
    tracker = own_tracker(store)
    transport = tracker.acquire()
    try:
        yield transport
    finally:
        tracker.release()


def close_idle() -> None:
    """Close this process's trackers that nobody writes to, now rather than soon."""
    for (pid, _), tracker in list(_trackers.items()):
        if pid == os.getpid():
            tracker.close()
