"""A store in a local folder.

obstore's local store never calls fsync, so that an acknowledged write could be lost with the
power. Hence this one: write aside, fsync, link into place (which fails if the name is taken), and
fsync the folder.

A file system without hard links (exFAT, and what mounts a bucket as a folder) is refused, by an
error that says so. Writing to the final name instead (O_EXCL) would show half an object to
readers, and leave it there after a crash; and a bucket is safer used as a bucket.
"""

# Paths are text here: of many small files, building `Path` objects took longer than all the rest.
# ruff: noqa: PTH104, PTH108, PTH116, PTH120, PTH123

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
import uuid
from contextlib import contextmanager, suppress
from os.path import dirname
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

from rayml.errors import NotFound, SpecError, StoreError
from rayml.store.base import CHUNK_BYTES, Blob, Stat, Store, blob_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_CAUSES = {
    errno.ENOSPC: "its disk is full; free some space and try again",
    errno.EDQUOT: "its disk quota is used up; free some space and try again",
    errno.EROFS: "it is on a read-only file system; choose another store",
    errno.EACCES: "this user may not write there; choose another store or mend its permissions",
    errno.EPERM: "this user may not write there; choose another store or mend its permissions",
    errno.ENOTDIR: "part of that path is a file; choose another store",
    errno.EOPNOTSUPP: "its file system has no hard links, which let one writer take a name; "
    "choose a folder on another disk, or a bucket",
}
_BUFFER_BYTES = 256 * 1024
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_NOT_PLAIN = re.compile(r"(?:^|/)\.{0,2}(?:/|\Z)|\0")
_own = threading.local()
_STAGED = re.compile(r"\.[0-9a-f]{32}")
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class Folder(Store):
    """A store in a local folder, which is made when something is first written."""

    is_local = True
    settle_s = 0.0

    def __init__(self, root: Path) -> None:
        """Take the folder as the root of the store."""
        self.root = root.resolve()
        self.uri = str(self.root)

    def get(self, key: str) -> bytes:
        with self._reading(key), open(self._path(key), "rb", buffering=0) as file:
            return file.read()

    def chunks(self, key: str) -> Iterator[bytes]:
        with self._reading(key), open(self._path(key), "rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def stat(self, key: str) -> Stat | None:
        try:
            with self._reading(key):
                found = os.stat(self._path(key))
        except NotFound:
            return None
        return Stat(found.st_size, found.st_mtime) if S_ISREG(found.st_mode) else None

    def lock_folder(self) -> Path:
        with self._writing():
            self._make(f"{self.uri}/.locks")
        return self.root / ".locks"

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with self._writing(), self._staged(dirname(path)) as (staged, descriptor):
            _write_all(descriptor, data)
            return _publish(staged, descriptor, path)

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with self._writing(), self._staged(dirname(path)) as (staged, descriptor):
            _write_all(descriptor, data)
            os.fsync(descriptor)
            os.rename(staged, path)
            _sync_folder(dirname(path))

    def delete(self, key: str) -> None:
        with self._writing():
            _remove(self._path(key))

    def folders(self, prefix: str) -> list[str]:
        self._check_root()
        with self._reading(prefix), suppress(FileNotFoundError):
            folder = self._path(prefix.rstrip("/"))
            return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        return []

    def list(self, prefix: str, after: str = "") -> list[str]:
        self._check_root()
        with self._reading(prefix):
            folder = self._path(prefix.rstrip("/")) if prefix else self.uri
            names = _walk(folder, prefix)
            return sorted(key for key in names if key > after)

    def open(self, key: str) -> BinaryIO:
        with self._reading(key):
            return open(self._path(key), "rb")

    def unfinished(self) -> dict[str, Stat]:
        found = {}
        for parent, _, names in os.walk(self.root):
            for name in filter(_STAGED.fullmatch, names):
                key = Path(parent, name).relative_to(self.root).as_posix()
                if (stat := self.stat(key)) is not None:
                    found[key] = stat
        return found

    def _keep(self, source: BinaryIO) -> tuple[Blob, bool]:
        checksum, size, buffer = hashlib.sha256(), 0, _own_buffer()
        with self._writing(), self._staged(f"{self.uri}/blobs") as (staged, descriptor):
            while count := source.readinto(buffer):  # type: ignore[attr-defined]
                checksum.update(buffer[:count])
                _write_all(descriptor, buffer[:count])
                size += count
            blob = Blob(checksum.hexdigest(), size)
            path = self._path(blob_key(blob.digest))
            if not (_renew(staged, descriptor, path) or self._publish(staged, descriptor, path)):
                os.utime(path)  # somebody else has just stored the same
            return blob, False

    def _publish(self, staged: str, descriptor: int, path: str) -> bool:
        """Give a blob its name, in a folder that may not be there yet."""
        try:
            return _publish(staged, descriptor, path)
        except FileNotFoundError:
            self._make(dirname(path))
            return _publish(staged, descriptor, path)

    def _check_root(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            cause = _CAUSES[errno.ENOTDIR]
            raise StoreError(f"store {self.uri} could not be read: {cause}")

    def _path(self, key: str) -> str:
        if _NOT_PLAIN.search(key):
            raise SpecError(f"{key!r} is not a key of a store; use plain names joined by slashes")
        return f"{self.uri}/{key}"

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as exc:
            raise NotFound(
                f"store {self.uri} has no {key!r}; check the name and the store"
            ) from exc
        except OSError as exc:
            raise StoreError(f"store {self.uri} could not be read: {exc}; check the disk") from exc

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            cause = _CAUSES.get(exc.errno or 0, f"{exc}; check the disk")
            raise StoreError(f"store {self.uri} could not be written: {cause}") from exc

    @contextmanager
    def _staged(self, folder: str) -> Iterator[tuple[str, int]]:
        """Open a file for writing beside its final place; it never outlives the block."""
        staged = f"{folder}/.{uuid.uuid4().hex}"
        try:
            descriptor = os.open(staged, _NEW, 0o644)
        except FileNotFoundError:
            self._make(folder)
            descriptor = os.open(staged, _NEW, 0o644)
        try:
            yield staged, descriptor
        finally:
            os.close(descriptor)
            _remove(staged)

    def _make(self, folder: str) -> None:
        if not self.root.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            # A store inside a project is data, not source.
            (self.root / ".gitignore").write_text("*\n")
        path = Path(folder)
        missing = [p for p in (path, *path.parents) if not p.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for made in missing:
            _sync_folder(str(made.parent))


def _own_buffer() -> memoryview:
    """Return this thread's buffer: to fill a new one with zeros takes as long as to write it."""
    if not hasattr(_own, "buffer"):
        _own.buffer = memoryview(bytearray(_BUFFER_BYTES))
    found: memoryview = _own.buffer
    return found


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _publish(staged: str, descriptor: int, path: str) -> bool:
    os.fsync(descriptor)
    try:
        os.link(staged, path)
    except FileExistsError:
        return False
    except OSError as exc:
        # EPERM at this point is Linux's word for it: the same folder has just taken a file.
        raise OSError(errno.EOPNOTSUPP if exc.errno in _NO_LINKS else exc.errno, str(exc)) from exc
    _sync_folder(dirname(path))
    return True


def _renew(staged: str, descriptor: int, path: str) -> bool:
    """Make a blob that is there young again; False if it is not there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except PermissionError:  # it is another user's, and so may be its folder
        os.fsync(descriptor)
        os.rename(staged, path)
    _sync_folder(dirname(path))  # whoever linked it may not have come so far
    return True


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(folder: str, prefix: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name
