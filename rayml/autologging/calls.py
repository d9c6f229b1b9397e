"""Which calls are the user's own, what waits for the end of a run, and what becomes of errors."""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import contextmanager
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from rayml.artifacts.record import first_line
from rayml.run_context import find_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from rayml.run_context import Context

_logger = logging.getLogger("rayml")
_process = os.getpid()
_warned: WeakKeyDictionary[Context, set[str]] = WeakKeyDictionary()
_lock = threading.Lock()
_tasks: dict[Context, list[Callable[[], None]]] = {}
_finalizers: list[Finalize] = []
# A call below one of these is part of another call. MLflow's own autologging calls from within.
_INSIDERS = frozenset(["sklearn", "mlflow"])
_INSIDER_MODULES = ("rayml.autologging.", "joblib.parallel")


def user_run(caller: FrameType | None) -> Context | None:
    """Return the run that a call belongs to if user code makes it, from `caller`; else None.

    Ranks above 0, forked processes and joblib's workers log nothing: whoever started them does.
    """
    if os.getpid() != _process or _is_inside(caller):
        return None
    context = find_context()
    return context if context is not None and context.rank == 0 else None


def _is_inside(frame: FrameType | None) -> bool:
    while frame is not None:
        module = frame.f_globals.get("__name__") or ""
        if module.partition(".")[0] in _INSIDERS or module.startswith(_INSIDER_MODULES):
            return True
        frame = frame.f_back
    return False


def name_of(data: object, frame: FrameType | None) -> str:
    """Return what the code of a frame calls an object; `data` if it has no name for it."""
    if frame is None:
        return "data"
    for names in (frame.f_locals, frame.f_globals):
        if found := [name for name, value in list(names.items()) if value is data]:
            return str(found[0])
    return "data"


@contextmanager
def spared(what: str, context: Context | None = None) -> Iterator[None]:
    """Turn an error into a warning; one of a kind in each run."""
    try:
        yield
    except Exception as exc:  # noqa: BLE001 - whatever it is, training goes on
        said = f"automatic logging left out {what}: {first_line(exc)}"
        if context is None or _is_new(context, f"{what}: {type(exc).__name__}"):
            _logger.warning("%s; log it yourself, or turn it off with autolog=False", said)


def warn(said: str, context: Context) -> None:
    """Warn of something, once in each run."""
    if _is_new(context, said):
        _logger.warning("%s", said)


def at_end(context: Context, task: Callable[[], None]) -> None:
    """Do at the end of a run what need not hold up training; nothing of its own may be lost by it.

    A process that is killed first does not do it.
    """
    with _lock:
        _tasks.setdefault(context, []).append(task)
        if not _finalizers:  # a script's process ends without that anybody ends its run there
            _finalizers.append(Finalize(None, _finish_all, exitpriority=20))


def finish(context: Context) -> None:
    """Do what waits for the end of a run; it raises nothing."""
    with _lock:
        tasks = _tasks.pop(context, [])
    for task in tasks:
        with spared("what waits for the end of the run", context):
            task()


def _finish_all() -> None:
    for context in list(_tasks):
        finish(context)


def in_own_process() -> None:
    """Take this process for the one that logs."""
    global _process  # noqa: PLW0603 - a fork keeps the value, which is how it is told apart
    _process = os.getpid()


def caller(depth: int) -> FrameType | None:
    """Return the frame so many calls above whoever asks, if there is one."""
    try:
        return sys._getframe(depth + 1)  # noqa: SLF001 - the documented way to it
    except ValueError:
        return None


def _is_new(context: Context, said: str) -> bool:
    with _lock:
        known = _warned.setdefault(context, set())
        is_new = said not in known
        known.add(said)
    return is_new
