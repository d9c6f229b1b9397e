"""What an attempt takes of its machine, as metrics of its run, and what it has taken in all.

A thread beside user code looks every ten seconds. The metrics are called `system/…`, so that they
stay apart from the job's own; their steps are the seconds since the run was submitted, the same
ones on all ranks, so that what several ranks take at a step can be summed and a later attempt
does not take the place of an earlier one's.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rayml.tracker.records import Used
from rayml.tracker.runs import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.machine import Meter
    from rayml.tracker.client import Client
    from rayml.tracker.series import Reduction

INTERVAL_S = 10.0
# A job of an hour is sampled every ten seconds; after each 360 samples half as often, so that one
# of a month has 3,600.
_SAMPLES = 360
# The thread waits for so many times what its last look took: 0.05 % of a core, and about as much
# again is for sending.
_REST = 2000
# Short runs end before the thread loads and reads anything.
_FIRST_S = 1.0
_LAST_S = 2.0
_REDUCTIONS: dict[str, Reduction] = {"cpus": "sum", "memory": "sum", "host_memory": "max"}


@contextmanager
def sampling(client: Client, submitted_at: float) -> Iterator[None]:
    """Sample this process and its descendants for a block; errors of that are nobody's.

    Args:
        client: Logs the metrics.
        submitted_at: What their steps count from, in Unix seconds.
    """
    over = threading.Event()
    thread = threading.Thread(
        target=_sample, args=(over, client, submitted_at), name="rayml-sampler", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LAST_S)  # /proc may hang, and its run must not


def _sample(over: threading.Event, client: Client, submitted_at: float) -> None:
    if over.wait(_FIRST_S):
        return
    with suppress(Exception):
        from rayml import machine  # noqa: PLC0415 - not for short runs

        meter, count, cost_s = machine.Meter(os.getpid()), 0, 0.0
        for name, how in _REDUCTIONS.items():
            client.reduce(SYSTEM + name, how)
        while True:
            elapsed = time.time() - submitted_at
            step = next_step(elapsed, interval_s(count, cost_s))
            if over.wait(step - elapsed):
                return
            began = time.thread_time()
            log_sample(client, meter, step)
            count, cost_s = count + 1, time.thread_time() - began


def log_sample(client: Client, meter: Meter, step: int) -> None:
    """Log what has been taken since the sample before."""
    for name, value in meter.take().items():
        client.point(SYSTEM + name, value, step)


def interval_s(count: int, cost_s: float) -> float:
    """Return how many seconds lie between samples.

    >>> interval_s(0, 0.001), interval_s(400, 0.001), interval_s(0, 0.03)
    (10.0, 20.0, 80.0)

    Args:
        count: How many there are.
        cost_s: Seconds of CPU that the last one took.
    """
    interval: float = INTERVAL_S * 2 ** (count // _SAMPLES)
    while interval < _REST * cost_s:
        interval *= 2.0
    return interval


def next_step(elapsed: float, interval: float) -> int:
    """Return the next multiple of an interval.

    >>> next_step(12.5, 10.0), next_step(20.0, 10.0), next_step(-3.0, 10.0)
    (20, 30, 0)
    """
    return int((elapsed // interval + 1) * interval)


@dataclass(frozen=True)
class Usage:
    """What this process had taken when an attempt began: `used` tells what it has since."""

    at: float
    own: resource.struct_rusage
    children: resource.struct_rusage
    peak: int
    is_fresh: bool = False

    @classmethod
    def begin(cls, *, forget_peak: bool = False) -> Usage:
        """Return what this process, and its children that have ended, have taken so far.

        Args:
            forget_peak: Let the kernel forget how much memory it had: Ray uses workers again.
        """
        is_fresh = forget_peak and _forget_peak()
        own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return cls(time.monotonic(), own, children, _own_peak(), is_fresh)

    def used(self, run: str, attempt: int, rank: int = 0) -> Used:
        """Return the record of what was taken since."""
        now = Usage.begin()
        return Used(
            run=run,
            time=time.time(),
            attempt=attempt,
            rank=rank,
            wall_s=now.at - self.at,
            cpu_s=now.cpu_s - self.cpu_s,
            max_memory=self._peak(now),
        )

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU, in user mode and the kernel."""
        return sum(usage.ru_utime + usage.ru_stime for usage in (self.own, self.children))

    def _peak(self, now: Usage) -> int:
        """Return the most bytes that one process had since; 0 if that may be from before."""
        own, children = now.peak, now.children.ru_maxrss
        is_new = self.is_fresh or own > self.peak
        if now.children.ru_minflt == self.children.ru_minflt:  # no child has ended since
            return own * 1024 * is_new
        peak, is_old = max((own, not is_new), (children, children <= self.children.ru_maxrss))
        return 0 if is_old else peak * 1024


def _own_peak() -> int:
    """Return the most KiB that this process had; `ru_maxrss` may be those of its parent."""
    try:
        status = Path("/proc/self/status").read_bytes()
        return int(status.partition(b"VmHWM:")[2].split(maxsplit=1)[0])
    except (OSError, ValueError, IndexError):
        return 0


def _forget_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_bytes(b"5")
    except OSError:
        return False
    return True
