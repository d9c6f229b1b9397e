"""What a score is: by the names of scikit-learn's functions, each the higher the better inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats
from sklearn import metrics

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BY_TASK = {
    "binary": ("roc_auc", "log_loss", "accuracy", "balanced_accuracy", "f1", "average_precision"),
    "multiclass": ("log_loss", "accuracy", "balanced_accuracy", "f1_macro", "roc_auc"),
    "regression": ("rmse", "r2", "mae", "median_ae", "mape"),
}
_LESS_IS_BETTER = frozenset(["log_loss", "rmse", "mae", "median_ae", "mape"])
_OF_LABELS: dict[str, Callable[..., float]] = {
    "accuracy": metrics.accuracy_score,
    "balanced_accuracy": metrics.balanced_accuracy_score,
    "f1": metrics.f1_score,
    "f1_macro": lambda truth, said: metrics.f1_score(truth, said, average="macro"),
}
_OF_NUMBERS: dict[str, Callable[..., float]] = {
    "rmse": lambda truth, said: np.sqrt(np.mean((truth - said) ** 2)),
    "r2": metrics.r2_score,
    "mae": metrics.mean_absolute_error,
    "median_ae": metrics.median_absolute_error,
    "mape": metrics.mean_absolute_percentage_error,
}


@dataclass(frozen=True)
class Metric:
    """One way to score.

    Attributes:
        name: What people call it.
        task: binary, multiclass or regression.
    """

    name: str
    task: str

    @property
    def sign(self) -> int:
        """-1 if less is better."""
        return -1 if self.name in _LESS_IS_BETTER else 1

    def goodness(self, truth: np.ndarray, said: np.ndarray) -> float:
        """Return the score, turned so that more is better."""
        return self.sign * self(truth, said)

    def __call__(self, truth: np.ndarray, said: np.ndarray) -> float:
        """Return the score.

        Args:
            truth: Numbers, or the places of classes.
            said: Numbers, or a column of probabilities for each class.
        """
        if self.task == "regression":
            return float(_OF_NUMBERS[self.name](truth, said))
        if (of_labels := _OF_LABELS.get(self.name)) is not None:
            return float(of_labels(truth, said.argmax(axis=1)))
        if self.name == "log_loss":
            own = said[np.arange(len(truth)), truth.astype(int)] / said.sum(axis=1)
            return float(-np.log(np.clip(own, 1e-15, 1)).mean())
        if self.task == "binary":
            score = _roc_auc if self.name == "roc_auc" else metrics.average_precision_score
            return float(score(truth, said[:, 1])) if np.ptp(truth) else np.nan
        return _auc_of_each(truth, said)


def _roc_auc(truth: np.ndarray, said: np.ndarray) -> float:
    """Return the area under the curve, by ranks (Mann and Whitney's U).

    It is what scikit-learn's function gives, which takes far longer over a few rows: a search asks
    for it thousands of times.
    """
    is_one = truth == 1
    ones = is_one.sum()
    above = stats.rankdata(said)[is_one].sum() - ones * (ones + 1) / 2
    return float(above / (ones * (len(truth) - ones)))


def _auc_of_each(truth: np.ndarray, said: np.ndarray) -> float:
    """Return the mean of each class against the rest, of those that are there."""
    there = [place for place in range(said.shape[1]) if 0 < (truth == place).sum() < len(truth)]
    each = [_roc_auc(truth == place, said[:, place]) for place in there]
    return float(np.mean(each)) if each else np.nan


def mean_known(values: Sequence[float]) -> float:
    """Return the mean of what is known: a fold without a rare class has no area under a curve."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def find_metric(name: str | None, task: str) -> Metric:
    """Return the metric of a name, or the task's usual one.

    Raises:
        SpecError: The task has no such metric.
    """
    known = _BY_TASK[task]
    if name is not None and name not in known:
        raise rayml.SpecError(
            f"metric={name!r} is none of a {task} target; give one of {', '.join(known)}"
        )
    return Metric(name or known[0], task)


def all_scores(task: str, truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Return every metric of the task."""
    found: dict[str, Any] = {name: Metric(name, task)(truth, said) for name in _BY_TASK[task]}
    return {name: value for name, value in found.items() if not np.isnan(value)}
