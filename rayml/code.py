"""A job's folder as one archive, so that a cluster which does not see this disk can run it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from rayml.errors import SpecError
from rayml.store import fetch_blob, read_blob

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.store import Store

MAX_BYTES = 512 * 1024 * 1024
_SKIPPED = frozenset({".git", ".venv", "venv", "__pycache__", ".rayml", "node_modules"})
# The same files must give the same bytes, or nothing would ever be found again by its content.
_TIME = (1980, 1, 1, 0, 0, 0)


def pack_folder(folder: Path, store: Store, needed: str | None = None) -> str:
    """Store a folder's files and return the archive's digest; the same content is stored once.

    What git ignores is left out, unless that is the whole folder; virtual environments and caches
    always are.

    Args:
        folder: What to pack.
        store: Where to.
        needed: A file in it that comes along whatever git thinks of it: the job itself.

    Raises:
        SpecError: The files are larger than 512 MiB in all.
        StoreError: The store refused.
    """
    files = sorted({*_files(folder), *([needed] if needed else [])})
    size = sum((folder / name).stat().st_size for name in files)
    if size > MAX_BYTES:
        raise SpecError(
            f"the folder {folder} has {size:,} bytes in {len(files):,} files and a job's code may "
            f"have {MAX_BYTES:,}; set working_dir to a smaller one, or name its data in .gitignore"
        )
    with tempfile.TemporaryFile() as archive:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in files:
                _add(packed, folder, name)
        archive.seek(0)
        return store.add(archive).digest


def renew_folder(store: Store, digest: str) -> str:
    """Store an archive anew for another run, so that it does not go when the first one's does.

    Raises:
        ArtifactCorrupt: The store holds other bytes than were packed.
        StoreError: The store cannot be read, or refused.
    """
    with tempfile.TemporaryFile() as archive:
        archive.writelines(read_blob(store, digest))
        archive.seek(0)
        return store.add(archive).digest


def unpacked_folder(digest: str) -> Path:
    """Return where `unpack_folder` puts an archive's files, on each machine."""
    return Path(tempfile.gettempdir()) / f"rayml-{os.getuid()}" / "code" / digest


def unpack_folder(store: Store, digest: str) -> Path:
    """Return a local folder with an archive's files; equal archives share one.

    Raises:
        ArtifactCorrupt: The store holds other bytes than were packed.
    """
    target = unpacked_folder(digest)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        archive, files = Path(scratch, "code.zip"), Path(scratch, "files")
        fetch_blob(store, digest, archive)
        files.mkdir()  # there may be none in it
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(files)
        try:
            files.rename(target)
        except OSError:  # another job has just unpacked the same
            if not target.exists():
                raise
    return target


def _add(packed: zipfile.ZipFile, folder: Path, name: str) -> None:
    path = folder / name
    entry = zipfile.ZipInfo(name, _TIME)
    entry.external_attr = (path.stat().st_mode & 0o777) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    packed.writestr(entry, path.read_bytes())


def _files(folder: Path) -> Iterator[str]:
    listed = _git_files(folder)
    for name in _walk(folder) if listed is None else listed:
        if not _SKIPPED.intersection(name.split("/")) and (folder / name).is_file():
            yield name


def _git_files(folder: Path) -> list[str] | None:
    """Return what git would see below a folder, or None if it would not look there at all."""
    try:
        ignored = _git(folder, "check-ignore", "--quiet", ".")
        done = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    except FileNotFoundError:
        return None
    if ignored.returncode == 0 or done.returncode != 0:
        return None
    return os.fsdecode(done.stdout).split("\0")[:-1]


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    line = ["git", *words]
    return subprocess.run(line, cwd=folder, capture_output=True, check=False)


def _walk(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        for name in names:
            yield Path(parent, name).relative_to(folder).as_posix()
