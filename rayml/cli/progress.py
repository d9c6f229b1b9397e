"""How far long work on a store has come: one changing line on a terminal, else plain ones."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rayml.cli.exits import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.status import Status

_PLAIN_EVERY_S = 10.0


class Progress:
    """Counts pieces and their bytes, and shows the sums on stderr. Safe to use from threads."""

    def __init__(self, doing: str, status: Status | None) -> None:
        self._doing = doing
        self._status = status
        self._lock = threading.Lock()
        self._shown_at = time.monotonic()
        self._count = self._size = 0

    def tick(self, size: int) -> None:
        """Count one more piece."""
        with self._lock:
            self._count += 1
            self._size += size
            if self._status is not None:
                self._status.update(self._text())
            elif time.monotonic() - self._shown_at >= _PLAIN_EVERY_S:
                self._shown_at = time.monotonic()
                say(self._text())

    def _text(self) -> str:
        from rayml.artifacts import human_bytes  # noqa: PLC0415 - not for --help

        return f"{self._doing}: {self._count:,} pieces, {human_bytes(self._size)}"


@contextmanager
def progress(doing: str) -> Iterator[Progress]:
    """Show how far something has come while the block is executed."""
    if not sys.stderr.isatty():
        yield Progress(doing, None)
        return
    from rich.console import Console  # noqa: PLC0415 - loads only on a terminal

    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    with console.status(doing) as status:
        yield Progress(doing, status)
