"""All files of a folder, stored side by side; those that have not changed are not even read.

As git does in its index, the digests of a large folder's files are kept in the user's cache
directory beside each file's size, inode and times of change. An entry is believed only if

- all of these are the same as when the file was read, and the times were then more than two
  seconds past, so that a later write cannot have left them as they were;
- the file is not open in this process as shared memory (`numpy.memmap`): such writes may leave no
  trace in the times. Those of other processes do so as well until they are flushed; log what they
  write when they have done so;
- the store says that it has the blob.

Whatever is not believed is read again. The cache may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rayml.artifacts.record import FileRecord, add_file
from rayml.config import cache_folder
from rayml.errors import SpecError
from rayml.store import Blob

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rayml.store import Store

_THREADS = 8  # small files wait for the store, not for the processor
_WORTH_BYTES = 64 * 1024 * 1024  # less is hashed in a moment, and leaves no trace in the cache
_RACY_NS = 2_000_000_000  # the coarsest clock of a file system: FAT's

_logger = logging.getLogger(__name__)


class _Mark(msgspec.Struct, frozen=True, array_like=True):
    """What of a file changes when its bytes do. Unlike mtime, ctime cannot be set back."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


class _Known(msgspec.Struct, frozen=True, array_like=True):
    mark: _Mark
    digest: str


def add_files(store: Store, folder: Path, files: Sequence[tuple[str, Path]]) -> list[FileRecord]:
    """Store a folder's files and return their records, in the order given.

    After an interruption the files that had been stored are not sent again.

    Args:
        store: Where the bytes go.
        folder: By which it is known again.
        files: Their paths inside the artifact, and where to read them.
    """
    started_ns = time.time_ns()
    marks = {name: _mark(path) for name, path in files}
    if sum(mark.size for mark in marks.values()) < _WORTH_BYTES:
        return _add_each(store, files)
    kept = _cache_file(folder)
    known = _unchanged(_load(kept), marks)
    gone = store.missing(known.values())
    new = [file for file in files if file[0] not in known or known[file[0]] in gone]
    added = {record.path: record for record in _add_each(store, new)}
    records = [added.get(name) or _record(name, known[name]) for name, _ in files]
    settled = {
        record.path: _Known(marks[record.path], record.digest)
        for record in records
        if _is_settled(marks[record.path], record.size, started_ns)
    }
    _keep(kept, settled)
    return records


def _add_each(store: Store, files: Sequence[tuple[str, Path]]) -> list[FileRecord]:
    pool = ThreadPoolExecutor(_THREADS)
    try:
        return list(pool.map(lambda file: add_file(store, file[1], file[0]), files))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error the rest is not begun


def _record(name: str, blob: Blob) -> FileRecord:
    return FileRecord(path=name, digest=blob.digest, size=blob.size)


def _mark(path: Path) -> _Mark:
    try:
        found = path.stat()
    except OSError as exc:
        raise SpecError(f"file {str(path)!r} cannot be read: {exc.strerror}; mend it") from exc
    return _Mark(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)


def _is_settled(mark: _Mark, size: int, started_ns: int) -> bool:
    return mark.size == size and max(mark.mtime_ns, mark.ctime_ns) < started_ns - _RACY_NS


def _unchanged(known: Mapping[str, _Known], marks: Mapping[str, _Mark]) -> dict[str, Blob]:
    mapped = _mapped_inodes()
    return {
        name: Blob(known[name].digest, mark.size)
        for name, mark in marks.items()
        if name in known and known[name].mark == mark and mark.inode not in mapped
    }


def _mapped_inodes() -> set[int]:
    """Return the inodes of the files that this process may write to as memory."""
    lines = Path("/proc/self/maps").read_text("utf-8", "replace").splitlines()
    fields = [line.split(maxsplit=5) for line in lines]
    return {int(inode) for _, flags, _, _, inode, *_ in fields if flags[1::2] == "ws"}


def _cache_file(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    return cache_folder() / "digests" / f"{name}.json"


def _load(kept: Path) -> dict[str, _Known]:
    try:
        return msgspec.json.decode(kept.read_bytes(), type=dict[str, _Known])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as exc:
        _logger.info("the digests in %s are not used: %s", kept, exc)
        return {}


def _keep(kept: Path, known: Mapping[str, _Known]) -> None:
    """Replace what is kept of a folder, in one step: other processes may do the same."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
            file.write(msgspec.json.encode(known))
        Path(file.name).replace(kept)
    except OSError as exc:
        _logger.info("the digests of a folder are not kept in %s: %s", kept, exc)
