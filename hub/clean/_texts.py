"""Numbers and dates that are kept as text."""

from __future__ import annotations

from itertools import product

import pandas as pd

_MOSTLY = 0.95
_LOOKED_AT = 10_000
# What stands for a missing value; it speaks neither for nor against numbers.
MISSING = frozenset(
    [
        "",
        "-",
        "--",
        ".",
        "?",
        "na",
        "n/a",
        "#n/a",
        "nan",
        "null",
        "none",
        "nil",
        "missing",
        "unknown",
    ]
)
_CODE = r"[+-]?0\d+"  # 007 is no number: it would lose its zeros
_DAYS = (
    *(f"%Y{s}%m{s}%d" for s in "/."),
    *(f"%m{s}%d{s}%Y" for s in "/-."),
    *(f"%d{s}%m{s}%Y" for s in "/-."),
    *(f"%m{s}%d{s}%y" for s in "/-."),
    *(f"%d{s}%m{s}%y" for s in "/-."),
    *("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y"),
)
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", " %H:%M:%S.%f")
_FORMATS = ("ISO8601", *map("".join, product(_DAYS, _TIMES)), "%a, %d %b %Y %H:%M:%S %z")
_SIGNS_OF_A_DATE = r"\d[-/.: ]\d|\d{1,2}[- ][A-Za-z]{3}|[A-Za-z]{3,9} \d{1,2}, \d{4}"


def known_texts(column: pd.Series) -> pd.Series:
    """Return the values as text, without those that stand for a missing one."""
    texts = column.dropna().map(str).str.strip()
    return texts[~texts.str.lower().isin(MISSING)]


def mostly_numbers(column: pd.Series) -> bool:
    """Tell whether at least 95 of 100 values are numbers, of a column that is not of numbers."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        return False
    first = known_texts(column.dropna().head(_LOOKED_AT))
    if pd.to_numeric(first, errors="coerce").notna().mean() < _MOSTLY / 2:
        return False  # as of most text, soon
    texts = known_texts(column)
    if texts.empty or texts.str.fullmatch(_CODE).any():
        return False
    return bool(pd.to_numeric(texts, errors="coerce").notna().mean() >= _MOSTLY)


def date_formats(column: pd.Series) -> list[str]:
    """Return the formats by which at least 95 of 100 values are dates; the first reads the most.

    Two of them mean that nobody can tell the day from the month.
    """
    texts = known_texts(column).drop_duplicates()
    some = texts.sample(min(len(texts), _LOOKED_AT), random_state=0)
    if some.empty or some.str.contains(_SIGNS_OF_A_DATE).mean() < _MOSTLY:
        return []
    shares: dict[str, float] = {}
    for how in _FORMATS:
        shares[how] = float(read_dates(some, how).notna().mean())
        if how == "ISO8601" and shares[how] == 1:
            break
    best = max(shares.values())
    return [how for how, share in shares.items() if share == best >= _MOSTLY]


def read_dates(texts: pd.Series, how: str) -> pd.Series:
    """Return the dates that texts are in a format; what is none is missing."""
    return pd.to_datetime(texts, errors="coerce", format=how, utc=True)
