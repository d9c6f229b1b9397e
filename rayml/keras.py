"""rayml for Keras: a callback for loops that are not `fit`.

    callbacks = keras.callbacks.CallbackList([rayml.keras.Callback()], model=model)

`fit` itself needs none where automatic logging is on.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import keras

from rayml.artifacts.record import is_a
from rayml.autologging.calls import spared
from rayml.autologging.fits import Training
from rayml.autologging.keras_fits import Fitting
from rayml.run_context import find_context

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Callback"]


class Callback(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs a training to the run that it is a part of; outside of one it does nothing.

    In a loop of one's own it is told what Keras tells its callbacks in `fit`: `on_train_begin`,
    `on_epoch_begin`, `on_epoch_end` with the epoch's logs, and `on_train_end`, which stores the
    model. Given to `fit` as the last one, it logs that by itself, and only once where automatic
    logging is on.

    An error inside is one warning. Of several ranks, the first one logs.

    Args:
        every_batch: Log each batch too, as `train/batch_loss`; else only epochs.
    """

    # Keras calls one that says so after each batch without waiting: each value has its step.
    async_safe = True

    def __init__(self, *, every_batch: bool = False) -> None:
        super().__init__()
        self._every_batch = every_batch
        self._find: Any = None
        self._joined: tuple[Training, Mapping[str, Any] | None] | None = None
        self._fitting: Fitting | None = None

    def set_model(self, model: Any) -> None:  # noqa: ANN401
        """Know the model as long as it lives."""
        if model is None:
            return
        # Not by Keras's own attribute: to ask it for the model costs a step on JAX its speed.
        is_wrapped = is_a(model, "torch.nn.parallel.DistributedDataParallel")
        self._find = weakref.ref(model.module if is_wrapped else model)

    def join(self, training: Training, given: Mapping[str, Any] | None) -> None:
        """Belong to a fit that is about to begin; for `rayml.autolog`.

        Args:
            training: Which.
            given: The arguments of the call; None if another one logs all but the curves.
        """
        self._joined = training, given

    def leave(self) -> None:
        """Forget the fit, however it has ended."""
        self._joined = self._fitting = None

    def on_train_begin(self, logs: object = None) -> None:  # noqa: ARG002
        """Begin a fit of the run."""
        self._fitting = None
        with spared("a training by Keras"):
            training, given = self._joined or (_training_here(), {})
            if training is not None and training.fit is not None:
                model = None if self._find is None else self._find()
                self._fitting = Fitting(training, model, given)
                self._fitting.begin(self.params or {})

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        """See how fast the epoch is to learn."""
        if self._fitting is not None:
            self._fitting.begin_epoch()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Log a batch, if that is wanted."""
        if self._every_batch and self._fitting is not None:
            self._fitting.end_batch(batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Log an epoch."""
        if self._fitting is not None:
            self._fitting.end_epoch(epoch, logs or {})

    def on_train_end(self, logs: object = None) -> None:  # noqa: ARG002
        """Log what has come of it, and the model."""
        fitting, self._fitting = self._fitting, None
        if fitting is not None:
            fitting.end()


def _training_here() -> Training | None:
    context = find_context()
    return Training(context) if context is not None and context.rank == 0 else None
