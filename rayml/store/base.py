"""What a store promises; `folder` and `bucket` keep it, and one contract test checks both."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rayml.store.condemned import (
    RENEWED_S,
    SURE_S,
    find_condemned,
    monotonic_s,
    wait_until_spared,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path
    from typing import BinaryIO

CHUNK_BYTES = 4 * 1024 * 1024


class Stat(NamedTuple):
    """What is known of an object without reading it.

    Attributes:
        size: Bytes.
        modified: When it was stored, in Unix seconds by the store's own clock.
    """

    size: int
    modified: float


@dataclass(frozen=True)
class Blob:
    """Bytes stored under their own digest: lower-case hex SHA-256, and the size in bytes."""

    digest: str
    size: int


def blob_key(digest: str) -> str:
    """Return the key under which the blob of this digest lies."""
    return f"blobs/sha256/{digest[:2]}/{digest}"


class Store(ABC):
    """A flat map from keys to bytes, in which an object is there whole or not at all.

    What a call has stored when it returns is durable: on a folder after fsync of the file and of
    its folder, in a bucket by the provider's own promise. Safe to use from several threads;
    pickles with all that is needed to open it again on another machine.

    Attributes:
        uri: Where it is, as a user would write it.
        is_local: Only this machine can see it.
        renewed_s: How old a blob may be that somebody relies on without storing it anew.
        settle_s: Within what time a deletion that was answered is surely over.

    All methods raise `StoreError` when the store refuses, and `StoreUnreachable` when it is
    silent.
    """

    uri: str
    is_local: bool
    renewed_s: float = RENEWED_S
    settle_s: float = 5.0

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Return an object's bytes.

        Raises:
            NotFound: There is no such object.
        """

    @abstractmethod
    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes in pieces of a few MiB, so that memory stays constant.

        Raises:
            NotFound: There is no such object; raised at the first piece.
        """

    @abstractmethod
    def stat(self, key: str) -> Stat | None:
        """Return what is known of an object without reading it, or None if there is none."""

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes, or None if there is no such object."""
        found = self.stat(key)
        return None if found is None else found.size

    def modified(self, key: str) -> float | None:
        """Return when an object was stored, in Unix seconds by the store's own clock, or None."""
        found = self.stat(key)
        return None if found is None else found.modified

    @abstractmethod
    def lock_folder(self) -> Path:
        """Return a folder for lock files, the same for all who reach this store from here.

        It is made if it is not there yet. "Here" is this machine at least.
        """

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Store a new object; of several writers one gets True, and the others change nothing."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Store an object, in place of the one that may be there."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

    @abstractmethod
    def folders(self, prefix: str) -> list[str]:
        """Return the names right below `prefix` (which ends with a slash) that have objects below.

        Of `shards/a/1` and `shards/b/1`, these are `a` and `b` for the prefix `shards/`.
        """

    @abstractmethod
    def list(self, prefix: str, after: str = "") -> list[str]:
        """Return the keys of all objects below `prefix`, in order.

        Args:
            prefix: A "folder" that ends with a slash, such as `shards/`; empty for the whole.
            after: Leave out this key and those before it.
        """

    def stats(self, prefix: str) -> dict[str, Stat]:
        """Return what is known of all objects below `prefix`, by key; see `list`."""
        found = ((key, self.stat(key)) for key in self.list(prefix))
        return {key: stat for key, stat in found if stat is not None}

    def unfinished(self) -> dict[str, Stat]:
        """Return what writers that died have left and no listing shows, by key."""
        return {}

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """Open an object to read pieces of it; it can seek, and is to be closed.

        Raises:
            NotFound: There is no such object.
        """

    def add(self, source: BinaryIO) -> Blob:
        """Store the rest of a binary file as a blob, in constant memory.

        The blob is there whole or not at all. Bytes that were stored in the last days are read to
        know their digest, and not sent again. The file must be seekable. Nobody deletes the blob
        in the next three days; whoever wants it for longer records it until then.

        Raises:
            StoreError: The file was changed meanwhile.
        """
        start = source.tell()
        while True:
            began = monotonic_s()
            blob, is_sure = self._keep(source)
            if is_sure:
                return blob
            # See `rayml.store.condemned` for what could have happened to it, and why no more.
            if not wait_until_spared(self, blob.digest) and (
                monotonic_s() - began < self.settle_s
                or self.size(blob_key(blob.digest)) is not None
            ):
                return blob
            source.seek(start)

    @abstractmethod
    def _keep(self, source: BinaryIO) -> tuple[Blob, bool]:
        """Store a blob, or renew it; also tell whether it was there and `is_sure`."""

    def missing(self, blobs: Collection[Blob]) -> set[Blob]:
        """Return the blobs that are to be added; cheaper than adding each.

        These are not stored in their full size, or so old that they may be deleted soon. What
        they hold is not looked at; `read_blob` does.
        """
        wanted = set(blobs)
        condemned = find_condemned(self, (blob.digest for blob in wanted)) if wanted else set()
        found = self._find(wanted)
        # A collection that began meanwhile.
        condemned |= find_condemned(self, (blob.digest for blob in found)) if found else set()
        return {
            blob
            for blob in wanted
            if blob not in found or blob.digest in condemned or self.is_old(found[blob])
        }

    def _find(self, blobs: Collection[Blob]) -> dict[Blob, Stat]:
        """Return what is known of those blobs that are stored in their full size."""
        stats = ((blob, self.stat(blob_key(blob.digest))) for blob in blobs)
        return {blob: stat for blob, stat in stats if stat is not None and stat.size == blob.size}

    def is_old(self, stat: Stat) -> bool:
        """Tell whether a blob is to be stored anew by whoever wants to rely on it."""
        return time.time() - stat.modified >= self.renewed_s

    def is_sure(self, stat: Stat) -> bool:
        """Tell whether a blob is neither old nor so new that it may have just been renewed."""
        return SURE_S <= time.time() - stat.modified < self.renewed_s
