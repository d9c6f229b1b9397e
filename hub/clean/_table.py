"""The tables: their columns are there, and of the types that were learnt from."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import pandas as pd

import rayml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._columns import Column

_WORDS = {
    "outliers": ("clip", "keep"),
    "encoding": ("auto", "onehot", "ordinal", "target", "keep"),
    "dates": ("number", "keep"),
}


def check_words(given: Mapping[str, str], max_categories: int) -> None:
    """Raise SpecError for a word that means nothing here."""
    for name, word in given.items():
        if word not in _WORDS[name]:
            known = ", ".join(_WORDS[name])
            raise rayml.SpecError(f"{name}={word!r} is not known; known: {known}")
    if max_categories < 2:
        raise rayml.SpecError(f"max_categories={max_categories} is too few; give at least 2")


def check(
    table: pd.DataFrame, target: str | None, drop: list[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Return the table with a plain index and text for names, and the columns to drop.

    Raises:
        SpecError: It has no such columns, two of a name, no rows, or nothing but the target.
    """
    table = _plain(table)
    if not len(table):
        raise rayml.SpecError(
            "the table has 0 rows, of which nothing is learnt; give one with rows"
        )
    for name in [*drop, *([] if target is None else [target])]:
        if name not in table.columns:
            near = get_close_matches(str(name), table.columns, n=1)
            known = ", ".join(table.columns[:30])
            way_out = f"did you mean {near[0]!r}?" if near else f"it has {known}"
            raise rayml.SpecError(f"the table has no column {name!r}; {way_out}")
    if target in drop:
        raise rayml.SpecError(f"{target!r} is the target and in drop=; take it out of one of them")
    return table, list(dict.fromkeys(drop))


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    table = table.set_axis([str(name) for name in table.columns], axis=1).reset_index(drop=True)
    if table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()][0]
        raise rayml.SpecError(f"the table has two columns called {twice!r}; rename one of them")
    return table


def rows_to_learn_from(
    table: pd.DataFrame, target: str | None, warnings: list[str]
) -> pd.DataFrame:
    """Return the rows that have a target, each of them once."""
    rows = table if target is None else table[table[target].notna()]
    if not len(rows):
        raise rayml.SpecError(f"no row has a target {target!r}; fill it, or name another column")
    if without := len(table) - len(rows):
        warnings.append(f"{without:,} rows without a target {target!r} are dropped from train.")
    twice = is_repeated(rows)
    if twice.any():
        warnings.append(f"{int(twice.sum()):,} rows that are there twice are dropped from train.")
    return rows[~twice].reset_index(drop=True)


def is_repeated(rows: pd.DataFrame) -> pd.Series:
    """Tell which rows were there before, lists and mixed types compared as text."""
    plain = rows.copy(deep=False)
    for name in rows.columns[rows.dtypes.map(pd.api.types.is_object_dtype)]:
        plain[name] = rows[name].map(str, na_action="ignore")
    return plain.duplicated()


def aligned(
    other: pd.DataFrame, name: str, columns: list[Column], targets: list[str], warnings: list[str]
) -> pd.DataFrame:
    """Return another table's rows with the columns that were learnt from, in their types.

    Raises:
        SpecError: It lacks one.
    """
    other = _plain(other)
    used = [column for column in columns if column.is_used]
    if missing := [column.name for column in used if column.name not in other]:
        raise rayml.SpecError(
            f"{name} lacks {len(missing)} of the {len(used)} columns that are used, such as "
            f"{missing[0]!r}; give tables with the same columns"
        )
    for column in used:
        if column.kind == "number" and not column.is_parsed:
            other[column.name] = _numbers(other[column.name], name, warnings)
        if column.kind == "category" and (new := column.unseen(other[column.name])):
            warnings.append(f"{new:,} rows of {name} have a {column.name!r} that train has not.")
    if twice := int(is_repeated(other).sum()):
        warnings.append(f"{twice:,} rows of {name} are there twice, and stay.")
    if gone := [t for t in targets if t in other and other[t].isna().any()]:
        warnings.append(f"{int(other[gone[0]].isna().sum()):,} rows of {name} have no target.")
    return other


def _numbers(column: pd.Series, name: str, warnings: list[str]) -> pd.Series:
    kinds = pd.api.types
    if kinds.is_numeric_dtype(column.dtype):
        return column
    numbers = pd.to_numeric(column, errors="coerce")
    if bad := int((numbers.isna() & column.notna()).sum()):
        seen = column[numbers.isna() & column.notna()].iloc[0]
        warnings.append(
            f"{bad:,} values of {column.name!r} in {name} are no numbers, such as {seen!r}, and "
            "count as missing."
        )
    return numbers
