"""What waits for the end of a run: all that goes to the store, so that no fit waits for it.

A process that is killed before does none of it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from rayml.autologging.calls import spared, warn
from rayml.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rayml.run_context import Context

# Nothing begins after this much computing, the first one's left out: it may load a library. A busy
# machine, or a slow store, makes it last no longer than so many times that.
_MOST_S = 5.0
_SLACK = 3

_lock = threading.RLock()
_registered: set[int] = set()


class Task(NamedTuple):
    """What is to be done, and what its warning calls it if it fails."""

    what: str
    do: Callable[[], object]
    is_plot: bool = False
    is_brief: bool = False


_waiting: defaultdict[Context, list[Task]] = defaultdict(list)


def at_end(context: Context, task: Task) -> None:
    """Do something when the run ends, if there is time for it."""
    with _lock:
        _waiting[context].append(task)
        if os.getpid() not in _registered:
            _registered.add(os.getpid())
            # A script's process ends without that anybody ends its run there. This is called while
            # threads can be started still, which `atexit` is too late for.
            threading._register_atexit(partial(_finish_all, os.getpid()))  # type: ignore[attr-defined]  # noqa: SLF001


def finish(context: Context, *, failed: bool) -> None:
    """Do what waits for the end of a run; it raises nothing. Nobody waits for plots of a failure.

    First comes what is brief, which has no need of the store and may add to the rest. Of that,
    what does not fit in the time is left out; so are all others once the store refuses something.
    """
    tasks = _taken(context)
    for task in tasks:
        if task.is_brief:
            with spared(task.what, context):
                task.do()
    tasks += _taken(context)
    artifacts = [task for task in tasks if not task.is_plot and not task.is_brief]
    plots = [task for task in tasks if task.is_plot and not failed]
    with spared("what the store refuses", context):
        if left := _do(context, iter([*artifacts, *plots])):
            warn(f"left out {left} models, tables and plots, for which the time is short", context)


def _taken(context: Context) -> list[Task]:
    with _lock:
        return _waiting.pop(context, [])


def _do(context: Context, tasks: Iterator[Task]) -> int:
    """Return how many tasks were not even tried."""
    begun: tuple[float, float] | None = None
    for task in tasks:
        refusal = None
        with spared(task.what, context):
            try:
                task.do()
            except StoreError as exc:  # the next one would wait for its timeout as well
                refusal = exc
        if refusal is not None:
            raise refusal
        begun = begun or (time.thread_time(), time.monotonic())
        computed, passed = time.thread_time() - begun[0], time.monotonic() - begun[1]
        if computed > _MOST_S or passed > _MOST_S * _SLACK:
            return len(list(tasks))
    return 0


def _finish_all(process: int) -> None:
    if os.getpid() != process:  # a fork, which has what waits from its parent
        return
    for context in list(_waiting):
        finish(context, failed=hasattr(sys, "last_value"))  # an error that Python has shown
