"""Hooks on scikit-learn's estimators: those that exist, and classes that are defined later.

Each class's own `fit`, `fit_predict`, `predict`, `predict_proba`, `decision_function` and `score`
is wrapped. A wrapper names one function of this module and holds no state, so that a class that is
pickled with its code takes nothing of a run along.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any

from rayml.autologging.calls import caller, in_own_process, name_of, spared, user_run
from rayml.autologging.sklearn_fits import Fit, fit_of, log_fit, remember_prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from rayml.run_context import Context

_FITS = ("fit", "fit_predict")
_PREDICTIONS = ("predict", "predict_proba", "decision_function")
_METHODS = (*_FITS, *_PREDICTIONS, "score")
_undo: list[Callable[[], None]] = []


def install() -> None:
    """Wrap the methods of all estimators."""
    in_own_process()
    module = sys.modules["sklearn.base"]  # as an attribute it may not be there yet
    if not isinstance(base := getattr(module, "BaseEstimator", None), type):
        version = sys.modules["sklearn"].__version__
        raise TypeError(
            f"sklearn.base.BaseEstimator is not in scikit-learn {version}, so that no fit is seen"
        )
    _hook_new_classes(base)
    for kind in [base, *_subclasses(base)]:
        _hook_class(kind)


def uninstall() -> None:
    """Put every method back that is still wrapped."""
    while _undo:
        _undo.pop()()


def observe(
    name: str,
    method: Callable[..., Any],
    estimator: Any,  # noqa: ANN401
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401
    """Call a method; if user code has called it inside of a run, log what it did."""
    context = frame = None
    if _undo:
        with spared(f"a call of {name}"):
            context = user_run(frame := caller(2))
    result = method(estimator, *args, **kwargs)
    if context is not None:
        with spared(f"a call of {name}", context):
            _log(context, name, estimator, args, kwargs, result, frame)
    return result


def _log(
    context: Context,
    name: str,
    estimator: Any,  # noqa: ANN401
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: Any,  # noqa: ANN401
    frame: FrameType | None,
) -> None:
    data = args[0] if args else kwargs.get("X")
    target = args[1] if len(args) > 1 else kwargs.get("y")
    if name in _FITS:
        log_fit(context, estimator, data, target)
    elif (fit := fit_of(context, estimator)) is None:
        return
    elif name in _PREDICTIONS:
        remember_prediction(context, result, fit)
    else:
        _log_score(context, fit, result, name_of(data, frame))


def _log_score(context: Context, fit: Fit, score: Any, dataset: str) -> None:  # noqa: ANN401
    context.log_metric(f"{dataset}{fit.suffix}/score", score)


def _hook_new_classes(base: Any) -> None:  # noqa: ANN401
    own = vars(base).get("__init_subclass__")

    def init_subclass(cls: type, **kwargs: object) -> None:
        if own is None:
            super(base, cls).__init_subclass__(**kwargs)
        else:
            own.__get__(None, cls)(**kwargs)
        with spared(f"what {cls.__name__} does"):
            _hook_class(cls)

    base.__init_subclass__ = classmethod(init_subclass)  # type: ignore[arg-type]
    if own is None:
        _undo.append(lambda: delattr(base, "__init_subclass__"))
    else:
        _undo.append(lambda: setattr(base, "__init_subclass__", own))


def _subclasses(kind: type) -> Iterator[type]:
    below: type
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)


def _hook_class(kind: type) -> None:
    """Wrap what the class defines itself or takes from a mixin."""
    for owner in kind.__mro__:
        if owner.__module__ != "builtins":
            for name in _METHODS:
                _hook_method(owner, name)


def _hook_method(owner: type, name: str) -> None:
    method = vars(owner).get(name)
    if inspect.isfunction(method):
        if not _is_hook(method):
            _replace(owner, name, _wrap(name, method))
        return
    # Of a method that exists on a condition, scikit-learn keeps the function in a descriptor.
    inner = getattr(method, "fn", None)
    if inspect.isfunction(inner) and not _is_hook(inner):
        _replace(method, "fn", _wrap(name, inner))


def _replace(owner: Any, name: str, hook: Callable[..., Any]) -> None:  # noqa: ANN401
    before = vars(owner)[name]
    setattr(owner, name, hook)

    def restore() -> None:
        if vars(owner).get(name) is hook:  # else another one has wrapped it, and calls it
            setattr(owner, name, before)

    _undo.append(restore)


def _wrap(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return observe(name, method, self, args, kwargs)

    return call


def _is_hook(method: Any) -> bool:  # noqa: ANN401
    return bool(method.__code__.co_filename == __file__)
