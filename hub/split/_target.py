"""How the target is spread over the parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from ._parts import Parts

_DISCRETE = 20
_AS_METRICS = 20  # classes; of more, the table tells
_AS_ROWS = 1_000
_APART = 0.1  # of a class's share, absolute


def is_number(target: pd.Series) -> bool:
    """Tell whether the target is a quantity rather than a class."""
    is_bool = pd.api.types.is_bool_dtype(target.dtype)
    is_numeric = pd.api.types.is_numeric_dtype(target.dtype) and not is_bool
    return is_numeric and target.nunique() > _DISCRETE


def target_table(target: pd.Series, parts: Parts, warnings: list[str]) -> pd.DataFrame:
    """Return shares of classes, or what describes numbers, for each part; warn of what is odd."""
    if missing := int(target.isna().sum()):
        warnings.append(f"{missing:,} rows have no target {target.name!r}.")
    if len(values := target.value_counts().index) == 1:
        warnings.append(
            f"The target {target.name!r} is the same in all rows: {values.tolist()[0]!r}."
        )
    if is_number(target):
        told = {name: target.iloc[rows].astype(float).describe() for name, rows in parts.items()}
        return pd.DataFrame(told).rename_axis("statistic").reset_index()
    shares = _shares(target, parts)
    _warn_of_shares(str(target.name), shares, warnings)
    table = shares.head(_AS_ROWS)
    return table.set_axis(table.index.map(str)).rename_axis("class").reset_index()


def target_metrics(target: pd.Series, parts: Parts) -> dict[str, float]:
    """Return the shares of up to twenty classes, or the mean, of each part."""
    if is_number(target):
        return {f"target/{name}/mean": target.iloc[rows].mean() for name, rows in parts.items()}
    shares = _shares(target, parts)
    if len(shares) > _AS_METRICS:
        return {}
    return {
        f"target/{name}/{str(value)[:100]}": share
        for name, column in shares.items()
        for value, share in column.items()
    }


def _shares(target: pd.Series, parts: Parts) -> pd.DataFrame:
    """Return the share of each class in each part, the most frequent class first."""
    classes = target.value_counts().index
    counted = {n: target.iloc[rows].value_counts(normalize=True) for n, rows in parts.items()}
    return pd.DataFrame({n: c.reindex(classes, fill_value=0.0) for n, c in counted.items()})


def _warn_of_shares(name: str, shares: pd.DataFrame, warnings: list[str]) -> None:
    for part in shares.columns.drop("train"):
        if new := shares.index[(shares["train"] == 0) & (shares[part] > 0)].tolist():
            seen = ", ".join(map(repr, new[:5]))
            warnings.append(
                f"{len(new):,} classes of {name!r} are in {part} and not train: {seen}."
            )
        if gone := int(((shares["train"] > 0) & (shares[part] == 0)).sum()):
            warnings.append(f"{gone:,} classes of {name!r} are in train and not in {part}.")
        apart = (shares["train"] - shares[part]).abs()
        if len(apart) and apart.max() > _APART:
            place = int(apart.argmax())
            value = shares.index.tolist()[place]
            train, held_out = shares["train"].iloc[place], shares[part].iloc[place]
            warnings.append(
                f"{value!r} of {name!r} is {train:.0%} of train and {held_out:.0%} "
                f"of {part}; split it stratified if you can."
            )
