"""Processes: which ones a job has, how they end, whose a shard is; and their variables."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from rayml.tracker.segments import Owner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

# Set in the environment of a job: a child that has left its parent still carries it.
VARIABLE = "RAYML_RUN_ID"
# The run whose workers this one borrows: it takes what is left of this one along.
LENDER_VARIABLE = "RAYML_LENDER_ID"
# What the runner turns into KeyboardInterrupt.
INTERRUPT = signal.SIGUSR2
_GRACE_S = 2.0
# The kernel tells when a process began by a clock that goes in whole seconds, and may be set.
_CLOCK_S = 5.0


def kill_children() -> int:
    """End all descendants of this process; return how many there were."""
    if not _has_children():
        return 0
    return end(psutil.Process().children(recursive=True))


def interrupt(pid: int) -> None:
    """Raise KeyboardInterrupt in the code that a process executes."""
    with suppress(ProcessLookupError):
        os.kill(pid, INTERRUPT)


_interruptible: list[int] = []


@contextmanager
def interruptible() -> Iterator[None]:
    """Let `interrupt` raise KeyboardInterrupt in this thread, in place of the one before.

    The process's first thread must have called `listen` for that if this is another one. There,
    an interruption waits for the end of a sleep or read; in the first thread it ends them.
    """
    _interruptible.append(threading.get_ident())
    is_first = threading.current_thread() is threading.main_thread()
    if is_first:
        listen()
    try:
        yield
    finally:
        _interruptible.pop()
        if is_first:
            signal.signal(INTERRUPT, signal.SIG_IGN)


def listen() -> None:
    """Let this process hear `interrupt`; call it in its first thread."""
    # Ray's own way to cancel a task does not end a sleep or a read, and SIGINT is blocked in its
    # workers, rightly: Ctrl-C in the terminal is not for them.
    signal.signal(INTERRUPT, _interrupted)


def _interrupted(_: int, __: FrameType | None) -> None:
    if not _interruptible:
        return
    if (thread := _interruptible[-1]) == threading.get_ident():
        raise KeyboardInterrupt
    raised = ctypes.py_object(KeyboardInterrupt)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


@contextmanager
def variables(given: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables of this process for a block; None takes one away."""
    before = {name: os.environ.get(name) for name in given}
    _set(given)
    try:
        yield
    finally:
        _set(before)


def _set(given: Mapping[str, str | None]) -> None:
    for name, text in given.items():
        if text is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = text


def kill_run(run: str, pid: int, at: float) -> int:
    """End a run's process, its descendants, and whatever else carries the run's mark.

    Return how many there were.

    Args:
        run: Its id.
        pid: Of the process.
        at: When that was alive, in seconds of Unix time: its number may be another's by now.
    """
    return end([*_tree(pid, at), *_marked(run)])


def _has_children() -> bool:
    """Tell whether this process has any child; the kernel's list is faster than a search."""
    tasks = Path("/proc/self/task")
    try:
        return any((task / "children").read_text() for task in tasks.iterdir())
    except OSError:
        return True


def _tree(pid: int, at: float) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        if root.create_time() > at + _CLOCK_S:
            return []
        return [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return []


def _marked(run: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            marks = map(process.environ().get, (VARIABLE, LENDER_VARIABLE))
            if process.pid != os.getpid() and run in marks:
                found.append(process)
    return found


def end(processes: list[psutil.Process]) -> int:
    """End processes, by force after two seconds; return how many there were."""
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
    """Tell whether a process went away with the head that this one's, on this machine, replaced.

    A head's pod that is made anew has another name; one whose container was started again has not.
    """
    is_of_same = owner.cluster != "" and owner.cluster == successor.cluster
    return is_of_same and (owner.host != successor.host or is_gone(owner))


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
