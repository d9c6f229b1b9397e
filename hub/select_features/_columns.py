"""The table's columns as numbers that judges can score, and which of them tell nothing."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler, TargetEncoder

import rayml

_NESTED = (list, dict, tuple, set, np.ndarray, bytes)
_IDENTIFIERS = 50
# Squares of larger ones are no numbers any more.
_LARGEST = 1e38


@dataclass(frozen=True)
class Coded:
    """Columns as numbers, and whose each is.

    Attributes:
        numbers: Rows by coded columns, each of mean 0 and deviation 1.
        owners: The place of the column that each stands for.
    """

    numbers: np.ndarray
    owners: np.ndarray

    def by_owner(self, scores: np.ndarray) -> np.ndarray:
        """Return each column's best score among those that stand for it."""
        best = np.zeros(self.owners.max() + 1)
        np.maximum.at(best, self.owners, np.nan_to_num(scores, posinf=np.finfo(float).max))
        return best


def check_columns(table: pd.DataFrame, wanted: list[str], what: str) -> None:
    """Raise SpecError if a table has two columns of a name, or lacks one of these."""
    known = [str(column) for column in table.columns]
    if len(set(known)) < len(known):
        twice = next(name for name in known if known.count(name) > 1)
        raise rayml.SpecError(f"{what} has two columns called {twice!r}; rename one")
    for name in wanted:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            way_out = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known[:30])}"
            raise rayml.SpecError(f"{what} has no column {name!r}; {way_out}")


def why_useless(column: pd.Series) -> str:
    """Return why a column can tell nothing of any target; empty if it may.

    Raises:
        SpecError: It holds lists or other objects.
    """
    known = column.dropna()
    if known.empty:
        return "all values are missing"
    if bad := next((v for v in known.head(1_000) if isinstance(v, _NESTED)), None):
        raise rayml.SpecError(
            f"column {column.name!r} holds {type(bad).__name__}s; make columns of them, or name "
            "it in `drop`"
        )
    distinct = len(known.drop_duplicates()) if is_measured(column) else len(set(map(str, known)))
    if distinct == 1 and len(known) == len(column):
        return "all values are the same"
    if not is_measured(column) and distinct == len(known) >= _IDENTIFIERS:
        return "each row has a value of its own"
    return ""


def is_measured(column: pd.Series) -> bool:
    """Tell whether a column holds numbers or times, and not categories."""
    kinds = pd.api.types
    is_time = kinds.is_datetime64_any_dtype(column.dtype) or kinds.is_timedelta64_dtype(column)
    return is_time or kinds.is_numeric_dtype(column.dtype)


def coded(table: pd.DataFrame, target: np.ndarray, seed: int) -> Coded:
    """Return the columns as numbers.

    A category is coded by the mean of the target where it occurs, in folds, so that no row's
    number knows the row's own target. What is missing is one more column.
    """
    parts, owners = [], []
    for place, name in enumerate(table.columns):
        part = _measures(table[name]) if is_measured(table[name]) else None
        part = _means(table[name], target, seed) if part is None else part
        if table[name].isna().any() and is_measured(table[name]):
            part = np.column_stack([part, table[name].isna()])
        parts.append(part)
        owners += [place] * part.shape[1]
    values = StandardScaler().fit_transform(np.column_stack(parts).astype(float))
    return Coded(values, np.array(owners))


def _measures(column: pd.Series) -> np.ndarray:
    """Return a number as it is, and a time's own parts; the middle where it is missing."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        told = column.dt
        found = pd.DataFrame(
            {
                "time": (column - column.min()).dt.total_seconds(),
                "month": told.month,
                "weekday": told.day_of_week,
                "hour": told.hour,
            }
        )
    elif pd.api.types.is_timedelta64_dtype(column.dtype):
        found = column.dt.total_seconds().to_frame()
    else:
        amounts = column.astype(float)
        found = amounts.where(amounts.abs() <= _LARGEST).to_frame()
    return found.fillna(found.median()).fillna(0).to_numpy(dtype=float)


def _means(column: pd.Series, target: np.ndarray, seed: int) -> np.ndarray:
    # By number: to sort many words for each fold takes most of the time.
    places, _ = pd.factorize(column.astype(object).map(str, na_action="ignore"))
    kind = "continuous" if target.dtype.kind == "f" else "auto"
    folds = KFold(5, shuffle=True, random_state=seed)
    code = TargetEncoder(target_type=kind, cv=folds)
    means: np.ndarray = code.fit_transform(places.reshape(-1, 1), target)
    return means
