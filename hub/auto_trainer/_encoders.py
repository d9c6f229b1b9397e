"""From columns to arrays, fitted on rows to learn from alone, by scikit-learn's own classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

if TYPE_CHECKING:
    from ._table import Columns

# Trees take codes and missing values as they are; others want one size, and nothing missing.
Kind = Literal["codes", "scaled"]
_ONE_HOT = 30
_CLASSES = 20
_COMMONEST = 250


def make_encoder(kind: Kind, columns: Columns, classes: int) -> ColumnTransformer:
    """Return an encoder of one kind; the codes of categories come first.

    Args:
        kind: For trees, or for models that add up.
        columns: What there is.
        classes: Of the target; 0 of a number.
    """
    parts = _codes(columns, classes) if kind == "codes" else _scaled(columns, classes)
    return ColumnTransformer([part for part in parts if part[2]], sparse_threshold=0)


def lighten(encoder: Any) -> None:  # noqa: ANN401 - any part of an encoder
    """Keep a fitted encoder's categories as one block of text: to store objects takes seconds."""
    parts = getattr(encoder, "named_transformers_", None) or getattr(encoder, "named_steps", {})
    for part in dict(parts).values():
        lighten(part)
    kept = getattr(encoder, "categories_", [])
    for place, values in enumerate(kept):
        if values.dtype == object and all(isinstance(value, str) for value in values):
            kept[place] = values.astype(str)


def _codes(columns: Columns, classes: int) -> list[tuple[str, Any, list[str]]]:
    return [
        ("few", _ordinal(), columns.few),
        ("many", _many(classes), columns.many),
        ("numbers", StandardScaler(with_mean=False, with_std=False), columns.numbers),
        *((f"time {name}", when.encoder(), [name]) for name, when in columns.times.items()),
    ]


def _scaled(columns: Columns, classes: int) -> list[tuple[str, Any, list[str]]]:
    one_hot = OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=_ONE_HOT, sparse_output=False
    )
    many = Pipeline([("many", _many(classes)), *_filled()])
    numbers = Pipeline([*_filled(has_gaps=True)])
    times = [
        (f"time {name}", Pipeline([("time", when.encoder()), ("scale", StandardScaler())]), [name])
        for name, when in columns.times.items()
    ]
    few, wide = columns.few, columns.many
    return [
        ("few", one_hot, few),
        ("many", many, wide),
        ("numbers", numbers, columns.numbers),
        *times,
    ]


def _filled(*, has_gaps: bool = False) -> list[tuple[str, Any]]:
    fill = SimpleImputer(strategy="median", add_indicator=has_gaps, keep_empty_features=True)
    return [
        ("number", StandardScaler(with_mean=False, with_std=False)),
        ("fill", fill),
        ("scale", StandardScaler()),
    ]


def _ordinal(most: int | None = None) -> OrdinalEncoder:
    return OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        encoded_missing_value=np.nan,
        max_categories=most,
    )


def _many(classes: int) -> TargetEncoder | Pipeline:
    """Return what tells by a number how the target is for a category.

    Of many classes that would be as many numbers for each column: the commonest are told apart.
    """
    if classes > _CLASSES:
        return _ordinal(_COMMONEST)
    # Said, because whole numbers would be taken for classes.
    kinds = {0: "continuous", 2: "binary"}
    return TargetEncoder(target_type=kinds.get(classes, "multiclass"))
