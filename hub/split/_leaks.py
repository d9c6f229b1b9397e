"""What of the test is known in training already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._target import is_number

if TYPE_CHECKING:
    from ._parts import Parts

_LOOKED_AT = 100_000  # rows of each side, for columns that are the target in disguise
_ENDLESS = 1e300
_FEW = 20  # rows tell nothing: by chance, many a column is right about them
_ALL_BUT = 0.99  # of the error of knowing nothing is gone: the column tells the target


def find_leaks(
    table: pd.DataFrame,
    parts: Parts,
    target: str | None,
    times: pd.Series | None,
    group: str | None,
    warnings: list[str],
) -> dict[str, int]:
    """Return counts of what leaks from the held out parts into train; say so in warnings."""
    counts = {"same_rows": _same_rows(table, parts, warnings)}
    if group is not None:
        counts["same_groups"] = _same_groups(table[group], parts, warnings)
    if times is not None:
        counts["future_rows"] = _future_rows(times, parts, warnings)
    if target is not None:
        found = disguised(table, parts, target)
        counts["disguised_columns"] = len(found)
        warnings += [
            f"{name!r} tells the target {target!r} by itself (score {score:.4f} on the test): it "
            "may be made from it; leave it out if it is not known when predicting."
            for name, score in found.items()
        ]
    return counts


def _same_rows(table: pd.DataFrame, parts: Parts, warnings: list[str]) -> int:
    """Return how many held out rows are in train too, all of their values."""
    plain = table.copy(deep=False)
    for name in table.columns[table.dtypes.map(pd.api.types.is_object_dtype)]:
        plain[name] = table[name].map(str, na_action="ignore")
    hashes = pd.util.hash_pandas_object(plain, index=False).to_numpy()
    total = 0
    for part, rows in parts.items():
        if part == "train":
            continue
        if found := int(np.isin(hashes[rows], hashes[parts["train"]]).sum()):
            share = found / len(rows)
            warnings.append(
                f"{found:,} rows of {part} ({share:.1%}) are in train too, with the same values."
            )
            total += found
    return total


def _same_groups(groups: pd.Series, parts: Parts, warnings: list[str]) -> int:
    known = set(groups.iloc[parts["train"]].dropna().unique())
    total = 0
    for name in parts.keys() - {"train"}:
        there = groups.iloc[parts[name]].dropna()
        if found := len(known.intersection(there.unique())):
            warnings.append(
                f"{found:,} of {there.nunique():,} groups of {groups.name!r} in {name} are in "
                'train too; split by="group" to keep them apart.'
            )
            total += found
    return total


def _future_rows(times: pd.Series, parts: Parts, warnings: list[str]) -> int:
    """Return how many rows of train are later than the first row of the test."""
    first = times.iloc[parts["test"]].min()
    found = int((times.iloc[parts["train"]] > first).sum())
    if found:
        warnings.append(
            f"{found:,} rows of train are later than the test's first {times.name!r}, {first}; "
            'split by="time" if the model is to predict the future.'
        )
    return found


def disguised(table: pd.DataFrame, parts: Parts, target: str) -> dict[str, float]:
    """Return the columns that tell the target all by themselves, with their scores on the test.

    Of each value, or the nearest number, train says which class or mean goes with it, and the
    test how far that is right: 1 is always, 0 is no better than not to look. An identifier in
    text tells nothing, as the test has none of train's.
    """
    known = table[target].notna().to_numpy()
    sides = [_some(parts[name][known[parts[name]]]) for name in ("train", "test")]
    if min(map(len, sides)) < _FEW:
        return {}
    rows = np.concatenate(sides)
    is_train = np.arange(len(rows)) < len(sides[0])
    values, is_mean = _numbers(table[target].iloc[rows])
    found = {}
    for name in table.columns.drop(target):
        codes = _codes(table[name].iloc[rows], is_train)
        if (score := _score(codes, values, is_train, is_mean=is_mean)) >= _ALL_BUT:
            found[str(name)] = score
    return found


def _some(rows: np.ndarray) -> np.ndarray:
    step = -(-len(rows) // _LOOKED_AT) or 1
    return rows[::step]


def _numbers(target: pd.Series) -> tuple[np.ndarray, bool]:
    if is_number(target):
        return target.rank(pct=True).to_numpy(dtype=float), True
    return pd.factorize(target)[0], False


def _codes(column: pd.Series, is_train: np.ndarray) -> np.ndarray:
    """Return a number for each value, of numbers that of the nearest one in train."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        column = column.astype("int64").where(column.notna())
    if not pd.api.types.is_numeric_dtype(column.dtype):
        return pd.factorize(column.map(str, na_action="ignore"))[0]
    numbers = column.to_numpy(dtype=float, na_value=np.nan).clip(-_ENDLESS, _ENDLESS)
    known = np.unique(numbers[is_train & ~np.isnan(numbers)])
    if not len(known):
        return np.zeros(len(numbers), dtype=int)
    above = np.searchsorted(known, numbers).clip(0, len(known) - 1)
    below = (above - 1).clip(0)
    is_below = np.abs(numbers - known[below]) < np.abs(numbers - known[above])
    return np.where(np.isnan(numbers), -1, np.where(is_below, below, above))


def _score(codes: np.ndarray, values: np.ndarray, is_train: np.ndarray, *, is_mean: bool) -> float:
    """Return how much of the error of knowing nothing is gone on the test."""
    train = pd.DataFrame({"code": codes[is_train], "value": values[is_train]})
    if is_mean:
        told, blind = train.groupby("code")["value"].mean(), train["value"].mean()
    else:
        pairs = train.value_counts().reset_index().drop_duplicates("code")  # the most frequent
        told, blind = pairs.set_index("code")["value"], train["value"].mode().iloc[0]
    test, said = values[~is_train], pd.Series(codes[~is_train]).map(told).fillna(blind).to_numpy()
    if is_mean:
        errors = ((test - said) ** 2).sum(), ((test - blind) ** 2).sum()
    else:
        errors = (test != said).sum(), (test != blind).sum()
    return 1 - float(errors[0] / errors[1]) if errors[1] else 0.0
