"""A store in S3, GCS or Azure; the only importer of obstore."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from rayml.errors import NotFound, SpecError, StoreError, StoreUnreachable
from rayml.store.base import CHUNK_BYTES, Blob, Store, blob_key

if TYPE_CHECKING:
    from collections.abc import Iterator
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
        "AZURE_STORAGE_ENDPOINT",
        "AZURE_STORAGE_USE_EMULATOR",
    ),
}
_FAMILY = {"s3": "s3", "s3a": "s3", "gs": "gs", "az": "az", "abfs": "az", "abfss": "az"}


class Bucket(Store):
    """A prefix in a bucket, reached with the credentials of the environment that opened it."""

    is_local = False

    def __init__(self, uri: str, config: dict[str, str] | None = None) -> None:
        """Take the bucket and prefix of the URI; without a config, the environment's.

        Raises:
            SpecError: The URI or the credentials are malformed.
        """
        self.uri = uri.rstrip("/")
        self.config = _environment(uri) if config is None else config
        plain_http = any(v.startswith("http://") for v in self.config.values())
        try:
            self._store = from_url(  # type: ignore[call-overload]
                self.uri,
                config=self.config,
                client_options={"allow_http": plain_http},
            )
        except (BaseError, ValueError) as exc:
            raise SpecError(
                f"store {uri!r} cannot be opened: {_first_line(exc)}; check the URI"
            ) from exc

    def __reduce__(self) -> tuple[type[Bucket], tuple[str, dict[str, str]]]:
        return Bucket, (self.uri, self.config)

    def get(self, key: str) -> bytes:
        with self._calling(key):
            return bytes(obstore.get(self._store, key).bytes())

    def chunks(self, key: str) -> Iterator[bytes]:
        with self._calling(key):
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def size(self, key: str) -> int | None:
        try:
            with self._calling(key):
                return obstore.head(self._store, key)["size"]
        except NotFound:
            return None

    def modified(self, key: str) -> float | None:
        try:
            with self._calling(key):
                return obstore.head(self._store, key)["last_modified"].timestamp()
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
        try:
            with self._calling(key):
                obstore.put(self._store, key, data, mode="create")
        except FileExistsError:
            return False
        return True

    def put(self, key: str, data: bytes) -> None:
        with self._calling(key):
            obstore.put(self._store, key, data)

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
        with self._calling(prefix):
            pages = obstore.list(self._store, prefix, offset=after or None, chunk_size=1000)
            found = [meta["path"] for page in pages for meta in page]
        return sorted(found)

    def open(self, key: str) -> BinaryIO:
        with self._calling(key):
            return cast("BinaryIO", obstore.open_reader(self._store, key))

    def add(self, source: BinaryIO) -> Blob:
        start, checksum = source.tell(), hashlib.sha256()
        while chunk := source.read(CHUNK_BYTES):
            checksum.update(chunk)
        blob = Blob(checksum.hexdigest(), source.tell() - start)
        key = blob_key(blob.digest)
        if self.size(key) != blob.size:
            source.seek(start)
            with self._calling(key):
                obstore.put(
                    self._store, key, source, chunk_size=2 * CHUNK_BYTES, max_concurrency=4
                )
        return blob

    @contextmanager
    def _calling(self, key: str) -> Iterator[None]:
        try:
            yield
        except (AlreadyExistsError, PreconditionError) as exc:
            raise FileExistsError(key) from exc
        except (NotFoundError, FileNotFoundError) as exc:
            raise NotFound(
                f"store {self.uri} has no {key!r}; check the name and the store"
            ) from exc
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as exc:
            raise StoreError(
                f"store {self.uri} refused the credentials: {_first_line(exc)}; "
                "check the environment"
            ) from exc
        except BaseError as exc:
            raise StoreUnreachable(
                f"store {self.uri} did not answer: {_first_line(exc)}; "
                "check the URI and the network"
            ) from exc


def _environment(uri: str) -> dict[str, str]:
    names = _CREDENTIALS[_FAMILY[uri.partition("://")[0]]]
    return {name.lower(): os.environ[name] for name in names if name in os.environ}


def _first_line(exc: Exception) -> str:
    return str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
