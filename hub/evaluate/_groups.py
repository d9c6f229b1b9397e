"""Metrics by group, and how far the groups are apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._bootstrap import intervals
from ._scores import MAIN, score_of

if TYPE_CHECKING:
    from ._case import Case

_FEW_ROWS = 20  # metrics of fewer rows say nothing of a group
_MOST_GROUPS = 30
_BINS = 4
_RATES = ("recall", "false_positive_rate")  # of which equalized odds are
_COMPARED = {
    "binary": [
        "accuracy",
        "precision",
        "recall",
        "false_positive_rate",
        "selection_rate",
        "roc_auc",
    ],
    "multiclass": ["accuracy", "balanced_accuracy", "f1_macro"],
    "regression": ["mae", "rmse", "bias", "r2"],
}


def groups_of(column: pd.Series) -> pd.Series:
    """Return the name of each row's group: of many numbers the quarter that it is in."""
    if column.dtype.kind in "iuf" and column.nunique() > _MOST_GROUPS:
        return _quarters(column)
    names = column.astype("object").map(str, na_action="ignore").fillna("missing")
    common = names.value_counts().index[: _MOST_GROUPS - 1]
    is_rare = ~names.isin(common)
    # Of one more than fit, the last one stays itself.
    return names if names.nunique() <= _MOST_GROUPS else names.mask(is_rare, "others")


def _quarters(column: pd.Series) -> pd.Series:
    quarters = pd.qcut(column, _BINS, duplicates="drop")
    names = {}
    for number, one in enumerate(quarters.cat.categories, 1):
        names[one] = f"{number}: {one.left:.4g} to {one.right:.4g}"
    return quarters.astype("object").map(names, na_action="ignore").fillna("missing")


def by_group(case: Case, groups: pd.Series, confidence: float, resamples: int) -> pd.DataFrame:
    """Return a row for each group: its rows, its metrics, and the interval of the main one."""
    main = MAIN[case.task]
    main = main if main in score_of(case)(case.weight) else "accuracy"
    found = []
    for name in sorted(groups.unique()):
        part = case.take((groups == name).to_numpy())
        row = {"group": name, "rows": len(part.truth), **_scores(part)}
        table = intervals(part, None, resamples, confidence, 0).set_index("metric")
        if resamples and main in table.index:
            row |= {f"{main}_{end}": table.loc[main, end] for end in ("low", "high")}
        found.append(row)
    return pd.DataFrame(found)


def compare_groups(table: pd.DataFrame, task: str, warnings: list[str]) -> pd.DataFrame:
    """Return a row for each metric: which groups have the least and the most, and how far apart.

    Groups of a few rows are left out.
    """
    large = table[table["rows"] >= _FEW_ROWS]
    if small := sorted(set(table["group"]) - set(large["group"])):
        warnings.append(
            f"Groups of fewer than {_FEW_ROWS} rows are not compared: {', '.join(small[:10])}."
        )
    rows = [_apart(large.dropna(subset=name), name) for name in _COMPARED[task] if name in large]
    return pd.DataFrame([row for row in rows if row is not None])


def fairness_metrics(apart: pd.DataFrame, task: str) -> dict[str, float]:
    """Return the field's usual numbers of what is between the groups."""
    if apart.empty:
        return {}
    rows: dict[str, dict[str, float]] = apart.set_index("metric").to_dict("index")  # type: ignore[assignment]
    main = "mae" if task == "regression" else "accuracy"
    found = {f"{main}_{kind}": rows[main][kind] for kind in ("difference", "ratio")}
    if task == "binary":
        rates = [rows[rate]["difference"] for rate in _RATES if rate in rows]
        found |= {
            "demographic_parity_difference": rows["selection_rate"]["difference"],
            "demographic_parity_ratio": rows["selection_rate"]["ratio"],
            "equalized_odds_difference": max(rates, default=np.nan),
        }
        if "recall" in rows:
            found["equal_opportunity_difference"] = rows["recall"]["difference"]
    return {f"fairness/{name}": value for name, value in found.items()}


def _scores(part: Case) -> dict[str, float]:
    found = score_of(part)(part.weight)
    if part.task == "binary":
        true, false = part.truth == 1, part.truth == 0
        # A rate of no rows is unknown, where the metric of all rows says 0.
        found["recall"] = found["recall"] if true.any() else np.nan
        found["precision"] = found["precision"] if part.predicted.any() else np.nan
        found["false_positive_rate"] = 1 - found["specificity"] if false.any() else np.nan
        del found["specificity"]
    return found


def _apart(table: pd.DataFrame, name: str) -> dict[str, object] | None:
    if len(table) < 2:
        return None
    groups, values = table["group"].to_numpy(), table[name].to_numpy(dtype=float)
    least, most = values.argmin(), values.argmax()
    low, high = values[least], values[most]
    return {
        "metric": name,
        "lowest_group": groups[least],
        "lowest": low,
        "highest_group": groups[most],
        "highest": high,
        "difference": high - low,
        "ratio": low / high if high > 0 and low >= 0 else np.nan,
    }
