"""A model as an ONNX file that is known to predict the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

import rayml

from ._check import compare, expected, runner, signature
from ._convert import convert
from ._sample import find_sample

if TYPE_CHECKING:
    import pandas as pd

_NAME = "model.onnx"


def export_onnx(
    context: rayml.Context,
    model: rayml.Input,
    sample: pd.DataFrame | None = None,
    opset: int | None = None,
    tolerance: float = 1e-4,
    trusted: bool = False,  # noqa: FBT001, FBT002 - parameters of a job have names
) -> dict[str, float]:
    """Convert a model to ONNX, and check that onnxruntime predicts the same with it.

    Models of scikit-learn with LightGBM's and XGBoost's estimators inside of pipelines or alone,
    LightGBM's and XGBoost's boosters, and PyTorch models that were logged with an example. Logged
    are the file `model.onnx`, the table `signature` of what it takes and gives, and the metrics
    `max_difference`, `same_class` (a classifier's share of equal predictions) and `checked_rows`.
    A model that takes a table of numbers and text has one input for each column, any other a
    single one, called `input`. A classifier gives `label` and `probabilities`.

    Args:
        context: What the run logs to.
        model: A registered model's URI, the artifact of a model, or a fitted model.
        sample: Rows to check the predictions on. By default those of a dataset that the model's
            run has logged or been given, else the few rows of the model's input example.
        opset: The version of ONNX's operators; by default the newest that the converter knows.
        tolerance: How far a number may be from the model's own, relative to the larger of 1 and
            the number.
        trusted: Run the code that a pickle or an exported PyTorch program brings along.

    Raises:
        SpecError: A step of the model has no counterpart in ONNX, there are no rows to check it
            on, or the predictions differ.
    """
    artifact = _artifact(context, model)
    rows = find_sample(artifact, sample, context.store)
    loaded = artifact.load(trusted)
    made = convert(artifact, loaded, rows, opset)
    made.metadata_props.add(key="rayml.model", value=artifact.uri)
    found = compare(expected(artifact, loaded, rows, trusted), runner(made), rows)
    context.log_metrics(found.metrics)
    found.check(tolerance)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _NAME
        onnx.save(made, path)
        context.log_artifact(_NAME, path)
    context.log_table("signature", signature(made))
    if found.warnings:
        print(*found.warnings, sep="\n")
        context.log_table("warnings", [{"warning": said} for said in found.warnings])
    return found.metrics


def _artifact(context: rayml.Context, model: rayml.Input) -> rayml.Artifact:
    if (found := model.artifact) is None:
        if model.uri.startswith("memory://"):
            return context.log_model("model", model.value)
        raise rayml.SpecError(
            f"model is {model.uri!r}, no artifact; give rayml://models/<name>@<version>, the URI "
            "of a model that a run has logged, or a fitted model"
        )
    if found.kind != "model":
        raise rayml.SpecError(
            f"model is the {found.kind} {found.uri}; give a model that was logged"
        )
    return found
