"""The seeds that code sets: the first of each generator in a run, and the last if it is another.

They are parameters, `seed/<generator>`. What sets several, such as Lightning's `seed_everything`,
is seen by what it sets.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from rayml.autologging.calls import is_own_process, spared, unseen
from rayml.autologging.ending import Task, at_end
from rayml.autologging.methods import replace
from rayml.autologging.params import shown
from rayml.run_context import find_context, only_context
from rayml.spec import is_numpy_scalar

if TYPE_CHECKING:
    from collections.abc import Callable

    from rayml.run_context import Context

_PREFIX = "seed/"
_HASH = "PYTHONHASHSEED"
_RAYML = str(Path(__file__).parents[1])
_lock = threading.Lock()
_with_seeds: WeakSet[Context] = WeakSet()


class _Generator:
    """What is seeded, and by what it was in each run."""

    def __init__(self, name: str) -> None:
        self.name = name
        # Of the run that is the only one, so that a million calls are not felt.
        self.context: Context | None = None
        self.latest: object = None
        self._last: WeakKeyDictionary[Context, object] = WeakKeyDictionary()

    def note(self, seed: object) -> None:
        """Keep a seed as the newest of its run; log it if it is the first."""
        context = find_context()
        if context is None or not is_own_process() or not _is_seed(seed):
            return
        with _lock:
            is_first = context not in self._last
            self._last[context] = seed
            self.context, self.latest = context, seed
        if is_first and context.rank == 0:
            self._log_first(context, seed)

    def _log_first(self, context: Context, seed: object) -> None:
        _log_hash_seed(context)
        context.log_param(_PREFIX + self.name, first := _plain(seed))
        log_last = functools.partial(self._log_last, context, first)
        at_end(context, Task("the last seed", log_last, is_brief=True))

    def _log_last(self, context: Context, first: object) -> None:
        with _lock:
            last = self._last.pop(context)
            if self.context is context:
                last, self.context, self.latest = self.latest, None, None
        if _is_seed(last) and (last := _plain(last)) != first:
            context.log_param(f"{_PREFIX}{self.name}/last", last)


def watch_seed(
    owner: Any,  # noqa: ANN401 - a module
    name: str,
    generator: str,
    keyword: str = "seed",
    *,
    of_user: bool = False,
) -> Callable[[], None]:
    """Note what a function of a module is given from now on; return what ends that.

    Args:
        owner: The module.
        name: Of the function, whose first argument is the seed.
        generator: What it seeds, for the parameter's name.
        keyword: The argument's name.
        of_user: Installed packages, and rayml, call it for reasons of their own, which do not
            count.
    """
    function, seen = getattr(owner, name), _Generator(generator)
    is_on = [True]

    @functools.wraps(function)
    @unseen
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        result = function(*args, **kwargs)
        if of_user and _is_installed(sys._getframe(1).f_code.co_filename):  # noqa: SLF001 - the documented way to it
            return result
        if args and seen.context is not None and only_context() is seen.context:
            seen.latest = args[0]
        elif is_on:
            try:
                seen.note(args[0] if args else kwargs.get(keyword))
            except Exception as exc:
                with spared("a seed"):
                    raise exc  # noqa: TRY201 - it is none any more here
        return result

    # By this name it is pickled, and found where nothing is watched.
    call.__module__, call.__qualname__ = owner.__name__, name
    put_back = replace(owner, name, call)

    def end() -> None:
        is_on.clear()
        seen.context = None
        put_back()

    return end


def _is_installed(file: str) -> bool:
    return "site-packages" in file or "dist-packages" in file or file.startswith(_RAYML)


def _log_hash_seed(context: Context) -> None:
    """Log what Python's hashes are seeded with; what code sets itself comes too late for that."""
    with _lock:
        is_logged = context in _with_seeds
        _with_seeds.add(context)
    prefix = f"{_HASH}=".encode()
    pairs = Path("/proc/self/environ").read_bytes().split(b"\0")
    given = next((pair for pair in pairs if pair.startswith(prefix)), b"")
    seed = os.fsdecode(given.removeprefix(prefix))
    if seed not in ("", "random") and not is_logged:
        context.log_param(_PREFIX + _HASH, seed)


def _is_seed(value: object) -> bool:
    """Tell whether it can be told: a generator or a state is none, nor is what lets chance do."""
    return is_numpy_scalar(value) or isinstance(value, int | float | str | bytes | list | tuple)


def _plain(seed: object) -> object:
    return shown({"": seed.hex() if isinstance(seed, bytes) else seed})[""]
