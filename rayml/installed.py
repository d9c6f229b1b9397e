"""Which packages an attempt finds installed, as a list that pip and uv install again.

The list is kept once for each environment: a blob in the store, which `Started` names.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import msgspec

from rayml.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.store import Store

_Folders: TypeAlias = tuple[tuple[str, int], ...]
# The collection of what nobody names spares a blob for far longer: see `rayml.store.condemned`.
_RENEW_S = 3600.0
_kept: dict[tuple[str, _Folders], tuple[float, str]] = {}
_keeping = threading.Lock()


class _Source(msgspec.Struct):
    """What `direct_url.json` says of a package that comes from no index (PEP 610)."""

    url: str
    vcs_info: dict[str, str] | None = None


def keep_installed(store: Store) -> str:
    """Store the list of what is installed for this process, unless it is; return its digest.

    Without an answer from the store it is empty: a run goes on without its list.
    """
    key = (store.uri, _folders())
    with _keeping, suppress(StoreError, OSError):
        stored_at, digest = _kept.get(key, (-_RENEW_S, ""))
        if time.monotonic() - stored_at >= _RENEW_S:
            digest = store.add(BytesIO(list_installed().encode())).digest
            _kept[key] = (time.monotonic(), digest)
        return digest
    return ""


def list_installed() -> str:
    """Return one line for each distribution on this process's search path, by name.

    One that was installed from a folder of its machine is a comment, as it is nowhere else.
    """
    found: dict[str, str] = {}
    for folder, _ in _folders():
        for name, line in _distributions(folder):
            found.setdefault(name, line)  # Python takes the first one, too
    return "".join(f"{found[name]}\n" for name in sorted(found))


def _folders() -> _Folders:
    """Return the search path, with the times at which something was installed there."""
    found = {}
    for folder in sys.path:
        with suppress(OSError):
            found[folder] = os.stat(folder or ".").st_mtime_ns  # noqa: PTH116 - on the way of each run
    return tuple(found.items())


def _distributions(folder: str) -> Iterator[tuple[str, str]]:
    """Yield name and line; both are in the name of the folder, which saves reading hundreds."""
    with suppress(OSError), os.scandir(folder or ".") as entries:
        for entry in entries:
            if entry.name.endswith(".dist-info"):
                name, _, version = entry.name.removesuffix(".dist-info").partition("-")
                name = name.replace("_", "-").lower()
                yield name, _line(name, version, Path(entry.path, "direct_url.json"))


def _line(name: str, version: str, source: Path) -> str:
    try:
        found = msgspec.json.decode(source.read_bytes(), type=_Source)
    except OSError:
        return f"{name}=={version}"
    except msgspec.DecodeError:
        return f"# {name}=={version} comes from somewhere else"
    url = urlsplit(found.url)
    bare = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()  # without a password
    if url.scheme == "file":
        return f"# {name}=={version} was installed from {bare}"
    if (vcs := found.vcs_info) is not None:
        return f"{name} @ {vcs.get('vcs', 'git')}+{bare}@{vcs.get('commit_id', '')}"
    return f"{name} @ {bare}"
