"""What a column's values are like, in constant memory; sketches of batches add up to the whole's.

Of few values they are exact: counts of different ones up to 2,047, and quantiles of up to 4,096
values. Beyond, counts are within some percent, and a quantile is the value of a rank less than a
percent of the rows away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_HASHES = 2048
_SPACE = 2.0**64  # of hashes
_VALUES = 4096
_SAMPLE = 65_536  # of a batch: to sort more of it would take longer than to write it


@dataclass(frozen=True)
class Distinct:
    """How many different values there are, told by the least of their hashes.

    Attributes:
        hashes: Of different values, the least first.
    """

    hashes: Any

    @classmethod
    def of(cls, values: Any) -> Distinct:  # noqa: ANN401
        """Sketch an array of numbers, or of text."""
        import numpy as np  # noqa: PLC0415 - pandas has it
        import pandas as pd  # noqa: PLC0415 - not before it is used

        hashes = pd.util.hash_array(values, categorize=False)
        # Where most values differ these are enough, and to sort all takes long.
        low = hashes[hashes < _SPACE * min(1.0, 4 * _HASHES / max(len(hashes), 1))]
        if len(least := np.unique(low)) < _HASHES:
            least = np.sort(pd.unique(hashes))
        return cls(least[:_HASHES].copy())

    def __add__(self, other: Distinct) -> Distinct:
        import numpy as np  # noqa: PLC0415

        return Distinct(np.union1d(self.hashes, other.hashes)[:_HASHES])

    @property
    def count(self) -> int:
        """How many there are."""
        if len(self.hashes) < _HASHES:
            return len(self.hashes)
        return round((_HASHES - 1) / (float(self.hashes[-1]) / _SPACE))


@dataclass(frozen=True)
class Spread:
    """How finite numbers are spread: some of them, in order, and how many each stands for.

    Attributes:
        low: The least of all.
        high: The greatest of all.
        numbers: In order.
        weights: Of each.
    """

    low: float
    high: float
    numbers: Any
    weights: Any

    @classmethod
    def of(cls, values: Any) -> Spread | None:  # noqa: ANN401
        """Sketch an array of numbers; None if there is no finite one."""
        import numpy as np  # noqa: PLC0415 - pandas has it

        found = values[np.isfinite(values)]
        if not len(found):
            return None
        chosen = np.sort(_some(found))
        weights = np.full(len(chosen), len(found) / len(chosen))
        return cls(float(found.min()), float(found.max()), *_thinned(chosen, weights))

    def __add__(self, other: Spread) -> Spread:
        import numpy as np  # noqa: PLC0415

        values = np.concatenate([self.numbers, other.numbers])
        weights = np.concatenate([self.weights, other.weights])
        order = np.argsort(values, kind="stable")
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Spread(low, high, *_thinned(values[order], weights[order]))

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """Return the values below which such shares of all are, between two as pandas does."""
        import numpy as np  # noqa: PLC0415

        middles = np.cumsum(self.weights) - self.weights / 2
        places = (middles - middles[0]) / max(middles[-1] - middles[0], 1e-300)
        return [float(value) for value in np.interp(shares, places, self.numbers)]

    def histogram(self, bins: int) -> list[int]:
        """Return how many values there are in equal steps from the least to the greatest."""
        import numpy as np  # noqa: PLC0415

        with np.errstate(over="ignore", invalid="ignore"):
            edges = np.linspace(self.low, self.high, bins + 1)
            if not (edges[1:] > edges[:-1]).all():  # too near each other, or too far apart
                return [round(float(self.weights.sum()))]
        counts, _ = np.histogram(self.numbers, edges, weights=self.weights)
        return [round(float(count)) for count in counts]


def _some(values: Any) -> Any:  # noqa: ANN401
    """Return all of few values, else one at random of each stretch of them."""
    import numpy as np  # noqa: PLC0415

    if len(values) <= _SAMPLE:
        return values
    offsets = np.random.default_rng(0).random(_SAMPLE)
    return values[((np.arange(_SAMPLE) + offsets) * (len(values) / _SAMPLE)).astype(int)]


def _thinned(values: Any, weights: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Return as they are, or half as many as are kept, each of which stands for equally many."""
    import numpy as np  # noqa: PLC0415

    if len(values) <= _VALUES:
        return values, weights
    ends, kept = np.cumsum(weights), _VALUES // 2
    step = ends[-1] / kept
    # At random within each step: at its middle, errors of many batches would add up.
    offset = np.random.default_rng(int(ends[-1])).random(kept)
    places = np.searchsorted(ends[:-1], (np.arange(kept) + offset) * step)
    return values[places], np.full(kept, step)
