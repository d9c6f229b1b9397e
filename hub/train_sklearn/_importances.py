"""What a fitted estimator says of the columns that it has learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ._preparation import feature_names

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

_SHOWN = 30


def importances_of(model: Pipeline) -> pd.DataFrame | None:
    """Return a row for each prepared column, the largest first; None if the estimator has none.

    The importances of trees, or the coefficients; of several classes the mean of their sizes.
    """
    last: Any = model[-1]
    last = getattr(last, "estimators_", [last])[0] if not _tells(last) else last
    if not _tells(last):
        return None
    if hasattr(last, "feature_importances_"):
        sizes, found = np.asarray(last.feature_importances_), {}
    else:
        coefficients = np.atleast_2d(np.asarray(last.coef_))
        sizes = np.abs(coefficients).mean(axis=0)
        found = {"coefficient": coefficients[0]} if len(coefficients) == 1 else {}
    columns = len(sizes)
    names = feature_names(model[0]) if len(model) > 1 else list(model.feature_names_in_)
    if len(names) != columns:
        return None
    table = pd.DataFrame({"feature": names, "importance": sizes, **found})
    return table.sort_values("importance", ascending=False).reset_index(drop=True)


def importances_plot(table: pd.DataFrame) -> go.Figure:
    """Return the largest importances."""
    top = table.head(_SHOWN).iloc[::-1]
    figure = go.Figure(layout={"title": "Feature importances", "xaxis_title": "importance"})
    return figure.add_bar(x=top["importance"], y=top["feature"], orientation="h")


def _tells(estimator: object) -> bool:
    # A support vector machine says by an error that its kernel has no coefficients.
    return hasattr(estimator, "feature_importances_") or hasattr(estimator, "coef_")
