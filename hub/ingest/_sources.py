"""Which files there are to read: those of folders and archives, unpacked."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FORMATS = {
    **dict.fromkeys((".csv", ".txt", ".tsv", ".tab", ".psv"), "csv"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".feather", ".arrow", ".ipc"), "arrow"),
    **dict.fromkeys((".xlsx", ".xls", ".xlsb", ".ods"), "excel"),
    **dict.fromkeys((".sqlite", ".sqlite3"), "sqlite"),
    **dict.fromkeys((".duckdb", ".ddb"), "duckdb"),
}
_OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_TARS = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tbz2", ".txz")
_COPY_BYTES = 1024 * 1024


@dataclass(frozen=True)
class File:
    """One file to read.

    Attributes:
        path: Where it lies, unpacked.
        name: What people know it by.
        format: csv, json, parquet, arrow, excel, sqlite, duckdb, or memory.
        table: Of `memory`, the table itself.
    """

    path: Path
    name: str
    format: str
    table: Any = None


def files_of(source: rayml.Input, folder: Path, warnings: list[str]) -> Iterator[File]:
    """Yield the files of an input, in the order of their names.

    Raises:
        SpecError: None of them can be read.
    """
    if source.uri.startswith("memory://"):
        yield File(Path(), source.uri, "memory", source.to_pandas())
        return
    path = source.path()
    seen, skipped = 0, []
    for name, inside in _below(path):
        for file in _unpacked(name, inside, folder):
            if file.format:
                seen += 1
                yield file
            else:
                skipped.append(file.name)
    if not seen:
        known = ", ".join(_FORMATS)
        found = f"only {skipped[0]!r}" if skipped else "no file"
        raise rayml.SpecError(
            f"{source.uri} holds {found}, which is none to read; give files that end in {known}"
        )
    if skipped:
        warnings.append(f"{len(skipped):,} other files are not read, such as {skipped[0]!r}.")


def _below(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield path.name, path
        return
    for inside in sorted(path.rglob("*")):
        name = inside.relative_to(path).as_posix()
        # What begins with these is a program's own, as `_SUCCESS` and `.crc` are.
        if inside.is_file() and not any(part[0] in "._" for part in name.split("/")):
            yield name, inside


def _unpacked(name: str, path: Path, folder: Path) -> Iterator[File]:
    """Yield the file, or those that are packed in it."""
    lower = name.lower()
    try:
        if lower.endswith(_TARS):
            yield from _of_tar(name, path, folder)
        elif lower.endswith(".zip"):
            yield from _of_zip(name, path, folder)
        elif (opener := _OPENERS.get(Path(lower).suffix)) is not None:
            with opener(path) as packed:
                file = _written(name.rpartition(".")[0], packed, folder)
            yield file
            file.path.unlink()
        else:
            yield File(path, name, _format_of(path, lower))
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, OSError, EOFError) as exc:
        raise rayml.SpecError(f"{name!r} cannot be unpacked: {exc}; pack it anew") from exc


def _of_tar(name: str, path: Path, folder: Path) -> Iterator[File]:
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and (packed := archive.extractfile(member)) is not None:
                yield from _again(name, member.name, packed, folder)


def _of_zip(name: str, path: Path, folder: Path) -> Iterator[File]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.flag_bits & 1:
                raise rayml.SpecError(f"{name!r} asks for a password; unpack it first")
            if not member.is_dir():
                with archive.open(member) as packed:
                    yield from _again(name, member.filename, packed, folder)


def _again(archive: str, name: str, packed: IO[bytes], folder: Path) -> Iterator[File]:
    """Yield what is in an archive; archives in there as well."""
    if Path(name).name.startswith((".", "_")) or "__MACOSX" in name:
        return
    file = _written(f"{archive}/{name}", packed, folder)
    if file.format:
        yield file
    else:
        yield from _unpacked(file.name, file.path, folder)
    file.path.unlink()


def _written(name: str, packed: IO[bytes], folder: Path) -> File:
    """Write a file under a name of our own: an archive's may lead out of the folder."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix="unpacked", delete=False) as file:
        shutil.copyfileobj(packed, file, _COPY_BYTES)
    path = Path(file.name)
    return File(path, name, _format_of(path, name.lower()))


def _format_of(path: Path, name: str) -> str:
    """Return how a file is read, by its name; of a `.db` by its first bytes; "" for not at all."""
    suffix = Path(name).suffix
    if suffix != ".db":
        return _FORMATS.get(suffix, "")
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"SQLite format 3"):
        return "sqlite"
    return "duckdb" if start[8:12] == b"DUCK" else ""
