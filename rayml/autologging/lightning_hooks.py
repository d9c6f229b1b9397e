"""Hooks on Lightning: what its modules log, how they are trained, and their checkpoints.

Its loop calls optimizers as any other does, so that all of that is logged as PyTorch's.
"""

from __future__ import annotations

import functools
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from rayml.autologging.calls import caller, spared, user_run_of_rank
from rayml.autologging.fits import Fit
from rayml.autologging.methods import replace
from rayml.autologging.params import shown
from rayml.autologging.written import keep_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from rayml.run_context import Context

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")
_SETTINGS = (
    *("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "precision"),
    *("world_size", "num_nodes"),
)
_undo: dict[str, Callable[[], None]] = {}
_counts: WeakKeyDictionary[Context, int] = WeakKeyDictionary()


def install() -> None:
    """Hook the trainers of the packages that are there."""
    for name in _PACKAGES:
        trainer = getattr(sys.modules.get(name), "Trainer", None)
        if trainer is not None and name not in _undo:
            _undo[name] = replace(trainer, "fit", _seen_fit(trainer.fit, name))


def uninstall() -> None:
    """Put everything back that is still hooked."""
    for put_back in _undo.values():
        put_back()
    _undo.clear()


def _seen_fit(fit: Callable[..., Any], package: str) -> Callable[..., Any]:
    @functools.wraps(fit)
    def call(trainer: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        told = None
        with spared("a call of Trainer.fit"):
            told = _begin(trainer, package, caller(1))
        try:
            return fit(trainer, *args, **kwargs)
        finally:
            if told is not None:
                with spared("a training with Lightning", told.context):
                    told.end(trainer)

    return call


def _begin(trainer: Any, package: str, frame: FrameType | None) -> Training | None:  # noqa: ANN401
    if (context := user_run_of_rank(frame)) is None:
        return None
    _counts[context] = number = _counts.get(context, 0) + 1
    told = Training(context, Fit(number).suffix)
    told.watch = _watch(sys.modules[package], told)
    trainer.callbacks.append(told.watch)
    return told


class Training:
    """One call of `fit`: what its callback logs.

    Args:
        context: The run.
        suffix: What ends the names of all that is logged, after the first call.
    """

    def __init__(self, context: Context, suffix: str) -> None:
        self.context = context
        self.watch: object = None
        self._suffix = suffix
        self._known: dict[str, float] = {}

    def begin(self, trainer: Any, module: Any) -> None:  # noqa: ANN401
        """Log how a module is to be trained."""
        if self.context.rank > 0:
            return
        settings = {name: getattr(trainer, name, None) for name in _SETTINGS}
        settings["strategy"] = type(trainer.strategy).__name__
        given = {name: value for name, value in settings.items() if value is not None}
        self._log_params("trainer", given)
        self._log_params("hparams", dict(module.hparams))

    def add(self, trainer: Any) -> None:  # noqa: ANN401
        """Log what has another value than before, at the last step that was done."""
        step = max(0, trainer.global_step - 1)
        for name, value in trainer.callback_metrics.items():
            number, called = float(value), f"{name}{self._suffix}"
            # What was there before is the user's own, or a loop's.
            is_own = name in self._known or self.context.client.next_step(called) is None
            if is_own and self._known.get(name, math.nan) != number:
                self._known[name] = number
                self.context.log_metric(called, number, step)

    def add_epoch(self, trainer: Any) -> None:  # noqa: ANN401
        """Log which epoch begins, after what the one before has come to."""
        self.add(trainer)
        epoch, step = trainer.current_epoch, trainer.global_step
        self.context.log_metric(f"epoch{self._suffix}", epoch, step)

    def end(self, trainer: Any) -> None:  # noqa: ANN401
        """Log what the training has come to, and have its checkpoints stored."""
        trainer.callbacks[:] = [one for one in trainer.callbacks if one is not self.watch]
        self.add(trainer)
        if self.context.rank > 0 or (kept := trainer.checkpoint_callback) is None:
            return
        best, last = (getattr(kept, f"{one}_model_path", "") for one in ("best", "last"))
        if kept.monitor is not None and kept.best_model_score is not None:
            name = f"best_{kept.monitor}{self._suffix}"
            self.context.log_metric(name, float(kept.best_model_score))
        for which, path in {"best": best, "last": last if last != best else ""}.items():
            if path:
                keep_path(self.context, f"{which}_checkpoint{self._suffix}", Path(path))

    def _log_params(self, group: str, params: dict[str, object]) -> None:
        named = shown(params).items()
        self.context.log_params({f"{group}{self._suffix}/{name}": v for name, v in named})


def _watch(package: Any, told: Training) -> object:  # noqa: ANN401
    """Return a callback of the package's, which in another process is one that does nothing."""
    base: Any = package.Callback

    class Watch(base):  # type: ignore[misc]
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
            with spared("the settings of a trainer", told.context):
                told.begin(trainer, pl_module)

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401, ARG002
            with spared("the metrics of an epoch", told.context):
                told.add_epoch(trainer)

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401, ARG002
            with spared("the metrics of a validation", told.context):
                if not trainer.sanity_checking:
                    told.add(trainer)

        def __reduce__(self) -> tuple[Any, ...]:
            return base, ()

    return Watch()
