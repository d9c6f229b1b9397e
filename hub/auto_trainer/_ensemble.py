"""Which models together are better than the best one (Caruana's ensemble selection)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._metrics import Metric

_PICKS = 25
_ROWS = 10_000
# What counts for less is not worth its time when the model is used.
_LEAST = 0.04


def choose(
    metric: Metric, truth: np.ndarray, said: Sequence[np.ndarray], most: int, seed: int
) -> dict[int, float]:
    """Return the places of at most so many models, and what each counts; together that is 1.

    Models are picked one at a time, each as often as it makes the mean of all picked better: by
    what they have said of rows that they did not learn from, the best one first.
    """
    rows = _some_rows(len(truth), seed)
    truth, said = truth[rows], [one[rows] for one in said]
    picked: list[int] = []
    total = np.zeros_like(said[0])
    best = -np.inf
    for _ in range(_PICKS):
        open_to = set(picked) if len(set(picked)) == most else set(range(len(said)))
        scores = {
            place: metric.goodness(truth, (total + said[place]) / (len(picked) + 1))
            for place in sorted(open_to)
        }
        place = max(scores, key=lambda place: scores[place])
        if scores[place] <= best + 1e-9:
            break
        best = scores[place]
        picked.append(place)
        total = total + said[place]
    return _weights(picked)


def _some_rows(rows: int, seed: int) -> np.ndarray:
    if rows <= _ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, _ROWS, replace=False))


def _weights(picked: Sequence[int]) -> dict[int, float]:
    shares = {place: picked.count(place) / len(picked) for place in dict.fromkeys(picked)}
    kept = {place: share for place, share in shares.items() if share >= _LEAST}
    return {place: share / sum(kept.values()) for place, share in kept.items()}
