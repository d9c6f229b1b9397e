"""Metrics as functions of what each row counts, so that a resample costs little.

All are what scikit-learn's functions of the same names give with these sample weights. A metric
that the rows cannot tell, such as a ROC of one class, is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._case import Case

    Score = Callable[[np.ndarray], dict[str, float]]

MAIN = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}
LESS_IS_BETTER = frozenset(["log_loss", "brier", "mae", "rmse", "median_ae", "mape", "cost"])
_MOST_RANKED = 30  # classes; to rank rows by each of more, for each resample, takes minutes
_SMALLEST = float(np.finfo(float).eps)


def score_of(case: Case) -> Score:
    """Return the function that gives a case's metrics by the rows' weights."""
    if case.task == "regression":
        return _regression(case)
    return _binary(case) if case.task == "binary" else _multiclass(case)


@dataclass(frozen=True)
class Ranking:
    """Rows by falling score; those of one score are one step."""

    order: np.ndarray
    is_positive: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, is_positive: np.ndarray) -> Ranking:
        """Sort once, for any weights."""
        order = np.argsort(-scores, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
        return cls(order, is_positive[order].astype(float), ends)

    def counts(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight of true and of false positives from the highest score down."""
        sorted_weight = weight[self.order]
        true = np.cumsum(sorted_weight * self.is_positive)[self.ends]
        return true, np.cumsum(sorted_weight)[self.ends] - true

    def areas(self, weight: np.ndarray) -> tuple[float, float]:
        """Return the area under the ROC, and the average precision."""
        true, false = self.counts(weight)
        if true[-1] <= 0 or false[-1] <= 0:
            return np.nan, np.nan
        recall = np.concatenate([[0.0], true / true[-1]])
        area = np.trapezoid(recall, np.concatenate([[0.0], false / false[-1]]))
        precision = true / np.maximum(true + false, _SMALLEST)
        return float(area), float(np.sum(np.diff(recall) * precision))


def _binary(case: Case) -> Score:
    cells = 2 * case.truth + case.predicted
    of_scores = _binary_scores(case)

    def score(weight: np.ndarray) -> dict[str, float]:
        tn, fp, fn, tp = np.bincount(cells, weight, minlength=4)
        return _counted(tp, fp, fn, tn) | of_scores(weight)

    return score


def _counted(tp: float, fp: float, fn: float, tn: float) -> dict[str, float]:
    precision, recall, specificity = (
        _ratio(tp, tp + fp),
        _ratio(tp, tp + fn),
        _ratio(tn, tn + fp),
    )
    sides = [share for share, rows in ((recall, tp + fn), (specificity, tn + fp)) if rows]
    root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
        "balanced_accuracy": float(np.mean(sides)),
        "precision": precision,
        "recall": recall,
        "specificity": specificity,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": _ratio(tp * tn - fp * fn, root),
        "selection_rate": _ratio(tp + fp, tp + fp + fn + tn),
    }


def _binary_scores(case: Case) -> Score:
    if case.scores is None:
        return lambda _: {}
    ranking = Ranking.of(case.scores, case.truth)
    losses = _losses(np.column_stack([1 - case.scores, case.scores]), case.truth)
    squares = (case.scores - case.truth) ** 2

    def score(weight: np.ndarray) -> dict[str, float]:
        area, precision = ranking.areas(weight)
        found = {"roc_auc": area, "average_precision": precision}
        if case.is_probability:
            found |= {
                "log_loss": _mean(losses, weight),
                "brier": _mean(squares, weight),
            }
        return found

    return score


def _multiclass(case: Case) -> Score:
    classes = len(case.classes)
    cells = classes * case.truth + case.predicted
    of_scores = _multiclass_scores(case)

    def score(weight: np.ndarray) -> dict[str, float]:
        matrix = np.bincount(cells, weight, minlength=classes**2).reshape(classes, classes)
        return _tabled(matrix) | of_scores(weight)

    return score


def by_class(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and F1 of each class of a confusion matrix."""
    right, true, said = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = right / said, right / true, 2 * right / (true + said)
    precision, recall, f1 = (np.nan_to_num(share) for share in shares)
    return precision, recall, f1


def _tabled(matrix: np.ndarray) -> dict[str, float]:
    true, said, total = matrix.sum(axis=1), matrix.sum(axis=0), matrix.sum()
    precision, recall, f1 = by_class(matrix)
    seen = (true + said) > 0
    covariance = np.trace(matrix) * total - true @ said
    root = np.sqrt((total**2 - said @ said) * (total**2 - true @ true))
    return {
        "accuracy": _ratio(np.trace(matrix), total),
        "balanced_accuracy": float(recall[true > 0].mean()),
        "precision_macro": float(precision[seen].mean()),
        "recall_macro": float(recall[seen].mean()),
        "f1_macro": float(f1[seen].mean()),
        "f1_weighted": float(f1 @ true / total),
        "mcc": _ratio(covariance, root),
    }


def _multiclass_scores(case: Case) -> Score:
    scores = case.scores
    if scores is None:
        return lambda _: {}
    losses = _losses(scores, case.truth)
    if len(case.classes) > _MOST_RANKED:
        return lambda weight: {"log_loss": _mean(losses, weight)}
    rankings = [Ranking.of(scores[:, k], case.truth == k) for k in range(len(case.classes))]

    def score(weight: np.ndarray) -> dict[str, float]:
        areas = [ranking.areas(weight)[0] for ranking in rankings]
        known = [area for area in areas if not np.isnan(area)]
        return {
            "roc_auc_macro": float(np.mean(known)) if known else np.nan,
            "log_loss": _mean(losses, weight),
        }

    return score


def _regression(case: Case) -> Score:
    errors = case.predicted - case.truth
    sizes = np.abs(errors)
    order = np.argsort(sizes)
    has_zero = bool((case.truth == 0).any())

    def score(weight: np.ndarray) -> dict[str, float]:
        square = _mean(errors**2, weight)
        variance = _mean((case.truth - _mean(case.truth, weight)) ** 2, weight)
        found = {
            "r2": 1 - square / variance if variance > 0 else np.nan,
            "rmse": float(np.sqrt(square)),
            "mae": _mean(sizes, weight),
            "median_ae": _median(sizes[order], weight[order]),
            "bias": _mean(errors, weight),
        }
        if not has_zero:
            found["mape"] = _mean(sizes / np.abs(case.truth), weight)
        return found

    return score


def _losses(shares: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the log loss of each row."""
    own = shares[np.arange(len(truth)), truth]
    losses: np.ndarray = -np.log(np.clip(own, _SMALLEST, 1))
    return losses


def _mean(values: np.ndarray, weight: np.ndarray) -> float:
    return float(values @ weight / weight.sum())


def _median(values: np.ndarray, weight: np.ndarray) -> float:
    """Return the middle of sorted values: between two where just half of the weight is below."""
    below = np.cumsum(weight)
    half = below[-1] / 2
    upper = values[np.searchsorted(below, half, side="right")]
    lower = values[np.searchsorted(below, half, side="left")]
    return float((lower + upper) / 2)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0
