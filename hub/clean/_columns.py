"""What each column is, and what is to be done with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ._texts import date_formats, known_texts, mostly_numbers, read_dates

if TYPE_CHECKING:
    from collections.abc import Callable

_NESTED = (list, dict, tuple, set, np.ndarray, bytes)
_FAR = 3.0  # interquartile ranges outside of the middle half
_FEW = 0.01  # of the values; more that lie there are a long tail
_SPREAD = 10  # as many different values have outliers
_IDENTIFIERS = 50  # as many texts, all of them different, name rows and tell nothing of others
_SHOWN = 5
MISSING = "(missing)"
"""The category of a missing value."""
_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal", "boolean")
_DATES = ("datetime", "datetime64", "date")

Kind = Literal["number", "duration", "date", "time", "category", "dropped"]  # a time stays one
_TYPES: tuple[tuple[Callable[[Any], bool], str, Kind], ...] = (
    (lambda kind: isinstance(kind, pd.CategoricalDtype), "categories", "category"),
    (pd.api.types.is_complex_dtype, "complex numbers", "dropped"),
    (pd.api.types.is_bool_dtype, "yes or no", "number"),
    (pd.api.types.is_numeric_dtype, "numbers", "number"),
    (pd.api.types.is_timedelta64_dtype, "durations", "duration"),
    (pd.api.types.is_datetime64_any_dtype, "times", "date"),
)
_UNITS = {"duration": ("seconds",), "dropped": ("left out: make columns of numbers of them",)}


@dataclass
class Column:
    """A column of the table that is learnt from.

    Attributes:
        name: Its name.
        found: What it is, in words.
        kind: How it is treated.
        why: What has been done, sentence by sentence.
        is_parsed: Its values have to be read first: they are text, or of mixed types.
        format: Of dates, how they are written.
        has_zone: Of dates, whether they say where.
        fences: Of numbers, between which they are brought.
        missing: How many there are, those that could not be read included.
        distinct: How many different values there are.
        outliers: How many numbers lie far outside.
        frequent: Of categories, all that were seen, the most frequent first; "(missing)" is one.
        doubt: What may be otherwise than it was taken for, in words.
    """

    name: str
    found: str
    kind: Kind
    why: list[str] = field(default_factory=list)
    is_parsed: bool = False
    format: str = "ISO8601"
    has_zone: bool = False
    fences: tuple[float, float] | None = None
    missing: int = 0
    distinct: int = 0
    outliers: int = 0
    frequent: list[str] = field(default_factory=list)
    doubt: str = ""

    @property
    def is_used(self) -> bool:
        """Whether anything becomes of it."""
        return self.kind != "dropped"

    def drop(self, why: str) -> None:
        """Leave it out."""
        self.kind = "dropped"
        self.why.append(f"left out: {why}")

    def unseen(self, values: pd.Series) -> int:
        """Return how many values are categories that were not seen."""
        return int((~values.dropna().map(str).isin(self.frequent)).sum())

    def told(self, made: list[str]) -> dict[str, object]:
        """Return the row that tells of it, and which columns it has become."""
        more = f" and {len(made) - _SHOWN} more" if len(made) > _SHOWN else ""
        return {
            "column": self.name,
            "found": self.found,
            "missing": self.missing,
            "distinct": self.distinct,
            "outliers": self.outliers,
            "done": "; ".join([*self.why, *filter(None, [self.doubt])]) or "kept as it is",
            "becomes": ", ".join(made[:_SHOWN]) + more,
        }


def look_at(rows: pd.DataFrame, *, outliers: str, dates: str) -> list[Column]:
    """Return what each column is, and what is to be done with it."""
    columns = []
    for name in rows:
        column = _find(str(name), rows[name])
        column.missing += int(rows[name].isna().sum())
        if column.kind in ("number", "duration"):
            _plan_numbers(column, _numbers(rows[name], column), outliers)
        elif column.kind == "date":
            _plan_dates(column, rows[name], dates)
        elif column.kind == "category":
            _plan_categories(column, rows[name])
        columns.append(column)
    return columns


def _find(name: str, values: pd.Series) -> Column:
    if values.isna().all():
        column = Column(name, "nothing", "dropped")
        column.drop("all values are missing")
        return column
    for is_so, found, kind in _TYPES:
        if is_so(values.dtype):
            has_zone = getattr(values.dtype, "tz", None) is not None
            return Column(name, found, kind, list(_UNITS.get(kind, ())), has_zone=has_zone)
    return _find_in_objects(name, values.dropna())


def _find_in_objects(name: str, known: pd.Series) -> Column:
    inferred = pd.api.types.infer_dtype(known, skipna=True)
    if inferred in _NUMBERS:
        return Column(name, "numbers", "number", is_parsed=True)
    if inferred in _DATES:
        has_zone = any(getattr(value, "tzinfo", None) for value in known.head(_SHOWN))
        return Column(name, "dates", "date", has_zone=has_zone)
    if inferred == "string":
        return _find_in_texts(name, known, is_text=True)
    if nested := [value for value in known if isinstance(value, _NESTED)]:
        return Column(name, f"{type(nested[0]).__name__}s", "dropped", list(_UNITS["dropped"]))
    return _find_in_texts(name, known, is_text=False)


def _find_in_texts(name: str, known: pd.Series, *, is_text: bool) -> Column:
    if mostly_numbers(known):
        found = "numbers kept as text" if is_text else "mixed types, mostly numbers"
        return Column(name, found, "number", ["read as numbers"], is_parsed=True)
    if not is_text:
        return Column(name, "mixed types", "category", ["values became text"])
    formats = date_formats(known)
    return _dates_in_text(name, known, formats) if formats else Column(name, "text", "category")


def _dates_in_text(name: str, known: pd.Series, formats: list[str]) -> Column:
    column = Column(name, "dates kept as text", "date", is_parsed=True, format=formats[0])
    column.has_zone = bool(known.map(str).str.contains(r"\d(?:Z|[+-]\d\d:?\d\d)$").all())
    said = "ISO 8601" if formats[0] == "ISO8601" else formats[0]
    column.why.append(f"read as {said}")
    if len(formats) > 1:
        column.doubt = f"they may also be {formats[1]}; write them as 2024-12-31 to be sure"
    return column


def _numbers(values: pd.Series, column: Column) -> pd.Series:
    """Return numbers, what is none missing; and count what could not be read."""
    if column.kind == "duration":
        return pd.Series(values.dt.total_seconds())
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    unread = values[numbers.isna() & values.notna()]
    if len(unread):
        column.missing += len(unread)
        shown = ", ".join(repr(value) for value in unread.map(str).unique()[:_SHOWN])
        column.why.append(f"{len(unread):,} values are no numbers and count as missing: {shown}")
    return numbers


def _plan_numbers(column: Column, numbers: pd.Series, outliers: str) -> None:
    finite = numbers[np.isfinite(numbers)]
    column.distinct = int(finite.nunique())
    endless = int(np.isinf(numbers).sum())
    if finite.empty or (column.distinct == 1 and not column.missing and not endless):
        column.drop("all values are the same" if len(finite) else "no value is a finite number")
        return
    low, high = finite.quantile([0.25, 0.75])
    fences = low - _FAR * (high - low), high + _FAR * (high - low)
    far = int(((finite < fences[0]) | (finite > fences[1])).sum())
    if endless:
        column.why.append(f"{endless:,} infinite values became the least or greatest finite one")
        column.fences = float(finite.min()), float(finite.max())
    if far and low < high and column.distinct > _SPREAD:
        column.outliers = far
        column.why.append(_plan_outliers(column, far, len(finite), fences, outliers))
    if column.missing:
        column.why.append(f"{column.missing:,} missing values became the median")


def _plan_outliers(
    column: Column, far: int, known: int, fences: tuple[float, float], outliers: str
) -> str:
    if outliers == "keep":
        return f"{far:,} outliers are kept, as asked for"
    if far > _FEW * known:
        return f"{far:,} values far outside are kept: {far / known:.1%} are a long tail"
    column.fences = fences
    return f"{far:,} outliers were brought to {fences[0]:.6g} or {fences[1]:.6g}"


def _plan_dates(column: Column, values: pd.Series, dates: str) -> None:
    read = read_dates(values, column.format)
    if unread := int((read.isna() & values.notna()).sum()):
        shown = ", ".join(
            map(repr, values[read.isna() & values.notna()].map(str).unique()[:_SHOWN])
        )
        column.missing += unread
        column.why.append(f"{unread:,} values are no such dates and count as missing: {shown}")
    column.distinct = int(read.nunique())
    if column.distinct <= 1 and not column.missing:
        column.drop("all values are the same")
    elif dates == "keep":
        column.kind = "time"
    else:
        column.why.append("seconds since 1970")
        if column.missing:
            column.why.append(f"{column.missing:,} missing values became the median")


def _plan_categories(column: Column, values: pd.Series) -> None:
    known = values.dropna().map(str)
    column.distinct = int(known.nunique())
    column.frequent = list(
        values.map(str, na_action="ignore").fillna(MISSING).value_counts().index
    )
    if column.distinct == 1 and not column.missing:
        column.drop("all values are the same")
    elif column.distinct == len(known) >= _IDENTIFIERS:
        column.drop("each row has a value of its own, an identifier or free text")
    elif not len(known_texts(known)):
        column.drop("all values stand for a missing one")
    elif column.missing:
        column.why.append(f"{column.missing:,} missing values became a category, {MISSING}")
