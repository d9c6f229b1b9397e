"""What a model loses where a column is shuffled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._scores import LESS_IS_BETTER

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_ROWS = 5_000


def permutation_importances(
    rows: pd.DataFrame,
    score: Callable[[pd.DataFrame, np.ndarray], float],
    metric: str,
    repeats: int,
    seed: int,
) -> pd.DataFrame:
    """Return how much worse a metric gets by each column's shuffling, the largest first.

    Args:
        rows: What the model takes; of many, 5,000 are drawn.
        score: Gives the metric of rows, of which it is told the places.
        metric: What it is called.
        repeats: How often each column is shuffled.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    places = np.sort(random.permutation(len(rows))[:_MOST_ROWS])
    rows = rows.iloc[places].reset_index(drop=True)
    whole = score(rows, places)
    sign = 1 if metric in LESS_IS_BETTER else -1
    found = []
    for name in rows.columns:
        worse = [
            sign * (score(_shuffled(rows, name, random), places) - whole) for _ in range(repeats)
        ]
        found.append({"column": str(name), "importance": np.mean(worse), "std": np.std(worse)})
    table = pd.DataFrame(found).sort_values("importance", ascending=False)
    return table.reset_index(drop=True)


def _shuffled(rows: pd.DataFrame, name: object, random: np.random.Generator) -> pd.DataFrame:
    order = random.permutation(len(rows))
    return rows.assign(**{str(name): rows[name].iloc[order].reset_index(drop=True)})
