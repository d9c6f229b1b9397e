"""What a store promises; `folder` and `bucket` keep it, and one contract test checks both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path
    from typing import BinaryIO

CHUNK_BYTES = 4 * 1024 * 1024


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

    All methods raise `StoreError` when the store refuses, and `StoreUnreachable` when it is
    silent.
    """

    uri: str
    is_local: bool

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
    def size(self, key: str) -> int | None:
        """Return an object's size in bytes, or None if there is no such object."""

    @abstractmethod
    def modified(self, key: str) -> float | None:
        """Return when an object was stored, in Unix seconds by the store's own clock, or None."""

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

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the sizes in bytes of all objects below `prefix`, by key; see `list`."""
        found = {key: self.size(key) for key in self.list(prefix)}
        return {key: size for key, size in found.items() if size is not None}

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """Open an object to read pieces of it; it can seek, and is to be closed.

        Raises:
            NotFound: There is no such object.
        """

    @abstractmethod
    def add(self, source: BinaryIO) -> Blob:
        """Store the rest of a binary file as a blob, in constant memory.

        The blob is there whole or not at all. Bytes that are stored already are read to know their
        digest, and not sent again. The file must be seekable.

        Raises:
            StoreError: The file was changed meanwhile.
        """

    def missing(self, blobs: Collection[Blob]) -> set[Blob]:
        """Return the blobs that are not stored in their full size; cheaper than asking for each.

        What they hold is not looked at; `read_blob` does.
        """
        return {blob for blob in set(blobs) if self.size(blob_key(blob.digest)) != blob.size}
