"""What people change about runs and models after the fact: one small log for the whole store.

A shard of the journal has a single writer, the tracker of its runs. The catalog has many: whoever
names a model, moves an alias, or archives a run from a laptop, with no tracker at hand. Each entry
is a numbered object that is created once, a line of JSON and its CRC-32:

    catalog/000000000017.json
        {"format":1,"seq":17,"nonce":…,"time":…,"by":…,"change":{"type":"alias",…}}
        {"crc32":3735928559}

Of several writers of a number one wins; the others read what it wrote, decide again, and take the
next. So all changes have one order, each is there whole or not at all, and each was decided in
full knowledge of those before it.

The writer of every 256th entry also stores the state up to it, `catalog_states/000000000256.json`.
That is only a shortcut for readers: the entries stay.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from rayml.config import user_name
from rayml.errors import JournalCorrupt, StoreError, StoreUnreachable
from rayml.tracker.changes import CHANGE_TYPES, FORMAT, CatalogState, Change, Entry
from rayml.tracker.sealed import seal_line, unseal_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from rayml.store import Store

STATE_EVERY = 256
_MAX_RACES = 1000
_ENTRY_KEY = re.compile(r"catalog/(\d{12})\.json")
_STATE_KEY = re.compile(r"catalog_states/(\d{12})\.json")


class Catalog:
    """The catalog of a store, as of the last `refresh`. Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._state = CatalogState()
        self._lock = threading.RLock()

    def refresh(self) -> CatalogState:
        """Read what has come since the last call, and return what all entries amount to.

        Raises:
            JournalCorrupt: An entry is missing or not what was written; nothing has changed.
            StoreError: The store cannot be read.
        """
        with self._lock:
            keys = self._new_keys()
            if keys:
                state = self._state.copy()
                if len(keys) >= STATE_EVERY:
                    state = self._newest_state() or state
                for key in keys:
                    if _number(key) > state.seq:
                        self._fold(state, key)
                self._state = state
            return self._state

    def append(self, decide: Callable[[CatalogState], Change | None]) -> None:
        """Make one change durable; it is decided in full knowledge of all changes before it.

        Args:
            decide: Returns the change, or None if there is nothing to change; called again if
                somebody else's has come in between. It may raise, and then nothing changes.

        Raises:
            StoreUnreachable: The store is silent, and may or may not have kept the change.
            StoreError: The store cannot be written.
        """
        with self._lock:
            for _ in range(_MAX_RACES):
                change = decide(self.refresh())
                if change is None or self._write(_entry(self._state.seq + 1, change)):
                    return
        raise StoreError(
            f"store {self._store.uri} had another change {_MAX_RACES} times in a row; try again"
        )

    def _new_keys(self) -> list[str]:
        keys = self._store.list("catalog/", after=entry_key(self._state.seq))
        return [key for key in keys if _ENTRY_KEY.fullmatch(key)]

    def _write(self, entry: Entry) -> bool:
        if not self._create(entry):
            return False
        state = self._state.copy()
        state.add(entry)
        self._state = state
        # If one of the entries is unknown here, a newer rayml will store a later state.
        if state.seq % STATE_EVERY == 0 and not state.is_partial:
            with suppress(StoreError):  # the change is durable, and a shortcut can be missed
                self._store.create(_state_key(state.seq), seal_line(msgspec.json.encode(state)))
        return True

    def _create(self, entry: Entry) -> bool:
        key, data = entry_key(entry.seq), seal_line(msgspec.json.encode(entry))
        try:
            is_created = self._store.create(key, data)
        except StoreUnreachable:
            is_created = self._store.create(key, data)
        # The store may have kept a try of ours whose answer was lost.
        return is_created or self._read(key).nonce == entry.nonce

    def _fold(self, state: CatalogState, key: str) -> None:
        entry = self._read(key)
        if _number(key) != state.seq + 1:
            raise _corrupt(entry_key(state.seq + 1), "is missing")
        if entry.seq != state.seq + 1:
            raise _corrupt(key, "is another one")
        state.add(entry)

    def _read(self, key: str) -> Entry:
        try:
            return _decode(unseal_line(self._store.get(key)))
        except (msgspec.DecodeError, ValueError) as exc:
            raise _corrupt(key, "is not what was written") from exc

    def _newest_state(self) -> CatalogState | None:
        """Return the newest stored state, if that is ahead of ours and can be read."""
        keys = self._store.list("catalog_states/", after=_state_key(self._state.seq))
        for key in filter(_STATE_KEY.fullmatch, reversed(keys)):
            try:
                state = msgspec.json.decode(unseal_line(self._store.get(key)), type=CatalogState)
            except (msgspec.DecodeError, ValueError):
                continue  # the entries themselves tell
            if state.format == FORMAT and _state_key(state.seq) == key:
                return state
        return None


_catalogs: dict[str, Catalog] = {}


def open_catalog(store: Store) -> Catalog:
    """Return this process's catalog of a store; nothing is read yet."""
    return _catalogs.setdefault(store.uri, Catalog(store))


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    seq: int
    nonce: str
    time: float
    by: str
    change: msgspec.Raw


class _Tag(msgspec.Struct):
    type: str


def _entry(seq: int, change: Change) -> Entry:
    return Entry(seq=seq, nonce=uuid.uuid4().hex, time=time.time(), by=user_name(), change=change)


def _decode(data: bytes) -> Entry:
    stored = msgspec.json.decode(data, type=_Stored)
    is_known = msgspec.json.decode(stored.change, type=_Tag).type in CHANGE_TYPES
    is_ours = is_known and stored.format <= FORMAT
    return Entry(
        format=stored.format,
        seq=stored.seq,
        nonce=stored.nonce,
        time=stored.time,
        by=stored.by,
        change=msgspec.json.decode(stored.change, type=Change) if is_ours else None,
    )


def check_entry(key: str, data: bytes) -> None:
    """Make sure that an entry is what was written; one of a newer rayml may hold anything.

    Raises:
        JournalCorrupt: It is not.
    """
    try:
        seq = _decode(unseal_line(data)).seq
    except (msgspec.DecodeError, ValueError) as exc:
        raise _corrupt(key, "is not what was written") from exc
    if key != entry_key(seq):
        raise _corrupt(key, f"is entry {seq}")


def check_state(key: str, data: bytes) -> None:
    """Make sure that a stored state is what was written.

    Raises:
        JournalCorrupt: It is not.
    """
    try:
        unseal_line(data)
    except ValueError as exc:
        raise _corrupt(key, "is not what was written") from exc


def entry_key(seq: int) -> str:
    """Return the key of an entry."""
    return f"catalog/{seq:012d}.json"


def _state_key(seq: int) -> str:
    return f"catalog_states/{seq:012d}.json"


def _number(key: str) -> int:
    return int(key[-17:-5])


def _corrupt(key: str, what: str) -> JournalCorrupt:
    return JournalCorrupt(f"catalog entry {key} {what}; restore it from a copy of the store")
