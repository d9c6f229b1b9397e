"""Which models together are better than the best one (Caruana's ensemble selection)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._metrics import mean_known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._metrics import Metric

_PICKS = 25
# What counts for less is not worth its time when the model is used.
_LEAST = 0.04


def choose(
    metric: Metric,
    folds: Sequence[np.ndarray],
    said: Sequence[np.ndarray],
    most: int,
    most_rows: int,
    seed: int,
) -> dict[int, float]:
    """Return the places of at most so many models, and what each counts; together that is 1.

    Models are picked one at a time, each as often as it makes the mean of all picked better, the
    best one first.

    Args:
        metric: What counts, fold by fold.
        folds: The truth of the rows that were kept back, which nobody has learned from.
        said: Of each model what it says of them, one fold after the other.
        most: How many different models.
        most_rows: Of more, some are taken.
        seed: Of which.
    """
    rows = _some_rows([len(fold) for fold in folds], most_rows, seed)
    truth = np.concatenate(folds)[np.concatenate(rows)]
    said = [one[np.concatenate(rows)] for one in said]
    ends = np.cumsum([len(part) for part in rows])[:-1]

    def goodness(together: np.ndarray) -> float:
        parts = zip(np.split(truth, ends), np.split(together, ends), strict=True)
        return mean_known([metric.goodness(*part) for part in parts])

    picked: list[int] = []
    total = np.zeros_like(said[0])
    best = -np.inf
    for _ in range(_PICKS):
        open_to = set(picked) if len(set(picked)) == most else set(range(len(said)))
        scores = {
            place: goodness((total + said[place]) / (len(picked) + 1)) for place in sorted(open_to)
        }
        place = max(scores, key=lambda place: scores[place])
        if scores[place] <= best + 1e-9:
            break
        best = scores[place]
        picked.append(place)
        total = total + said[place]
    return _weights(picked)


def _some_rows(sizes: Sequence[int], most: int, seed: int) -> list[np.ndarray]:
    """Return the places of rows, of each fold the same share."""
    rng, share = np.random.default_rng(seed), min(1.0, most / sum(sizes))
    starts = np.cumsum([0, *sizes])[:-1]
    return [
        start + np.sort(rng.choice(size, max(1, int(size * share)), replace=False))
        for start, size in zip(starts, sizes, strict=True)
    ]


def _weights(picked: Sequence[int]) -> dict[int, float]:
    shares = {place: picked.count(place) / len(picked) for place in dict.fromkeys(picked)}
    kept = {place: share for place, share in shares.items() if share >= _LEAST}
    return {place: share / sum(kept.values()) for place, share in kept.items()}
