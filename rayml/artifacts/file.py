"""Files: any file, folder or bytes, kept as they are; and local copies of any artifact."""

from __future__ import annotations

import atexit
import io
import os
import shutil
import tempfile
import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from rayml.artifacts.digests import add_files
from rayml.artifacts.record import ArtifactRecord, FileRecord, add_file, check_name, type_name
from rayml.artifacts.reference import read_reference, save_reference
from rayml.errors import SpecError
from rayml.store import read_blob

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.store import Store

_COPYING = threading.Lock()


def save_file(store: Store, name: str, source: str | Path | bytes) -> ArtifactRecord:
    """Store a file, a folder with all that is below it, or bytes, and return the record.

    Files are read in constant memory; those of a folder side by side, and not again when it is
    logged again, unless they were changed (see `rayml.artifacts.digests`). A link in a folder is
    followed if it stays there.

    Args:
        store: Where the bytes go; nothing is recorded unless all of them got there.
        name: The artifact's name; bytes are also called by its last segment.
        source: A path, or the bytes themselves.

    Raises:
        SpecError: There is no such file, the folder is empty, a link leads out of it or in a
            circle, or something in it is no file.
    """
    check_name(name)
    if isinstance(source, bytes | bytearray | memoryview):
        blob = store.add(io.BytesIO(source))
        file = FileRecord(path=name.rpartition("/")[2], digest=blob.digest, size=blob.size)
        return ArtifactRecord(name=name, kind="file", format="bytes", files=[file], meta={})
    if not isinstance(source, str | Path):
        raise SpecError(f"file {name!r} is a {type_name(source)}; pass a path or bytes")
    path = Path(source).expanduser().absolute()
    meta: dict[str, object] = {"source": str(path).encode("utf-8", "replace").decode()}
    if path.is_dir():
        files = add_files(store, path, list(_walk(path)))
        return ArtifactRecord(name=name, kind="file", format="folder", files=files, meta=meta)
    if not path.is_file():
        raise SpecError(f"file {name!r}: there is no file {str(path)!r}; check the path")
    files = [add_file(store, path, path.name)]
    return ArtifactRecord(name=name, kind="file", format="file", files=files, meta=meta)


def refer_to(name: str, uri: str | Path) -> ArtifactRecord:
    """Return the record of data that stays where it is: see `save_reference`."""
    return save_reference(name, uri, _walk)


def load_file(store: Store, record: ArtifactRecord, place: int = 0) -> bytes:
    """Return the bytes of one of an artifact's files, checked against their digest."""
    return b"".join(_read(store, record, record.files[place]))


def copy_files(store: Store, record: ArtifactRecord, target: Path) -> Path:
    """Copy an artifact's files to a new path: all of them, checked, or nothing.

    One file becomes that path itself; several, or a folder's, lie below it.

    Raises:
        ArtifactCorrupt: The stored bytes are not those that were logged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".rayml-") as beside:
        copy = Path(beside) / "copy"
        if is_folder(record):
            _copy_each(store, record, copy)
        else:
            _fetch(store, record, record.files[0], copy)
        copy.rename(target)
    return target


def local_copy(store: Store, record: ArtifactRecord, digest: str) -> Path:
    """Return this process's own copy of an artifact's files, made at the first call.

    Do not change it: later calls return the same files. It is gone when the process ends.
    """
    kept = local_folder() / digest
    target = kept if is_folder(record) else kept / Path(record.files[0].path).name
    with _COPYING:
        return target if target.exists() else copy_files(store, record, target)


def is_folder(record: ArtifactRecord) -> bool:
    """Whether a copy of the artifact is a folder, not one file."""
    return record.format == "folder" or len(record.files) > 1


@lru_cache(maxsize=1)
def local_folder() -> Path:
    """Return the folder of this process's local copies, which is removed at exit."""
    folder = Path(tempfile.mkdtemp(prefix="rayml-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _read(store: Store, record: ArtifactRecord, file: FileRecord) -> Iterator[bytes]:
    return read_reference(record, file) if record.reference else read_blob(store, file.digest)


def _fetch(store: Store, record: ArtifactRecord, file: FileRecord, path: Path) -> None:
    """Copy a file to a path in a folder that is gone if this fails."""
    with path.open("wb") as copy:
        for chunk in _read(store, record, file):
            copy.write(chunk)


def _copy_each(store: Store, record: ArtifactRecord, folder: Path) -> None:
    fetched = folder.with_name("file")
    for file in record.files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        # Through a short name: that of the copy may be as long as the file system allows.
        _fetch(store, record, file, fetched)
        fetched.rename(target)


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield what lies below a folder: paths relative to it, in order, and where to read them."""
    real = os.path.realpath(root)
    found = sorted(_below(str(root), "", (real,)), key=lambda name: name.split("/"))
    if not found:
        raise SpecError(f"folder {str(root)!r} holds no file; log it when it does")
    for name in found:
        yield name, root / name


def _below(root: str, prefix: str, above: tuple[str, ...]) -> Iterator[str]:
    """Yield the files below a folder by name; `above` is where it and those around it really are.

    Most files are no links, and of these nothing is asked that their folder does not tell.
    """
    with os.scandir(f"{root}/{prefix}") as entries:
        for entry in entries:
            found: os.DirEntry[str] | Path = entry
            real = f"{above[-1]}/{entry.name}"
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
                found = Path(real)
                _check_link(entry.path, real, root, above)
            if found.is_dir():
                yield from _below(root, f"{prefix}{entry.name}/", (*above, real))
            elif found.is_file():
                yield prefix + entry.name
            else:
                raise SpecError(
                    f"{entry.path!r} is neither a file nor a folder; log the others one by one"
                )


def _check_link(path: str, real: str, root: str, above: tuple[str, ...]) -> None:
    if not Path(real).is_relative_to(above[0]):
        raise SpecError(f"link {path!r} leads out of {root!r}; copy what it means instead")
    if real in above:
        raise SpecError(f"link {path!r} leads in a circle; remove it")
