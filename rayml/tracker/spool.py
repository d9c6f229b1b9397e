"""What waits on this machine's disk while the tracker does not answer."""

from __future__ import annotations

import tempfile
from collections import deque
from typing import IO

from rayml.errors import StoreError

_LIMIT_BYTES = 1024**3


class Spool:
    """Encoded batches, first in and first out, in a file without a name.

    Nothing of it is left when the process ends, however it ends.
    """

    def __init__(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._file: IO[bytes] | None = None
        self._waiting: deque[tuple[int, int]] = deque()
        self._begin = self._end = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, data: bytes, count: int) -> None:
        """Keep a batch that holds so many values.

        Raises:
            StoreError: There is no room for it.
        """
        if self._end + len(data) > self._limit_bytes:
            raise StoreError(
                "the tracker has not answered, and what was logged meanwhile has passed "
                f"{self._limit_bytes >> 20:,} MiB; what came afterwards is lost, look at the store"
            )
        try:
            self._write(data)
        except OSError as exc:
            raise StoreError(
                f"the tracker has not answered, and {tempfile.gettempdir()} has no room for what "
                f"was logged meanwhile ({exc.strerror}); what came afterwards is lost"
            ) from exc
        self._waiting.append((len(data), count))
        self._end += len(data)

    def pop(self) -> tuple[bytes, int]:
        """Return the oldest batch and how many values it holds."""
        assert self._file is not None  # noqa: S101 - there is a batch, so there is a file
        size, count = self._waiting.popleft()
        self._file.seek(self._begin)
        data = self._file.read(size)
        self._begin += size
        if not self._waiting:
            self._file.truncate(0)
            self._begin = self._end = 0
        return data, count

    def close(self) -> None:
        """Give the disk's room back."""
        self._waiting.clear()
        if self._file is not None:
            self._file.close()

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - see close
        self._file.seek(self._end)
        written = 0
        while written < len(data):
            written += self._file.write(memoryview(data)[written:])
