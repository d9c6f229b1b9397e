"""Hooks on functions of scikit-learn that user code calls.

What is replaced is the function inside of scikit-learn's check of the arguments: code that has
imported the outer one long before is seen too.
"""

from __future__ import annotations

import functools
import inspect
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rayml.autologging.calls import argument_name, bind, caller, spared, unseen, user_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CellType, FrameType

    from rayml.run_context import Context


@dataclass(frozen=True)
class Called:
    """A call of a function by user code that has returned.

    Attributes:
        context: The run in which it was made.
        name: Of the function.
        arguments: By the names that the function has for them.
        result: What it returned.
        seconds: How long it took.
    """

    context: Context
    name: str
    arguments: dict[str, Any]
    result: Any
    seconds: float
    _frame: FrameType | None

    def written(self, place: int) -> str:
        """Return how the caller writes the argument at a place; `data` for no name."""
        names = list(self.arguments)
        return argument_name(self._frame, place, names[place : place + 1])


class FunctionHooks:
    """Hooks on functions, by what is told of each of their calls.

    Args:
        log: Is told of each call that user code makes inside of a run.
    """

    def __init__(self, log: Callable[[Called], None]) -> None:
        self._log = log
        self._undo: list[Callable[[], None]] = []
        self._hooks: set[Callable[..., Any]] = set()

    def hook(self, module: str, functions: Iterable[Any]) -> None:
        """Hook functions of a module, those left out that are hooked already.

        Raises:
            TypeError: Some of them are not as this knows them; the others are hooked.
        """
        moved = []
        for name, function in ((getattr(each, "__name__", each), each) for each in functions):
            if (cell := self._inner(function)) is None:
                moved.append(f"{module}.{name}")
            elif cell.cell_contents not in self._hooks:
                self._replace(cell)
        if moved:
            version = sys.modules["sklearn"].__version__
            raise TypeError(f"{', '.join(moved)} of scikit-learn {version} cannot be watched")

    def unhook(self) -> None:
        """Put every function back."""
        while self._undo:
            self._undo.pop()()
        self._hooks.clear()

    def _inner(self, function: Any) -> CellType | None:  # noqa: ANN401
        wrapped = getattr(function, "__wrapped__", None)
        closure = getattr(function, "__closure__", None) or ()
        cells = [cell for cell in closure if wrapped and _content(cell)]
        known = (c for c in cells if _content(c) is wrapped or _content(c) in self._hooks)
        return next(known, None)

    def _replace(self, cell: CellType) -> None:
        before, hook = cell.cell_contents, self._wrap(cell.cell_contents)
        cell.cell_contents = hook
        self._hooks.add(hook)

        def restore() -> None:
            if cell.cell_contents is hook:
                cell.cell_contents = before

        self._undo.append(restore)

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        @unseen
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            started = time.perf_counter()
            result = function(*args, **kwargs)
            with spared(f"a call of {function.__name__}"):
                frame = caller(2)  # the first above is scikit-learn's check of the arguments
                context = user_run(frame)
                bound = None if context is None else bind(function, args, kwargs)
                if context is not None and bound is not None:
                    seconds = time.perf_counter() - started
                    bound.apply_defaults()
                    given = dict(bound.arguments)
                    self._log(Called(context, function.__name__, given, result, seconds, frame))
            return result

        return call


def _content(cell: CellType) -> Any:  # noqa: ANN401
    try:
        content = cell.cell_contents
    except ValueError:  # it is empty
        return None
    return content if callable(content) else None


def takes_first(function: Any, name: str) -> bool:  # noqa: ANN401
    """Tell whether something is a function whose first parameter has this name."""
    is_function = inspect.isfunction(function)
    return is_function and next(iter(inspect.signature(function).parameters), "") == name
