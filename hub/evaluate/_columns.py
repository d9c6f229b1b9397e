"""Columns by name, and as a model's signature says that they are."""

from __future__ import annotations

from collections import Counter
from difflib import get_close_matches

import numpy as np
import pandas as pd

import rayml


def check_columns(table: pd.DataFrame, wanted: list[str], what: str) -> None:
    """Raise SpecError if the table lacks some of these columns; it names each.

    So does it for two columns of one name.
    """
    known = [str(column) for column in table.columns]
    if twice := [name for name, count in Counter(known).items() if count > 1]:
        raise rayml.SpecError(f"the table has two columns called {twice[0]!r}; rename one")
    if missing := [name for name in wanted if name not in known]:
        said = ", ".join(_with_likeness(name, known) for name in missing)
        raise rayml.SpecError(
            f"the table has no {what} {said}; its columns: {', '.join(known[:30])}"
        )


def as_signed(table: pd.DataFrame, dtypes: dict[str, str]) -> pd.DataFrame:
    """Return these columns, dates and numbers in the types that the model has learned."""
    return pd.DataFrame({name: _cast(table[name], dtype) for name, dtype in dtypes.items()})


def _with_likeness(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"{name!r} (did you mean {near[0]!r}?)" if near else repr(name)


def _cast(column: pd.Series, dtype: str) -> pd.Series:
    if str(column.dtype) == dtype:
        return column
    if dtype.startswith("datetime64["):
        return _as_times(column, dtype)
    if dtype == "str":
        return column.map(str, na_action="ignore").astype("str")
    return _as_numbers(column) if dtype.startswith(("int", "uint", "float")) else column


def _as_times(column: pd.Series, dtype: str) -> pd.Series:
    """Return times in one unit: a model that learned microseconds cannot tell nanoseconds."""
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    times = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
    _refuse_new_gaps(column, times, "times")
    if "," in dtype:  # of a zone: all of them are the same moments
        return times
    plain: pd.Series = times.dt.tz_localize(None).astype(dtype)  # type: ignore[call-overload]
    return plain


def _as_numbers(column: pd.Series) -> pd.Series:
    """Return numbers, also of booleans and of spans of time, which are seconds."""
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        seconds: pd.Series = column.dt.total_seconds()
        return seconds
    plain = column.astype(object).replace({True: 1, False: 0})
    numbers = pd.to_numeric(plain, errors="coerce").astype(np.float64)
    _refuse_new_gaps(column, numbers, "numbers")
    return numbers


def _refuse_new_gaps(before: pd.Series, after: pd.Series, wanted: str) -> None:
    bad = before[after.isna() & before.notna()]
    if len(bad):
        raise rayml.SpecError(
            f"column {before.name!r} holds {bad.iloc[0]!r} and the model takes {wanted} there; "
            "clean the column"
        )
