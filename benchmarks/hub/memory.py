"""How much memory the processes of a job take."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE_S = 0.05


@contextmanager
def peaks(*, own: bool = False) -> Iterator[dict[int, int]]:
    """Sample the memory of this process's Ray workers in a block; give the peak of each.

    `own` leaves out what a process shares with others, as it does Ray's object store.
    """
    found: dict[int, int] = {}
    done = threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_S):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if process.name().startswith("ray::"):
                        memory = process.memory_info()
                        used = memory.rss - memory.shared if own else memory.rss
                        found[process.pid] = max(used, found.get(process.pid, 0))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
