"""Hooks on a library of gradient boosting.

`train` and `cv` are replaced where user code finds them, and `train` also where the library's own
estimators do; what boosters predict is seen.
"""

from __future__ import annotations

import functools
import inspect
import sys
import time
from typing import TYPE_CHECKING, Any

from rayml.autologging.boosting import Boosting, log_validation
from rayml.autologging.calls import bind, caller, spared, unseen, user_run
from rayml.autologging.fits import Training, fit_or_other, remember_prediction, training_now
from rayml.autologging.methods import MethodHooks, is_half_imported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from rayml.autologging.boosting import Library
    from rayml.autologging.methods import Call


class BoostingHooks:
    """The hooks on one library."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._undo: list[Callable[[], None]] = []
        self._methods = MethodHooks(("predict", "inplace_predict"), _log_prediction)

    def install(self) -> None:
        """Replace the functions and hook the boosters, once the library is there.

        Raises:
            TypeError: The library has them no more, or not as they were.
        """
        if self._undo:
            return
        package: Any = sys.modules[self._library.name]
        if is_half_imported(package, "train"):
            return
        if moved := list(self._moved(package)):
            version = getattr(package, "__version__", "of this version")
            raise TypeError(
                f"{', '.join(moved)} cannot be watched in {package.__name__} {version}"
            )
        for function, wrap in ((package.train, self._wrap_train), (package.cv, self._wrap_cv)):
            self._replace(function, wrap(function))
        self._methods.hook(package.Booster)

    def uninstall(self) -> None:
        """Put everything back that is still hooked."""
        while self._undo:
            self._undo.pop()()
        self._methods.unhook()

    def _moved(self, package: Any) -> Iterator[str]:  # noqa: ANN401
        for name in ("train", "cv", "Booster"):
            if not callable(getattr(package, name, None)):
                yield f"{package.__name__}.{name}"
            elif name == "train":
                names = list(inspect.signature(package.train).parameters)
                if names[:1] != ["params"] or "callbacks" not in names:
                    yield f"{package.__name__}.train"

    def _replace(self, function: Any, hook: Any) -> None:  # noqa: ANN401
        """Put a hook where the library has a function: in its module, the package, estimators."""
        for place in (self._library.name, function.__module__, self._library.estimators):
            if (module := sys.modules.get(place)) is not None:
                _exchange(module, function, hook)
                self._undo.append(functools.partial(_exchange, module, hook, function))

    def _wrap_train(self, train: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(train)
        @unseen
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if (seen := self._begin(train, args, kwargs)) is None:
                return train(*args, **kwargs)
            boosting, args, kwargs = seen
            started = time.perf_counter()
            booster = train(*args, **kwargs)
            boosting.log(booster, time.perf_counter() - started)
            return booster

        return call

    def _begin(
        self, train: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Boosting, tuple[Any, ...], dict[str, Any]] | None:
        """Return what logs a call two frames above, and with which arguments; None if nothing."""
        with spared(f"a call of {self._library.name}.train"):
            frame = caller(2)
            context = user_run(frame) if self._undo else None
            training = None if context is None else Training(context)
            if frame is not None and frame.f_globals.get("__name__") == self._library.estimators:
                training = training_now()
            bound = None if training is None else bind(train, args, kwargs)
            if training is not None and bound is not None:
                boosting = Boosting(self._library, training, bound, is_whole=context is not None)
                return boosting, bound.args, bound.kwargs
        return None

    def _wrap_cv(self, validate: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(validate)
        @unseen
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            result = validate(*args, **kwargs)
            with spared(f"a call of {self._library.name}.cv"):
                context = user_run(caller(2)) if self._undo else None
                bound = None if context is None else bind(validate, args, kwargs)
                if context is not None and bound is not None:
                    log_validation(context, bound, result)
            return result

        return call


def _exchange(module: ModuleType, before: Any, after: Any) -> None:  # noqa: ANN401
    """Replace a function in a module that has it."""
    name = before.__name__
    if vars(module).get(name) is before:
        setattr(module, name, after)


def _log_prediction(call: Call) -> None:
    """Let the scores of what a booster predicts belong to its fit."""
    with spared(f"a call of {call.name}", call.context):
        if (fit := fit_or_other(call.context, call.owner)) is not None:
            remember_prediction(call.context, call.result, fit)
