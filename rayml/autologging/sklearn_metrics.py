"""Hooks on the functions of `sklearn.metrics`, for scores that user code computes itself.

What is replaced is the function inside of scikit-learn's check of the arguments: code that has
imported the outer one long before is seen too.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any

from rayml.autologging.calls import argument_name, caller, spared, unseen, user_run
from rayml.autologging.fits import fit_of_prediction

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CellType, FrameType

    from rayml.run_context import Context

_undo: list[Callable[[], None]] = []
_hooks: set[Callable[..., Any]] = set()


def install() -> None:
    """Wrap every function that compares targets with predictions."""
    metrics = sys.modules["sklearn.metrics"]  # as an attribute it may not be there yet
    functions: list[Any] = [vars(metrics).get(name) for name in metrics.__all__]
    found = [(function, _inner(function)) for function in functions if _is_metric(function)]
    for _, cell in found:
        if cell is not None and cell.cell_contents not in _hooks:
            _replace(cell)
    if moved := [
        f"sklearn.metrics.{function.__name__}" for function, cell in found if cell is None
    ]:
        version = sys.modules["sklearn"].__version__
        raise TypeError(f"{', '.join(moved)} of scikit-learn {version} cannot be watched")


def uninstall() -> None:
    """Put every function back."""
    while _undo:
        _undo.pop()()
    _hooks.clear()


def _is_metric(function: Any) -> bool:  # noqa: ANN401
    is_function = inspect.isfunction(function)
    return is_function and next(iter(inspect.signature(function).parameters), "") == "y_true"


def _inner(function: Any) -> CellType | None:  # noqa: ANN401
    wrapped = getattr(function, "__wrapped__", None)
    cells = [cell for cell in function.__closure__ or () if wrapped and _content(cell)]
    return next((c for c in cells if _content(c) is wrapped or _content(c) in _hooks), None)


def _content(cell: CellType) -> Any:  # noqa: ANN401
    try:
        content = cell.cell_contents
    except ValueError:  # it is empty
        return None
    return content if callable(content) else None


def _replace(cell: CellType) -> None:
    before, hook = cell.cell_contents, _wrap(cell.cell_contents)
    cell.cell_contents = hook
    _hooks.add(hook)

    def restore() -> None:
        if cell.cell_contents is hook:
            cell.cell_contents = before

    _undo.append(restore)


def _wrap(metric: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(metric)
    @unseen
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        result = metric(*args, **kwargs)
        with spared(f"a call of {metric.__name__}"):
            if isinstance(result, float):
                frame = caller(2)  # the first above is scikit-learn's check of the arguments
                if (context := user_run(frame)) is not None:
                    _log(context, metric, args, kwargs, result, frame)
        return result

    return call


def _log(
    context: Context,
    metric: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: float,
    frame: FrameType | None,
) -> None:
    names = list(inspect.signature(metric).parameters)[:2]
    predicted = args[1] if len(args) > 1 else kwargs.get(names[1])
    if (fit := fit_of_prediction(context, predicted)) is not None:
        name = f"{argument_name(frame, 0, names[:1])}{fit.suffix}/{metric.__name__}"
        context.log_metric(name, result)
