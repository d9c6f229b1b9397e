"""From scores to votes, and from votes to the columns that stay."""

from __future__ import annotations

import numpy as np
import pandas as pd


def votes(scores: pd.DataFrame, chance: pd.Series, k: int | None) -> pd.DataFrame:
    """Return which judge votes for which column.

    Args:
        scores: A row for each column, a column for each judge.
        chance: What each judge gives to the best of those that are shuffled.
        k: How many columns each judge votes for; None for all that are better than chance.
    """
    if k is None:
        return scores > chance
    return (scores.rank(ascending=False, method="first") <= k) & (scores > 0)


def choose(
    table: pd.DataFrame,
    alike: pd.DataFrame,
    keep: list[str],
    min_votes: float,
    max_correlation: float,
    k: int | None,
) -> pd.DataFrame:
    """Return the table with `selected` and `reason`, the best columns first.

    Args:
        table: By column: `share` of the votes and `mean_rank`.
        alike: The sizes of the correlations of all columns with each other.
        keep: Columns that stay whatever the votes.
        min_votes: The share of the judges that a column needs.
        max_correlation: Of two columns that are more alike, the better one stays.
        k: How many stay at most.
    """
    table = table.sort_values(["share", "mean_rank"], ascending=[False, True])
    chosen = [name for name in table.index if name in keep]
    reasons = dict.fromkeys(chosen, "wanted")
    for name in table.index.difference(chosen, sort=False):
        twin = next((other for other in chosen if alike.loc[name, other] > max_correlation), None)
        if table.loc[name, "share"] < min_votes:
            reasons[name] = "too few votes"
        elif twin is not None:
            reasons[name] = f"tells what {twin!r} tells"
        elif k is not None and len(chosen) >= k:
            reasons[name] = f"not among the best {k}"
        else:
            reasons[name] = "voted for"
            chosen.append(name)
    reason = table.index.map(reasons)
    return table.assign(selected=table.index.isin(chosen), reason=reason)


def mean_ranks(scores: pd.DataFrame) -> pd.Series:
    """Return each column's mean rank over the judges, 1 for the best."""
    return scores.rank(ascending=False).mean(axis=1)


def likeness(values: np.ndarray, owners: np.ndarray, names: list[str]) -> pd.DataFrame:
    """Return the sizes of Spearman's correlations among columns, each by its first code."""
    first = [int(np.flatnonzero(owners == place)[0]) for place in range(len(names))]
    frame = pd.DataFrame(values[:, first], columns=names)
    return frame.rank().corr().abs().fillna(0.0)
