"""How well a fitted estimator of scikit-learn does on rows: the scores that apply to it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rayml.artifacts.record import first_line
from rayml.autologging.calls import pass_on
from rayml.autologging.data import row_bytes, shape_of, some_rows

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_ROWS = 10_000
_MOST_BYTES = 32 * 1024 * 1024  # of rows, which are copied
_FEW_ROWS = 8
_ENOUGH_ROWS = 100  # the score of fewer, where there are more, says nothing
_MOST_STEP = 200
_SURPRISE = 8
_MANY_CLASSES = 100  # more are no table that anybody reads
_MANY_CELLS = 200_000  # of certainties: to sort more of them takes too long
_LOADING_S = 1.0  # what a process's first prediction may take for loading, uncounted
_SLACK = 4  # other processes may hold this one up; the limit is of its own computing


@dataclass
class Evaluation:
    """An estimator's predictions on rows, and what they are worth.

    Attributes:
        target: What the rows are.
        predicted: What the estimator takes them for.
        classes: What it knows; empty if it is no classifier of one target.
        certainty: A column for each class, or one for the second of two; None without any.
        is_likelihood: That is probabilities.
        rows: How many there are.
        scores: By name.
        failed: Why a score is missing that should be there, by name.
    """

    target: Any
    predicted: Any = None
    classes: Any = ()
    certainty: Any = None
    is_likelihood: bool = False
    rows: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, score: Callable[[], Any]) -> None:
        """Compute one score; others do not suffer if it cannot be."""
        try:
            self.scores[name] = float(score())
        except Exception as exc:  # noqa: BLE001 - of whatever an estimator predicts
            pass_on(exc)
            self.failed[name] = first_line(exc)


def evaluate(estimator: Any, data: Any, target: Any, most_s: float) -> Evaluation:  # noqa: ANN401
    """Return what an estimator predicts for rows, and its scores.

    Args:
        estimator: A copy, which may draw random numbers.
        data: All rows; as many of them are used as fit in the time.
        target: What they are; None for clusters.
        most_s: Seconds of computing that predictions may take, and probabilities again.
    """
    import numpy as np  # noqa: PLC0415 - scikit-learn has it
    from sklearn.base import is_classifier, is_regressor  # noqa: PLC0415 - is imported already

    told = Evaluation(None)
    if not is_classifier(estimator) and not is_regressor(estimator):
        if target is None and hasattr(estimator, "score"):
            _score_clusters(told, estimator, data, most_s)
        return told
    if target is None:
        return told
    told.predicted, told.rows = predict_in_time(estimator.predict, data, most_s)
    if too_few := _too_few(told.rows, data):
        return Evaluation(None, failed=too_few)
    # A copy, because it stays until the end of the run: the data must be free to go, or to change.
    told.target = np.array(some_rows(target, told.rows))
    if is_classifier(estimator):
        _classify(told, estimator, some_rows(data, told.rows))
    else:
        _regress(told, estimator)
    return told


def predict_in_time(
    predict: Callable[[Any], Any],
    data: Any,  # noqa: ANN401
    most_s: float,
) -> tuple[Any, int]:
    """Return predictions for as many evenly spread rows as there is time for, and their number.

    What a row costs is told by asking for one, once more if that was slow, and then for a few.
    """
    most = min(shape_of(data)[0], _MOST_ROWS, _MOST_BYTES // row_bytes(data) + 1)
    started, rows, spent, cost, may_load = time.perf_counter(), 1, 0.0, 0.0, True
    while True:
        before = time.process_time()
        part = some_rows(data, rows)
        predicted = predict(part)
        last, cost = cost, time.process_time() - before
        if may_load and most_s < cost < _LOADING_S:
            started, cost, may_load = time.perf_counter(), 0.0, False
            continue
        spent, may_load = spent + cost, False
        is_late = time.perf_counter() - started > most_s * _SLACK
        wanted = _FEW_ROWS if rows == 1 else _affordable(rows, last, cost, most_s - spent)
        if rows >= most or is_late or spent + cost > most_s or wanted < 2 * rows:
            return predicted, rows
        rows = min(most, wanted)


def _too_few(rows: int, data: Any) -> dict[str, str]:  # noqa: ANN401
    """Return why there are no scores, if they would be of too few rows to tell anything."""
    total = shape_of(data)[0]
    if rows >= min(total, _ENOUGH_ROWS):
        return {}
    why = f"in their time {rows} of {total} rows are predicted; call score yourself"
    return {"the scores": why}


def _affordable(rows: int, before_s: float, now_s: float, left_s: float) -> int:
    """Return for how many rows predictions take `left_s` seconds, going by the last two calls.

    The first of them may have been slow for other reasons: no step is so large that it could take
    many times as long as it should, were the cost all of the rows'.
    """
    each_s = max(now_s - before_s, 1e-9) / rows
    most = rows * min(_MOST_STEP, _SURPRISE * left_s / max(now_s, 1e-9))
    return int(min(most, (left_s - now_s) / each_s))


def _score_clusters(told: Evaluation, estimator: Any, data: Any, most_s: float) -> None:  # noqa: ANN401
    score, told.rows = predict_in_time(estimator.score, data, most_s)
    told.failed = _too_few(told.rows, data)
    if not told.failed:
        told.add("score", lambda: score)


def _classify(told: Evaluation, estimator: Any, data: Any) -> None:  # noqa: ANN401
    from sklearn import metrics  # noqa: PLC0415

    target, predicted = told.target, told.predicted
    told.add("accuracy", lambda: metrics.accuracy_score(target, predicted))
    _add_usual_score(told, estimator, "ClassifierMixin", "accuracy")
    _add_means(told)
    classes = getattr(estimator, "classes_", ())
    if isinstance(classes, list) or getattr(target, "ndim", 1) > 1:  # several targets
        return
    told.classes = classes
    if len(classes) * told.rows > _MANY_CELLS:
        return
    if hasattr(estimator, "predict_proba"):
        _score_probabilities(told, estimator.predict_proba(data))
    elif hasattr(estimator, "decision_function") and len(classes) == 2:
        told.certainty = estimator.decision_function(data).reshape(-1, 1)
        told.add("roc_auc", lambda: metrics.roc_auc_score(target, told.certainty[:, 0]))


def _add_usual_score(told: Evaluation, estimator: Any, mixin: str, name: str) -> None:  # noqa: ANN401
    """Add the estimator's own score where it is the usual one, without predicting again."""
    from sklearn import base  # noqa: PLC0415

    if type(estimator).score is getattr(base, mixin).score and name in told.scores:
        told.scores["score"] = told.scores[name]


