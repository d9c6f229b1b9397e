"""The table that is split: its columns are there, and fit Parquet; its times are in order."""

from __future__ import annotations

import warnings as python_warnings
from difflib import get_close_matches
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
from pandas.tseries.api import guess_datetime_format

import rayml

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOSTLY = 0.5  # of the values have to be times, or the column is none of times


def check(table: pd.DataFrame, named: Mapping[str, str]) -> pd.DataFrame:
    """Return the table with a plain index and text for names; its columns are there.

    Args:
        table: The rows.
        named: Columns by the parameter that names them.

    Raises:
        SpecError: One of them is not, two have the same name, or there are no rows.
    """
    table = table.set_axis([str(name) for name in table.columns], axis=1)
    is_new = all(name is not None and name not in table.columns for name in table.index.names)
    table = table.reset_index(drop=not is_new).rename(columns=str)
    if not len(table):
        raise rayml.SpecError("the table has 0 rows, which cannot be split; give one with rows")
    if table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()][0]
        raise rayml.SpecError(f"the table has two columns called {twice!r}; rename one of them")
    for what, name in named.items():
        if name not in table.columns:
            near = get_close_matches(name, table.columns, n=1)
            known = ", ".join(table.columns[:30])
            way_out = f"did you mean {near[0]!r}?" if near else f"it has {known}"
            raise rayml.SpecError(f"the table has no column {name!r} ({what}); {way_out}")
        if table[name].isna().all():
            raise rayml.SpecError(
                f"column {name!r} ({what}) has no value in any row; name another, or fill it"
            )
        if pd.api.types.is_object_dtype(table[name]):
            _check_values(table[name], what)
    return table


def _check_values(column: pd.Series, what: str) -> None:
    try:
        column.nunique()
    except TypeError as exc:
        raise rayml.SpecError(
            f"column {column.name!r} ({what}) holds lists or dicts, which are no groups or "
            "classes; make text or numbers of them"
        ) from exc


def plain(table: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """Return the table with text in the columns of mixed types, which Parquet cannot hold."""
    table = table.copy(deep=False)
    for name in table.columns[table.dtypes.map(pd.api.types.is_object_dtype)]:
        if not _fits(table[name]):
            warnings.append(f"Values of mixed types are kept as text: {name!r}.")
            table[name] = table[name].map(str, na_action="ignore")
    return table


def _fits(column: pd.Series) -> bool:
    try:
        pa.array(column, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False
    return True


def times_of(column: pd.Series, warnings: list[str]) -> pd.Series:
    """Return what grows with time: numbers as they are, text read as dates by one format.

    Raises:
        SpecError: Most values are no times.
    """
    kinds = pd.api.types
    are_ordered = (
        kinds.is_numeric_dtype,
        kinds.is_timedelta64_dtype,
        kinds.is_datetime64_any_dtype,
    )
    if any(is_so(column.dtype) for is_so in are_ordered):
        return column
    if kinds.infer_dtype(column, skipna=True) in ("integer", "floating", "decimal"):
        return pd.to_numeric(column)
    found = _read(column, warnings)
    unread = int((found.isna() & column.notna()).sum())
    if unread > _MOSTLY * column.notna().sum():
        seen = column[found.isna() & column.notna()].iloc[0]
        raise rayml.SpecError(
            f"column {column.name!r} has {unread:,} values that are no times, such as {seen!r}; "
            "name a column of dates, times or numbers"
        )
    if unread:
        warnings.append(f"{unread:,} values of {column.name!r} are no times and count as missing.")
    return found


def _read(column: pd.Series, warnings: list[str]) -> pd.Series:
    """Return dates that text stands for, read in the one way that reads most of them."""
    text = column.map(str, na_action="ignore")
    iso = pd.to_datetime(text, errors="coerce", utc=True, format="ISO8601")
    if iso.notna().sum() == text.notna().sum():
        return iso
    month_first, day_first = (_guess(text, day_first=day_first) for day_first in (False, True))
    counts = [read.notna().sum() for read in (iso, month_first, day_first)]
    if counts[1] == counts[2] > counts[0] and not month_first.equals(day_first):
        warnings.append(
            f"The dates of {column.name!r} can be read with the month or the day first; the month "
            "was taken. Write them as 2024-12-31 to be sure."
        )
    return (iso, month_first, day_first)[counts.index(max(counts))]


def _guess(text: pd.Series, *, day_first: bool) -> pd.Series:
    """Return dates in the format that the first value seems to have."""
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # the first value may say that this is not so
        how = guess_datetime_format(text.dropna().iloc[0], dayfirst=day_first)
    if how is None:
        return pd.Series(pd.NaT, index=text.index, dtype="datetime64[us, UTC]")
    return pd.to_datetime(text, errors="coerce", utc=True, format=how)
