"""All that was found about a table, and the tables that tell it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._findings import Finding, outliers
from ._pairs import label

if TYPE_CHECKING:
    from ._profile import Column, Profile
    from ._relations import Relations
    from ._target import Target

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_NAMES = ("q05", "q25", "median", "q75", "q95")
_TOP = 20
_BINS = 30
_WHOLE = 60  # whole numbers in such a range have a step each
_PAIRS = 5000


@dataclass(frozen=True)
class Description:
    """What was found.

    Attributes:
        profile: The table and its columns.
        relations: Of pairs of columns.
        target: What is to be predicted, and what the other columns say of it.
        findings: What is odd.
        drift: What compare_datasets has found.
    """

    profile: Profile
    relations: Relations
    target: Target | None
    findings: list[Finding]
    drift: dict[str, Any] | None

    @property
    def is_exact(self) -> bool:
        """No figure is estimated."""
        whole = self.profile.different.known is not None
        return whole and all(column.is_exact for column in self.profile.columns.values())

    @property
    def missing_share(self) -> float:
        """Of all cells."""
        missing = sum(column.missing for column in self.profile.columns.values())
        return missing / (self.profile.rows * len(self.profile.columns))

    def flags(self, name: str) -> list[Finding]:
        """Return what is odd about one column."""
        return [finding for finding in self.findings if finding.column == name]


def column_table(found: Description) -> pd.DataFrame:
    """Return a row for each column, with all its figures."""
    rows = [
        {"column": name, **_facts(column), "flags": ", ".join(f.flag for f in found.flags(name))}
        for name, column in found.profile.columns.items()
    ]
    return pd.DataFrame(rows).convert_dtypes()


def _facts(column: Column) -> dict[str, Any]:
    top = top_values(column)
    facts: dict[str, Any] = {
        "kind": column.kind,
        "type": column.type,
        "rows": column.rows,
        "missing": column.missing,
        "missing_share": column.missing / column.rows,
        "distinct": column.distinct if column.different else None,
        "exact": column.is_exact,
        "top": top[0][0] if top else None,
        "top_rows": top[0][1] if top else None,
    }
    if column.kind == "time" and column.spread is not None:
        ends = column.spread.numbers[[0, -1]]
        facts |= dict(zip(("first", "last"), (label(end, "time") for end in ends), strict=True))
    if column.kind == "number":
        facts |= _number_facts(column)
    if column.text:
        facts |= {
            "shortest": column.text.shortest,
            "longest": column.text.longest,
            "characters": column.text.characters / column.present,
            "empty": column.text.empty,
            "padded": column.text.padded,
        }
    return facts


def _number_facts(column: Column) -> dict[str, Any]:
    facts: dict[str, Any] = {"infinite": column.infinite}
    if column.spread is None:
        return facts
    moments, values = column.moments, column.spread.numbers
    return facts | {
        "mean": moments.mean,
        "std": moments.deviation,
        "min": float(values[0]),
        **dict(zip(_NAMES, column.spread.quantiles(QUANTILES).tolist(), strict=True)),
        "max": float(values[-1]),
        "skewness": moments.skewness,
        "kurtosis": moments.kurtosis,
        "zeros": column.zeros,
        "negative": column.negative,
        "outliers": outliers(column, 1.5),
        "far_outliers": outliers(column, 3.0),
    }


def top_values(column: Column) -> list[tuple[str, int]]:
    """Return the most frequent values of a column and their rows."""
    if column.counts is not None:
        return [(str(value), int(n)) for value, n in column.counts.counts.iloc[:_TOP].items()]
    if column.spread is not None:
        return [(label(value, column.kind), n) for value, n in column.spread.most(_TOP)]
    return []


def histogram(column: Column) -> tuple[list[float], list[int]]:
    """Return the edges of equal steps, and how many numbers are in each.

    A few far values would leave all others in one step, so the steps are of the middle 99 % where
    the whole is more than three times as wide; the first and last one hold the rest then.
    """
    spread = column.spread
    if spread is None:
        return [], []
    values = spread.numbers
    low, high = float(values[0]), float(values[-1])
    if low == high or not np.isfinite(high - low):
        return [low, high], [round(spread.total)]
    inner = spread.quantiles([0.005, 0.995])
    if 3 * (inner[1] - inner[0]) < high - low and inner[0] < inner[1]:
        low, high = inner
    is_whole = high - low < _WHOLE and (values % 1 == 0).all()
    edges = (
        np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
        if is_whole and column.kind == "number"
        else np.linspace(low, high, _BINS + 1)
    )
    inside = np.clip(values, edges[0], edges[-1])
    counts, _ = np.histogram(inside, edges, weights=spread.weights)
    return edges.tolist(), [round(float(count)) for count in counts]


def category_table(found: Description) -> list[dict[str, Any]]:
    """Return the most frequent values of each column."""
    return [
        {"column": name, "value": value, "rows": rows, "share": rows / column.present}
        for name, column in found.profile.columns.items()
        for value, rows in top_values(column)
    ]


def correlation_table(found: Description) -> list[dict[str, Any]]:
    """Return Pearson's and Spearman's correlation of each pair of numbers, strongest first."""
    relations = found.relations
    names = relations.plan.numbers
    rows: list[dict[str, Any]] = [
        {
            "column": names[one],
            "other": names[other],
            "pearson": _finite(relations.pearson[one, other]),
            "spearman": _finite(relations.spearman[one, other]),
            "rows": int(relations.both[one, other]),
        }
        for one, other in combinations(range(len(names)), 2)
    ]
    rows.sort(key=lambda row: -abs(row["spearman"] or 0.0))
    return rows[:_PAIRS]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def association_table(found: Description) -> list[dict[str, Any]]:
    """Return how each pair of columns of any kind hangs together, strongest first."""
    relations = found.relations
    rows: list[dict[str, Any]] = []
    for one, other in combinations(relations.plan.levels, 2):
        told = relations.relation(one, other)
        rows.append(
            {
                "column": one,
                "other": other,
                "measure": told.measure,
                "value": told.value,
                "rows": told.rows,
            }
        )
    rows.sort(key=lambda row: -abs(row["value"] or 0.0))
    return rows


def association_matrix(found: Description) -> tuple[list[str], np.ndarray]:
    """Return the strength of each pair's association, from 0 to 1, as a matrix."""
    names = found.relations.plan.levels
    matrix = np.eye(len(names))
    for one, other in combinations(range(len(names)), 2):
        value = found.relations.relation(names[one], names[other]).value
        matrix[one, other] = matrix[other, one] = np.nan if value is None else abs(value)
    return list(names), matrix


def missing_together(found: Description) -> tuple[list[str], np.ndarray]:
    """Return how missing values of columns that have some correlate with each other."""
    relations = found.relations
    columns = found.profile.columns
    names = [name for name in relations.plan.levels if columns[name].missing]
    matrix = np.eye(len(names))
    for one, other in combinations(range(len(names)), 2):
        joint = relations.joint(names[one], names[other])
        matrix[one, other] = matrix[other, one] = _phi(joint)
    return names, matrix


def _phi(joint: np.ndarray) -> float:
    rows, both = joint.sum(), joint[0, 0]
    first, second = joint[0].sum() / rows, joint[:, 0].sum() / rows
    spread = np.sqrt(first * (1 - first) * second * (1 - second))
    return float((both / rows - first * second) / spread) if spread > 0 else np.nan


def warning_table(found: Description) -> list[dict[str, str]]:
    """Return what is odd, a row each; drift too."""
    return [
        {"column": one.column, "flag": one.flag, "warning": one.text} for one in found.findings
    ]
