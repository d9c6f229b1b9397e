"""From which score on a row is called positive."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import rayml

from ._scores import Ranking

if TYPE_CHECKING:
    from ._case import Case

_WANTED = re.compile(r"(precision|recall)=(0?\.\d+|1(?:\.0*)?)")
_RULES = "a number, 'f1', 'youden', 'cost', 'precision=0.9' or 'recall=0.9'"
COSTS = ("false_positive", "false_negative")
_MOST_ROWS = 200


def check_threshold(threshold: float | str | None, costs: dict[str, float] | None) -> None:
    """Raise SpecError for a rule that there is not, or costs of something else."""
    if isinstance(threshold, str):
        known = threshold in ("f1", "youden", "cost") or _WANTED.fullmatch(threshold)
        if not known:
            raise rayml.SpecError(f"threshold={threshold!r} is not a rule; give {_RULES}")
    if threshold == "cost" and costs is None:
        raise rayml.SpecError(
            "threshold='cost' needs costs={'false_positive': 1, 'false_negative': 5}, with "
            "what each mistake costs you; give them"
        )
    if costs is not None and (set(costs) != set(COSTS) or min(costs.values()) < 0):
        raise rayml.SpecError(
            f"costs={costs!r} are not what the two mistakes cost; give 'false_positive' and "
            "'false_negative', each at least 0"
        )


def curve(case: Case, scores: np.ndarray, costs: dict[str, float] | None) -> pd.DataFrame:
    """Return a row for each score that a threshold can be, from the highest down."""
    ranking = Ranking.of(scores, case.truth)
    true, false = ranking.counts(case.weight)
    positives, negatives = true[-1], false[-1]
    recall = true / max(positives, np.finfo(float).eps)
    fall_out = false / max(negatives, np.finfo(float).eps)
    found = pd.DataFrame(
        {
            "threshold": scores[ranking.order][ranking.ends],
            "precision": true / (true + false),
            "recall": recall,
            "false_positive_rate": fall_out,
            "f1": 2 * true / (true + false + positives),
            "youden": recall - fall_out,
        }
    )
    if costs is not None:
        lost = costs["false_negative"] * (positives - true)
        found["cost"] = costs["false_positive"] * false + lost
    return found


def choose(found: pd.DataFrame, rule: float | str) -> float:
    """Return the threshold that a rule gives.

    Raises:
        SpecError: No threshold has the wanted precision.
    """
    if not isinstance(rule, str):
        return float(rule)
    if rule == "cost":
        return _at_highest(found, -found["cost"])
    if (wanted := _WANTED.fullmatch(rule)) is None:
        return _at_highest(found, found[rule])
    held, least = wanted[1], float(wanted[2])
    good = found[found[held] >= least]
    if good.empty:
        raise rayml.SpecError(
            f"no threshold gives a {held} of {least}; the highest is {found[held].max():.3f}"
        )
    other = "recall" if held == "precision" else "precision"
    return _at_highest(good, good[other])


def _at_highest(found: pd.DataFrame, values: pd.Series[float]) -> float:
    return float(found["threshold"].to_numpy()[values.to_numpy().argmax()])


def thin(found: pd.DataFrame) -> pd.DataFrame:
    """Return at most 200 rows, evenly spread over those that there are."""
    places = np.unique(np.linspace(0, len(found) - 1, _MOST_ROWS).astype(int))
    return found.iloc[places].reset_index(drop=True)
