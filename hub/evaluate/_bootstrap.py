"""How sure a metric is: what it is on rows drawn again and again from the same table."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._scores import score_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._case import Case


def intervals(
    case: Case, other: Case | None, resamples: int, confidence: float, seed: int
) -> pd.DataFrame:
    """Return a row for each metric: its value, and between what it lies in most resamples.

    With another model's case of the same rows also that one's value, and the difference with the
    interval of it: both are scored on the same draws.

    Args:
        case: What is scored.
        other: What it is compared with.
        resamples: How many; none for 0.
        confidence: The share of the resamples that an interval covers.
        seed: Of the draws.
    """
    scores = [score_of(one) for one in (case, other) if one is not None]
    values = [score(case.weight) for score in scores]
    drawn: list[list[dict[str, float]]] = [[] for _ in scores]
    for weight in _draws(case.weight, resamples, seed):
        for found, score in zip(drawn, scores, strict=True):
            found.append(score(weight))
    table = _bounded(values[0], pd.DataFrame(drawn[0]), confidence)
    if other is not None:
        _compare(table, values, [pd.DataFrame(found) for found in drawn], confidence)
    return table.dropna(subset="value").reset_index(drop=True)


def _draws(weight: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(seed)
    rows = len(weight)
    for _ in range(resamples):
        yield weight * np.bincount(random.integers(rows, size=rows), minlength=rows)


def _bounded(values: dict[str, float], drawn: pd.DataFrame, confidence: float) -> pd.DataFrame:
    table = pd.DataFrame({"metric": list(values), "value": list(values.values())})
    if len(drawn):
        table["low"], table["high"] = _bounds(drawn[list(values)], confidence)
    return table


def _compare(
    table: pd.DataFrame,
    values: list[dict[str, float]],
    drawn: list[pd.DataFrame],
    confidence: float,
) -> None:
    baseline = table["metric"].map(values[1])
    table["baseline"], table["difference"] = baseline, table["value"] - baseline
    if len(drawn[0]):
        gaps = (drawn[0] - drawn[1]).reindex(columns=table["metric"])
        table["difference_low"], table["difference_high"] = _bounds(gaps, confidence)


def _bounds(drawn: pd.DataFrame, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    edge = 50 * (1 - confidence)
    with warnings.catch_warnings():
        # Of a metric that no draw could tell, such as a ROC where one class has a single row.
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanpercentile(drawn.to_numpy(), [edge, 100 - edge], axis=0)
    return low, high
