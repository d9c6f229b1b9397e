"""The steps before the estimator, of scikit-learn's own classes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.model_selection import KFold
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler, TargetEncoder
from sklearn.utils import get_tags

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import BaseEstimator

    from ._columns import Kind

_FEW_CATEGORIES = 30  # more are coded by the mean of the target, not by a column each
_NO_TIME = float(np.iinfo(np.int64).min)  # what a missing time is as a number
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY = 24 * 3600
# Of each period: its seconds, and how many bends the curve over it has.
_PERIODS = {"day": (_DAY, 8), "week": (7 * _DAY, 7), "year": (365.2425 * _DAY, 12)}


def preparation(
    table: pd.DataFrame,
    kinds: dict[str, Kind | None],
    target: np.ndarray,
    estimator: BaseEstimator,
    seed: int,
) -> ColumnTransformer:
    """Return what turns the table's columns into numbers, not yet fitted.

    Args:
        table: The rows to learn from.
        kinds: What each column is.
        target: Tells how categories can be coded.
        estimator: One that takes missing numbers gets them as they are.
        seed: Of the folds in which categories are coded.
    """
    named = {kind: [n for n, k in kinds.items() if k == kind] for kind in set(kinds.values())}
    distinct = {name: table[name].nunique() for name in named.get("category", [])}
    few = [name for name, count in distinct.items() if count <= _FEW_CATEGORIES]
    many = [name for name, count in distinct.items() if count > _FEW_CATEGORIES]
    takes_missing = get_tags(estimator).input_tags.allow_nan
    steps = [
        ("number", "passthrough" if takes_missing else _filled(), named.get("number", [])),
        ("few", OneHotEncoder(handle_unknown="ignore", sparse_output=False), few),
        ("many", _coded(target, seed, takes_missing), many),
        *((f"date_{name}", _dated(table[name]), [name]) for name in named.get("date", [])),
    ]
    return ColumnTransformer([step for step in steps if step[2]])


def feature_names(prepare: ColumnTransformer) -> list[str]:
    """Return what the prepared columns are called: by their column, and what of it they tell."""
    names: list[str] = []
    for step, way, columns in prepare.transformers_:
        if step.startswith("date_"):
            told = way.get_feature_names_out(columns)
            names += [f"{columns[0]} {_part(name)}" for name in told]
        elif step != "remainder":
            names += list(way.get_feature_names_out(columns))
    return names


def _part(name: str) -> str:
    """Return which part of a date it is, such as `trend` or the second bend of `week 2`."""
    way, _, rest = name.partition("__")
    part, _, bend = rest.partition("__")
    is_bend = part in _PERIODS
    return way if way == "missing" else f"{part} {bend.rpartition('_')[2]}" if is_bend else part


def _filled() -> Pipeline:
    fill = SimpleImputer(strategy="median", add_indicator=True)
    return make_pipeline(fill, StandardScaler())


def _coded(target: np.ndarray, seed: int, takes_missing: bool) -> Pipeline:  # noqa: FBT001
    """Return a coding of categories by the target, made in folds so that no row sees its own."""
    kind = "continuous" if target.dtype.kind == "f" else "auto"
    folds = KFold(5, shuffle=True, random_state=seed)
    code = TargetEncoder(target_type=kind, cv=folds)
    return make_pipeline(code) if takes_missing else make_pipeline(code, StandardScaler())


def _dated(column: pd.Series) -> Pipeline:
    """Return a date's trend, and smooth curves over day, week and year where it goes round them.

    The curves are periodic splines of the time itself, so that 23:59 is beside 0:00.
    """
    known = column.dropna()
    span_s = (known.max() - known.min()).total_seconds()
    per_second = _UNITS[np.datetime_data(column.to_numpy().dtype)[0]]
    parts = [("trend", StandardScaler())]
    for name, (seconds, bends) in _PERIODS.items():
        is_same = name == "day" and (known == known.dt.normalize()).all()
        if span_s >= seconds and not is_same:
            parts.append((name, _round(seconds * per_second, bends)))
    fill = SimpleImputer(missing_values=_NO_TIME, strategy="median")
    ways = [("time", make_pipeline(fill, FeatureUnion(parts)))]
    if len(known) < len(column):
        ways.append(("missing", MissingIndicator(missing_values=_NO_TIME, features="all")))
    # A scaler that scales nothing is what turns times into numbers.
    return make_pipeline(StandardScaler(with_mean=False, with_std=False), FeatureUnion(ways))


def _round(period: float, bends: int) -> SplineTransformer:
    knots = np.linspace(0, period, bends + 1).reshape(-1, 1)
    return SplineTransformer(knots=knots, extrapolation="periodic", include_bias=False)
