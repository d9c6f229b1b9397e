"""A store in S3, GCS or Azure; the only importer of obstore.

A request that fails is tried again, for as long as `Patience` says; then the call raises, saying
what to do. What a caller should know of a store that answers badly:

- A `create` whose answer was lost finds its own object when it is tried again, and returns False.
  Whoever must know (the journal) puts a nonce into the object and reads it back.
- A `create` or `delete` that raises `StoreUnreachable` may have been done, or may be done yet.
- S3's 409 (another writer is busy with that key) is not taken for an object that is there: it is
  looked for, and created again if it is not. Old MinIO's 304 means that it is there.
- An upload in parts becomes visible as a whole or not at all. One that is cut off begins again:
  obstore cannot go on with the parts that are there, which stay hidden until a lifecycle rule of
  the bucket (AbortIncompleteMultipartUpload) removes them. Files that were stored are not sent
  again.
- Azure has no `after` in its listings: there `list` reads the whole prefix and drops what comes
  before.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PreconditionError,
)
from obstore.store import from_url

from rayml.errors import NotFound, SpecError, StoreError, StoreUnreachable
from rayml.store.base import CHUNK_BYTES, Blob, Stat, Store, blob_key
from rayml.store.ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import BinaryIO

_CREDENTIALS = {
    "s3": (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
        "AWS_SKIP_SIGNATURE",
    ),
    "gs": (
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
    ),
    "az": (
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_KEY",
        "AZURE_STORAGE_TOKEN",
        "AZURE_STORAGE_ENDPOINT",
        "AZURE_STORAGE_USE_EMULATOR",
        "AZURE_CLIENT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_TENANT_ID",
    ),
}
_FAMILY = {"s3": "s3", "s3a": "s3", "gs": "gs", "az": "az", "abfs": "az", "abfss": "az"}

# What an answer means: the first pattern that fits it, our error, what happened, the way out.
_MEANINGS: tuple[tuple[str, type[StoreError], str, str], ...] = (
    (
        "^no credentials",
        StoreError,
        "cannot be used",
        "set AWS_*, GOOGLE_* or AZURE_* variables, or give this machine a role",
    ),
    ("NoSuchBucket|ContainerNotFound", StoreError, "has no bucket", "create it or check the URI"),
    ("NoSuchUpload", StoreUnreachable, "lost an upload", "try again"),
    (
        "^40[13]|Token",
        StoreError,
        "refused the credentials",
        "check the environment, when they expire and what they may do",
    ),
    ("^507|StorageFull|QuotaExceeded", StoreError, "is full", "free some space there"),
    ("^4", StoreError, "refused the request", "check the URI"),
    ("^5", StoreUnreachable, "failed", "check the server or try again later"),
    ("", StoreUnreachable, "did not answer", "check the URI and the network"),
)
# A 404 that is not about the object.
_GONE = ("NoSuchBucket", "ContainerNotFound", "NoSuchUpload")

_READ_BYTES = 1024 * 1024
_PART_BYTES = 2 * CHUNK_BYTES
_MAX_PARTS = 10_000  # S3's and GCS's limit for one object
_PARTS_AT_ONCE = 4
# Bounds the memory of a process that stores many large files, and what has to fit through a slow
# line before `silence_s` is over.
_UPLOADS = threading.BoundedSemaphore(2)
_TRIES = 5
_LOOKUPS = 8


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a store that fails is tried again.

    Attributes:
        first_s: Seconds for one that has not answered this process yet, so that a slip in the URI
            shows soon.
        later_s: Seconds for one that has: a server may restart within a minute.
        silence_s: Seconds until a request without an answer counts as lost. The sending of its
            bytes is part of it.
    """

    first_s: float = 15
    later_s: float = 75
    silence_s: float = 60


