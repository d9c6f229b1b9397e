"""Processes: which ones a job has and how they end, and which one a shard belongs to."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import psutil

from rayml.tracker.segments import Owner

# Set in the environment of a job: a child that has left its parent still carries it.
VARIABLE = "RAYML_RUN_ID"
# What the runner turns into KeyboardInterrupt.
INTERRUPT = signal.SIGUSR2
_GRACE_S = 2.0


def kill_children() -> int:
    """End all descendants of this process; return how many there were."""
    if not _has_children():
        return 0
    return _end(psutil.Process().children(recursive=True))


def interrupt(pid: int) -> None:
    """Raise KeyboardInterrupt in the code that a process executes."""
    with suppress(ProcessLookupError):
        os.kill(pid, INTERRUPT)


def kill_run(run: str, pid: int) -> int:
    """End a run's process, its descendants, and whatever else carries the run's mark.

    Return how many there were.
    """
    return _end([*_tree(pid), *_marked(run)])


def _has_children() -> bool:
    """Tell whether this process has any child; the kernel's list is faster than a search."""
    tasks = Path("/proc/self/task")
    try:
        return any((task / "children").read_text() for task in tasks.iterdir())
    except OSError:
        return True


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return []


def _marked(run: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(VARIABLE) == run:
                found.append(process)
    return found


def _end(processes: list[psutil.Process]) -> int:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=_GRACE_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=_GRACE_S)
    return len(processes)


def identify(process: psutil.Process, address: str = "", cluster: str = "") -> Owner:
    """Return what tells a process from all others, also after its id was given to another."""
    return Owner(
        host=socket.gethostname(),
        boot=_boot_id(),
        pid=process.pid,
        started_at=process.create_time(),
        address=address,
        cluster=cluster,
    )


def is_elsewhere(owner: Owner) -> bool:
    """Tell whether a process belongs to another machine."""
    return owner.host != socket.gethostname()


def is_before(owner: Owner, successor: Owner) -> bool:
    """Tell whether a process went away with the head that this other one's head replaced."""
    is_of_same = owner.cluster != "" and owner.cluster == successor.cluster
    return is_of_same and owner.host != successor.host


def is_gone(owner: Owner) -> bool:
    """Tell whether a process has surely ended; of another machine's nobody can tell."""
    if is_elsewhere(owner):
        return False
    if owner.boot != _boot_id():
        return True
    try:
        return abs(psutil.Process(owner.pid).create_time() - owner.started_at) > 1
    except psutil.NoSuchProcess:
        return True


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(psutil.boot_time())
