"""Which calls are the user's own, what code calls their arguments, and what becomes of errors."""

from __future__ import annotations

import ast
import inspect
import linecache
import logging
import os
import re
import signal
import sys
import threading
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from rayml.artifacts.record import first_line
from rayml.run_context import find_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from rayml.run_context import Context

F = TypeVar("F", bound="Callable[..., object]")

_logger = logging.getLogger("rayml")
_process = 0
_warned: WeakKeyDictionary[Context, set[str]] = WeakKeyDictionary()
_lock = threading.RLock()
# A call below one of these is part of another call. MLflow's own autologging calls from within.
_INSIDERS = frozenset(["sklearn", "xgboost", "lightgbm", "mlflow"])
_INSIDER_MODULES = ("rayml.autologging.", "joblib.parallel")
# In whose calls a loop is still one of its own.
_AROUND = frozenset(
    f"rayml.autologging.{name}_hooks" for name in ("lightning", "ray", "transformers")
)
# Python's warnings pass over frames of files with `importlib` and `_bootstrap` in their names, and
# PyTorch's compiler over those whose names begin like this.
_UNSEEN_FILE = "<frozen importlib._bootstrap, for which a hook of rayml's is taken>"


def in_own_process() -> None:
    """Take this process for the one that logs: a fork keeps the value, and is told apart by it."""
    global _process  # noqa: PLW0603 - there is one
    _process = os.getpid()


def user_run(caller: FrameType | None) -> Context | None:
    """Return the run that a call belongs to if user code makes it, from `caller`; else None.

    Ranks above 0, forked processes and joblib's workers log nothing: whoever started them does.
    """
    context = user_run_of_rank(caller)
    return context if context is not None and context.rank == 0 else None


def user_run_of_rank(caller: FrameType | None) -> Context | None:
    """Return the same for what each rank logs itself, whichever this is."""
    return find_context() if is_own_process() and not _is_inside(caller) else None


def is_own_process() -> bool:
    """Tell whether this is the process that logs, and no fork of it."""
    return os.getpid() == _process


def _is_inside(frame: FrameType | None) -> bool:
    while frame is not None:
        module = frame.f_globals.get("__name__") or ""
        is_part = module.startswith(_INSIDER_MODULES) and module not in _AROUND
        if is_part or module.partition(".")[0] in _INSIDERS:
            return True
        frame = frame.f_back
    return False


def unseen(function: F) -> F:
    """Let warnings be attributed as if the function were not between a call and what it calls.

    PyTorch does not compile it.
    """
    function.__code__ = function.__code__.replace(co_filename=_UNSEEN_FILE)
    return function


def caller(depth: int) -> FrameType | None:
    """Return the frame so many calls above whoever asks, if there is one."""
    try:
        return sys._getframe(depth + 1)  # noqa: SLF001 - the documented way to it
    except ValueError:
        return None


def bind(
    function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> inspect.BoundArguments | None:
    """Return which arguments a call gives a function; None if it does not take them."""
    try:
        return inspect.signature(function).bind(*args, **kwargs)
    except TypeError:  # which the call itself is about to say
        return None


def argument_name(frame: FrameType | None, place: int, keywords: Sequence[str]) -> str:
    """Return how the call that a frame is in writes one of its arguments; `data` for no name.

    It is read in the source: to look at a frame's variables would keep what they hold alive.
    """
    try:
        call = _call(frame) if frame is not None else None
    except (SyntaxError, ValueError):  # no source, or not of what runs
        return "data"
    if call is None:
        return "data"
    named = [word.value for word in call.keywords if word.arg in keywords]
    given = named or call.args[place : place + 1]
    match given[0] if given else None:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return "data"


def _call(frame: FrameType) -> ast.Call | None:
    code = frame.f_code
    first, last, start, end = next(islice(code.co_positions(), frame.f_lasti // 2, None))
    if first is None or last is None or start is None or end is None:
        return None
    lines = [linecache.getline(code.co_filename, line).encode() for line in range(first, last + 1)]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][start:]
    shown = ast.parse(b"".join(lines).decode(), mode="eval").body
    return shown if isinstance(shown, ast.Call) else None


@contextmanager
def spared(what: str, context: Context | None = None) -> Iterator[None]:
    """Turn an error into a warning, one of a kind in each run; Python's own are not shown."""
    try:
        with _unwarned():
            yield
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever it is, training goes on
        pass_on(exc)
        said = f"automatic logging left out {what}: {first_line(exc)}"
        if context is None or _is_new(context, f"{what}: {type(exc).__name__}"):
            _logger.warning("%s; log it yourself, or turn it off with autolog=False", said)


def pass_on(exc: BaseException) -> None:
    """Raise it once more if a handler of a signal has raised it: so end the user's time limits."""
    codes = {_code(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    error: BaseException | None = exc
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code in codes:
                raise error
            trace = trace.tb_next
        error = error.__cause__


def _code(handler: Any) -> object:  # noqa: ANN401
    """Return what a handler runs; None of one that is not Python's."""
    while isinstance(handler, partial):
        handler = handler.func
    function = getattr(handler, "__func__", handler)
    if not hasattr(function, "__code__"):
        function = type(function).__call__
    return getattr(function, "__code__", None)


class _OwnThread(threading.local):
    """Stands in a filter of warnings for the message, and matches all while a thread logs."""

    depth = 0
    pattern = "(?!)"  # as those of `re` have, and matches nothing in another process
    flags = 0

    def match(self, _text: str) -> bool:
        return self.depth > 0

    def __reduce__(self) -> tuple[Any, ...]:  # joblib takes the filters to other processes
        return re.compile, (self.pattern,)


_logging = _OwnThread()
_FILTER: Any = ("ignore", _logging, Warning, None, 0)


@contextmanager
def _unwarned() -> Iterator[None]:
    """Show no warnings of this thread, nor count them as shown.

    `catch_warnings` would be for all threads, and have every warning be shown once more.
    """
    warnings.filters.insert(0, _FILTER)  # type: ignore[attr-defined]
    _logging.depth += 1
    try:
        yield
    finally:
        _logging.depth -= 1
        with suppress(ValueError):  # another thread has put its own filters in place
            warnings.filters.remove(_FILTER)  # type: ignore[attr-defined]


def warn(said: str, context: Context) -> None:
    """Warn of something, once in each run."""
    if _is_new(context, said):
        _logger.warning("automatic logging %s", said)


def _is_new(context: Context, said: str) -> bool:
    with _lock:
        known = _warned.setdefault(context, set())
        is_new = said not in known
        known.add(said)
    return is_new
