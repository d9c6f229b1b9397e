"""Columns that are the target in disguise: each alone tells what is to be predicted."""

from __future__ import annotations

import numpy as np
import pandas as pd

_ROWS = 20_000
_FEW = 20  # rows tell nothing: by chance, many a column is right about them
_TELLS = 0.99  # of the error of knowing nothing is gone
_ENDLESS = 1e300


def warn_of_leaks(
    rows: pd.DataFrame, target: pd.Series, seed: int, *, is_number: bool
) -> list[str]:
    """Return a warning of each column that tells the target all by itself.

    Of each value, or the nearest number, one half of the rows says which class or mean goes with
    it, and the other half how far that is right.
    """
    chosen = np.random.default_rng(seed).permutation(len(rows))[:_ROWS]
    half = len(chosen) // 2
    if half < _FEW:
        return []
    known = target.iloc[chosen]
    truth = known.rank(pct=True).to_numpy(dtype=float) if is_number else _factors(known)
    found = {}
    for name in rows:
        codes = _codes(rows[name].iloc[chosen], half)
        if (score := _score(codes, truth, half, is_number=is_number)) >= _TELLS:
            found[name] = score
    return [
        f"Column {name!r} alone tells the target {target.name!r} ({score:.3f} of 1): if it is "
        "only known once the target is, leave it out."
        for name, score in found.items()
    ]


def _factors(column: pd.Series) -> np.ndarray:
    return pd.factorize(column.astype(object).map(str, na_action="ignore"))[0]


def _codes(column: pd.Series, half: int) -> np.ndarray:
    """Return a number for each value, of numbers that of the nearest one in the first half."""
    kinds = pd.api.types
    if kinds.is_datetime64_any_dtype(column.dtype) or kinds.is_timedelta64_dtype(column.dtype):
        column = column.astype("int64").where(column.notna())
    if not kinds.is_numeric_dtype(column.dtype):
        return _factors(column)
    numbers = column.to_numpy(dtype=float, na_value=np.nan).clip(-_ENDLESS, _ENDLESS)
    known = np.unique(numbers[:half][~np.isnan(numbers[:half])])
    if not len(known):
        return np.zeros(len(numbers), dtype=int)
    above = np.searchsorted(known, numbers).clip(0, len(known) - 1)
    below = (above - 1).clip(0)
    is_below = np.abs(numbers - known[below]) < np.abs(numbers - known[above])
    return np.where(np.isnan(numbers), -1, np.where(is_below, below, above))


def _score(codes: np.ndarray, truth: np.ndarray, half: int, *, is_number: bool) -> float:
    """Return how much of the error of knowing nothing is gone in the second half."""
    learned = pd.DataFrame({"code": codes[:half], "truth": truth[:half]})
    if is_number:
        told, blind = learned.groupby("code")["truth"].mean(), learned["truth"].mean()
    else:
        pairs = learned.value_counts().reset_index().drop_duplicates("code")  # the most frequent
        told, blind = pairs.set_index("code")["truth"], learned["truth"].mode().iloc[0]
    said = pd.Series(codes[half:]).map(told).fillna(blind).to_numpy()
    apart, far = truth[half:] - said, truth[half:] - blind
    errors = [(one**2 if is_number else one != 0).sum() for one in (apart, far)]
    return 1 - float(errors[0] / errors[1]) if errors[1] else 0.0
