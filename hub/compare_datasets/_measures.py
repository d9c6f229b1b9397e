"""How far one column's values are from those of another, in the measures that people know."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    import pandas as pd

    from ._columns import Column

_BINS = 10
_CATEGORIES = 30
_DISCRETE = 20  # numbers with so few different values are compared value by value
_LISTED = 20
_LEAST_SHARE = 1e-4  # of an empty bin, for PSI, as is usual: else one is infinitely far
_UNIQUE = 0.9  # text with more different values than that are names of rows, not categories
_UNIQUE_ROWS = 100
_TINY = 1e-300
MEASURES = {"psi": 0.2, "js": 0.1, "tv": 0.1}


@dataclass(frozen=True)
class Bins:
    """How many rows of both tables fall into the same bins.

    Attributes:
        labels: Of the bins.
        reference: Rows of the reference in each.
        table: Rows of the table in each.
    """

    labels: list[str]
    reference: np.ndarray
    table: np.ndarray

    @property
    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """The shares of the rows, of the reference and of the table."""
        return self.reference / self.reference.sum(), self.table / self.table.sum()


def bins_of(reference: Column, table: Column) -> Bins:
    """Count the rows of two columns of one kind in bins that the reference makes.

    Numbers go by its deciles, where a value that fills one has a bin of its own; categories by
    its most frequent ones, with one bin for all others that it has and one for those that are
    new. What is missing is a bin as well.
    """
    kinds = {reference.kind, table.kind}
    count = _count_categories if "category" in kinds else _count_numbers
    labels, first, second = count(reference, table)
    absent = reference.rows - reference.present, table.rows - table.present
    if any(absent):
        labels, first, second = [*labels, "(missing)"], [*first, absent[0]], [*second, absent[1]]
    return Bins(labels, np.asarray(first, dtype=float), np.asarray(second, dtype=float))


def distances(bins: Bins) -> dict[str, float]:
    """Return the PSI, the Jensen–Shannon distance (base 2) and the total variation of two."""
    first, second = bins.shares
    low, high = np.maximum(first, _LEAST_SHARE), np.maximum(second, _LEAST_SHARE)
    middle = (first + second) / 2
    divergence = (stats.entropy(first, middle, base=2) + stats.entropy(second, middle, base=2)) / 2
    return {
        "psi": float(((high - low) * np.log(high / low)).sum()),
        "js": float(np.sqrt(max(divergence, 0.0))),
        "tv": float(np.abs(first - second).sum() / 2),
    }


def tests(reference: Column, table: Column, bins: Bins) -> dict[str, float | None]:
    """Return chi² of the bins, Kolmogorov–Smirnov's statistic of numbers, and their p-values."""
    counts = np.stack([bins.reference, bins.table])
    counts = counts[:, counts.sum(axis=0) > 0]
    chi2, chi2_p = 0.0, 1.0
    if counts.shape[1] > 1:
        chi2, chi2_p, *_ = stats.chi2_contingency(counts, correction=False)
    found: dict[str, float | None] = {"chi2": float(chi2), "chi2_p": float(chi2_p)}
    if len(reference.numbers) and len(table.numbers):
        ks = stats.ks_2samp(reference.numbers, table.numbers, method="asymp")
        return found | {"ks": float(ks.statistic), "ks_p": float(ks.pvalue)}
    return found | {"ks": None, "ks_p": None}


def categories(reference: Column, table: Column) -> dict[str, object]:
    """Return which categories are new and lost, the most frequent ones first, and their shares."""
    new = table.counts[~table.counts.index.isin(reference.counts.index)]
    lost = reference.counts[~reference.counts.index.isin(table.counts.index)]
    return {
        "new_categories": _most(new),
        "new_count": len(new),
        "new_share": float(new.sum() / table.rows),
        "lost_categories": _most(lost),
        "lost_count": len(lost),
        "lost_share": float(lost.sum() / reference.rows),
    }


def is_unique(column: Column) -> bool:
    """Tell whether a text column names its rows, so that nobody expects the same values again."""
    return column.present >= _UNIQUE_ROWS and len(column.counts) > _UNIQUE * column.present


def _most(counts: pd.Series[int]) -> list[str]:
    return [str(value) for value in counts.nlargest(_LISTED).index]


def _count_categories(reference: Column, table: Column) -> tuple[list[str], list[int], list[int]]:
    known = reference.counts.sort_values(ascending=False, kind="stable")
    top = known.index[:_CATEGORIES]
    labels, first = [str(value) for value in top], [int(known[value]) for value in top]
    second = table.counts.reindex(top, fill_value=0).astype(int).tolist()
    is_known = table.counts.index.isin(known.index)
    if len(known) > len(top):
        labels.append("(other)")
        first.append(int(known.sum()) - sum(first))
        second.append(int(table.counts[is_known].sum()) - sum(second))
    if not is_known.all():
        labels.append("(new)")
        first.append(0)
        second.append(int(table.counts[~is_known].sum()))
    return labels, first, second


def _count_numbers(reference: Column, table: Column) -> tuple[list[str], list[int], list[int]]:
    is_time = "time" in (reference.kind, table.kind)
    values = [_few(column.numbers) for column in (reference, table)]
    if not is_time and values[0] is not None and values[1] is not None:
        every = np.union1d(values[0], values[1])
        labels, edges = [f"{value:g}" for value in every], every[:-1]
    else:
        base = reference.numbers if len(reference.numbers) else table.numbers
        edges = _edges(base)
        labels = _labels(edges, is_time=is_time)
    counts = (_histogram(column.numbers, edges) for column in (reference, table))
    first, second = counts
    return labels, first, second


def _few(numbers: np.ndarray) -> np.ndarray | None:
    """Return the different values, if they are few."""
    if len(np.unique(numbers[:1000])) > _DISCRETE:  # spares sorting the rest
        return None
    found = np.unique(numbers)
    return found if len(found) <= _DISCRETE else None


def _edges(numbers: np.ndarray) -> np.ndarray:
    """Return the upper ends of all bins but the last one.

    >>> _edges(np.array([0.0] * 90 + [1.0] * 10)).tolist()
    [-5e-324, 0.0]
    """
    shares = np.arange(1, _BINS) / _BINS
    found, counts = np.unique(
        np.quantile(numbers, shares, method="inverted_cdf"), return_counts=True
    )
    before = np.nextafter(found[counts > 1], -np.inf)
    return np.union1d(found, before)


def _histogram(numbers: np.ndarray, edges: np.ndarray) -> list[int]:
    places = np.searchsorted(edges, numbers, side="left")
    counts: list[int] = np.bincount(places, minlength=len(edges) + 1).tolist()
    return counts


def _labels(edges: np.ndarray, *, is_time: bool) -> list[str]:
    texts = [_text(edge, is_time=is_time) for edge in edges]
    inner = [f"{high}" if high == low else f"{low} … {high}" for low, high in pairwise(texts)]
    first = f"< {texts[0]}" if texts[:1] == texts[1:2] else f"≤ {texts[0]}"
    return [first, *inner, f"> {texts[-1]}"]


def _text(edge: float, *, is_time: bool) -> str:
    if is_time:
        return str(np.datetime64(round(edge), "ms"))[:16].replace("T", " ")
    return f"{edge:.4g}" if abs(edge) > _TINY else "0"  # the number before 0 is a tiny one