def _add_means(told: Evaluation) -> None:
    """Add means over the classes: by their rows, and of more than two also all alike."""
    import numpy as np  # noqa: PLC0415 - scikit-learn has it
    from sklearn.metrics import precision_recall_fscore_support  # noqa: PLC0415

    try:
        *three, rows = precision_recall_fscore_support(
            told.target, told.predicted, average=None, zero_division=0
        )
    except Exception as exc:  # noqa: BLE001 - of whatever an estimator predicts
        pass_on(exc)
        told.failed["precision, recall and f1"] = first_line(exc)
        return
    for name, values in zip(("precision", "recall", "f1"), three, strict=True):
        told.scores[name] = float(np.average(values, weights=rows)) if rows.any() else 0.0
        if len(rows) > 2:
            told.scores[f"{name}_macro"] = float(np.mean(values))


def _score_probabilities(told: Evaluation, probabilities: Any) -> None:  # noqa: ANN401
    import numpy as np  # noqa: PLC0415 - scikit-learn has it
    from sklearn import metrics  # noqa: PLC0415

    target, classes = told.target, told.classes
    if len(classes) < 2 or probabilities.shape[1] != len(classes):
        return
    told.certainty = probabilities[:, 1:] if len(classes) == 2 else probabilities
    told.is_likelihood = True
    told.add("log_loss", lambda: metrics.log_loss(target, probabilities, labels=classes))
    if len(np.unique(target)) < len(classes) or len(classes) > _MANY_CLASSES:
        return  # a class without rows has no ROC
    if len(classes) == 2:
        told.add("roc_auc", lambda: metrics.roc_auc_score(target, told.certainty[:, 0]))
    else:
        _add_areas(told)


def _add_areas(told: Evaluation) -> None:
    """Add the areas under the curves of more than two classes, each against the rest."""
    import numpy as np  # noqa: PLC0415 - scikit-learn has it
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415

    is_it = np.asarray(told.target).reshape(-1, 1) == np.asarray(told.classes)
    try:
        areas = roc_auc_score(is_it, told.certainty, average=None)
    except ValueError as exc:  # a probability is not a number
        told.failed["roc_auc"] = first_line(exc)
        return
    told.scores["roc_auc"] = float(np.average(areas, weights=is_it.sum(axis=0)))
    told.scores["roc_auc_macro"] = float(np.mean(areas))
    told.add("roc_auc_micro", lambda: roc_auc_score(is_it, told.certainty, average="micro"))


def _regress(told: Evaluation, estimator: Any) -> None:  # noqa: ANN401
    from sklearn import metrics  # noqa: PLC0415

    target, predicted = told.target, told.predicted
    told.add("mae", lambda: metrics.mean_absolute_error(target, predicted))
    told.add("mse", lambda: metrics.mean_squared_error(target, predicted))
    told.add("rmse", lambda: metrics.root_mean_squared_error(target, predicted))
    told.add("r2", lambda: metrics.r2_score(target, predicted))
    _add_usual_score(told, estimator, "RegressorMixin", "r2")
