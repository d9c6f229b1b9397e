"""What the run shows in the end: scores on rows kept apart, and the course of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from sklearn import metrics

if TYPE_CHECKING:
    import rayml

    from ._train import Epoch


def score(truth: Any, told: Any, classes: list[Any] | None) -> dict[str, Any]:  # noqa: ANN401
    """Return the scores of probabilities, or of numbers."""
    found = _of_numbers(truth, told) if classes is None else _of_classes(truth, told, classes)
    return {name: float(value) for name, value in found.items()}


def _of_numbers(truth: Any, told: Any) -> dict[str, float]:  # noqa: ANN401
    return {
        "rmse": metrics.root_mean_squared_error(truth, told),
        "mae": metrics.mean_absolute_error(truth, told),
        "r2": metrics.r2_score(truth, told),
    }


def _of_classes(truth: Any, told: Any, classes: list[Any]) -> dict[str, float]:  # noqa: ANN401
    said = np.asarray(classes)[told.argmax(axis=1)]
    truth = np.asarray(truth)
    found = {
        "accuracy": metrics.accuracy_score(truth, said),
        "balanced_accuracy": metrics.recall_score(truth, said, average="macro", zero_division=0),
        "f1": metrics.f1_score(truth, said, average="macro", zero_division=0),
        "log_loss": metrics.log_loss(truth, told, labels=classes),
    }
    if len(classes) == 2 and len(set(truth)) == 2:
        found["roc_auc"] = metrics.roc_auc_score(truth == classes[1], told[:, 1])
    return found


def draw(epochs: list[Epoch], best: int) -> go.Figure:
    """Return the losses by epoch, with the epoch whose weights were kept."""
    steps = list(range(len(epochs)))
    figure = go.Figure()
    for name in ("train", "valid"):
        figure.add_scatter(x=steps, y=[getattr(epoch, name) for epoch in epochs], name=name)
    figure.add_vline(x=best, line_dash="dot", annotation_text="kept")
    return figure.update_layout(title="Loss", xaxis_title="epoch", yaxis_title="loss")


def warn(context: rayml.Context, warnings: list[str]) -> None:
    """Log what is to be known of the table, if anything is."""
    if warnings:
        print(*warnings, sep="\n")
        context.log_table("warnings", [{"warning": said} for said in warnings])
