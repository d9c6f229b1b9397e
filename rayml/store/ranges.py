"""A file that is read in pieces from wherever it lies."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer


class Ranges(io.RawIOBase):
    """Reads ranges of an object of known size as a binary file would."""

    def __init__(self, size: int, read_range: Callable[[int, int], bytes]) -> None:
        """Begin at the object's start.

        Args:
            size: Of the object.
            read_range: Returns the bytes from a start to an end, which is never past the size.
        """
        self._size = size
        self._read_range = read_range
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer as far as there is something left."""
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._size)
        if end <= self._at:
            return 0
        data = self._read_range(self._at, end)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
