"""Automatic logging of Keras: `fit`, `evaluate`, and the callback for other loops."""

from __future__ import annotations

import copy
import gc
import inspect
import logging
import os
import pickle
import random
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest

import rayml
from rayml import autologging

if TYPE_CHECKING:
    from pathlib import Path

    from rayml import Run

# The one that is there anyway; the others by the variable that Keras itself reads.
BACKEND = os.environ.get("KERAS_BACKEND", "torch")
pytest.importorskip(BACKEND)
with pytest.MonkeyPatch.context() as patch:
    patch.setenv("KERAS_BACKEND", BACKEND)
    pytest.importorskip("keras")

import keras  # noqa: E402 - an extra

import rayml.keras  # noqa: E402 - it loads Keras

if BACKEND == "torch":
    import torch

    torch.set_num_threads(1)  # its pool of threads would be missing where another test forks

pytestmark = [
    pytest.mark.usefixtures("autolog"),
    # Keras's tensors on torch take no `copy`, of which numpy 2 complains.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
RANDOM = np.random.default_rng(0)
X = RANDOM.random((80, 3), dtype=np.float32)
Y = (X[:, 0] + X[:, 1] > 1).astype("float32")
VALID = (X[60:], Y[60:])


def network(**options: Any) -> Any:
    """Return a small network whose weights are always the same."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="relu", name="hidden"),
            keras.layers.Dropout(0.3, name="dropped"),
            keras.layers.BatchNormalization(name="normal"),
            keras.layers.Dense(1, activation="sigmoid", name="out"),
        ]
    )
    given = {"optimizer": keras.optimizers.Adam(0.01), "loss": "binary_crossentropy"}
    model.compile(**{**given, "metrics": ["accuracy"], **options})
    return model


def fit(model: Any = None, **options: Any) -> Any:
    """Train on the first 60 rows and validate on the others; return the history."""
    given = {"epochs": 3, "batch_size": 16, "verbose": 0, "validation_data": VALID}
    return (model or network()).fit(X[:60], Y[:60], **{**given, **options})


def curve(run: Run, name: str) -> tuple[list[int], list[float]]:
    history = run.history(name)
    return list(history["step"]), list(history["value"])


# What is logged


def test_a_fit(track: Any) -> None:
    kept: list[Any] = []
    run = track(lambda: kept.append(fit()))
    (history,) = kept
    for name in ("loss", "accuracy"):
        assert curve(run, f"train/{name}") == ([0, 1, 2], history.history[name])
        assert curve(run, f"valid/{name}") == ([0, 1, 2], history.history[f"val_{name}"])
    assert curve(run, "train/learning_rate")[1] == pytest.approx([0.01] * 3)
    assert run.metrics["train/epochs"] == 3

    told = {name.removeprefix("model/"): value for name, value in run.params.items()}
    assert (told["class"], told["optimizer/class"]) == ("Sequential", "Adam")
    assert told["optimizer/learning_rate"] == pytest.approx(0.01)
    assert (told["epochs"], told["batch_size"], told["shuffle"]) == (3, 16, True)
    assert (told["loss"], told["metrics"]) == ("binary_crossentropy", ["accuracy"])
    assert (told["parameters"], told["trainable_parameters"]) == (37, 29)
    assert (run.params["train/rows"], run.params["train/columns"]) == (60, 3)
    assert run.params["valid/rows"] == 20
    assert len(str(run.params["train/digest"])) == 40

    layers = run.artifact("train/layers").to_pandas()
    assert layers["name"].tolist() == ["hidden", "dropped", "normal", "out"]
    assert layers["class"].tolist() == ["Dense", "Dropout", "BatchNormalization", "Dense"]
    assert layers["output"].tolist() == ["(None, 4)"] * 3 + ["(None, 1)"]
    assert layers["parameters"].tolist() == [16, 0, 16, 5]
    assert run.artifact("train/schema").to_pandas()["type"].tolist() == ["float32"] * 3

    stored = run.artifact("model")
    assert stored.format == "keras"
    expected = history.model.predict(X, verbose=0)
    np.testing.assert_array_equal(stored.predict(X), expected)
    inputs = {"name": None, "dtype": "float32", "shape": [None, 3]}
    outputs = {"name": None, "dtype": "float32", "shape": [None, 1]}
    assert stored.meta["signature"]["inputs"] == [inputs]
    assert stored.meta["signature"]["outputs"] == [outputs]
    assert stored.meta["input_example"] == X[:5].tolist()


def test_it_is_in_the_run_while_it_trains(track: Any) -> None:
    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    def train() -> None:
        with pytest.raises(KeyboardInterrupt):
            fit(epochs=9, callbacks=[Stop()])

    run = track(train)
    assert len(curve(run, "train/loss")[0]) == 2
    assert run.params["model/epochs"] == 9
    assert "train/layers" in run.artifacts
    assert "model" not in run.artifacts
    assert "train/epochs" not in run.metrics


def test_early_stopping(track: Any) -> None:
    stopping = keras.callbacks.EarlyStopping(
        patience=2, min_delta=0.5, restore_best_weights=True, monitor="val_loss"
    )
    kept: list[Any] = []
    run = track(lambda: kept.append(fit(epochs=9, callbacks=[stopping])))
    (history,) = kept
    assert len(history.epoch) == 3
    assert run.metrics["train/epochs"] == 3
    assert run.metrics["train/best_epoch"] == run.metrics["train/restored_epoch"] == 0
    assert run.metrics["train/stopped_epoch"] == 2
    assert run.metrics["valid/best_loss"] == history.history["val_loss"][0]
    assert run.metrics["train/best_accuracy"] == history.history["accuracy"][0]
    told = {name.rpartition("/")[2]: v for name, v in run.params.items() if "early" in name}
    assert told == {
        "monitor": "val_loss",
        "patience": 2,
        "min_delta": 0.5,
        "restore_best_weights": True,
        "start_from_epoch": 0,
    }
    expected = history.model.predict(X, verbose=0)  # of the weights that were put back
    np.testing.assert_array_equal(run.artifact("model").predict(X), expected)


@pytest.mark.filterwarnings("ignore:Early stopping conditioned on metric")
def test_early_stopping_that_sees_no_score(track: Any) -> None:
    stopping = keras.callbacks.EarlyStopping(monitor="nothing", mode="min")
    run = track(lambda: fit(callbacks=[stopping]))
    assert run.metrics["train/epochs"] == 3
    assert "train/best_epoch" not in run.metrics


def test_the_learning_rate_of_each_epoch(track: Any) -> None:
    given: list[float] = []

    def rate(epoch: int, _: float) -> float:
        given.append(0.1 / (epoch + 1))
        return given[-1]

    scheduled = keras.callbacks.LearningRateScheduler(rate)
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=4, decay_rate=0.5)

    def train() -> None:
        fit(callbacks=[scheduled])
        fit(network(optimizer=keras.optimizers.SGD(decay)))

    run = track(train)
    assert curve(run, "train/learning_rate")[1] == pytest.approx(given)
    assert curve(run, "train-2/learning_rate")[1] == pytest.approx([0.1, 0.05, 0.025])
    assert run.params["model-2/optimizer/learning_rate"]["class"] == "ExponentialDecay"


def test_each_batch_on_request(track: Any) -> None:
    seen: list[float] = []

    class See(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(logs["loss"])

    run = track(lambda: fit(callbacks=[rayml.keras.Callback(every_batch=True), See()]))
    assert curve(run, "train/batch_loss") == (list(range(12)), seen)
    assert len(curve(run, "train/loss")[0]) == 3
    assert "model-2/class" not in run.params


def test_batches_that_keras_tells_from_other_threads(track: Any) -> None:
    run = track(lambda: fit(callbacks=[rayml.keras.Callback(every_batch=True)]))
    assert sorted(curve(run, "train/batch_accuracy")[0]) == list(range(12))


def test_what_a_fitted_model_is_evaluated_on(track: Any) -> None:
    told: list[Any] = []

    def job() -> None:
        model = network()
        fit(model)
        late, truth = X[40:], Y[40:]
        told.append(model.evaluate(late, truth, verbose=0, return_dict=True))
        model.evaluate(x=late[:9], y=truth[:9], verbose=0, callbacks=None)
        network().evaluate(X, Y, verbose=0)  # of no fit

    run = track(job)
    assert curve(run, "late/loss") == ([0], [told[0]["loss"]])
    assert run.metrics["late/accuracy"] == told[0]["accuracy"]
    assert "data/loss" in run.metrics  # an expression has no name
    assert "X/loss" not in run.metrics


def test_several_fits_have_names_of_their_own(track: Any) -> None:
    def train() -> None:
        model = network()
        fit(model, epochs=2)
        fit(model, epochs=5, initial_epoch=2)
        fit(epochs=1)

    run = track(train)
    assert curve(run, "train/loss")[0] == [0, 1]
    assert curve(run, "train-2/loss")[0] == [2, 3, 4]
    assert (run.metrics["train-2/epochs"], run.params["model-2/initial_epoch"]) == (3, 2)
    assert curve(run, "valid-3/accuracy")[0] == [0]
    assert {"model", "model-2", "model-3"} <= set(run.artifacts)


def test_a_model_is_kept_as_it_was_after_its_fit(track: Any) -> None:
    expected: list[Any] = []

    def train() -> None:
        model = network()
        for _ in range(2):
            fit(model)
            expected.append(model.predict(X, verbose=0))

    run = track(train)
    for name, predicted in zip(("model", "model-2"), expected, strict=True):
        np.testing.assert_array_equal(run.artifact(name).predict(X), predicted)


def test_fits_in_threads(track: Any) -> None:
    together = Barrier(2)
    models = [network(), network()]

    def one(model: Any) -> Any:
        together.wait()
        return fit(model)

    def both() -> Any:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, models))

    run = track(both)
    assert len(curve(run, "train/loss")[0]) == len(curve(run, "train-2/loss")[0]) == 3
    assert {"model", "model-2"} <= set(run.artifacts)


def test_a_loop_of_ones_own(track: Any) -> None:
    told: list[Any] = []

    def train() -> None:
        model = network()
        own = rayml.keras.Callback(every_batch=True)
        callbacks = keras.callbacks.CallbackList([own], model=model, epochs=2)
        callbacks.on_train_begin()
        for epoch in range(2):
            callbacks.on_epoch_begin(epoch)
            logs = {}
            for batch in range(3):
                rows = slice(20 * batch, 20 * batch + 20)
                logs = model.train_on_batch(X[rows], Y[rows], return_dict=True)
                callbacks.on_train_batch_end(batch, logs)
            told.append({**logs, "val_loss": model.evaluate(*VALID, verbose=0)[0]})
            callbacks.on_epoch_end(epoch, told[-1])
        callbacks.on_train_end()

    run = track(train)
    assert curve(run, "train/loss") == ([0, 1], [one["loss"] for one in told])
    assert curve(run, "valid/loss") == ([0, 1], [one["val_loss"] for one in told])
    assert curve(run, "train/batch_loss")[0] == list(range(6))
    assert (run.params["model/class"], run.params["model/epochs"]) == ("Sequential", 2)
    assert {"model", "train/layers"} <= set(run.artifacts)


# Of other kinds


@pytest.mark.skipif(BACKEND != "torch", reason="a loader of PyTorch's")
def test_data_that_is_no_table(track: Any) -> None:
    def rows() -> Any:
        for start in range(0, 60, 20):
            taken.append(start)
            yield X[start : start + 20], Y[start : start + 20]

    taken: list[int] = []
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y)), batch_size=40
    )

    def train() -> None:
        network().fit(rows(), shuffle=False, steps_per_epoch=3, verbose=0)
        network().fit(loader, shuffle=False, verbose=0)
        network().fit(torch.tensor(X), torch.tensor(Y), verbose=0)

    run = track(train)
    assert taken == [0, 20, 40]
    assert "train/rows" not in run.params
    assert "train-2/rows" not in run.params
    assert (run.params["train-3/rows"], run.params["model-3/batch_size"]) == (80, 32)
    assert run.artifact("model").meta["signature"]["inputs"][0]["shape"] == [None, 3]
    assert "input_example" not in run.artifact("model").meta
    assert run.artifact("model-3").meta["input_example"] == X[:5].tolist()


def test_a_frame_gives_its_columns(track: Any) -> None:
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    run = track(lambda: network().fit(frame, Y, validation_split=0.25, verbose=0))
    stored = run.artifact("model")
    assert [column["name"] for column in stored.meta["signature"]["inputs"]] == ["a", "b", "c"]
    assert stored.predict(frame[["c", "b", "a"]]).shape == (80, 1)
    assert run.params["model/validation_split"] == 0.25
    assert len(curve(run, "valid/loss")[0]) == 1


def test_images_of_any_size(track: Any) -> None:
    def train() -> None:
        pixels = keras.Input((None, None, 1))
        out = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(pixels))
        model = keras.Model(pixels, out)
        model.compile("sgd", "mse")
        model.fit(np.zeros((8, 6, 5, 1), "float32"), np.zeros((8, 2)), verbose=0)

    run = track(train)
    assert (run.params["train/rows"], run.params["train/row_shape"]) == (8, [6, 5, 1])
    stored = run.artifact("model")
    assert stored.meta["signature"]["inputs"][0]["shape"] == [None, None, None, 1]
    assert stored.predict(np.zeros((2, 9, 9, 1), "float32")).shape == (2, 2)


def test_several_inputs_and_outputs(track: Any) -> None:
    def train() -> None:
        first, second = keras.Input((3,), name="first"), keras.Input((3,), name="second")
        both = keras.layers.Concatenate()([first, second])
        outs = {name: keras.layers.Dense(1, name=name)(both) for name in ("left", "right")}
        model = keras.Model({"first": first, "second": second}, outs)
        model.compile("sgd", {"left": "mse", "right": "mae"})
        model.fit({"first": X, "second": X}, {"left": Y, "right": Y}, verbose=0)

    run = track(train)
    assert {"train/left_loss", "train/right_loss", "train/loss"} <= set(run.metrics)
    assert run.params["train/rows"] == 80
    assert run.params["model/loss"] == {"left": "mse", "right": "mae"}
    predicted = run.artifact("model").predict({"first": X, "second": X})
    assert set(predicted) == {"left", "right"}


class Own(keras.Model):  # type: ignore[misc]
    """Has no graph, a step and a `fit` of its own, and cannot be saved."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        self.fits = 0

    def call(self, rows: Any) -> Any:
        return self.layer(rows)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        self.fits += 1
        return super().fit(*args, **kwargs)

    def get_config(self) -> Any:
        raise NotImplementedError


def test_a_class_of_ones_own(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = Own(keras.layers.Dense(1))
    model.compile("sgd", "mse")
    run = track(lambda: model.fit(X, Y, epochs=2, verbose=0))
    assert len(curve(run, "train/loss")[0]) == 2
    assert "train-2/loss" not in run.metrics
    assert run.params["model/class"] == "Own"
    (said,) = {record.getMessage() for record in caplog.records}
    assert "left out a Keras model" in said
    assert "model" not in run.artifacts


def test_a_class_without_a_graph_is_kept(track: Any) -> None:
    @keras.saving.register_keras_serializable("rayml")
    class Plain(keras.Model):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.layer = keras.layers.Dense(2)

        def call(self, rows: Any) -> Any:
            return self.layer(rows)

    model = Plain()
    model.compile("sgd", "mse")
    run = track(lambda: model.fit(X, np.zeros((80, 2)), verbose=0))
    stored = run.artifact("model")
    assert stored.meta["signature"]["inputs"][0]["shape"] == [None, 3]
    np.testing.assert_array_equal(stored.predict(X), model.predict(X, verbose=0))


def test_a_lambda_as_a_loss(track: Any) -> None:
    loss = lambda truth, told: keras.ops.mean((truth - told) ** 2)  # noqa: E731
    run = track(lambda: fit(network(loss=loss, metrics=[keras.metrics.AUC()])))
    assert run.params["model/loss"] == "lambda"
    assert run.params["model/metrics"][0]["class"] == "AUC"


def test_scores_that_are_no_numbers(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Told(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs |= {"words": "good", "several": np.zeros(3), "val_f1": np.float32(0.5)}

    run = track(lambda: fit(callbacks=[Told()]))
    assert run.metrics["valid/f1"] == 0.5
    assert len({record.getMessage() for record in caplog.records}) == len(caplog.records) == 2


def test_a_wrapped_model_has_its_curves(track: Any) -> None:
    pytest.importorskip("sklearn")
    settings = {"epochs": 2, "verbose": 0}
    estimator = keras.wrappers.SKLearnRegressor(lambda **_: network(), fit_kwargs=settings)
    run = track(lambda: estimator.fit(X, Y))
    assert len(curve(run, "train/loss")[0]) == 2
    assert run.params["model/class"] == "SKLearnRegressor"
    assert "model-2/class" not in run.params


@pytest.mark.parametrize("form", [None, "one", "list", "tuple", "whole"])
def test_every_form_of_callbacks(track: Any, form: str | None) -> None:
    seen: list[int] = []
    own = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, _: seen.append(epoch))
    model = network()
    whole = keras.callbacks.CallbackList([own], add_history=True, model=model, epochs=2)
    forms = {"one": own, "list": [own], "tuple": (own,), "whole": whole, None: None}
    run = track(lambda: fit(model, epochs=2, callbacks=forms[form]))
    assert curve(run, "train/loss")[0] == [0, 1]
    assert seen == ([] if form is None else [0, 1])
    assert len(forms["list"]) == 1
    assert len(whole.callbacks) == 2


def test_a_list_of_callbacks_that_takes_no_more(
    track: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = network()
    whole = keras.callbacks.CallbackList([], add_history=True, model=model)
    whole.callbacks = tuple(whole.callbacks)
    history: list[Any] = []
    track(lambda: history.append(fit(model, callbacks=whole)))
    assert len(history[0].epoch) == 3
    (said,) = caplog.records
    assert "a call with a CallbackList" in said.getMessage()


# Left as it is


def state() -> Any:
    shared: Any = np.random.get_state()  # noqa: NPY002 - others may draw from it
    own = torch.get_rng_state().tolist() if BACKEND == "torch" else None
    return random.getstate(), shared[1].tolist(), own


def test_results_are_the_same_to_the_bit(track: Any) -> None:
    kept: list[Any] = []

    def train() -> None:
        model = network()
        stopping = keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True)
        history = fit(model, epochs=5, callbacks=[stopping])
        score = model.evaluate(X, Y, verbose=0)
        weights = model.trainable_weights
        gradients = [getattr(weight.value, "grad", None) is None for weight in weights]
        training = getattr(model, "training", None)  # PyTorch's modules have that
        told = history.history, score, state(), training, gradients
        kept.append((model.get_weights(), *told))

    track(train)
    autologging.stop()
    train()
    logged, plain = kept
    for one, other in zip(logged[0], plain[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert logged[1:] == plain[1:]


def test_what_is_printed_stays(track: Any, capsys: pytest.CaptureFixture[str]) -> None:
    track(lambda: fit(verbose=2))
    logged = capsys.readouterr().out
    autologging.stop()
    fit(verbose=2)
    plain = capsys.readouterr().out
    assert [line.count("-") for line in logged.splitlines()] == [
        line.count("-") for line in plain.splitlines()
    ]


def test_nothing_is_kept_alive(track: Any) -> None:
    alive: list[Any] = []

    def train() -> None:
        model, rows = network(), X.copy()
        own = rayml.keras.Callback()
        model.fit(rows, Y, verbose=0, callbacks=[own])
        alive.extend([weakref.ref(model), weakref.ref(rows), own])
        model.evaluate(rows, Y, verbose=0)
        del model, rows
        gc.collect()
        assert [one() for one in alive[:2]] == [None, None]

    track(train)


def test_a_fit_that_fails_leaves_no_data_behind(track: Any) -> None:
    own = rayml.keras.Callback()
    alive: list[Any] = []

    def train() -> None:
        rows = X.copy()
        alive.append(weakref.ref(rows))
        stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            network().fit(rows, Y, verbose=0, callbacks=[own, stop])

    track(train)
    gc.collect()
    assert alive[0]() is None


def test_models_and_functions_travel_as_before(track: Any, tmp_path: Path) -> None:
    model = network()
    track(lambda: fit(model))
    told = cloudpickle.dumps([model, type(model).fit, model.fit, keras.Model.evaluate])
    assert b"rayml" not in told
    model.save_weights(tmp_path / "own.weights.h5")
    if BACKEND == "torch":
        torch.save(model.state_dict(), tmp_path / "weights.pt")
    expected = model.predict(X, verbose=0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(X, verbose=0), expected)
    assert not any("rayml" in str(name) for name in vars(model))


def test_the_callback_can_be_copied(track: Any) -> None:
    own = rayml.keras.Callback(every_batch=True)
    run = track(lambda: fit(callbacks=[copy.deepcopy(pickle.loads(pickle.dumps(own)))]))
    assert len(curve(run, "train/batch_loss")[0]) == 12


def test_outside_of_a_run_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    fit(callbacks=[rayml.keras.Callback(every_batch=True)])
    assert not caplog.records


def test_two_runs_of_a_process(track: Any, tmp_path: Path) -> None:
    model = network()
    with rayml.start_run(store=tmp_path / "store") as first:
        fit(model)
    with rayml.start_run(store=tmp_path / "store") as second:
        fit(model, epochs=2)
    for context, epochs in ((first, 3), (second, 2)):
        run = rayml.get_run(context.run_id, store=tmp_path / "store")
        assert len(curve(run, "train/loss")[0]) == epochs
        assert "model" in run.artifacts


def test_a_fit_inside_of_a_fit_is_part_of_it(track: Any) -> None:
    def inner(epoch: int, logs: Any) -> None:
        fit(epochs=1)

    run = track(lambda: fit(callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=inner)]))
    assert "train-2/loss" not in run.metrics
    assert len(curve(run, "train/loss")[0]) == 3


def test_an_error_of_a_call_is_the_users_own(track: Any) -> None:
    def train() -> None:
        with pytest.raises(TypeError, match="wrong"):
            network().fit(X, Y, wrong=1)
        with pytest.raises(ValueError, match="compile"):
            keras.Sequential([keras.layers.Dense(1)]).fit(X, Y)

    run = track(train)
    assert (run.artifacts, run.metrics) == ({}, {})
    assert not [name for name in run.params if name.startswith("model")]


def test_an_error_inside_is_one_warning(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Rude(keras.optimizers.SGD):  # type: ignore[misc]
        def get_config(self) -> Any:
            raise ZeroDivisionError("no config")

    run = track(lambda: fit(network(optimizer=Rude(0.1))))
    assert len(curve(run, "train/loss")[0]) == 3
    said = {record.getMessage() for record in caplog.records}
    assert all("ZeroDivisionError" in one for one in said)
    assert len(said) == len(caplog.records)


def test_a_model_that_is_large_for_its_fit(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    def train() -> None:
        model = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(6000)])
        model.compile("sgd", "mse")
        model.fit(np.zeros((1, 1000)), np.zeros((1, 6000)), verbose=0)

    run = track(train)
    assert "model" not in run.artifacts
    (said,) = [record.getMessage() for record in caplog.records]
    assert "too large for the time of its fit" in said


def test_a_model_that_the_user_logs_is_kept(track: Any) -> None:
    def train() -> None:
        model = network()
        fit(model)
        rayml.context().log_model("model", model, input_example=X[:2])

    assert len(track(train).artifact("model").meta["input_example"]) == 2


def test_what_waits_on_disk_is_removed(track: Any, monkeypatch: Any, tmp_path: Path) -> None:
    (tmp_path / "wait").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "wait"))

    def train() -> None:
        fit()
        assert list((tmp_path / "wait").glob("rayml-*/model.keras"))

    track(train)
    gc.collect()
    assert not list((tmp_path / "wait").iterdir())


def test_many_fits_are_counted(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = network()

    def train() -> None:
        for _ in range(12):
            model.fit(X[:8], Y[:8], verbose=0)

    with caplog.at_level(logging.ERROR, "rayml"):
        run = track(train)
    assert "train-12/loss" in run.metrics
    assert {"model-10", "train-10/layers"} <= set(run.artifacts)
    assert "model-11" not in run.artifacts


def test_what_has_moved_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    autologging.stop()
    monkeypatch.setattr(keras, "Model", object)
    rayml.autolog()
    (said,) = {record.getMessage() for record in caplog.records}
    assert "keras.Model.fit" in said
    assert keras.__version__ in said


def test_everything_is_undone() -> None:
    model = network()
    hooked, plain = keras.Model.fit, inspect.unwrap(keras.Model.fit)
    assert inspect.signature(hooked) == inspect.signature(plain)
    bound = model.fit
    autologging.stop()
    assert keras.Model.fit is hooked.__wrapped__
    assert "rayml" not in keras.Model.evaluate.__code__.co_filename
    bound(X, Y, verbose=0)
