"""How well a fitted estimator of scikit-learn does on rows: the scores that apply to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rayml.artifacts.record import first_line

if TYPE_CHECKING:
    from collections.abc import Callable

_MANY_CLASSES = 100  # more are no table that anybody reads


@dataclass
class Evaluation:
    """An estimator's predictions on rows, and what they are worth.

    Attributes:
        target: What the rows are.
        predicted: What the estimator takes them for.
        classes: What it knows; empty if it is no classifier of one target.
        certainty: A column for each class, or one for the second of two; None without any.
        scores: By name.
        failed: Why a score is missing that should be there, by name.
    """

    target: Any
    predicted: Any = None
    classes: Any = ()
    certainty: Any = None
    scores: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, score: Callable[[], Any]) -> None:
        """Compute one score; others do not suffer if it cannot be."""
        try:
            self.scores[name] = float(score())
        except Exception as exc:  # noqa: BLE001 - of whatever an estimator predicts
            self.failed[name] = first_line(exc)


def evaluate(estimator: Any, data: Any, target: Any) -> Evaluation:  # noqa: ANN401
    """Return what an estimator predicts for rows, and its scores."""
    from sklearn.base import is_classifier, is_regressor  # noqa: PLC0415 - is imported already

    told = Evaluation(target)
    if target is None:
        if hasattr(estimator, "score"):
            told.add("score", lambda: estimator.score(data))
        return told
    is_known = is_classifier(estimator) or is_regressor(estimator)
    if is_known:
        told.predicted = estimator.predict(data)
    if is_classifier(estimator):
        _classify(told, estimator, data)
    elif is_regressor(estimator):
        _regress(told)
    if hasattr(estimator, "score"):
        told.add("score", lambda: _score(told, estimator, data))
    return told


def _score(told: Evaluation, estimator: Any, data: Any) -> Any:  # noqa: ANN401
    """Return the estimator's own score, without predicting again where it is the usual one."""
    from sklearn.base import ClassifierMixin, RegressorMixin  # noqa: PLC0415

    own = type(estimator).score
    for usual, name in ((ClassifierMixin.score, "accuracy"), (RegressorMixin.score, "r2")):
        if own is usual and name in told.scores:
            return told.scores[name]
    return estimator.score(data, told.target)


def _classify(told: Evaluation, estimator: Any, data: Any) -> None:  # noqa: ANN401
    from sklearn import metrics  # noqa: PLC0415

    target, predicted = told.target, told.predicted
    told.add("accuracy", lambda: metrics.accuracy_score(target, predicted))
    rest = {"average": "weighted", "zero_division": 0}
    told.add("precision", lambda: metrics.precision_score(target, predicted, **rest))
    told.add("recall", lambda: metrics.recall_score(target, predicted, **rest))
    told.add("f1", lambda: metrics.f1_score(target, predicted, **rest))
    classes = getattr(estimator, "classes_", ())
    if isinstance(classes, list) or getattr(target, "ndim", 1) > 1:  # several targets
        return
    told.classes = classes
    if hasattr(estimator, "predict_proba"):
        _score_probabilities(told, estimator.predict_proba(data))
    elif hasattr(estimator, "decision_function") and len(classes) == 2:
        told.certainty = estimator.decision_function(data).reshape(-1, 1)
        told.add("roc_auc", lambda: metrics.roc_auc_score(target, told.certainty[:, 0]))


def _score_probabilities(told: Evaluation, probabilities: Any) -> None:  # noqa: ANN401
    import numpy as np  # noqa: PLC0415 - scikit-learn has it
    from sklearn import metrics  # noqa: PLC0415

    target, classes = told.target, told.classes
    if len(classes) < 2 or probabilities.shape[1] != len(classes):
        return
    told.certainty = probabilities[:, 1:] if len(classes) == 2 else probabilities
    told.add("log_loss", lambda: metrics.log_loss(target, probabilities, labels=classes))
    if len(np.unique(target)) < len(classes) or len(classes) > _MANY_CLASSES:
        return  # a class without rows has no ROC
    how = {} if len(classes) == 2 else {"multi_class": "ovr", "average": "weighted"}
    certainty = told.certainty[:, 0] if len(classes) == 2 else told.certainty
    told.add("roc_auc", lambda: metrics.roc_auc_score(target, certainty, **how))


def _regress(told: Evaluation) -> None:
    from sklearn import metrics  # noqa: PLC0415

    target, predicted = told.target, told.predicted
    told.add("mae", lambda: metrics.mean_absolute_error(target, predicted))
    told.add("mse", lambda: metrics.mean_squared_error(target, predicted))
    told.add("rmse", lambda: metrics.root_mean_squared_error(target, predicted))
    told.add("r2", lambda: metrics.r2_score(target, predicted))
