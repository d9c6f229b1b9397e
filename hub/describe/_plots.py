"""Plots of counts and sums, never of rows: they are as large for ten rows as for ten million."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ._description import (
    Description,
    association_matrix,
    histogram,
    missing_together,
    top_values,
)
from ._pairs import label
from ._target import CLASSIFICATION

if TYPE_CHECKING:
    from ._profile import Column
    from ._target import Target

_PANELS = 24
_PAGES = 5
_WIDTH = 4
_BARS = 60
_CATEGORIES = 12
_CLASSES = 6
_BEST = 12
_LABEL = 24
_FENCE = 1.5


def plots_of(found: Description) -> dict[str, go.Figure]:
    """Return all plots that there is something to show on, by name."""
    plots = {**_distributions(found), **_missing(found), **_matrices(found), **_outliers(found)}
    if found.target is not None and not found.target.is_constant:
        plots |= _target_plots(found, found.target)
    return plots


def _distributions(found: Description) -> dict[str, go.Figure]:
    columns = list(found.profile.columns.items())
    pages = [columns[at : at + _PANELS] for at in range(0, len(columns), _PANELS)][:_PAGES]
    return {
        "distributions" if page == 0 else f"distributions_{page + 1}": _page(shown)
        for page, shown in enumerate(pages)
    }


def _page(columns: list[tuple[str, Column]]) -> go.Figure:
    figure, places = _grid([name for name, _ in columns], 220)
    for (_, column), (row, col) in zip(columns, places, strict=True):
        bars = _bars(column)
        figure.add_trace(bars, row=row, col=col)
        if bars.width is None:  # text that looks like numbers or times would be taken for them
            figure.update_xaxes(type="category", row=row, col=col)
    figure.update_layout(title="Distributions", showlegend=False, bargap=0.05)
    return figure


def _grid(names: list[str], height: int) -> tuple[go.Figure, list[tuple[int, int]]]:
    rows = -(-len(names) // _WIDTH)
    figure = make_subplots(rows, _WIDTH, subplot_titles=[name[:_LABEL] for name in names])
    figure.update_layout(height=80 + height * rows)
    return figure, [(place // _WIDTH + 1, place % _WIDTH + 1) for place in range(len(names))]


def _bars(column: Column) -> go.Bar:
    if column.spread is None:
        top = top_values(column)[:_CATEGORIES]
        return go.Bar(x=[value[:_LABEL] for value, _ in top], y=[rows for _, rows in top])
    edges, counts = (np.asarray(part) for part in histogram(column))
    if len(counts) == 1:
        return go.Bar(x=[label(edges[0], column.kind)], y=counts)
    middles = (edges[:-1] + edges[1:]) / 2
    return go.Bar(x=_axis(middles, column), y=counts, width=np.diff(edges))


def _axis(values: np.ndarray, column: Column) -> Any:  # noqa: ANN401 - numbers or times
    return values.astype("datetime64[ms]") if column.kind == "time" else values


def _missing(found: Description) -> dict[str, go.Figure]:
    shares = {n: c.missing / c.rows for n, c in found.profile.columns.items() if c.missing}
    if not shares:
        return {}
    most = sorted(shares, key=lambda name: -shares[name])[:_BARS]
    plots = {"missing": _ranked(most, [shares[n] for n in most], "Missing values", "share")}
    names, matrix = missing_together(found)
    if len(names) > 1:
        plots["missing_together"] = _heatmap(names, matrix, "Missing together (phi)", -1)
    return plots


def _ranked(names: list[str], values: list[float], title: str, axis: str) -> go.Figure:
    figure = go.Figure(go.Bar(x=values[::-1], y=names[::-1], orientation="h"))
    figure.update_layout(title=title, xaxis_title=axis, height=120 + 22 * len(names))
    figure.update_yaxes(type="category")
    return figure


def _heatmap(names: list[str], matrix: np.ndarray, title: str, low: float) -> go.Figure:
    scale = "RdBu_r" if low < 0 else "Blues"
    values = [[None if np.isnan(v) else round(float(v), 3) for v in row] for row in matrix]
    heat = go.Heatmap(z=values, x=names, y=names, zmin=low, zmax=1, colorscale=scale)
    figure = go.Figure(heat)
    side = min(220 + 26 * len(names), 1400)
    figure.update_layout(title=title, width=side + 60, height=side, yaxis_autorange="reversed")
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category")
    return figure


def _matrices(found: Description) -> dict[str, go.Figure]:
    relations, plots = found.relations, {}
    if len(names := relations.plan.numbers) > 1:
        pearson, spearman = relations.pearson, relations.spearman
        plots["correlations_pearson"] = _heatmap(names, pearson, "Pearson's correlation", -1)
        plots["correlations_spearman"] = _heatmap(names, spearman, "Spearman's correlation", -1)
    if len(relations.plan.levels) > 1:
        title = "Association: |Spearman|, correlation ratio, Cramér's V"
        plots["association_matrix"] = _heatmap(*association_matrix(found), title, 0)
    return plots


def _outliers(found: Description) -> dict[str, go.Figure]:
    columns = {n: c for n, c in found.profile.columns.items() if c.kind == "number" and c.spread}
    boxes = {name: box for name, column in columns.items() if (box := _box(column)) is not None}
    if not boxes:
        return {}
    shown = list(boxes)[:_BARS][::-1]
    ends = {key: [boxes[name][key] for name in shown] for key in next(iter(boxes.values()))}
    figure = go.Figure(go.Box(y=shown, orientation="h", **ends))
    figure.update_layout(
        title="Spread: distance from the median in widths of the middle half",
        height=120 + 26 * len(shown),
        yaxis_type="category",
    )
    return {"outliers": figure}


def _box(column: Column) -> dict[str, float] | None:
    """Return a box whose fences are the furthest values that are no outliers."""
    if column.spread is None:
        return None
    low, middle, high = column.spread.quantiles([0.25, 0.5, 0.75])
    if (width := high - low) <= 0:
        return None
    values = column.spread.numbers
    inside = values[(values >= low - _FENCE * width) & (values <= high + _FENCE * width)]
    ends = {"q1": low, "median": middle, "q3": high}
    if len(inside):
        ends |= {"lowerfence": min(inside[0], low), "upperfence": max(inside[-1], high)}
    return {key: float((value - middle) / width) for key, value in ends.items()}


def _target_plots(found: Description, target: Target) -> dict[str, go.Figure]:
    bars = _bars(target.column)
    shown = go.Figure(bars)
    if bars.width is None:
        shown.update_xaxes(type="category")
    shown.update_layout(title=f"Target: {target.name}", yaxis_title="rows")
    plots = {"target_distribution": shown}
    if target.relations:
        best = target.relations[:_BARS]
        names, values = [one["column"] for one in best], [one["explained"] for one in best]
        title = f"Share of {target.name} that a column explains alone"
        plots["target_explained"] = _ranked(names, values, title, "explained")
        plots["target_by_column"] = _by_column(found, target, names[:_BEST])
    return plots


def _by_column(found: Description, target: Target, names: list[str]) -> go.Figure:
    figure, places = _grid(names, 320)
    figure.update_xaxes(type="category", nticks=8, tickangle=45)
    for place, (name, (row, col)) in enumerate(zip(names, places, strict=True)):
        draw = _class_shares if target.task == CLASSIFICATION else _means
        for trace in draw(found, target, name, is_first=place == 0):
            figure.add_trace(trace, row=row, col=col)
    title = f"{target.name} by the levels of a column"
    figure.update_layout(title=title, barmode="stack", legend={"orientation": "h", "y": -0.1})
    return figure


def _class_shares(
    found: Description, target: Target, name: str, *, is_first: bool
) -> list[go.Bar]:
    shares = class_shares(found, target, name)
    colours = ["#1971c2", "#e8590c", "#2f9e44", "#c2255c", "#7048e8", "#f08c00", "#868e96"]
    return [
        go.Bar(
            x=shares.index,
            y=shares[word],
            name=word[:_LABEL],
            marker_color=colours[place % len(colours)],
            legendgroup=word,
            showlegend=is_first,
        )
        for place, word in enumerate(shares.columns)
    ]


def class_shares(found: Description, target: Target, name: str) -> pd.DataFrame:
    """Return the share of each class, the smaller ones as one, by the levels of a column."""
    scales = found.relations.plan.scales
    joint = found.relations.joint(name, target.name)[:, 1:]
    index = ["(missing)", *scales[name].labels]
    counts = pd.DataFrame(joint, index, scales[target.name].labels)
    order = counts.sum().sort_values(ascending=False, kind="stable").index
    if len(order) > _CLASSES + 1:
        rest = counts[order[_CLASSES:]].sum(axis=1)
        counts = counts[order[:_CLASSES]].assign(**{"(others)": rest})
    counts = counts[counts.sum(axis=1) > 0]
    return counts.div(counts.sum(axis=1), axis=0)


def _means(found: Description, target: Target, name: str, *, is_first: bool) -> list[go.Scatter]:
    table = target_means(found, target, name)
    return [
        go.Scatter(
            x=table.index,
            y=table["mean"],
            error_y={"array": table["std"], "thickness": 0.8},
            mode="lines+markers",
            line_color="#1971c2",
            name="mean and standard deviation",
            showlegend=is_first,
        )
    ]


def target_means(found: Description, target: Target, name: str) -> pd.DataFrame:
    """Return the target's mean and standard deviation by the levels of a column."""
    rows, means, deviations = found.relations.groups(name, target.name)
    index = ["(missing)", *found.relations.plan.scales[name].labels]
    table = pd.DataFrame({"rows": rows, "mean": means, "std": deviations}, index)
    return table[table["rows"] > 0]
