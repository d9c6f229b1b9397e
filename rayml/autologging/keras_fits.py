"""What is logged of a training by Keras: settings, curves by epoch, layers, data and the model.

Settings and curves are in the run while it trains, so that they are there if it is cut short.
"""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any

from rayml.autologging.calls import spared, warn
from rayml.autologging.fits import keep_files, log_table_at_end, remember_fit
from rayml.autologging.keras_data import data_of, is_array, table_of
from rayml.autologging.keras_models import (
    compiled,
    layers_of,
    learning_rate_of,
    parameters_in,
    settings_of,
    write,
)
from rayml.autologging.params import shown
from rayml.autologging.written import TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rayml.autologging.fits import Fit, Training

# Of a call's arguments, what is no setting.
_OTHERS = frozenset(["x", "y", "sample_weight", "validation_data", "callbacks", "verbose"])
_PATIENCE = ("monitor", "patience", "baseline", "restore_best_weights", "start_from_epoch")
_BATCH_SIZE = 32  # Keras's own, of arrays
_VALID = "val_"  # what Keras puts before the scores of the data that it validates with


class Fitting:
    """A training that goes on, and is told how.

    Args:
        training: The fit that it is, or that it is a part of.
        model: What is trained, if that is known.
        given: The arguments of the call of `fit`, without the model; None if only the curves are
            wanted.
    """

    def __init__(self, training: Training, model: Any, given: Mapping[str, Any] | None) -> None:  # noqa: ANN401
        self._training = training
        self._context = training.context
        self._suffix = training.fit.suffix if training.fit is not None else ""
        self._find: Any = weakref.ref(model) if model is not None else lambda: None
        self._given = given or {}
        self._is_whole = given is not None
        self._started = time.perf_counter()
        self._rate: float | None = None
        self._epochs: dict[int, dict[tuple[str, str], float]] = {}
        self._batches = 0  # of the epochs before
        self._seen: list[int] = []  # of this epoch, in whatever order they come

    def begin(self, params: Mapping[str, Any]) -> None:
        """Log the settings, of which `params` are those that Keras tells its callbacks."""
        if not self._is_whole:
            return
        with spared("the settings of a training", self._context):
            self._log_settings({"epochs": params.get("epochs"), **dict(self._settings())})
        if (model := self._find()) is None or (fit := self._training.fit) is None:
            return
        remember_fit(self._context, model, fit)
        with spared("what a model is compiled with", self._context):
            self._log_settings(compiled(model))
        with spared("the settings of an optimizer", self._context):
            self._log_settings(settings_of(model))

    def _log_settings(self, settings: Mapping[str, object]) -> None:
        told = shown({name: value for name, value in settings.items() if value is not None})
        prefix = f"model{self._suffix}"
        self._context.log_params({f"{prefix}/{name}": value for name, value in told.items()})

    def _settings(self) -> Iterator[tuple[str, object]]:
        yield from ((name, value) for name, value in self._given.items() if name not in _OTHERS)
        if self._given.get("batch_size", 0) is None and is_array(self._given.get("x")):
            yield "batch_size", _BATCH_SIZE
        if (stopping := _early_stopping(self._given)) is not None:
            for name in _PATIENCE:
                yield f"early_stopping/{name}", getattr(stopping, name, None)
            # It has a sign as soon as Keras knows which scores are better.
            yield "early_stopping/min_delta", abs(stopping.min_delta)

    def begin_epoch(self) -> None:
        """See with which rate the epoch begins to learn."""
        with spared("the learning rate of a training", self._context):
            self._rate = learning_rate_of(self._find())

    def end_batch(self, batch: int, logs: Mapping[str, Any]) -> None:
        """Log one batch of the epoch."""
        with spared("the batches of a training", self._context):
            self._seen.append(batch)
            for (_, metric), value in self._numbers(logs).items():
                name = f"train{self._suffix}/batch_{metric}"
                self._context.log_metric(name, value, self._batches + batch)

    def end_epoch(self, epoch: int, logs: Mapping[str, Any]) -> None:
        """Log one epoch."""
        with spared("the curves of a training", self._context):
            self._batches += max(self._seen, default=-1) + 1
            self._seen.clear()
            rate = {} if self._rate is None else {"learning_rate": self._rate}
            self._epochs[epoch] = self._numbers({**rate, **logs})
            self._log(self._epochs[epoch], epoch)
        if self._is_whole and len(self._epochs) == 1:
            with spared("the layers of a model", self._context):
                self._log_layers()

    def _numbers(self, logs: Mapping[str, Any]) -> dict[tuple[str, str], float]:
        """Return the numbers among what Keras tells, by the data and the metric."""
        numbers = {}
        for name, value in logs.items():
            data = "valid" if str(name).startswith(_VALID) else "train"
            try:
                numbers[data, str(name).removeprefix(_VALID)] = float(value)
            except (TypeError, ValueError):
                warn(f"leaves out {name!r} of a training, which is no number", self._context)
        return numbers

    def _log(self, numbers: Mapping[tuple[str, str], float], step: int | None = None) -> None:
        for (data, name), number in numbers.items():
            with spared("a score of a training", self._context):
                self._context.log_metric(f"{data}{self._suffix}/{name}", number, step)

    def _log_layers(self) -> None:
        """Log what is known once a model is built, which it need not be before the first step."""
        if (model := self._find()) is None or (fit := self._training.fit) is None:
            return
        trained = parameters_in(model.trainable_weights)
        self._log_settings(
            {"parameters": parameters_in(model.weights), "trainable_parameters": trained}
        )
        if fit.is_kept:
            log_table_at_end(self._context, f"train{fit.suffix}/layers", layers_of(model))

    def end(self) -> None:
        """Log what has come of it; each part that fails is one warning."""
        fit = self._training.ended(time.perf_counter() - self._started)
        with spared("the epochs of a training", self._context):
            self._log({("train", "epochs"): len(self._epochs)})
            self._log_best()
        if self._is_whole and fit is not None:
            with spared("the data of a training", self._context):
                self._log_data(fit)
            with spared("a Keras model", self._context):
                self._keep_model(fit)

    def _log_best(self) -> None:
        stopping = _early_stopping(self._given)
        best = getattr(stopping, "best_epoch", None)
        if best not in self._epochs or stopping.best is None:  # it has seen no score
            return
        told = {("train", "best_epoch"): best}
        if stopping.stopped_epoch > 0:
            told["train", "stopped_epoch"] = stopping.stopped_epoch
        if stopping.restore_best_weights and stopping.best_weights is not None:
            told["train", "restored_epoch"] = best
        scores = self._epochs[best].items()
        self._log({**told, **{(data, f"best_{name}"): n for (data, name), n in scores}})

    def _log_data(self, fit: Fit) -> None:
        facts = data_of(self._given, fit.most_bytes)
        named = {f"{data}{fit.suffix}/{name}": fact for (data, name), fact in facts.items()}
        self._context.log_params(named)
        if fit.is_kept and (schema := table_of(self._given.get("x"))) is not None:
            log_table_at_end(self._context, f"train{fit.suffix}/schema", schema)

    def _keep_model(self, fit: Fit) -> None:
        if not fit.is_kept or (model := self._find()) is None:
            return
        try:
            written = write(model, self._given.get("x"), fit)
        except TooLarge as exc:
            warn(f"left out a model: {exc}; log it yourself", self._context)
            return
        keep_files(self._context, fit, type(model).__qualname__, written)


def callbacks_of(given: Mapping[str, Any]) -> list[Any]:
    """Return the callbacks that a call is given, in whichever form."""
    import keras  # noqa: PLC0415 - is imported already

    callbacks = given.get("callbacks")
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return list(keras.tree.flatten(callbacks)) if callbacks else []


def _early_stopping(given: Mapping[str, Any]) -> Any:  # noqa: ANN401
    import keras  # noqa: PLC0415 - is imported already

    kind = keras.callbacks.EarlyStopping
    return next((one for one in callbacks_of(given) if isinstance(one, kind)), None)
