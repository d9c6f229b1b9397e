"""What is odd about a table, in words: the things that one would want to be told first."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._profile import Column, Profile
    from ._relations import Relations
    from ._target import Target

_MANY_MISSING = 0.3
_MANY_CATEGORIES = 50
_MANY_ZEROS = 0.5
_UNIQUE = 0.95
_FAR = 0.01
_FEW = 20  # different values: of months or grades none lies outside
_SKEWED = 10
_CORRELATED = 0.95
_RARE_CLASS = 0.1  # of what it would have if all classes were as frequent
_FEW_IN_CLASS = 10
_LOOKED_AT = 200  # values, the most frequent ones
_ALIKE = 0.95
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([T ].*)?"
    r"|\d{1,2} [A-Za-z]{3,9} \d{2,4}.*|[A-Za-z]{3,9} \d{1,2},? \d{2,4}.*"
)


class Finding(NamedTuple):
    """One of them.

    Attributes:
        column: The column's name; empty if it is about the whole table.
        flag: A word for it, such as `"constant"`.
        text: What it is, with its figures.
    """

    column: str
    flag: str
    text: str


def find_odd(
    found: Profile, relations: Relations, target: Target | None, notes: dict[str, str]
) -> list[Finding]:
    """Return all that is odd, what matters most first."""
    odd = [*(_of_target(target) if target else ()), *_of_table(found)]
    for name, column in found.columns.items():
        if name in notes:
            odd.append(Finding(name, "mixed types", f"it holds {notes[name]}; it is read as text"))
        odd += [Finding(name, flag, text) for flag, text in _of_column(column)]
    return [*odd, *_of_pairs(relations, target)]


def _of_target(target: Target) -> Iterator[Finding]:
    name, column = target.name, target.column
    if column.missing:
        text = f"{column.missing:,} rows have no target; they say nothing of it"
        yield Finding(name, "target missing", text)
    if target.is_constant:
        yield Finding(
            name, "target constant", "the target has one value; there is nothing to learn"
        )
        return
    for leak in target.leaks:
        text = f"{leak['leak']}: is it known before the target is?"
        yield Finding(leak["column"], "leak", text)
    rare = [one for one in target.classes if one["share"] * column.distinct < _RARE_CLASS]
    if rare:
        least = rare[-1]
        text = (
            f"{len(rare):,} of {column.distinct:,} classes are rare: {least['class']} has "
            f"{least['rows']:,} rows ({least['share']:.2%})"
        )
        yield Finding(name, "imbalance", text)
    few = [one for one in target.classes if one["rows"] < _FEW_IN_CLASS]
    if few:
        text = (
            f"{few[-1]['class']} has {few[-1]['rows']} rows, too few to learn from and to test by"
        )
        yield Finding(name, "few rows in class", text)
    if target.classes and column.distinct > _MANY_CATEGORIES:
        yield Finding(name, "many classes", f"the target has {column.distinct:,} classes")


def _of_table(found: Profile) -> Iterator[Finding]:
    if found.repeated:
        word = "" if found.different.known is not None else "about "
        share = found.repeated / found.rows
        text = (
            f"{word}{found.repeated:,} rows ({share:.2%}) are there before, all columns the same"
        )
        yield Finding("", "duplicate rows", text)
    first: dict[int, str] = {}
    for name, column in found.columns.items():
        if column.present and column.mark in first:
            yield Finding(name, "duplicate column", f"it is the same as {first[column.mark]}")
        first.setdefault(column.mark, name)


def _of_column(column: Column) -> Iterator[tuple[str, str]]:
    if not column.present:
        yield "empty", "it has no value at all"
        return
    if (share := column.missing / column.rows) >= _MANY_MISSING:
        yield "missing", f"{share:.1%} of the rows have no value"
    if column.distinct == 1:
        yield "constant", "all its values are the same"
    elif column.kind in ("number", "time"):
        yield from _of_numbers(column)
    elif column.kind == "text":
        yield from _of_text(column)


def _of_numbers(column: Column) -> Iterator[tuple[str, str]]:
    if column.infinite:
        yield (
            "infinite",
            f"{column.infinite:,} values are infinite; they are left out of the figures",
        )
    if column.kind == "time" or column.spread is None:
        return
    if column.zeros / column.present >= _MANY_ZEROS:
        yield "zeros", f"{column.zeros / column.present:.1%} of the values are 0"
    if abs(column.moments.skewness) >= _SKEWED:
        yield "skewed", f"its skewness is {column.moments.skewness:.1f}"
    far = outliers(column, 3.0)
    if far >= _FAR * column.present and column.distinct > _FEW:
        text = (
            f"{far:,} values ({far / column.present:.1%}) lie far outside: more than 3 times the "
            "middle half's width away from it"
        )
        yield "outliers", text
    is_whole = (
        column.distinct >= _UNIQUE * column.present and (column.spread.numbers % 1 == 0).all()
    )
    if is_whole and column.present > _MANY_CATEGORIES:
        yield "key", "nearly every value is another whole number, as of a key"


def _of_text(column: Column) -> Iterator[tuple[str, str]]:
    values = looked_at(column)
    if _are_dates(values):
        yield "date as text", f"its text is dates, such as {values.iloc[0]!r}; read them as times"
    elif _are_numbers(values):
        yield (
            "number as text",
            f"its text is numbers, such as {values.iloc[0]!r}; read them as such",
        )
    if column.distinct >= _UNIQUE * column.present and column.present > _MANY_CATEGORIES:
        yield "key", "nearly every value is another one, as of a name or key"
    elif column.distinct > _MANY_CATEGORIES:
        word = "" if column.is_exact else "about "
        yield "many categories", f"it has {word}{column.distinct:,} different values"
    if column.text and column.text.padded:
        yield "white space", f"{column.text.padded:,} values begin or end with white space"
    if column.text and column.text.empty:
        yield "empty text", f"{column.text.empty:,} values are there and have no character"


def looked_at(column: Column) -> pd.Series[str]:
    """Return the most frequent values of a text column."""
    found = column.counts.counts.index[:_LOOKED_AT].tolist() if column.counts else list[str]()
    return pd.Series(found, dtype="str")


def _are_dates(values: pd.Series[str]) -> bool:
    if values.str.fullmatch(_DATE.pattern).mean() < _ALIKE:
        return False
    times = pd.to_datetime(values, errors="coerce", format="mixed", utc=True)
    return bool(times.notna().mean() >= _ALIKE)


def _are_numbers(values: pd.Series[str]) -> bool:
    return bool(pd.to_numeric(values, errors="coerce").notna().mean() >= _ALIKE)


def outliers(column: Column, width: float) -> int:
    """Return how many numbers are further from the middle half than so many times its width."""
    if column.spread is None:
        return 0
    low, high = column.spread.quantiles([0.25, 0.75])
    reach = width * (high - low)
    values = column.spread.numbers
    is_out = (values < low - reach) | (values > high + reach)
    return round(float(column.spread.weights[is_out].sum()))


def _of_pairs(relations: Relations, target: Target | None) -> Iterator[Finding]:
    """Yield columns that say nearly the same as one before them."""
    strength = np.triu(np.abs(np.nan_to_num(relations.spearman)), 1)
    names = relations.plan.numbers
    for place, name in enumerate(names):
        others = np.flatnonzero(strength[:, place] >= _CORRELATED)
        if target is not None:
            others = others[[target.name not in (name, names[other]) for other in others]]
        if len(others):
            best = others[np.argmax(strength[others, place])]
            value = relations.spearman[best, place]
            text = f"its rank correlation with {names[best]} is {value:.3f}"
            more = f"; it is as high with {len(others) - 1} more" if len(others) > 1 else ""
            yield Finding(name, "correlated", text + more)
