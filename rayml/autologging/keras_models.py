"""Models of Keras: what they are made of, and their files.

A model is written at the end of its fit, and not copied: Keras copies by writing, and to read one
back draws random numbers. What it takes and gives is told by its layers: it is not run.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rayml.artifacts.record import is_a
from rayml.artifacts.signature import describe, sample
from rayml.autologging import written
from rayml.autologging.keras_data import rows_of

if TYPE_CHECKING:
    from rayml.autologging.fits import Fit
    from rayml.autologging.written import WrittenFiles

_COMPILED = ("loss", "loss_weights", "metrics", "weighted_metrics")
_SWITCHES = ("run_eagerly", "jit_compile", "steps_per_execution")


def settings_of(model: Any) -> dict[str, object]:  # noqa: ANN401
    """Return its class, and the settings of its optimizer as they are now."""
    settings: dict[str, object] = {"class": type(model).__qualname__}
    if (optimizer := getattr(model, "optimizer", None)) is not None:
        settings["optimizer/class"] = type(optimizer).__qualname__
        config = _plain(optimizer.get_config())
        settings |= {f"optimizer/{name}": value for name, value in config.items()}
    return settings


def compiled(model: Any) -> dict[str, object]:  # noqa: ANN401
    """Return what it is compiled with, beside its optimizer."""
    config = model.get_compile_config() or {}
    return {name: _plain(config.get(name)) for name in (*_COMPILED, *_SWITCHES)}


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Return a configuration of Keras's in short: a loss as its class and settings."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() >= {"class_name", "config"}:
        is_code = value["class_name"] == "__lambda__"
        config = "lambda" if is_code else _plain(value["config"])
        return {"class": value["class_name"], **config} if isinstance(config, dict) else config
    return {name: _plain(item) for name, item in value.items() if item is not None}


def learning_rate_of(model: Any) -> float | None:  # noqa: ANN401
    """Return how fast a model learns now; None of one that does not say."""
    import keras  # noqa: PLC0415 - is imported already

    rate = getattr(getattr(model, "optimizer", None), "learning_rate", None)
    return None if rate is None else float(keras.ops.convert_to_numpy(rate))


def parameters_in(weights: Any) -> int:  # noqa: ANN401
    """Return how many numbers there are in weights."""
    return sum(math.prod(weight.shape) for weight in weights)


def layers_of(model: Any) -> dict[str, list[Any]]:  # noqa: ANN401
    """Return a table of its layers; what is inside of a model among them counts as that's."""
    layers = list(model.layers)
    return {
        "name": [layer.name for layer in layers],
        "class": [type(layer).__qualname__ for layer in layers],
        "output": [_output_of(layer) for layer in layers],
        "parameters": [parameters_in(layer.weights) for layer in layers],
        "trainable": [bool(layer.trainable) for layer in layers],
    }


def _output_of(layer: Any) -> str | None:  # noqa: ANN401
    """Return the shape of a layer's output, if it is in a graph of layers."""
    with suppress(Exception):
        output = layer.output if isinstance(layer.output, list) else [layer.output]
        # Built from a batch, it has that batch's rows.
        return ", ".join(str((None, *one.shape[1:])) for one in output)
    return None


def write(model: Any, data: Any, fit: Fit) -> WrittenFiles:  # noqa: ANN401
    """Write a model that was trained on some data, as its fit has left it.

    Raises:
        TooLarge: For the time that the fit has taken.
    """
    files = written.write(model, _bytes_of(model), fit)
    files.model.meta.update(_signature(model, data))
    return files


def _bytes_of(model: Any) -> int:  # noqa: ANN401
    """Return about how many bytes there are to write, the optimizer's included."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *getattr(optimizer, "variables", ())]
    return sum(math.prod(one.shape) * (8 if "64" in str(one.dtype) else 4) for one in variables)


def _signature(model: Any, data: Any) -> dict[str, object]:  # noqa: ANN401
    """Return what a model of one input takes and gives, and a few rows if there are some."""
    inputs, outputs = _tensors(model, "inputs"), _tensors(model, "outputs")
    rows = rows_of(data)
    if len(inputs) > 1 or isinstance(data, dict | list | tuple) or (rows is None and not inputs):
        return {}
    taken = rows if is_a(rows, "pandas.DataFrame") or not inputs else inputs[0]
    given = outputs[0] if len(outputs) == 1 else outputs
    told: dict[str, object] = {"signature": describe(taken, given)}
    return told if rows is None else {**told, "input_example": sample(rows)}


def _tensors(model: Any, name: str) -> list[Any]:  # noqa: ANN401
    """Return the symbolic inputs or outputs; none of a model that is not made of a graph."""
    with suppress(Exception):
        return list(getattr(model, name))
    return []
