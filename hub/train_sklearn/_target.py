"""The target: checked, in a form that estimators take, and split into training and test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.base import is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_sample_weight

import rayml

from ._estimators import other_kind

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

_FEW_ROWS = 10
_MOST_PARTS = 20  # more different numbers, not all whole, are amounts


def target_values(column: pd.Series, estimator: BaseEstimator, warnings: list[str]) -> pd.Series:
    """Return the target without rows that lack it: labels of one type, or numbers.

    Raises:
        SpecError: It is nothing that the estimator can learn.
    """
    name = column.name
    kept = column.replace([np.inf, -np.inf], np.nan) if column.dtype.kind == "f" else column
    kept = kept.dropna()
    if len(kept) < _FEW_ROWS:
        raise rayml.SpecError(
            f"target {name!r} has a value in {len(kept)} of {len(column)} rows; give at least "
            f"{_FEW_ROWS} rows to learn from"
        )
    if left_out := len(column) - len(kept):
        warnings.append(f"{left_out} rows without a value of target {name!r} are left out.")
    if pd.api.types.is_datetime64_any_dtype(kept.dtype):
        raise rayml.SpecError(f"target {name!r} holds dates; give classes or numbers")
    if len(kept.astype(str).unique()) == 1:
        raise rayml.SpecError(
            f"target {name!r} is {kept.iloc[0]!r} in all rows; there is nothing to learn"
        )
    return (_labels if is_classifier(estimator) else _amounts)(kept, estimator, warnings)


def split_rows(
    target: pd.Series,
    test_size: float,
    seed: int,
    *,
    by_class: bool,
    warnings: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the rows to learn from, and to test with: each class in both."""
    places = np.arange(len(target))
    if not by_class:
        return tuple(train_test_split(places, test_size=test_size, random_state=seed))
    counts = target.map(target.value_counts())
    single = places[(counts == 1).to_numpy()]
    others = places[(counts > 1).to_numpy()]
    if len(single):
        names = ", ".join(map(repr, target.iloc[single[:5]].tolist()))
        warnings.append(
            f"Of {len(single)} classes there is one row alone ({names}): it is learned from, and "
            "nothing tests it."
        )
    try:
        train, test = train_test_split(
            others, test_size=test_size, random_state=seed, stratify=target.iloc[others]
        )
    except ValueError:  # fewer rows on a side than classes
        warnings.append("There are too few rows to have each class in training and test.")
        train, test = train_test_split(others, test_size=test_size, random_state=seed)
    return np.sort(np.concatenate([train, single])), np.sort(test)


def row_weights(
    target: pd.Series, weight: pd.Series | None, class_weight: str | dict[str, float] | None
) -> np.ndarray | None:
    """Return what each row counts, or None if all count the same.

    Raises:
        SpecError: A weight is no number of at least 0, or a class has no weight.
    """
    found = np.ones(len(target))
    if weight is not None:
        found = pd.to_numeric(weight, errors="coerce").to_numpy(dtype=float)
        if not (np.isfinite(found).all() and found.min() >= 0 and found.sum() > 0):
            raise rayml.SpecError(
                f"weight column {weight.name!r} holds what is no weight; give numbers of at "
                "least 0, not all of them 0"
            )
    if class_weight is not None:
        found = found * _class_weights(target, class_weight)
    return None if weight is None and class_weight is None else found


def _class_weights(target: pd.Series, class_weight: str | dict[str, float]) -> np.ndarray:
    if class_weight == "balanced":
        balanced: np.ndarray = compute_sample_weight("balanced", target)
        return balanced
    if not isinstance(class_weight, dict):
        raise rayml.SpecError(
            f"class_weight={class_weight!r} is not known; give 'balanced', or a weight by class"
        )
    labels = target.map(str)
    given = {str(label): float(value) for label, value in class_weight.items()}
    if missing := sorted(set(labels) ^ set(given)):
        raise rayml.SpecError(
            f"class_weight and target {target.name!r} do not have the same classes: "
            f"{', '.join(map(repr, missing[:5]))} is only in one; give a weight for each class"
        )
    return labels.map(given).to_numpy(dtype=float)


def _labels(kept: pd.Series, estimator: BaseEstimator, warnings: list[str]) -> pd.Series:
    distinct = kept.astype(str).nunique()
    kinds = pd.api.types
    is_number = kinds.is_numeric_dtype(kept.dtype) and not kinds.is_bool_dtype(kept.dtype)
    is_whole = is_number and bool((kept % 1 == 0).all())
    if distinct > (len(kept) / 2 if not is_number or is_whole else _MOST_PARTS):
        raise rayml.SpecError(
            f"target {kept.name!r} has {distinct} different values in {len(kept)} rows, which are "
            f"no classes; {other_kind(type(estimator))}"
        )
    if is_whole or kinds.is_bool_dtype(kept.dtype):
        return kept.astype("int64" if is_whole else bool)
    if len(set(map(type, kept))) > 1:
        warnings.append(f"Target {kept.name!r} holds several types: all count as text.")
    return kept.astype(object).map(str)


def _amounts(kept: pd.Series, estimator: BaseEstimator, _warnings: list[str]) -> pd.Series:
    try:
        return kept.astype("float64")
    except (TypeError, ValueError) as exc:
        raise rayml.SpecError(
            f"target {kept.name!r} holds {kept.iloc[0]!r}, which is no number; "
            f"{other_kind(type(estimator))}"
        ) from exc
