"""What processes and their machine take of CPU, memory, disk, network and GPUs.

Read from /proc as the kernel counts it, file by file: what a kernel, a container or a process that
has just gone does not show is left out. So it is with the drivers of GPUs.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rayml.gpus import find_gpus, gpu_measures

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Where /proc/<pid>/stat has them, counted behind the command's name.
_CPU_FIELDS = slice(11, 15)  # its own in user mode and the kernel, and its ended children's
_RSS_FIELD = 21
_HIDDEN = (OSError, ValueError, IndexError, KeyError)


class Meter:
    """Measures a process, its descendants and its machine, each time since the time before."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._read_gpus = find_gpus(os.environ)
        self._at = time.monotonic()
        _, self._counted = self._read()

    def take(self) -> dict[str, float]:
        """Return what there is now, and what was taken each second since the time before.

        `cpus` of its processes are CPUs kept busy, `memory` their resident bytes; `host_cpu` and
        `host_memory` are percent of the machine's, other `host_…` are bytes a second; `gpu…` is
        percent of the time and of the memory of the GPUs that this process may use.
        """
        now = time.monotonic()
        levels, counted = self._read()
        rates = {
            name: max(0.0, value - self._counted[name]) / (now - self._at)
            for name, value in counted.items()
            if name in self._counted
        }
        self._at, self._counted = now, counted
        return rates | levels

    def _read(self) -> tuple[dict[str, float], dict[str, float]]:
        levels: dict[str, float] = {}
        counted: dict[str, float] = {}
        with suppress(*_HIDDEN):
            counted["cpus"], levels["memory"] = _processes(self._pid)
        with suppress(*_HIDDEN):
            levels["host_memory"] = _host_memory()
        with suppress(*_HIDDEN):
            levels |= gpu_measures(self._read_gpus())
        for read in (_host_cpu, _host_network, _host_disk):
            with suppress(*_HIDDEN):
                counted |= read()
        return levels, counted


def _processes(pid: int) -> tuple[float, float]:
    """Return seconds of CPU and resident bytes of a process and its descendants."""
    ticks = pages = 0
    for stat in _stats(pid):
        fields = stat[stat.rindex(b")") + 2 :].split()
        ticks += sum(map(int, fields[_CPU_FIELDS]))
        pages += int(fields[_RSS_FIELD])
    return ticks / _TICKS, pages * _PAGE


def _stats(pid: int) -> Iterator[bytes]:
    yield _read_short(f"/proc/{pid}/stat")
    waiting = _children(pid)
    while waiting:
        child = waiting.pop()
        with suppress(OSError):  # it has ended
            yield _read_short(f"/proc/{child}/stat")
            waiting += _children(child)


def _children(pid: int) -> list[int]:
    """Return a process's children, which the kernel lists by the threads that started them."""
    found: list[int] = []
    with suppress(OSError), os.scandir(f"/proc/{pid}/task") as threads:
        for thread in threads:
            with suppress(OSError):  # the thread has ended, or this kernel has no such lists
                found += map(int, _read_short(f"{thread.path}/children").split())
    return found


def _read_short(path: str) -> bytes:
    """Return a file of less than a page, as there are hundreds: `Path` takes twice as long."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, _PAGE)
    finally:
        os.close(file)


def _host_memory() -> float:
    lines = (_PROC / "meminfo").read_bytes().splitlines()[:3]
    size = {name: int(rest.split()[0]) for name, _, rest in (x.partition(b":") for x in lines)}
    return 100 * (1 - size[b"MemAvailable"] / size[b"MemTotal"])


def _host_cpu() -> dict[str, float]:
    with (_PROC / "stat").open("rb") as file:
        ticks = list(map(int, file.readline().split()[1:9]))
    busy = sum(ticks) - ticks[3] - ticks[4]  # without idle, and waiting for a disk
    return {"host_cpu": 100 * busy / _TICKS / (os.cpu_count() or 1)}


def _host_network() -> dict[str, float]:
    lines = (_PROC / "net/dev").read_bytes().splitlines()[2:]
    counts = [rest.split() for name, _, rest in (line.partition(b":") for line in lines)
              if name.strip() != b"lo"]  # fmt: skip
    return {
        "host_received": sum(int(count[0]) for count in counts),
        "host_sent": sum(int(count[8]) for count in counts),
    }


def _host_disk() -> dict[str, float]:
    found: dict[str, float] = {}
    names = {b"pgpgin": "host_read", b"pgpgout": "host_written"}
    for line in (_PROC / "vmstat").read_bytes().splitlines():
        name, _, kib = line.partition(b" ")
        if name in names:
            found[names[name]] = int(kib) * 1024
    return found
