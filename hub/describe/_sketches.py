"""What many values are like in bounded memory; sketches of parts add up to the whole's.

They are exact for what fits, and say whether they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPACE = 2.0**64  # of hashes
_HASHES = 8192
_VALUES = 8192
_CATEGORIES = 2000
_RANGE = 2**22  # whole numbers in such a range are counted by their place, not sorted


@dataclass(frozen=True)
class Different:
    """How many different values there are: the least hashes, and how often each was met.

    Attributes:
        hashes: Of different values, the least first.
        counts: Of each.
        total: Values, the repeated ones too.
        known: How many there are, if that is known exactly.
        limit: How many hashes are kept.
    """

    hashes: np.ndarray
    counts: np.ndarray
    total: int
    known: int | None
    limit: int

    @classmethod
    def of(cls, hashes: np.ndarray, counts: np.ndarray, limit: int = _HASHES) -> Different:
        """Sketch different values by their hashes, in any order, and their counts."""
        order = np.argsort(hashes) if len(hashes) <= limit else _least(hashes, limit)
        kept = hashes[order], counts[order]
        return cls(*kept, int(counts.sum()), len(hashes), limit)

    def __add__(self, other: Different) -> Different:
        is_all = len(self.hashes) == self.known and len(other.hashes) == other.known
        values = np.concatenate([self.hashes, other.hashes])
        hashes, places = np.unique(values, return_inverse=True)
        weights = np.concatenate([self.counts, other.counts])
        counts = np.bincount(places, weights).astype(np.int64)
        if not is_all:  # beyond the last hash of one, the other's are not all there
            ends = [one.hashes[-1] for one in (self, other) if len(one.hashes) != one.known]
            stop = np.searchsorted(hashes, min(ends), side="right")
            hashes, counts = hashes[:stop], counts[:stop]
        known = len(hashes) if is_all else None
        kept = hashes[: self.limit], counts[: self.limit]
        return Different(*kept, self.total + other.total, known, self.limit)

    @property
    def count(self) -> int:
        """How many different ones there are, within some percent if it is not known."""
        if self.known is not None or not len(self.hashes):
            return self.known or 0
        met = int(self.counts.sum())
        if met < 2 * len(self.hashes):  # few repeats: their share says more than the hashes do
            return round(self.total * len(self.hashes) / met)
        return round((len(self.hashes) - 1) / (float(self.hashes[-1]) / _SPACE))


def _least(hashes: np.ndarray, limit: int) -> np.ndarray:
    some = np.argpartition(hashes, limit)[:limit]
    order: np.ndarray = some[np.argsort(hashes[some])]
    return order


@dataclass(frozen=True)
class Spread:
    """How finite numbers are spread: some of them, in order, and how many each stands for.

    Attributes:
        numbers: In order; the first is the least of all, and the last the greatest.
        weights: Of each.
        is_exact: They are all there.
    """

    numbers: np.ndarray
    weights: np.ndarray
    is_exact: bool = True

    def __add__(self, other: Spread) -> Spread:
        values, places = np.unique(
            np.concatenate([self.numbers, other.numbers]), return_inverse=True
        )
        weights = np.bincount(places, np.concatenate([self.weights, other.weights]))
        return Spread(values, weights, self.is_exact and other.is_exact).thinned(_VALUES)

    def thinned(self, limit: int) -> Spread:
        """Return it as it is, or with about half of `limit` values that stand for equally many."""
        if len(self.numbers) <= limit:
            return self
        ends, kept = np.cumsum(self.weights), limit // 2
        step = ends[-1] / kept
        # At random within each step: at its middle, errors of many parts would add up.
        offsets = np.random.default_rng(int(ends[-1])).random(kept)
        places = np.searchsorted(ends[:-1], (np.arange(kept) + offsets) * step)
        places[0], places[-1] = 0, len(self.numbers) - 1
        chosen, counts = np.unique(places, return_counts=True)
        return Spread(self.numbers[chosen], counts * step, is_exact=False)

    @property
    def total(self) -> float:
        """How many numbers there are."""
        return float(self.weights.sum())

    def quantiles(self, shares: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the values below which such shares of all are, between two as pandas does."""
        ends = np.cumsum(self.weights)
        places = np.asarray(shares) * (ends[-1] - 1)
        low = self.numbers[_place(ends, np.floor(places))]
        high = self.numbers[_place(ends, np.ceil(places))]
        found: np.ndarray = low + (high - low) * (places % 1)
        return found

    def histogram(self, edges: np.ndarray) -> list[int]:
        """Return how many numbers are between neighbouring edges."""
        counts, _ = np.histogram(self.numbers, edges, weights=self.weights)
        return [round(float(count)) for count in counts]

    def ranks(self, values: np.ndarray) -> np.ndarray:
        """Return which share of all numbers each one exceeds, half of its equals included."""
        middles = (np.cumsum(self.weights) - self.weights / 2) / self.total
        found: np.ndarray = middles[np.searchsorted(self.numbers[:-1], values)]
        return found

    def most(self, count: int) -> list[tuple[float, int]]:
        """Return the most frequent values and their counts."""
        order = np.argsort(-self.weights, kind="stable")[:count]
        return [(float(self.numbers[i]), round(float(self.weights[i]))) for i in order]


def _place(ends: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.minimum(np.searchsorted(ends, places, side="right"), len(ends) - 1)


def runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different values in order, and how often each is there.

    >>> [part.tolist() for part in runs(np.array([3.0, 1.0, 3.0]))]
    [[1.0, 3.0], [1, 2]]
    """
    if len(values) and float(values.max()) - float(low := values.min()) < _RANGE:
        places = (values - low).astype(np.int64)
        if values.dtype.kind in "iu" or (places == values - low).all():
            counts = np.bincount(places)
            found = np.flatnonzero(counts)
            return found + low, counts[found]
    values, counts = np.unique(values, return_counts=True)
    return values, counts


@dataclass(frozen=True)
class Counts:
    """How often text values are there: of all, or of the most frequent ones.

    Attributes:
        counts: By value, the most frequent one first.
        short: By so much at most a count is too low.
        unseen: So often at most another value is there.
    """

    counts: pd.Series[int]
    short: int = 0
    unseen: int = 0

    @classmethod
    def of(cls, values: np.ndarray, counts: np.ndarray) -> Counts:
        """Count different values."""
        order = np.argsort(-counts, kind="stable")
        kept, rest = order[:_CATEGORIES], order[_CATEGORIES : _CATEGORIES + 1]
        index = pd.Index(values[kept], dtype=object)
        return cls(pd.Series(counts[kept], index), unseen=int(counts[rest].sum()))

    def __add__(self, other: Counts) -> Counts:
        both = pd.concat([self.counts, other.counts]).groupby(level=0, sort=False).sum()
        both = both.sort_values(ascending=False, kind="stable")
        short = max(self.short + other.unseen, self.unseen + other.short)
        dropped = int(both.iloc[_CATEGORIES]) + short if len(both) > _CATEGORIES else 0
        unseen = max(self.unseen + other.unseen, dropped)
        return Counts(both.iloc[:_CATEGORIES], short, unseen)
