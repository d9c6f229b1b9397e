"""The plots: who voted for what, and which columns are alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 30


def votes_plot(table: pd.DataFrame, judges: list[str]) -> go.Figure:
    """Return each judge's score of the best columns, between 0 and 1, beside their votes."""
    top = table.head(_SHOWN).iloc[::-1]
    shares = top[judges] / table[judges].max().replace(0, 1)
    labels = [f"{name} ({votes})" for name, votes in zip(top.index, top["votes"], strict=True)]
    figure = go.Figure(layout={"title": "Scores by judge, and votes", "xaxis_title": "judge"})
    return figure.add_heatmap(
        z=shares.to_numpy(dtype=float), x=judges, y=labels, colorscale="Blues", zmin=0, zmax=1
    )


def likeness_plot(alike: pd.DataFrame) -> go.Figure:
    """Return how much the columns tell the same."""
    some = alike.iloc[:_SHOWN, :_SHOWN]
    figure = go.Figure(layout={"title": "Size of the correlations among columns"})
    names = list(some.columns)
    return figure.add_heatmap(z=some.to_numpy(), x=names, y=names, zmin=0, zmax=1)
