"""The report for people: a plot, and a page with all that was found."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

if TYPE_CHECKING:
    import pandas as pd

    from ._quality import Quality

_SHOWN_COLUMNS = 50
_SHOWN_ROWS = 100
_STYLE = (
    "body{font:14px sans-serif;margin:2em;max-width:80em}table{border-collapse:collapse}"
    "td,th{padding:.2em .6em;border-bottom:1px solid #ddd;text-align:left}"
)


def missing_plot(columns: pd.DataFrame) -> go.Figure:
    """Return the shares of missing and of unfit values, of the columns that have most."""
    rows = (
        columns["missing"] / columns["missing_share"]
    ).max()  # nothing is missing: not a number
    shown = columns.nlargest(_SHOWN_COLUMNS, "missing_share", keep="first")
    bad = shown["bad"] / rows if rows and rows == rows else shown["bad"] * 0.0  # noqa: PLR0124 - NaN
    figure = go.Figure(
        [
            go.Bar(name="missing", x=shown["column"], y=shown["missing_share"] - bad),
            go.Bar(name="does not fit its type", x=shown["column"], y=bad),
        ]
    )
    return figure.update_layout(
        barmode="stack", yaxis_tickformat=".0%", yaxis_title="share of the rows"
    )


def page(quality: Quality, bad_rows: pd.DataFrame, warnings: list[str]) -> str:
    """Return the report as a page that needs nothing else."""
    told = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    counts = ", ".join(
        f"{name.replace('_', ' ')}: {value:,.4g}"
        if name.endswith("share")
        else f"{name.replace('_', ' ')}: {value:,.0f}"
        for name, value in quality.metrics.items()
    )
    tables = {
        "Columns": quality.columns,
        "Values that do not fit": quality.bad_values.head(_SHOWN_ROWS),
        "Rows that do not fit": bad_rows.head(_SHOWN_ROWS),
    }
    shown = "".join(
        f"<h2>{title}</h2>{table.to_html(index=False, border=0, na_rep='')}"
        for title, table in tables.items()
        if len(table)
    )
    head = f"<title>ingest</title><meta charset=utf-8><style>{_STYLE}</style>"
    return f"<!doctype html>{head}<h1>Quality</h1><p>{counts}</p><ul>{told}</ul>{shown}"
