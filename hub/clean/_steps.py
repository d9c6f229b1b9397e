"""The transformer: steps of scikit-learn, which read values by functions of pandas.

It is kept by skops and loaded without trust, so that no function of our own is in it.
"""

from __future__ import annotations

import warnings as python_warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    TargetEncoder,
)

import rayml

from ._columns import MISSING

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from ._columns import Column
    from ._target import Coded, Target

_NO_TIME = float(np.iinfo(np.int64).min)  # what a missing time is as a number
_LARGEST = float(np.finfo(np.float32).max)  # infinities are brought here, which all models take
_MOST_NUMBERS = 1_000  # for categories
_MOST_MEANS = 5_000


def fit(
    columns: list[Column],
    rows: pd.DataFrame,
    goal: Target,
    encoding: str,
    max_categories: int,
    seed: int,
) -> tuple[ColumnTransformer, pd.DataFrame]:
    """Return the fitted transformer, and what it makes of the rows that it has learnt from.

    Raises:
        SpecError: No column is left.
    """
    used = [column for column in columns if column.is_used]
    if not used:
        told = "; ".join(f"{column.name!r} {column.why[-1]}" for column in columns[:5])
        raise rayml.SpecError(
            f"no column is left to learn from ({told or 'there is no other'}); "
            "give columns that vary"
        )
    coded = goal.codes(rows)
    if encoding == "target" and coded is None:
        raise rayml.SpecError(
            "encoding='target' needs a target of numbers or of 2 to 10 classes; name it in "
            "target=, or take another encoding"
        )
    steps = [*_plain_numbers(used)]
    for place, column in enumerate(used):
        if column.kind == "category":
            code = _code(column, encoding, max_categories, coded, seed)
            steps.append((f"category{place}", _category(code), column.name))
        elif column.kind in ("date", "time"):
            steps.append((f"date{place}", _date(column), column.name))
        elif column.kind == "duration":
            steps.append((f"duration{place}", _duration(), column.name))
        elif column.is_parsed:
            steps.append((f"number{place}", _parsed(column), column.name))
    transformer = _joined(steps, used)
    with python_warnings.catch_warnings():
        # Of rare classes in the folds: they are coded by what is known of them.
        python_warnings.filterwarnings("ignore", module="sklearn")
        cleaned = transformer.fit_transform(rows, None if coded is None else coded[0])
    return transformer, cleaned.infer_objects()


def made_of(transformer: ColumnTransformer, names: list[str]) -> dict[str, list[str]]:
    """Return which of the new columns, named in order, each column has become."""
    made: dict[str, list[str]] = {}
    for step, _, taken in transformer.transformers_:
        new = names[transformer.output_indices_[step]]
        if isinstance(taken, str):
            made[taken] = new
        else:
            ends = [name.rpartition("__")[2] if name not in taken else name for name in new]
            for old in taken:
                own = (old, f"missingindicator_{old}")
                made[old] = [name for name, end in zip(new, ends, strict=True) if end in own]
    return made


def _joined(steps: list[tuple[str, Pipeline, object]], used: list[Column]) -> ColumnTransformer:
    joined = ColumnTransformer(steps, verbose_feature_names_out=_would_clash(steps, used))
    joined.set_output(transform="pandas")
    for _, step, _ in steps:
        # The steps give arrays, so that the rows of the result are called as those it is made of.
        step.set_output(transform="default")
    return joined


def _would_clash(steps: list[tuple[str, Pipeline, object]], used: list[Column]) -> bool:
    """Tell whether new columns could have the same name, as `b_c` and a category `c` of `b`."""
    names = [column.name for column in used]
    names += [f"missingindicator_{column.name}" for column in used if column.missing]
    onehot = {name for _, step, name in steps if isinstance(step[-1], OneHotEncoder)}
    names += [f"{c.name}_{value}" for c in used if c.name in onehot for value in c.frequent]
    return len(set(names)) < len(names)


