"""What the counts and sums of pairs say: correlations, associations, what a target depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ._pairs import Pairs, Plan

_LEAST_ROWS = 3
_VARIES = 1e-12


@dataclass(frozen=True)
class Relation:
    """How two columns hang together.

    Attributes:
        measure: `"spearman"` of two numbers, `"correlation ratio"` of a number and groups,
            `"cramers_v"` of two kinds of groups.
        value: From 0 to 1; below 0 too of Spearman's. None where it is not defined.
        rows: Those in which both have a value.
    """

    measure: str
    value: float | None
    rows: int


class Relations:
    """All that was asked of pairs of columns.

    Args:
        plan: What was counted.
        pairs: The counts.
        classes: Columns of numbers that name classes.
    """

    def __init__(self, plan: Plan, pairs: Pairs, classes: frozenset[str]) -> None:
        self.plan = plan
        self.pearson = correlations(pairs.numbers)
        self.spearman = correlations(pairs.ranks)
        self.both = pairs.numbers[3].astype(int)
        self._pairs = pairs
        self._classes = classes
        self._places = {name: place for place, name in enumerate(plan.levels)}
        self._groups = {pair: place for place, pair in enumerate(plan.groups)}
        self._numbers = {name: place for place, name in enumerate(plan.numbers)}

    def joint(self, one: str, other: str) -> np.ndarray:
        """Return rows by the levels of two columns; the first level is that of missing values."""
        first, second = self._places[one], self._places[other]
        if first > second:
            return self.joint(other, one).T
        width = len(self.plan.levels)
        place = first * width - first * (first + 1) // 2 + second - first - 1
        shape = len(self.plan.scales[one].labels) + 1, len(self.plan.scales[other].labels) + 1
        found: np.ndarray = self._pairs.joint[place][: shape[0], : shape[1]]
        return found

    def groups(self, by: str, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return by each level of one: rows, mean and standard deviation of the other."""
        counts, sums, squares = self._group_sums(by, name)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = sums / counts
            deviations = np.sqrt(np.maximum(squares / counts - means**2, 0))
        moments = self.plan.scales[name].column.moments
        scale = moments.deviation or 1.0
        return counts, moments.mean + means * scale, deviations * scale

    def _group_sums(self, by: str, name: str) -> np.ndarray:
        shape = len(self.plan.scales[by].labels) + 1
        found: np.ndarray = self._pairs.groups[self._groups[by, name]][:, :shape]
        return found

    def is_class(self, name: str) -> bool:
        """Tell whether a column's levels are classes, not stretches of numbers."""
        return not self.plan.scales[name].is_numeric or name in self._classes

    def relation(self, one: str, other: str) -> Relation:
        """Return how two columns hang together, by the measure that fits their kinds."""
        first, second = self.is_class(one), self.is_class(other)
        if first and second:
            joint = self.joint(one, other)[1:, 1:]
            return Relation("cramers_v", cramers_v(joint), int(joint.sum()))
        if first or second:
            by, name = (one, other) if first else (other, one)
            sums = self._group_sums(by, name)[:, 1:]
            return Relation("correlation ratio", correlation_ratio(sums), int(sums[0].sum()))
        place = self._numbers[one], self._numbers[other]
        value = float(self.spearman[place])
        return Relation("spearman", value if np.isfinite(value) else None, int(self.both[place]))

    def pearson_of(self, one: str, other: str) -> float | None:
        """Return Pearson's correlation of two columns of numbers."""
        value = float(self.pearson[self._numbers[one], self._numbers[other]])
        return value if np.isfinite(value) else None

    def explained(self, name: str, target: str) -> float:
        """Return the share of a target's uncertainty that one column takes away, from 0 to 1.

        Of classes it is that of their entropy, of numbers that of their variance, by the column's
        levels, of which missing values are one; less what chance alone would explain.
        """
        if self.is_class(target):
            return theils_u(self.joint(name, target)[:, 1:])
        return variance_explained(self._group_sums(name, target))

    def explained_by_absence(self, name: str, target: str) -> float:
        """Return the same of nothing but whether the column has a value."""
        if self.is_class(target):
            joint = self.joint(name, target)[:, 1:]
            return theils_u(np.stack([joint[0], joint[1:].sum(axis=0)]))
        sums = self._group_sums(name, target)
        return variance_explained(np.stack([sums[:, 0], sums[:, 1:].sum(axis=1)], axis=1))


