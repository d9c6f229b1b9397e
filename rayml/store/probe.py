"""Whether a store can be trusted, and whose it is: its format marker, and the proof behind it.

The journal is safe from a second writer only where a `create` is refused once the key is taken.
Some servers ignore that condition and overwrite (`rclone serve s3` does); there two trackers would
both believe that they had written. So a store is tried once, before anything is written to it:

- `check_store` before writing. The first time ever it tries the promise with keys below `probes/`
  and then leaves the marker `rayml.json`; from then on it costs one GET, and in a process that has
  checked the store before, nothing.
- `check_format` before reading: one GET, and nothing is written.

The marker is JSON: `{"format": 1, "probed": "<time>", "id": "<random>"}`. A store without one is
empty, or is older than markers; both are read as format 1. A copy of a store takes its marker
along; until it is complete it has another, `{"format": 1, "copying": …}`, and is not to be used.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rayml.errors import NotFound, StoreError

if TYPE_CHECKING:
    from rayml.store.base import Store

FORMAT = 1
MARKER = "rayml.json"
COPYING = "copying"

_RACERS = 8
_trusted: set[bytes] = set()


def check_store(store: Store) -> None:
    """Make sure that a store may be written: its format is known, and it creates a key once.

    Raises:
        StoreError: It overwrites what is there, is another project's, is written by a newer rayml,
            or may not be written.
        StoreUnreachable: It is silent.
    """
    # What opens the same store is the same store: the URI alone leaves out whose server it is.
    identity = hashlib.sha256(pickle.dumps(store)).digest()
    if identity in _trusted:
        return
    if not check_format(store):
        probe_store(store)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        marker = {"format": FORMAT, "probed": now, "id": uuid.uuid4().hex}
        if not store.create(MARKER, json.dumps(marker).encode()):
            check_format(store)  # another process's marker, or our own whose answer was lost
    _trusted.add(identity)


def check_format(store: Store) -> bool:
    """Make sure that this rayml can read a store; return whether it bears rayml's marker.

    Raises:
        StoreError: It is another project's, or written by a newer rayml.
    """
    try:
        data = store.get(MARKER)
    except NotFound:
        return False
    found = _format(data)
    if found is None and _is_unfinished(data):
        raise StoreError(
            f"store {store.uri} is an unfinished copy of another; finish it by the same "
            "`rayml store copy`, or use the other"
        )
    if found is None:
        raise StoreError(
            f"store {store.uri} is another project's: its {MARKER} is not rayml's; "
            "choose another folder or prefix"
        )
    if found > FORMAT:
        raise StoreError(
            f"store {store.uri} has the format {found}, and this rayml knows {FORMAT}; "
            "upgrade rayml"
        )
    return True


def _is_unfinished(data: bytes) -> bool:
    try:
        marker = json.loads(data)
    except ValueError:
        return False
    return isinstance(marker, dict) and COPYING in marker


def _format(data: bytes) -> int | None:
    try:
        marker = json.loads(data)
    except ValueError:
        return None
    if not isinstance(marker, dict) or "probed" not in marker:
        return None
    found = marker.get("format")
    return found if type(found) is int and found >= 1 else None


def probe_store(store: Store) -> None:
    """Try whether a store may be written and creates a key once; nothing of it stays.

    Raises:
        StoreError: It overwrites what is there, or may not be written.
        StoreUnreachable: It is silent.
    """
    name = f"probes/{uuid.uuid4().hex}"
    keys = [f"{name}-twice", f"{name}-race"]
    fault = _overwrites(store, keys[0]) or (
        not store.is_local and _has_two_winners(store, keys[1])
    )
    for key in keys:
        store.delete(key)
    if fault:
        raise StoreError(
            f"store {store.uri} {fault}, so that two writers could destroy each other's records; "
            "use a server that honours If-None-Match on PUT (S3, GCS, Azure, MinIO, SeaweedFS "
            "from 4.17 on), or a folder"
        )


def _overwrites(store: Store, key: str) -> str:
    # An answer may get lost, and then a create says False of its own object. So what counts is not
    # who was told to have won, but that nobody was told so wrongly.
    store.create(key, b"first")
    if store.create(key, b"second") or store.get(key) != b"first":
        return "overwrites a key that is taken"
    return ""


def _has_two_winners(store: Store, key: str) -> str:
    def race(number: int) -> bool:
        return store.create(key, b"%d" % number)

    with ThreadPoolExecutor(_RACERS) as pool:
        won = [number for number, is_won in enumerate(pool.map(race, range(_RACERS))) if is_won]
    if len(won) > 1 or (won and store.get(key) != b"%d" % won[0]):
        return f"let {len(won)} of {_RACERS} writers create the same key at once"
    return ""
