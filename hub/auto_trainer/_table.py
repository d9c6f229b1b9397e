"""What the columns of a table are, as a model may take them, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import rayml

from ._calendars import Calendar, read_calendar

if TYPE_CHECKING:
    from collections.abc import Sequence

# Up to so many values a booster tells categories apart by itself; what has more is encoded by
# what it says of the target.
_FEW = 250
_SAMPLE = 5000
# Trees keep numbers in 32 bits.
_LARGEST = 1e38


@dataclass(frozen=True)
class Columns:
    """The columns that a model learns from, by what they are.

    Attributes:
        few: Categories of at most 250 values.
        many: Categories of more.
        numbers: Numbers, also those that are text, and spans of time.
        times: Dates and times, with where each value is in time.
        warnings: What was found, a sentence for each.
    """

    few: list[str] = field(default_factory=list)
    many: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    times: dict[str, Calendar] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def used(self) -> list[str]:
        """All of them, in the order in which an encoder has them."""
        return [*self.few, *self.many, *self.numbers, *self.times]


def check_columns(table: pd.DataFrame, names: Sequence[str], what: str) -> None:
    """Raise SpecError for the first name that the table does not have, with what it may mean."""
    known = [str(name) for name in table.columns]
    twice = sorted({name for name in known if known.count(name) > 1})
    if twice:
        raise rayml.SpecError(f"the {what} has two columns {twice[0]!r}; rename one")
    for name in names:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            way_out = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known[:20])}"
            raise rayml.SpecError(f"the {what} has no column {name!r}; {way_out}")


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with names and values that an encoder can take."""
    named = table.set_axis([str(name) for name in table.columns], axis=1)
    return named.apply(_plain_column).reset_index(drop=True)


def _plain_column(column: pd.Series) -> pd.Series:
    kind = column.dtype.kind if isinstance(column.dtype, np.dtype) else ""
    if kind == "f":
        return column.where(column.abs() <= _LARGEST)
    has_own_gaps = getattr(column.dtype, "na_value", None) is pd.NA
    if has_own_gaps and pd.api.types.is_string_dtype(column.dtype):
        return column.astype(object).where(column.notna(), None)
    if kind != "O":
        return column
    kinds = {type(value) for value in column.dropna().head(_SAMPLE)}
    if kinds <= {str} or kinds <= {bool}:
        return column.where(column.notna(), None)
    numbers = pd.to_numeric(column, errors="coerce")
    if (numbers.notna() == column.notna()).all():
        return numbers.astype(float)
    return column.map(str, na_action="ignore").where(column.notna(), None)


def find_columns(table: pd.DataFrame, raw: pd.DataFrame) -> Columns:
    """Return what each column of a plain table is; the raw one tells of mixed types.

    Raises:
        SpecError: None of them tells anything.
    """
    found = Columns()
    for name in table:
        _sort_in(found, str(name), table[name])
        _note_mixed(found, str(name), raw[name])
    if not found.used:
        raise rayml.SpecError(
            "the table has no column to learn from: all are missing, constant or identifiers; "
            "add columns that say something about the target"
        )
    return found


def _sort_in(found: Columns, name: str, column: pd.Series) -> None:
    values = column.dropna()
    distinct = values.nunique()
    if distinct == 0 or (distinct == 1 and len(values) == len(column)):
        what = "all missing" if distinct == 0 else "constant"
        found.warnings.append(f"column {name!r} is {what}: it was left out")
    elif pd.api.types.is_datetime64_any_dtype(column.dtype):
        found.times[name] = Calendar.of_type(column.dtype)
    elif pd.api.types.is_timedelta64_dtype(column.dtype) or _is_number(column):
        found.numbers.append(name)
    elif isinstance(column.dtype, pd.PeriodDtype):
        found.warnings.append(
            f"column {name!r} holds periods, which no encoder takes: it was left out; make "
            "timestamps of them by .dt.to_timestamp()"
        )
    elif isinstance(column.dtype, pd.CategoricalDtype):
        (found.few if distinct <= _FEW else found.many).append(name)
    else:
        _sort_in_text(found, name, values, distinct)


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column.dtype)  # of booleans too


def _sort_in_text(found: Columns, name: str, values: pd.Series, distinct: int) -> None:
    texts = values.astype(str)
    if (calendar := read_calendar(texts)) is not None:
        found.times[name] = calendar
        found.warnings.append(
            f"column {name!r} holds dates as text: they are read as {calendar.format}; "
            "a column of timestamps says the same in any format"
        )
    elif pd.to_numeric(texts, errors="coerce").notna().all() and distinct > 2:
        found.numbers.append(name)
        found.warnings.append(f"column {name!r} holds numbers as text: they are read as numbers")
    elif distinct > _FEW and distinct > 0.9 * len(values):
        found.warnings.append(
            f"column {name!r} has another value in nearly every row, as an identifier or free "
            "text: it was left out"
        )
    else:
        (found.few if distinct <= _FEW else found.many).append(name)


def _note_mixed(found: Columns, name: str, raw: pd.Series) -> None:
    if raw.dtype != object:
        if (
            isinstance(raw.dtype, np.dtype)
            and raw.dtype.kind == "f"
            and (raw.abs() > _LARGEST).any()
        ):
            found.warnings.append(
                f"column {name!r} has infinities, or numbers beyond {_LARGEST:.0e}: they are "
                "taken as missing"
            )
        return
    kinds = sorted({type(value).__name__ for value in raw.dropna().head(_SAMPLE)})
    if len(kinds) > 1:
        found.warnings.append(
            f"column {name!r} mixes {' and '.join(kinds[:4])}: all of it is taken as "
            f"{'numbers' if name in found.numbers else 'text'}, which the model expects too"
        )
