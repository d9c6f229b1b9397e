"""Hooks on Hugging Face's Trainer: each call that logs something gets one callback more.

Its loop calls an optimizer as others do. The Trainer knows its losses better than one who sees
single steps, so that these are left to what it logs itself.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from rayml.autologging.calls import bind, caller, spared, user_run_of_rank
from rayml.autologging.fits import next_fit
from rayml.autologging.methods import replace
from rayml.autologging.transformers_fits import Told

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from rayml.run_context import Context

_MODULE = "transformers.trainer"
_CALLS = ("train", "evaluate", "predict")
_undo: list[Callable[[], None]] = []
_known: WeakKeyDictionary[Any, Told] = WeakKeyDictionary()


def install() -> None:
    """Hook the Trainer, once it is there.

    Raises:
        AttributeError: It does not have what is hooked.
    """
    if _undo:
        return
    trainer: Any = sys.modules[_MODULE].Trainer
    found = {name: getattr(trainer, name) for name in _CALLS}
    _undo.extend(replace(trainer, name, _seen(call)) for name, call in found.items())


def uninstall() -> None:
    """Put everything back that is still hooked."""
    while _undo:
        _undo.pop()()
    _known.clear()


def _seen(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(trainer: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        watched = None
        with spared(f"a call of Trainer.{function.__name__}"):
            given = bind(function, (trainer, *args), kwargs)
            prefix = "" if given is None else given.arguments.get("metric_key_prefix", "")
            watched = _begin(trainer, function.__name__ == "train", prefix, caller(1))
        if watched is None:
            return function(trainer, *args, **kwargs)
        with watched:
            return function(trainer, *args, **kwargs)

    return call


def _begin(
    trainer: Any,  # noqa: ANN401
    is_training: bool,  # noqa: FBT001 - or a look at what is trained
    prefix: str,
    frame: FrameType | None,
) -> _Watched | None:
    """Return a call that user code makes in a run; None of one that another is a part of."""
    context = user_run_of_rank(frame)
    if context is None or any(hasattr(one, "rayml_told") for one in _callbacks(trainer)):
        return None
    told = _told(trainer, context, is_training=is_training)
    return None if told is None else _Watched(trainer, told, prefix, is_training=is_training)


def _told(trainer: Any, context: Context, *, is_training: bool) -> Told | None:  # noqa: ANN401
    """Return what is told of a trainer in a run: of each training by itself."""
    told = _known.get(trainer)
    if told is None or told.context is not context or (is_training and told.is_trained):
        if (fit := next_fit(context)) is None:
            return None
        told = _known[trainer] = Told(context, fit)
    return told


class _Watched:
    """A call of a trainer's, in whose block a callback is the last of those that it has."""

    def __init__(self, trainer: Any, told: Told, prefix: str, *, is_training: bool) -> None:  # noqa: ANN401
        self._trainer = trainer
        self._told = told
        self._is_training = is_training
        self._watch = _callback(told, prefix, _callbacks(trainer))

    def __enter__(self) -> None:
        if self._is_training:
            self._told.begin()
        _callbacks(self._trainer).append(self._watch)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with spared("a training with the Trainer", self._told.context):
            callbacks = _callbacks(self._trainer)
            callbacks[:] = [one for one in callbacks if one is not self._watch]
            if self._is_training:
                self._told.end(self._trainer, failed=kind is not None)


def _callbacks(trainer: Any) -> list[Any]:  # noqa: ANN401
    callbacks: list[Any] = trainer.callback_handler.callbacks
    return callbacks


def _callback(told: Told, prefix: str, callbacks: list[Any]) -> Any:  # noqa: ANN401
    """Return a callback of the library's, which in another process is one that does nothing."""
    base: Any = sys.modules["transformers.trainer_callback"].TrainerCallback

    class Watch(base):  # type: ignore[misc]
        rayml_told = told

        def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ANN401, ARG002
            with spared("the settings of a trainer", told.context):
                told.begin_steps(args, parts, callbacks)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
            with spared("what a trainer logs", told.context):
                told.add(logs, state.global_step, prefix)

        def on_predict(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
            with spared("what a trainer has predicted", told.context):
                told.add(metrics, state.global_step, prefix)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
            with spared("a checkpoint of a trainer", told.context):
                told.saved(args, state.global_step)

        def __reduce__(self) -> tuple[Any, ...]:
            return base, ()

    return Watch()
