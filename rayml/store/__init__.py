"""Where everything durable lives: a local folder, or a prefix in S3, GCS or Azure.

Keys are relative paths. The layout, which every reader may rely on:

    shards/<shard>/<seq>.jsonl              the journal: one single-writer shard per tracker
    live/<shard>.json                       a hint: who writes that shard at the moment
    submissions/<run>.json                  a run that was handed to a remote cluster
    claims/<run>.json                       which driver executes that submission
    cancels/<run>.json                      with how much grace to end it
    catalog/<seq>.json                      what people changed afterwards, one object a change
    catalog_states/<seq>.json               what the changes up to it amount to; a shortcut
    logs/<run>/<rank>/<attempt>/<part>.log  what the job printed
    blobs/sha256/<aa>/<digest>              the bytes of artifacts, under their own digest
    checkpoints/<shard>/<seq>.jsonl         a shard's state up to a segment
    tables/<shard>/<span>/<table>           what will not change any more, for a checkpoint
    condemned.json                          for a moment: what a garbage collection is deleting
    clocks/<random>                         for a moment: what time it is there
    rayml.json                              the format, and that the store has passed `check_store`
    probes/<random>                         for a moment, while that is tried
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from rayml.config import default_store, setting
from rayml.errors import ArtifactCorrupt, SpecError, suggestion
from rayml.store.base import Blob, Stat, Store, blob_key
from rayml.store.folder import Folder
from rayml.store.probe import check_format, check_store

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Blob",
    "Stat",
    "Store",
    "check_format",
    "check_store",
    "fetch_blob",
    "open_store",
    "read_blob",
]

_BUCKET_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss")


def open_store(
    location: str | Path | Store | None = None, config: dict[str, str] | None = None
) -> Store:
    """Return the store at a folder or `file:// s3:// gs:// az://` URI; nothing is written yet.

    None takes the setting `store` (see `rayml.config`), else `.rayml` in the project's root. The
    config holds a bucket's endpoint and credentials; without it the environment does.

    Raises:
        SpecError: The URI's scheme is not one that rayml can store to.
    """
    if isinstance(location, Store):
        return location
    text = str(location) if location is not None else setting("store") or default_store()
    scheme, is_uri, _ = text.partition("://")
    if not is_uri:
        return Folder(Path(text).expanduser())
    if scheme == "file":
        return Folder(Path(unquote(urlsplit(text).path)))
    if scheme in _BUCKET_SCHEMES:
        from rayml.store.bucket import Bucket  # noqa: PLC0415 - obstore loads only when needed

        return Bucket(text, config)
    known = suggestion(scheme, ("file", *_BUCKET_SCHEMES))
    raise SpecError(
        f"store {text!r} has the scheme {scheme!r}, which rayml cannot store to; {known}"
    )


def read_blob(store: Store, digest: str) -> Iterator[bytes]:
    """Yield a blob's bytes in order and check them against the digest.

    Raises:
        NotFound: The store has no such blob.
        ArtifactCorrupt: After the last chunk, when the bytes were not those of the digest: do not
            use what came before until the iteration has ended.
    """
    checksum = hashlib.sha256()
    for chunk in store.chunks(blob_key(digest)):
        checksum.update(chunk)
        yield chunk
    if checksum.hexdigest() != digest:
        raise ArtifactCorrupt(
            f"blob {digest[:12]} in {store.uri} holds other bytes than were logged "
            f"(their SHA-256 is {checksum.hexdigest()[:12]}); restore it from a copy of the store"
        )


def fetch_blob(store: Store, digest: str, path: Path) -> None:
    """Copy a blob to a new file, whole and checked, or leave no file at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            for chunk in read_blob(store, digest):
                file.write(chunk)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
