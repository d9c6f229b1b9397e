"""What the columns of a mixed table are, and their values in a form that scikit-learn takes."""

from __future__ import annotations

from collections import Counter
from difflib import get_close_matches
from typing import Literal

import numpy as np
import pandas as pd

import rayml

Kind = Literal["number", "category", "date"]

# Of other ways to write a date nobody knows which number is the month.
_DATE = r"\d{4}-\d{2}-\d{2}([T ]\d.*)?"
_LOOKED_AT = 1_000
_MOSTLY = 0.95
_IDENTIFIERS = 50  # as many values, all of them different, name rows and tell nothing of others


def check_columns(table: pd.DataFrame, wanted: list[str], what: str) -> None:
    """Raise SpecError for two columns of a name, or if the table lacks one of these."""
    known = [str(column) for column in table.columns]
    if twice := [name for name, count in Counter(known).items() if count > 1]:
        raise rayml.SpecError(f"the table has two columns called {twice[0]!r}; rename one")
    if missing := [name for name in wanted if name not in known]:
        near = get_close_matches(missing[0], known, n=1)
        way_out = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known[:30])}"
        raise rayml.SpecError(f"the table has no {what} {missing[0]!r}; {way_out}")


def kinds_of(table: pd.DataFrame, warnings: list[str]) -> dict[str, Kind | None]:
    """Return what each column is; those that tell nothing are left out, with a warning.

    Raises:
        SpecError: A column holds lists or other objects; or none is left.
    """
    kinds: dict[str, Kind | None] = {}
    left_out: dict[str, list[str]] = {}
    for name, column in table.items():
        found = _kind(column)
        why = _why_useless(column, found)
        if why:
            left_out.setdefault(why, []).append(repr(name))
        else:
            kinds[str(name)] = found
    warnings += [f"Left out, as {why}: {', '.join(names)}." for why, names in left_out.items()]
    if not kinds:
        raise rayml.SpecError(
            f"no column is left to learn from: {' '.join(warnings) or 'the table has no other'}; "
            "give columns that vary"
        )
    return kinds


def as_kinds(
    table: pd.DataFrame, kinds: dict[str, Kind | None], warnings: list[str]
) -> pd.DataFrame:
    """Return these columns with values that scikit-learn takes; what cannot be read is missing.

    A column without a kind stays as it is.
    """
    return pd.DataFrame(
        {name: _as_kind(table[name], kind, warnings) for name, kind in kinds.items()}
    )


def _kind(column: pd.Series) -> Kind:
    kinds = pd.api.types
    if kinds.is_numeric_dtype(column.dtype) or kinds.is_timedelta64_dtype(column.dtype):
        return "number"
    if kinds.is_datetime64_any_dtype(column.dtype) or isinstance(column.dtype, pd.PeriodDtype):
        return "date"
    return _kind_of_objects(column)


def _kind_of_objects(column: pd.Series) -> Kind:
    known = column.dropna()
    inferred = pd.api.types.infer_dtype(known.head(_LOOKED_AT), skipna=True)
    if inferred in ("integer", "floating", "mixed-integer-float", "decimal", "boolean"):
        return "number"
    if inferred in ("datetime64", "datetime", "date"):
        return "date"
    if bad := next((v for v in known.head(_LOOKED_AT) if isinstance(v, _NESTED)), None):
        raise rayml.SpecError(
            f"column {column.name!r} holds {type(bad).__name__}s; make columns of them, or name "
            "it in `drop`"
        )
    return "date" if inferred == "string" and _are_dates(known) else "category"


_NESTED = (list, dict, tuple, set, np.ndarray, bytes)


def _are_dates(known: pd.Series) -> bool:
    some = known.sample(min(len(known), _LOOKED_AT), random_state=0)
    return bool(len(some)) and some.str.fullmatch(_DATE).mean() >= _MOSTLY


def _why_useless(column: pd.Series, kind: Kind) -> str:
    known = column.dropna()
    if known.empty:
        return "all values are missing"
    distinct = known.astype(str).nunique() if kind == "category" else known.nunique()
    if distinct == 1 and len(known) == len(column):
        return "all values are the same"
    if kind == "category" and distinct == len(known) >= _IDENTIFIERS:
        return "each row has a value of its own"
    return ""


def _as_kind(column: pd.Series, kind: Kind | None, warnings: list[str]) -> pd.Series:
    if kind == "number":
        return _numbers(column, warnings)
    if kind == "date":
        return _dates(column, warnings)
    if kind is None:
        return column
    return column.astype(object).map(str, na_action="ignore").astype("str")


def _numbers(column: pd.Series, warnings: list[str]) -> pd.Series:
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        seconds: pd.Series[float] = column.dt.total_seconds()
        return seconds
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iu":
        return column
    numbers = column
    if column.dtype != np.float64:
        plain = column.astype(object).replace({True: 1, False: 0})
        numbers = pd.to_numeric(plain, errors="coerce").astype("float64")
    if unread := int((numbers.isna() & column.notna()).sum()):
        warnings.append(f"{unread} values of {column.name!r} are no numbers and count as missing.")
    if endless := int(np.isinf(numbers).sum()):
        warnings.append(f"{endless} infinite values of {column.name!r} count as missing.")
    return numbers.replace([np.inf, -np.inf], np.nan)


def _dates(column: pd.Series, warnings: list[str]) -> pd.Series:
    """Return times without a zone, those that had one in UTC."""
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if column.dtype.kind != "M" or getattr(column.dtype, "tz", None) is not None:
        times = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
        unread = int((times.isna() & column.notna()).sum())
        if unread:
            warnings.append(
                f"{unread} values of {column.name!r} are no dates and count as missing."
            )
        return times.dt.tz_localize(None)
    return column
