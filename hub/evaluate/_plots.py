"""The plots, each of at most some thousand points however many the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ._scores import MAIN, Ranking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._case import Case

_MOST_POINTS = 500
_MOST_CLASSES = 30
_MOST_CURVES = 10
_MOST_DOTS = 2_000
_BINS = 10
_GREY = {"color": "grey", "dash": "dash"}


def plots_of(case: Case, confusion: pd.DataFrame | None) -> Iterator[tuple[str, go.Figure]]:
    """Yield the plots that fit the task, by name."""
    if case.task == "regression":
        yield "predicted_against_actual", _predicted_against_actual(case)
        yield "residuals", _residuals(case)
        return
    if confusion is not None:
        yield "confusion_matrix_plot", _confusion(confusion)
    if case.scores is None:
        return
    curves = dict(_curves(case, case.scores))
    if curves:
        yield "roc", _roc(curves)
        yield "precision_recall", _precision_recall(curves)
    if case.is_probability and curves:
        yield "calibration", _calibration(case, case.scores)


def threshold_plot(found: pd.DataFrame, threshold: float) -> go.Figure:
    """Return precision, recall and F1 by the threshold, and the cost if there is one."""
    figure = _figure("What each threshold gives", "threshold", "share")
    for name in ("precision", "recall", "f1", "false_positive_rate"):
        figure.add_scatter(x=found["threshold"], y=found[name], name=name)
    if "cost" in found:
        figure.add_scatter(x=found["threshold"], y=found["cost"], name="cost", yaxis="y2")
        figure.update_layout(yaxis2={"title": "cost", "overlaying": "y", "side": "right"})
    figure.add_vline(x=threshold, line=_GREY, annotation_text=f"{threshold:.3g}")
    return figure


def groups_plot(table: pd.DataFrame, task: str) -> go.Figure:
    """Return the main metric of each group with its interval."""
    main = MAIN[task] if MAIN[task] in table else "accuracy"
    figure = _figure(f"{main} by group", "group", main)
    error = None
    if f"{main}_low" in table:
        above, below = table[f"{main}_high"] - table[main], table[main] - table[f"{main}_low"]
        error = {"array": above, "arrayminus": below}
    figure.add_scatter(x=table["group"], y=table[main], error_y=error, mode="markers", name=main)
    return figure


def importances_plot(table: pd.DataFrame, metric: str) -> go.Figure:
    """Return the largest importances with their spread."""
    top = table.head(_MOST_CLASSES).iloc[::-1]
    figure = _figure("What is lost by shuffling a column", f"change of {metric}", "")
    figure.add_bar(
        x=top["importance"], y=top["column"], error_x={"array": top["std"]}, orientation="h"
    )
    return figure


def _figure(title: str, x: str, y: str) -> go.Figure:
    return go.Figure(layout={"title": title, "xaxis_title": x, "yaxis_title": y})


def _confusion(table: pd.DataFrame) -> go.Figure:
    table = table.iloc[:_MOST_CLASSES, :_MOST_CLASSES]
    shares = table.div(table.sum(axis=1).replace(0, 1), axis=0)
    figure = _figure("Confusion matrix", "predicted", "actual")
    figure.add_heatmap(
        z=shares.to_numpy(),
        x=[str(name) for name in table.columns],
        y=[str(name) for name in table.index],
        text=table.to_numpy(),
        texttemplate="%{text:.6~g}",
        colorscale="Blues",
        colorbar={"title": "share of the actual class"},
    )
    figure.update_layout(xaxis={"type": "category"})
    figure.update_layout(yaxis={"type": "category", "autorange": "reversed"})
    return figure


def _curves(case: Case, scores: np.ndarray) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the counts along each class's ranking, where it has rows and is not all of them."""
    if case.task == "binary":
        columns = [(case.classes[1], scores, case.truth)]
    else:
        common = np.argsort(-np.bincount(case.truth, minlength=len(case.classes)))
        columns = [(case.classes[k], scores[:, k], case.truth == k) for k in common[:_MOST_CURVES]]
    for label, column, is_positive in columns:
        true, false = Ranking.of(column, is_positive).counts(case.weight)
        if true[-1] > 0 and false[-1] > 0:
            yield str(label), _thinned(true, false)


def _thinned(true: np.ndarray, false: np.ndarray) -> pd.DataFrame:
    places = np.unique(np.linspace(0, len(true) - 1, _MOST_POINTS).astype(int))
    found = {
        "recall": true / true[-1],
        "fall_out": false / false[-1],
        "precision": true / (true + false),
    }
    return pd.DataFrame(found).iloc[places]


def _roc(curves: dict[str, pd.DataFrame]) -> go.Figure:
    figure = _figure("ROC", "false positive rate", "true positive rate")
    figure.add_scatter(x=[0, 1], y=[0, 1], line=_GREY, name="chance")
    for label, found in curves.items():
        x, y = [0.0, *found["fall_out"]], [0.0, *found["recall"]]
        figure.add_scatter(x=x, y=y, name=label)
    return figure


def _precision_recall(curves: dict[str, pd.DataFrame]) -> go.Figure:
    figure = _figure("Precision by recall", "recall", "precision")
    for label, found in curves.items():
        figure.add_scatter(x=found["recall"], y=found["precision"], name=label)
    return figure


def _calibration(case: Case, scores: np.ndarray) -> go.Figure:
    """Return how often rows are what they are said to be, in ten groups of as many rows each."""
    if case.task == "binary":
        said, is_right = scores, case.truth == 1
    else:
        said, is_right = scores.max(axis=1), scores.argmax(axis=1) == case.truth
    bins = pd.qcut(said, _BINS, duplicates="drop")
    table = pd.DataFrame({"said": said, "right": is_right, "bin": bins})
    found = table.groupby("bin", observed=True)[["said", "right"]].mean()
    x = "predicted probability" + ("" if case.task == "binary" else " of the most likely class")
    figure = _figure("Calibration", x, "share that is so")
    figure.add_scatter(x=[0, 1], y=[0, 1], line=_GREY, name="ideal")
    figure.add_scatter(x=found["said"], y=found["right"], mode="lines+markers", name="model")
    return figure


def _predicted_against_actual(case: Case) -> go.Figure:
    rows = _some(case)
    ends = [float(case.truth.min()), float(case.truth.max())]
    figure = _figure("Predicted against actual", "actual", "predicted")
    figure.add_scatter(x=ends, y=ends, line=_GREY, name="ideal")
    dots = {"mode": "markers", "marker": {"size": 4, "opacity": 0.5}}
    figure.add_scatter(x=case.truth[rows], y=case.predicted[rows], name="rows", **dots)
    return figure


def _residuals(case: Case) -> go.Figure:
    counts, edges = np.histogram(case.predicted - case.truth, bins=50)
    figure = _figure("Residuals", "predicted less actual", "rows")
    figure.add_bar(x=(edges[:-1] + edges[1:]) / 2, y=counts, width=np.diff(edges))
    return figure


def _some(case: Case) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.permutation(len(case.truth))[:_MOST_DOTS]