class Bucket(Store):
    """A prefix in a bucket, reached with the credentials of the environment that opened it."""

    is_local = False

    def __init__(
        self, uri: str, config: dict[str, str] | None = None, patience: Patience | None = None
    ) -> None:
        """Take the bucket and prefix of the URI; without a config, the environment's.

        Raises:
            SpecError: The URI or the credentials are malformed.
        """
        self.uri = uri.rstrip("/")
        self.config = _environment(uri) if config is None else config
        self.patience = patience or Patience()
        self._answered = False
        self._store = self._connect(self.patience.first_s)

    def __reduce__(self) -> tuple[type[Bucket], tuple[str, dict[str, str], Patience]]:
        return Bucket, (self.uri, self.config, self.patience)

    def get(self, key: str) -> bytes:
        with self._calling(key):
            return bytes(obstore.get(self._store, key).bytes())

    def chunks(self, key: str) -> Iterator[bytes]:
        with self._calling(key):
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def stat(self, key: str) -> Stat | None:
        try:
            with self._calling(key):
                return _stat_of(obstore.head(self._store, key))
        except NotFound:
            return None

    def lock_folder(self) -> Path:
        name = hashlib.sha256(self.uri.encode()).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"rayml-{os.getuid()}" / "locks" / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StoreError(f"{folder} cannot be made: {exc.strerror}; mend its parents") from exc
        return folder

    def create(self, key: str, data: bytes) -> bool:
        for attempt in range(_TRIES):
            try:
                with self._calling(key):
                    obstore.put(self._store, key, data, mode="create", use_multipart=False)
            except FileExistsError:
                if self.size(key) is not None:
                    return False
                time.sleep(0.1 * attempt)
            else:
                return True
        raise StoreUnreachable(
            f"store {self.uri} refused {_TRIES} times to create {key!r}, which is not there; "
            "try again later"
        )

    def put(self, key: str, data: bytes) -> None:
        with self._calling(key):
            obstore.put(self._store, key, data, use_multipart=False)

    def delete(self, key: str) -> None:
        try:
            with self._calling(key):
                obstore.delete(self._store, key)
        except NotFound:
            return

    def folders(self, prefix: str) -> list[str]:
        with self._calling(prefix):
            found = obstore.list_with_delimiter(self._store, prefix)["common_prefixes"]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def list(self, prefix: str, after: str = "") -> list[str]:
        return sorted(self._stats(prefix, after))

    def stats(self, prefix: str) -> dict[str, Stat]:
        return self._stats(prefix)

    def open(self, key: str) -> BinaryIO:
        with self._calling(key):
            size = obstore.head(self._store, key)["size"]

        def read_range(start: int, end: int) -> bytes:
            with self._calling(key):
                return bytes(obstore.get_range(self._store, key, start=start, end=end))

        return io.BufferedReader(Ranges(size, read_range), _READ_BYTES)

    def _keep(self, source: BinaryIO) -> tuple[Blob, bool]:
        start, head = source.tell(), source.read(_PART_BYTES)
        if len(head) < _PART_BYTES:
            return self._keep_bytes(head)
        source.seek(start)
        blob = _measure(source)
        stored = self.stat(blob_key(blob.digest))
        if stored is None or stored.size != blob.size or self.is_old(stored):
            source.seek(start)
            self._upload(source, blob)
            return blob, False
        return blob, self.is_sure(stored)

    def _find(self, blobs: Collection[Blob]) -> dict[Blob, Stat]:
        folders: defaultdict[str, list[Blob]] = defaultdict(list)
        for blob in blobs:
            folders[blob.digest[:2]].append(blob)
        found: dict[Blob, Stat] = {}
        with ThreadPoolExecutor(_LOOKUPS) as pool:
            for part in pool.map(self._find_in_folder, folders.values()):
                found |= part
        return found

    def _find_in_folder(self, blobs: Sequence[Blob]) -> dict[Blob, Stat]:
        """Look for blobs that lie in one folder: for a few of them one by one, else list it."""
        keys = [blob_key(blob.digest) for blob in blobs]
        if len(blobs) < 3:
            stats = {key: stat for key in keys if (stat := self.stat(key)) is not None}
        else:
            stats = self._stats(keys[0].rpartition("/")[0] + "/")
        pairs = zip(blobs, keys, strict=True)
        return {b: stats[k] for b, k in pairs if k in stats and stats[k].size == b.size}

    def _stats(self, prefix: str, after: str = "") -> dict[str, Stat]:
        for attempt in range(1, _TRIES + 1):
            try:
                with self._calling(prefix):
                    pages = obstore.list(self._store, prefix, offset=after or None)
                    return {meta["path"]: _stat_of(meta) for page in pages for meta in page}
            except StoreUnreachable as exc:
                # obstore tries a request again, but not a listing that was cut off.
                if "response body" not in str(exc.__cause__) or attempt == _TRIES:
                    raise
        raise AssertionError

    def _keep_bytes(self, data: bytes) -> tuple[Blob, bool]:
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
        key = blob_key(blob.digest)
        stored = self.stat(key)
        if stored is None:
            self.create(key, data)
        elif stored.size != blob.size or self.is_old(stored):
            self.put(key, data)  # if it is damaged: these are the bytes that it should have
        else:
            return blob, self.is_sure(stored)
        return blob, False

    def _upload(self, source: BinaryIO, blob: Blob) -> None:
        key = blob_key(blob.digest)
        part_bytes = max(_PART_BYTES, -(-blob.size // _MAX_PARTS))
        try:
            with _UPLOADS, self._calling(key):
                obstore.put(
                    self._store,
                    key,
                    _unchanged(source, blob),
                    chunk_size=part_bytes,
                    max_concurrency=_PARTS_AT_ONCE,
                )
        except StoreUnreachable:
            # Only the answer to the last request may have been lost.
            if self.size(key) != blob.size:
                raise

    def _connect(self, retry_s: float) -> obstore.store.ObjectStore:
        plain_http = any(value.startswith("http://") for value in self.config.values())
        try:
            return from_url(  # type: ignore[call-overload, no-any-return]
                self.uri,
                config=self.config,
                client_options={
                    "allow_http": plain_http,
                    "connect_timeout": timedelta(seconds=5),
                    "read_timeout": timedelta(seconds=self.patience.silence_s),
                    "timeout": timedelta(days=1),  # a large file takes as long as it takes
                },
                retry_config={
                    # The time is the limit. obstore's own base of 2 hardly grows: ten retries
                    # would be over in two seconds.
                    "max_retries": 1000,
                    "retry_timeout": timedelta(seconds=retry_s),
                    "backoff": {"base": 4, "max_backoff": timedelta(seconds=4)},
                },
            )
        except (BaseError, ValueError) as exc:
            raise SpecError(
                f"store {self.uri!r} cannot be opened: {_reason(exc)}; check the URI"
            ) from exc

    @contextmanager
    def _calling(self, key: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, FileNotFoundError) as exc:
            raise _translated(exc, self.uri, key) from exc
        if not self._answered:
            self._answered, self._store = True, self._connect(self.patience.later_s)


def _stat_of(meta: obstore.ObjectMeta) -> Stat:
    return Stat(meta["size"], meta["last_modified"].timestamp())


def _measure(source: BinaryIO) -> Blob:
    checksum, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        checksum.update(chunk)
        size += len(chunk)
    return Blob(checksum.hexdigest(), size)


def _unchanged(source: BinaryIO, blob: Blob) -> Iterator[bytes]:
    """Yield a file's bytes; raise at their end, which ends the upload, if they are others now."""
    checksum = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        checksum.update(chunk)
        yield chunk
    if checksum.hexdigest() != blob.digest:
        name = getattr(source, "name", "a file")
        raise StoreError(
            f"{str(name)!r} was changed while it was stored; store it when nobody writes to it"
        )


def _environment(uri: str) -> dict[str, str]:
    names = _CREDENTIALS[_FAMILY[uri.partition("://")[0]]]
    return {name.lower(): os.environ[name] for name in names if name in os.environ}


def _translated(exc: Exception, uri: str, key: str) -> Exception:
    """Return our error for one of obstore's, by its class and by the HTTP status in its text."""
    if isinstance(exc, AlreadyExistsError | PreconditionError):
        return FileExistsError(key)
    reason = _reason(exc)
    error, what, way_out = next(m[1:] for m in _MEANINGS if re.search(m[0], reason))
    if isinstance(exc, NotFoundError | FileNotFoundError) and reason.split()[-1] not in _GONE:
        return NotFound(f"store {uri} has no {key!r}; check the name and the store")
    return error(f"store {uri} {what}: {reason}; {way_out}")


def _reason(exc: Exception) -> str:
    """Say in a few words what obstore says on a page, without the URL, which may hold a secret."""
    text = str(exc)
    if re.search(r"http://(169\.254\.169\.254|metadata\.google)", text):
        return "no credentials are in the environment, and no cloud gives this machine any"
    if status := re.search(r"status code: (\d{3}[^:\n]*)", text):
        code = re.search(r"<Code>([^<]*)</Code>", text)
        return " ".join(filter(None, (status[1], code and code[1])))
    causes = re.findall(r'(?:error|message): "([^"]*)"', text)
    first = text.strip().partition("\n")[0] or type(exc).__name__
    return causes[-1] if causes else re.sub(r"\?\S*", "", first)
