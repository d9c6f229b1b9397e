"""The network that is trained, and the model that is logged of it."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sklearn.pipeline import Pipeline, make_pipeline
from torch import nn

import rayml

from ._network import Finished, TableNetwork, as_sklearn

if TYPE_CHECKING:
    import pandas as pd

    from ._table import Table

_EXAMPLE = 5


def make_network(
    table: Table, module: str | None, hidden: list[int], dropout: float, seed: int
) -> nn.Module:
    """Return an untrained network, the same on all workers."""
    torch.manual_seed(seed)
    if module is None:
        return TableNetwork(table.width, table.sizes, table.outputs, hidden, dropout)
    inputs = table.width + sum(table.sizes)
    network = _found(module)(inputs, table.outputs)
    if not isinstance(network, nn.Module):
        raise rayml.SpecError(
            f"module {module!r} returned a {type(network).__name__}; return a torch.nn.Module"
        )
    _check_outputs(module, network, inputs, table.outputs)
    return network


def loss_of(table: Table) -> nn.Module:
    """Return the loss: of numbers, of one class against the other, or of several."""
    if table.classes is None:
        return nn.MSELoss()
    return nn.BCEWithLogitsLoss() if len(table.classes) == 2 else nn.CrossEntropyLoss()


class Model:
    """What was trained, in the form in which it is logged."""

    def __init__(self, network: nn.Module, table: Table) -> None:
        self._network, self._table = network, table
        self.pipeline: Pipeline | None = None
        if isinstance(network, TableNetwork):
            self.pipeline = make_pipeline(table.encoder, as_sklearn(network, table))
        self._is_raw = self.pipeline is None and not (table.dates or table.texts)

    def told(self, frame: pd.DataFrame) -> Any:  # noqa: ANN401
        """Return the probability of each class for each row, or the number."""
        columns = frame[self._table.columns]
        if self.pipeline is not None:
            is_number = self._table.classes is None
            return (self.pipeline.predict if is_number else self.pipeline.predict_proba)(columns)
        with torch.no_grad():
            return self._finished().eval()(torch.tensor(self._inputs(frame).to_numpy())).numpy()

    def log(self, context: rayml.Context, frame: pd.DataFrame) -> rayml.Artifact:
        """Log it, with some rows as an example."""
        few = frame.head(_EXAMPLE)
        if self.pipeline is not None:
            return context.log_model(
                "model", self.pipeline, input_example=few[self._table.columns]
            )
        if not self._is_raw:
            context.log_model("preprocessing", self._table.encoder, input_example=None)
        return context.log_model("model", self._finished(), input_example=self._inputs(few))

    def _finished(self) -> Finished:
        scaling = _scaling(self._table) if self._is_raw else None
        return Finished(self._network, self._table, scaling)

    def _inputs(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return what the program takes of some rows, by name."""
        if self._is_raw:
            return frame[self._table.columns].astype("float32")
        return self._table.named(frame)


def _scaling(table: Table) -> tuple[Any, ...]:
    encoder: Any = table.encoder
    fill, scale = (step for _, step in encoder.named_transformers_["numbers"].steps)
    return fill.statistics_, scale.mean_, scale.scale_


def _found(module: str) -> Any:  # noqa: ANN401
    """Return the user's function, of a file or of a package."""
    where, _, name = module.partition(":")
    if not name:
        raise rayml.SpecError(f"module is {module!r}; write it as file.py:make_model")
    if where.endswith(".py"):
        path = Path(where).absolute()
        if not path.is_file():
            raise rayml.SpecError(
                f"module {module!r}: there is no file {str(path)!r}; check the path"
            )
        spec: Any = importlib.util.spec_from_file_location(path.stem, path)
        loaded: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    else:
        loaded = importlib.import_module(where)
    if not callable(found := getattr(loaded, name, None)):
        raise rayml.SpecError(f"{where} has no function {name!r}; check module={module!r}")
    return found


def _check_outputs(module: str, network: nn.Module, inputs: int, outputs: int) -> None:
    try:
        with torch.no_grad():
            shape = tuple(network(torch.zeros(2, inputs)).shape)
    except Exception as exc:
        raise rayml.SpecError(
            f"the network of {module!r} fails on a tensor of 2 rows and {inputs} columns: "
            f"{str(exc).strip().splitlines()[0]}; it gets as many inputs as the function is told"
        ) from exc
    if shape != (2, outputs):
        raise rayml.SpecError(
            f"the network of {module!r} makes {shape} of 2 rows, where {(2, outputs)} is needed; "
            "give it as many outputs as the function is told"
        )