def correlations(sums: np.ndarray) -> np.ndarray:
    """Return the matrix of correlations, NaN where one is constant in the rows that both have."""
    products, firsts, squares, counts = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        means = firsts / counts
        covariances = products / counts - means * means.T
        variances = squares / counts - means**2
        variances[(variances < _VARIES) | (counts < _LEAST_ROWS)] = np.nan
        found = covariances / np.sqrt(variances * variances.T)
    clipped: np.ndarray = np.clip(found, -1, 1)
    return clipped


def cramers_v(joint: np.ndarray) -> float | None:
    """Return Cramér's V with Bergsma's correction of what chance makes of few rows.

    >>> cramers_v(np.array([[50, 0], [0, 50]]))
    1.0
    """
    joint = joint[joint.sum(axis=1) > 0][:, joint.sum(axis=0) > 0]
    rows, (height, width) = joint.sum(), joint.shape
    if rows < _LEAST_ROWS or min(height, width) < 2:
        return None
    expected = np.outer(joint.sum(axis=1), joint.sum(axis=0)) / rows
    phi2 = ((joint - expected) ** 2 / expected).sum() / rows
    phi2 = max(0.0, phi2 - (height - 1) * (width - 1) / (rows - 1))
    least = min(height - (height - 1) ** 2 / (rows - 1), width - (width - 1) ** 2 / (rows - 1)) - 1
    return float(min(np.sqrt(phi2 / least), 1.0)) if least > 0 else None


def correlation_ratio(sums: np.ndarray) -> float | None:
    """Return the share of the deviation that groups explain, of their counts, sums and squares."""
    between, total = _variances(sums)
    return float(np.sqrt(max(between / total, 0.0))) if total > _VARIES else None


def variance_explained(sums: np.ndarray) -> float:
    """Return the share of the variance that groups explain, less what chance would explain."""
    sums = sums[:, sums[0] > 0]
    rows, groups = sums[0].sum(), sums.shape[1]
    between, total = _variances(sums)
    if total <= _VARIES or rows <= groups:
        return 0.0
    left = (1 - between / total) * (rows - 1) / (rows - groups)
    return float(min(max(1 - left, 0.0), 1.0))


def _variances(sums: np.ndarray) -> tuple[float, float]:
    """Return the sums of squares between groups, and of all."""
    counts, totals, squares = sums[:, sums[0] > 0]
    middle = totals.sum() ** 2 / counts.sum() if counts.sum() else 0.0
    between = (totals**2 / counts).sum() - middle
    return float(between), float(squares.sum() - middle)


def theils_u(joint: np.ndarray) -> float:
    """Return the share of the columns' entropy that the rows explain, less that of chance.

    >>> theils_u(np.array([[50, 0], [0, 50]])) > 0.98, theils_u(np.array([[25, 25], [25, 25]]))
    (True, 0.0)
    """
    rows = joint.sum()
    height, width = (int((joint.sum(axis=axis) > 0).sum()) for axis in (1, 0))
    whole = _entropy(joint.sum(axis=0))
    if whole <= 0 or height < 2:
        return 0.0
    left = sum(_entropy(row) * row.sum() / rows for row in joint if row.sum())
    by_chance = (height - 1) * (width - 1) / (2 * rows)  # Miller and Madow's
    return float(min(max((whole - left - by_chance) / whole, 0.0), 1.0))


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