def _call(function: object, **values: object) -> FunctionTransformer:
    return FunctionTransformer(function, kw_args=values, feature_names_out="one-to-one")


def _plain_numbers(used: list[Column]) -> list[tuple[str, Pipeline, object]]:
    """Return one step for all columns that are numbers already."""
    plain = [column for column in used if column.kind == "number" and not column.is_parsed]
    if not plain:
        return []
    low, high = map(list, zip(*map(_fences, plain), strict=True))
    clip = _call(np.clip, a_min=low, a_max=high, axis=1)
    steps = make_pipeline(_call(pd.DataFrame, dtype="float64"), clip, _fill())
    return [("numbers", steps, [column.name for column in plain])]


def _fences(column: Column) -> tuple[float, float]:
    return column.fences or (-_LARGEST, _LARGEST)


def _fill(missing: float = np.nan) -> SimpleImputer:
    return SimpleImputer(missing_values=missing, strategy="median", add_indicator=True)


def _as_column() -> FunctionTransformer:
    """Return the step from a column's values to a table of that column."""
    return _call(np.expand_dims, axis=1)


def _parsed(column: Column) -> Pipeline:
    """Return what reads numbers one by one; what is none is missing."""
    low, high = _fences(column)
    read = _call(pd.to_numeric, errors="coerce"), _call(np.asarray, dtype="float64")
    return make_pipeline(*read, _as_column(), _call(np.clip, a_min=low, a_max=high), _fill())


def _duration() -> Pipeline:
    seconds = _call(np.asarray, dtype="timedelta64[s]"), _call(np.asarray, dtype="float64")
    return make_pipeline(*seconds, _as_column(), _fill(_NO_TIME))


def _date(column: Column) -> Pipeline:
    """Return what reads dates, typed or not, and makes seconds of those that do not stay."""
    read = _call(pd.to_datetime, errors="coerce", format=column.format, utc=True)
    if column.kind == "time":
        times = _call(np.asarray, dtype="datetime64[us]"), _call(np.asarray, dtype="object")
        return make_pipeline(read, *times, _as_column())
    seconds = _call(np.asarray, dtype="datetime64[s]"), _call(np.asarray, dtype="float64")
    return make_pipeline(read, *seconds, _as_column(), _fill(_NO_TIME))


def _category(code: BaseEstimator | None) -> Pipeline:
    fill = SimpleImputer(strategy="constant", fill_value=MISSING)
    texts = make_pipeline(_call(pd.Series, dtype="str"), _as_column(), fill)
    return texts if code is None else Pipeline([*texts.steps, ("code", code)])


def _code(
    column: Column, encoding: str, most: int, coded: Coded | None, seed: int
) -> BaseEstimator | None:
    """Return what codes a column's categories, and say so."""
    if encoding == "auto":
        many = "ordinal" if coded is None else "target"
        encoding = "onehot" if column.distinct <= most else many
    if encoding == "keep":
        return None
    if encoding == "onehot":
        known = column.frequent[: most + bool(column.missing)]
        column.why.append(f"a column for each of {len(known):,} categories{_rest(column, known)}")
        return OneHotEncoder(categories=[known], handle_unknown="ignore", sparse_output=False)
    if encoding == "target" and coded is not None:
        known = column.frequent[:_MOST_MEANS]
        rest = _rest(column, known)
        column.why.append(f"the target's mean for each of {len(known):,} categories{rest}")
        _, kind, folds = coded
        return TargetEncoder(categories=[known], target_type=kind, cv=folds, random_state=seed)
    known = column.frequent[:_MOST_NUMBERS]
    column.why.append(f"a number for each of {len(known):,} categories{_rest(column, known)}")
    return OrdinalEncoder(categories=[known], handle_unknown="use_encoded_value", unknown_value=-1)


def _rest(column: Column, known: list[str]) -> str:
    rest = len(column.frequent) - len(known)
    return f", the most frequent; the other {rest:,} are as unseen ones" if rest else ""
