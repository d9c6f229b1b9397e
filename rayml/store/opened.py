"""An object of a bucket as a file, which obstore's own reader is not quite."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from _typeshed import ReadableBuffer, WriteableBuffer


class Reader(Protocol):
    """What obstore's reader can do."""

    def read(self, size: int, /) -> ReadableBuffer:
        """Return the next bytes."""

    def seek(self, offset: int, whence: int, /) -> int:
        """Go to a place and return it."""

    def tell(self) -> int:
        """Return the place."""


def open_buffered(reader: Reader, calling: Callable[[], AbstractContextManager[None]]) -> BinaryIO:
    """Return a file that reads by a reader; each read happens inside a new `calling()`."""
    return io.BufferedReader(_Opened(reader, calling))


class _Opened(io.RawIOBase):
    def __init__(
        self, reader: Reader, calling: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._reader = reader
        self._calling = calling

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        with self._calling():
            data = memoryview(self._reader.read(len(view)))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()
