"""Plots of what a model says and by what: few points each, whatever the number of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from sklearn.metrics import auc, confusion_matrix, precision_recall_curve, roc_curve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._metrics import Metric
    from ._search import Found

_SAID_ROWS = 10_000
_LEAST_ROWS = 100
_REPEATS = 3
_SHOWN = 20
_EFFECTS = 4
_GRID = 16
_EFFECT_ROWS = 200
_POINTS = 1000
_CLASSES = 30


def leaderboard(found: Found, metric: Metric) -> pd.DataFrame:
    """Return a row for each trial, the best first."""
    weights = {one.name: weight for one, _, weight in found.members}
    rows = [
        {
            "trial": one.name,
            "model": one.trial.family,
            f"valid {metric.name}": metric.sign * one.goodness if one.outcome else None,
            "weight": weights.get(one.name, 0.0),
            "state": one.state,
            "seconds": round(one.outcome.seconds, 3) if one.outcome else None,
            "rounds": one.outcome.rounds if one.outcome else None,
            "params": ", ".join(f"{name}={_short(v)}" for name, v in one.trial.params.items()),
            "error": one.error,
        }
        for one in sorted(found.tried, key=lambda one: (one.state != "complete", -one.goodness))
    ]
    return pd.DataFrame(rows)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def progress(found: Found, metric: Metric) -> go.Figure:
    """Draw each trial's score in the order in which they ended, and the best so far."""
    done = [one for one in found.tried if one.state == "complete"]
    scores = [metric.sign * one.goodness for one in done]
    best = metric.sign * np.maximum.accumulate([one.goodness for one in done])
    names = [one.name for one in done]
    figure = go.Figure(go.Scatter(y=scores, text=names, mode="markers", name="trial"))
    figure.add_scatter(y=best, mode="lines", name="best", line={"shape": "hv"})
    return _titled(figure, "The search", "trial", f"valid {metric.name}")


