"""The target: what it is, and its values as models take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd

from ._texts import mostly_numbers

_DISCRETE = 20
_MOST_CLASSES = 10  # of more, a column for each class and category would be too many
_FOLDS = 5

Coded: TypeAlias = tuple[np.ndarray, Literal["binary", "multiclass", "continuous"], int]
"""What categories can be coded by: the target's values, their kind, and in how many folds."""


@dataclass(frozen=True)
class Target:
    """The column that is predicted, if there is one.

    Attributes:
        name: Its name.
        is_text: It is numbers that are kept as text.
        done: What is done with it, in words.
    """

    name: str | None = None
    is_text: bool = False
    done: str = ""

    @classmethod
    def of(cls, table: pd.DataFrame, name: str | None, warnings: list[str]) -> Target:
        """Look at a table's target."""
        if name is None:
            return cls()
        column = table[name]
        if len(column.dropna().map(str).unique()) == 1:
            warnings.append(f"The target {name!r} is the same in all rows: nothing to learn.")
        if mostly_numbers(column):
            unread = int((_numbers(column).isna() & column.notna()).sum())
            if unread == 0:
                return cls(name, is_text=True, done="numbers kept as text, read as numbers")
        return cls(name, done="the target, kept as it is")

    @property
    def names(self) -> list[str]:
        """Its name, or nothing."""
        return [] if self.name is None else [self.name]

    def is_in(self, rows: pd.DataFrame) -> bool:
        """Tell whether rows have it."""
        return self.name is not None and self.name in rows

    def values(self, rows: pd.DataFrame) -> pd.Series:
        """Return its values in rows that have it."""
        column = rows[self.name]
        if self.is_text:
            return _numbers(column)
        if column.dtype == object and pd.api.types.infer_dtype(column).startswith("mixed"):
            return column.map(str, na_action="ignore")
        return column

    def codes(self, rows: pd.DataFrame) -> Coded | None:
        """Return what categories can be coded by.

        None if there is no target, it is constant, or it has too many classes for the rows.
        """
        if self.name is None or len(rows) < _FOLDS:
            return None
        column = self.values(rows)
        is_number = pd.api.types.is_numeric_dtype(column.dtype)
        if is_number and not pd.api.types.is_bool_dtype(column) and column.nunique() > _DISCRETE:
            return column.to_numpy(dtype=float), "continuous", _FOLDS
        codes, classes = pd.factorize(column.map(str))
        folds = min(_FOLDS, int(np.bincount(codes).max()))
        if not 1 < len(classes) <= _MOST_CLASSES or folds < 2:
            return None
        return codes, "binary" if len(classes) == 2 else "multiclass", folds


def _numbers(column: pd.Series) -> pd.Series:
    return pd.to_numeric(column, errors="coerce")
