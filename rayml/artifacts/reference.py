"""Data that stays where it is: what is kept is its URI, and each file's digest and size.

The bytes are read once to know them, and checked against their digests whenever they are read. If
they were changed or removed meanwhile, reading says so; nothing brings them back.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from rayml.artifacts.record import ArtifactRecord, FileRecord, check_name
from rayml.errors import (
    ArtifactCorrupt,
    NotFound,
    SpecError,
    StoreError,
    StoreUnreachable,
    suggestion,
)
from rayml.store import open_store
from rayml.store.base import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_WEB = ("http", "https")
_BUCKETS = ("s3", "s3a", "gs", "az", "abfs", "abfss")
_SILENCE_S = 60


def save_reference(
    name: str, uri: str | Path, walk: Callable[[Path], Iterable[tuple[str, Path]]]
) -> ArtifactRecord:
    """Read data where it is, and return its record; nothing is copied.

    Args:
        name: The artifact's name.
        uri: A file or folder; an object or prefix in a bucket; or one file on the web.
        walk: Yields the files below a folder.

    Raises:
        SpecError: There is no such data, or the URI is none that can be read or kept.
        StoreUnreachable: Whatever holds it does not answer.
    """
    check_name(name)
    place = _check_place(name, str(uri))
    try:
        paths = _list_files(place, walk)
        if paths is None:
            files = [_measure(place, _last_segment(place))]
        else:
            files = [_measure(f"{place}/{path}", path) for path in paths]
    except NotFound as exc:
        raise SpecError(f"reference {name!r}: there is no {place!r}; check it") from exc
    return ArtifactRecord(
        name=name,
        kind="file",
        format="file" if paths is None else "folder",
        files=files,
        meta={},
        reference=place,
    )


def read_reference(record: ArtifactRecord, file: FileRecord) -> Iterator[bytes]:
    """Yield the bytes of one of an artifact's files from where they stay, checked.

    Raises:
        NotFound: They are not there any more.
        ArtifactCorrupt: After the last chunk, when they are others than were referred to: do not
            use what came before until the iteration has ended.
        StoreError: Whatever holds them cannot be read.
    """
    is_folder = record.format == "folder"
    place = f"{record.reference}/{file.path}" if is_folder else record.reference
    checksum = hashlib.sha256()
    for chunk in _read(place):
        checksum.update(chunk)
        yield chunk
    if checksum.hexdigest() != file.digest:
        raise ArtifactCorrupt(
            f"{place} holds other bytes than when artifact {record.uri} referred to it (their "
            f"SHA-256 is {checksum.hexdigest()[:12]}, not {file.digest[:12]}); log it anew"
        )


def read_web(uri: str) -> Iterator[bytes]:
    """Yield what a web server answers.

    Raises:
        NotFound: It refuses.
        StoreUnreachable: It does not answer, or not to the end.
    """
    request = Request(uri, headers={"User-Agent": "rayml"})  # noqa: S310 - the caller has checked it
    count, length = 0, None
    try:
        with urlopen(request, timeout=_SILENCE_S) as answer:  # noqa: S310
            length = answer.headers["Content-Length"]
            while chunk := answer.read(CHUNK_BYTES):
                count += len(chunk)
                yield chunk
    except HTTPError as exc:
        raise NotFound(f"{uri} answered {exc.code} {exc.reason}; check the URI") from exc
    except (URLError, OSError) as exc:
        raise StoreUnreachable(f"{uri} did not answer: {exc}; check the network") from exc
    # A connection that breaks off looks like the end of the file.
    if length is not None and count != int(length):
        raise StoreUnreachable(f"{uri} broke off after {count} of {length} bytes; try again")


def _check_place(name: str, uri: str) -> str:
    """Return an absolute path, or a URI that may be kept."""
    scheme, is_uri, _ = uri.partition("://")
    if not is_uri or scheme == "file":
        path = unquote(urlsplit(uri).path) if is_uri else uri
        return str(Path(path).expanduser().absolute())
    if scheme not in (*_WEB, *_BUCKETS):
        known = suggestion(scheme, ("file", *_WEB, *_BUCKETS))
        raise SpecError(f"reference {name!r}: rayml cannot read from {scheme!r} URIs; {known}")
    parts = urlsplit(uri)
    if parts.password or "signature=" in parts.query.lower() or "sig=" in parts.query.lower():
        raise SpecError(
            f"reference {name!r}: its URI holds a password or signature, which the run's record "
            "would keep; set the credentials in the environment"
        )
    return uri.rstrip("/") if scheme in _BUCKETS else uri


def _list_files(
    place: str, walk: Callable[[Path], Iterable[tuple[str, Path]]]
) -> list[str] | None:
    """Return the files below a place, relative to it; None if it is one file itself."""
    scheme = place.partition("://")[0]
    if scheme in _WEB:
        return None
    if scheme not in _BUCKETS:
        return [path for path, _ in walk(Path(place))] if Path(place).is_dir() else None
    parent, _, key = place.rpartition("/")
    store = open_store(parent)
    if store.size(key) is not None:
        return None
    prefix = f"{key}/"
    found = [listed.removeprefix(prefix) for listed in store.list(prefix)]
    if not found:
        raise NotFound(f"there is no {place!r}; check the URI")
    return found


def _last_segment(place: str) -> str:
    is_web = place.startswith(("http://", "https://"))
    path = unquote(urlsplit(place).path) if is_web else place
    return path.rpartition("/")[2] or "file"


def _measure(place: str, path: str) -> FileRecord:
    checksum, size = hashlib.sha256(), 0
    for chunk in _read(place):
        checksum.update(chunk)
        size += len(chunk)
    return FileRecord(path=path, digest=checksum.hexdigest(), size=size)


def _read(place: str) -> Iterator[bytes]:
    scheme = place.partition("://")[0]
    if scheme in _WEB:
        return read_web(place)
    if scheme in _BUCKETS:
        parent, _, key = place.rpartition("/")
        return open_store(parent).chunks(key)
    return _read_path(Path(place))


def _read_path(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except FileNotFoundError as exc:
        raise NotFound(f"{path} is not on this machine, or not any more; check it") from exc
    except OSError as exc:
        raise StoreError(f"{path} cannot be read: {exc.strerror}; mend it") from exc