def importances(
    say: Callable[[pd.DataFrame], np.ndarray],
    metric: Metric,
    table: pd.DataFrame,
    truth: np.ndarray,
    seed: int,
) -> pd.DataFrame:
    """Return how much worse the score gets when a column's values are shuffled, the most first.

    The test's rows are used, of many columns fewer of them: what is predicted for it stays small.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(table))[: max(_LEAST_ROWS, _SAID_ROWS // len(table.columns))]
    table, truth = table.iloc[rows].reset_index(drop=True), truth[rows]
    whole = metric.goodness(truth, say(table))

    def shuffled(name: str) -> pd.DataFrame:
        values = table[name].take(rng.permutation(len(table))).reset_index(drop=True)
        return table.assign(**{name: values})

    def losses(name: str) -> np.ndarray:
        said = say(pd.concat([shuffled(name) for _ in range(_REPEATS)], ignore_index=True))
        parts = np.split(said, _REPEATS)
        return np.array([whole - metric.goodness(truth, part) for part in parts])

    found = [
        {"column": name, "importance": lost.mean(), "std": lost.std()}
        for name in table
        for lost in [losses(str(name))]
    ]
    return pd.DataFrame(found).sort_values("importance", ascending=False, ignore_index=True)


def plot_importances(table: pd.DataFrame, metric: Metric) -> go.Figure:
    """Draw the columns that matter most."""
    shown = table.head(_SHOWN)[::-1]
    error = {"type": "data", "array": shown["std"]}
    bars = go.Bar(x=shown["importance"], y=shown["column"], orientation="h", error_x=error)
    title = "What the model goes by: loss of score when a column is shuffled"
    return _titled(go.Figure(bars), title, metric.name, "")


def plot_effects(
    say: Callable[[pd.DataFrame], np.ndarray],
    table: pd.DataFrame,
    columns: Sequence[str],
    classes: Sequence[object],
) -> dict[str, go.Figure]:
    """Draw what the model says on average when a column has one value in all rows."""
    rows = table.head(_EFFECT_ROWS)
    return {name: _effect(say, rows, table[name], classes) for name in columns[:_EFFECTS]}


def _effect(
    say: Callable[[pd.DataFrame], np.ndarray],
    rows: pd.DataFrame,
    column: pd.Series,
    classes: Sequence[object],
) -> go.Figure:
    values = column.dropna()
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if is_number or pd.api.types.is_datetime64_any_dtype(values):
        shares = np.linspace(0.01, 0.99, _GRID)
        grid = values.quantile(shares, interpolation="nearest").unique()
    else:
        grid = np.asarray(values.value_counts().index[:_GRID])
    said = say(pd.concat([_with(rows, column, value) for value in grid], ignore_index=True))
    means = np.array([part.mean(axis=0) for part in np.split(said, len(grid))])
    shown = list(map(str, grid)) if not is_number else list(grid)
    figure = go.Figure()
    mode = "lines+markers" if is_number else "markers"
    if means.ndim == 1:
        figure.add_scatter(x=shown, y=means, mode=mode)
        return _titled(figure, f"Effect of {column.name}", str(column.name), "mean prediction")
    for place in [1] if means.shape[1] == 2 else range(min(means.shape[1], 10)):
        figure.add_scatter(x=shown, y=means[:, place], mode=mode, name=str(classes[place]))
    return _titled(figure, f"Effect of {column.name}", str(column.name), "mean probability")


def _with(rows: pd.DataFrame, column: pd.Series, value: object) -> pd.DataFrame:
    same = pd.Series([value] * len(rows), index=rows.index).astype(column.dtype)
    return rows.assign(**{str(column.name): same})


def plots_of_classes(
    truth: np.ndarray, said: np.ndarray, classes: Sequence[object]
) -> dict[str, go.Figure]:
    """Draw confusion matrix, ROC and precision-recall curves on rows never learned from."""
    names = [str(label) for label in classes]
    found: dict[str, go.Figure] = {}
    if len(names) <= _CLASSES:
        matrix = confusion_matrix(truth, said.argmax(axis=1), labels=range(len(names)))
        heat = go.Heatmap(z=matrix, x=names, y=names, texttemplate="%{z}", colorscale="Blues")
        figure = _titled(go.Figure(heat), "Confusion matrix", "predicted", "true")
        found["confusion_matrix"] = figure.update_yaxes(autorange="reversed", type="category")
        found["confusion_matrix"].update_xaxes(type="category")
    roc, precision = go.Figure(), go.Figure()
    for place in [1] if len(names) == 2 else range(min(len(names), 10)):
        is_it = truth == place
        if not 0 < is_it.sum() < len(is_it):
            continue
        false, true, _ = roc_curve(is_it, said[:, place])
        area = auc(false, true)
        roc.add_scatter(**_thin(false, true), name=f"{names[place]} ({area:.3f})")
        right, recalled, _ = precision_recall_curve(is_it, said[:, place])
        precision.add_scatter(**_thin(recalled, right), name=names[place])
    roc.add_scatter(x=[0, 1], y=[0, 1], line={"dash": "dot"}, name="by chance")
    found["roc"] = _titled(roc, "ROC", "false positives", "true positives")
    found["precision_recall"] = _titled(precision, "Precision and recall", "recall", "precision")
    return found


def plots_of_numbers(truth: np.ndarray, said: np.ndarray, seed: int) -> dict[str, go.Figure]:
    """Draw predictions against the truth, and how large errors are, on rows never learned from."""
    rows = np.random.default_rng(seed).permutation(len(truth))[:_POINTS]
    points = go.Figure(go.Scatter(x=truth[rows], y=said[rows], mode="markers", name="rows"))
    ends = [float(truth.min()), float(truth.max())]
    points.add_scatter(x=ends, y=ends, mode="lines", line={"dash": "dot"}, name="right")
    heights, edges = np.histogram(said - truth, bins=40)
    bars = go.Figure(go.Bar(x=(edges[1:] + edges[:-1]) / 2, y=heights))
    return {
        "predicted": _titled(points, "Predictions", "true", "predicted"),
        "residuals": _titled(bars, "Errors", "predicted - true", "rows"),
    }


def _thin(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    kept = np.unique(np.linspace(0, len(x) - 1, 200).round().astype(int))
    return {"x": x[kept], "y": y[kept], "mode": "lines"}


def _titled(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    return figure.update_layout(title=title, xaxis_title=x, yaxis_title=y)
