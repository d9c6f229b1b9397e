"""Plots of drift, of bins alone: they are as large for ten rows as for ten million."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

_COLUMNS = 40
_PANELS = 12
_WIDTH = 3
_COLOURS = {"reference": "#9aa5b1", "table": "#d9480f"}


def plot_drift(columns: dict[str, dict[str, Any]], measure: str, threshold: float) -> go.Figure:
    """Return the measure of each column, of those that are furthest, with the threshold."""
    measured = _furthest(columns)[:_COLUMNS][::-1]
    colours = [
        _COLOURS["table" if columns[name]["verdict"] == "drifted" else "reference"]
        for name in measured
    ]
    values = [columns[name]["measure"] for name in measured]
    figure = go.Figure(go.Bar(x=values, y=measured, orientation="h", marker_color=colours))
    figure.add_vline(x=threshold, line_dash="dash", annotation_text=f"threshold {threshold:g}")
    height = 120 + 22 * max(len(measured), 1)
    figure.update_layout(title="Drift by column", xaxis_title=measure, height=height)
    figure.update_yaxes(type="category")
    return figure


def plot_distributions(columns: dict[str, dict[str, Any]]) -> go.Figure | None:
    """Return the bins of the columns that are furthest in both tables; None if there is none."""
    shown = _furthest(columns)[:_PANELS]
    if not shown:
        return None
    rows = -(-len(shown) // _WIDTH)
    figure = make_subplots(rows, _WIDTH, subplot_titles=shown)
    for place, name in enumerate(shown):
        bins = columns[name]["bins"]
        for which, colour in _COLOURS.items():
            bar = go.Bar(
                x=bins["labels"],
                y=bins[which],
                name=which,
                marker_color=colour,
                legendgroup=which,
                showlegend=place == 0,
            )
            figure.add_trace(bar, row=place // _WIDTH + 1, col=place % _WIDTH + 1)
    figure.update_xaxes(type="category")  # though the labels of some may look like numbers
    figure.update_layout(title="Shares of the rows", height=80 + 260 * rows, barmode="group")
    return figure


def _furthest(columns: dict[str, dict[str, Any]]) -> list[str]:
    measured = [name for name, found in columns.items() if found["measure"] is not None]
    return sorted(measured, key=lambda name: -columns[name]["measure"])
