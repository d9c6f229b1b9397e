"""Hooks on Keras 3, which is also `tf.keras`: on `fit` and `evaluate` of all its models.

What is replaced are the functions of the class below `keras.Model`, which is the backend's, so
that a class that overrides `fit` and calls the one above is seen too. Each call gets a callback.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any

from rayml.autologging.calls import argument_name, bind, caller, spared, unseen, user_run
from rayml.autologging.fits import Training, fit_of, training_now
from rayml.autologging.keras_fits import callbacks_of
from rayml.autologging.methods import is_half_imported, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from rayml.keras import Callback
    from rayml.run_context import Context

# What makes an estimator of scikit-learn's out of a model.
_WRAPPERS = ("keras.src.wrappers.", "scikeras.")
_undo: list[Callable[[], None]] = []


def install() -> None:
    """Replace the functions, once Keras is there.

    Raises:
        TypeError: It has them no more, or not as they were; so has Keras 2.
    """
    package: Any = sys.modules["keras"]
    if _undo or is_half_imported(package, "Model"):
        return
    wraps = {"fit": _begin_fit, "evaluate": _begin_evaluation}
    found = {name: _owner(package, name) for name in wraps}
    if moved := [f"keras.Model.{name}" for name, owner in found.items() if owner is None]:
        version = getattr(package, "__version__", "of this version")
        raise TypeError(f"{', '.join(moved)} cannot be watched in Keras {version}")
    for name, owner in found.items():
        _undo.append(replace(owner, name, _wrap(vars(owner)[name], wraps[name])))


def uninstall() -> None:
    """Put everything back that is still hooked."""
    while _undo:
        _undo.pop()()


def _owner(package: Any, name: str) -> Any:  # noqa: ANN401
    """Return the class that gives models a method; MLflow puts one of its own before it."""
    kinds = getattr(package, "Model", object).__mro__[1:]
    owner = next((kind for kind in kinds if name in vars(kind)), None)
    takes = inspect.signature(vars(owner)[name]).parameters if owner is not None else ()
    return owner if "callbacks" in takes else None


def _wrap(function: Callable[..., Any], begin: Callable[..., Watched | None]) -> Any:  # noqa: ANN401
    @functools.wraps(function)
    @unseen
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if (watched := begin(function, args, kwargs)) is None:
            return function(*args, **kwargs)
        with watched:
            return function(*watched.bound.args, **watched.bound.kwargs)

    return call


def _begin_fit(
    fit: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Watched | None:
    """Return a call of `fit`, two frames above, with a callback more; None if it is not logged."""
    with spared("a call of fit"):
        frame = caller(2)
        context = user_run(frame) if _undo else None
        training = _training_around(frame) if context is None else Training(context)
        bound = None if training is None else bind(fit, args, kwargs)
        if training is not None and bound is not None:
            callback = _own_callback(bound)
            callback.join(training, None if context is None else _all_arguments(bound))
            return Watched(bound, callback)
    return None


def _own_callback(bound: inspect.BoundArguments) -> Callback:
    """Return the callback that the call is given already, or a new one."""
    from rayml.keras import Callback  # noqa: PLC0415 - it loads Keras, which is there by now

    given = callbacks_of(bound.arguments)
    return next((one for one in given if isinstance(one, Callback)), None) or Callback()


def _training_around(frame: FrameType | None) -> Training | None:
    """Return the fit of scikit-learn's kind that a wrapper's call is a part of."""
    name = "" if frame is None else str(frame.f_globals.get("__name__"))
    return training_now() if name.startswith(_WRAPPERS) else None


def _begin_evaluation(
    evaluate: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Watched | None:
    """Return a call of `evaluate`, two frames above, as `_begin_fit` does."""
    with spared("a call of evaluate"):
        frame = caller(2)
        context = user_run(frame) if _undo else None
        fit = None if context is None or not args else fit_of(context, args[0])
        bound = None if fit is None else bind(evaluate, args, kwargs)
        if context is not None and fit is not None and bound is not None:
            data = f"{argument_name(frame, 0, ['x'])}{fit.suffix}"
            return Watched(bound, _scores_callback(context, data))
    return None


def _scores_callback(context: Context, data: str) -> Any:  # noqa: ANN401
    import keras  # noqa: PLC0415 - is imported already

    class Scores(keras.callbacks.Callback):  # type: ignore[misc]
        def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
            with spared("the scores of evaluate", context):
                scores = {f"{data}/{name}": value for name, value in (logs or {}).items()}
                context.log_metrics(scores)

    return Scores()


def _all_arguments(bound: inspect.BoundArguments) -> dict[str, Any]:
    whole = inspect.BoundArguments(bound.signature, bound.arguments.copy())
    whole.apply_defaults()
    return {name: value for name, value in whole.arguments.items() if name != "self"}


class Watched:
    """A call of Keras's, in whose block a callback is the last of those that it is given.

    Attributes:
        bound: Its arguments.
    """

    def __init__(self, bound: inspect.BoundArguments, callback: Any) -> None:  # noqa: ANN401
        import keras  # noqa: PLC0415 - is imported already

        self.bound = bound
        self._callback = callback
        self._list = None
        given, others = bound.arguments.get("callbacks"), callbacks_of(bound.arguments)
        if not isinstance(given, keras.callbacks.CallbackList):
            own = [one for one in others if one is not callback]
            bound.arguments["callbacks"] = [*own, callback]
        elif callback not in others:
            self._list = given

    def __enter__(self) -> None:
        if self._list is None:
            return
        with spared("a call with a CallbackList"):
            self._list.callbacks.append(self._callback)
            self._callback.set_model(self.bound.arguments["self"])
            self._callback.set_params(self._list.params)

    def __exit__(self, *_: object) -> None:
        with spared("a call with a CallbackList"):
            if self._list is not None and self._callback in self._list.callbacks:
                self._list.callbacks.remove(self._callback)
            if hasattr(self._callback, "leave"):
                self._callback.leave()
