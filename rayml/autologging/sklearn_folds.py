"""What is logged of a cross-validation by scikit-learn that user code calls."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rayml.artifacts.record import is_a
from rayml.autologging.calls import spared
from rayml.autologging.copies import asks_own_code
from rayml.autologging.data import digest_of, is_known, shape_of
from rayml.autologging.fits import next_other, remember_prediction
from rayml.autologging.params import params_of, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rayml.autologging.fits import Fit
    from rayml.autologging.sklearn_functions import Called
    from rayml.run_context import Context

_FOLDS = 5  # scikit-learn's own, if nobody says how many


def log_validation(called: Called) -> None:
    """Log how an estimator is validated, with the scores of each fold; each part by itself."""
    context = called.context
    if (found := next_other(context, "cv")) is None:
        return
    validation = replace(found, seconds=called.seconds)
    if called.name == "cross_val_predict":
        remember_prediction(context, called.result, validation)
    with spared("the parameters of a cross-validation", context):
        log_settings(context, validation, called.arguments)
    with spared("the scores of a cross-validation", context):
        _log_scores(context, validation.group, _scores(called))
        if called.name == "permutation_test_score":
            score, _, chance = called.result
            group = validation.group
            context.log_metrics({f"{group}/test/score": score, f"{group}/p_value": chance})


def log_settings(context: Context, validation: Fit, arguments: Mapping[str, Any]) -> None:
    """Log the estimator's parameters, how it is validated and on which data."""
    estimator, group = arguments["estimator"], validation.group
    own = asks_own_code(type(estimator))
    params = {"class": type(estimator).__qualname__, **({} if own else params_of(estimator))}
    facts = {**params, **_splitting(arguments), **_data(validation, arguments["X"])}
    context.log_params({f"{group}/{name}": value for name, value in facts.items()})


def _splitting(arguments: Mapping[str, Any]) -> dict[str, object]:
    """Return how rows are split and scored, as far as that runs no code of the user's."""
    split = arguments.get("cv")
    told = {name: arguments.get(name) for name in ("scoring", "method")}
    facts = shown({name: value for name, value in told.items() if value is not None})
    if split is None or isinstance(split, int):
        return {**facts, "folds": split or _FOLDS}
    if type(split).__module__.startswith("sklearn."):
        folds = getattr(split, "n_splits", None)
        return {**facts, "split": repr(split), **({"folds": folds} if folds else {})}
    return {**facts, **shown({"split": split})}


def _data(validation: Fit, data: Any) -> dict[str, object]:  # noqa: ANN401
    if not is_known(data):
        return {}
    rows, columns = shape_of(data)
    digest = digest_of(data, validation.most_bytes)
    return {"rows": rows, "columns": columns, **({"digest": digest} if digest else {})}


def _scores(called: Called) -> dict[str, Any]:
    """Return what was measured of each fold; a prediction has nothing of that."""
    match called.name:
        case "cross_validate":
            named = called.result.items()
            return {name: values for name, values in named if is_a(values, "numpy.ndarray")}
        case "cross_val_score":
            return {"test_score": called.result}
        case "permutation_test_score":
            return {"permutation_score": called.result[1]}
    return {}


def _log_scores(context: Context, group: str, scores: Mapping[str, Any]) -> None:
    for name, values in scores.items():
        metric = fold_metric(group, name)
        for fold, value in enumerate(values.tolist()):
            context.log_metric(metric, value, fold)
        context.log_metrics({f"{metric}-mean": values.mean(), f"{metric}-std": values.std()})


def fold_metric(group: str, name: str) -> str:
    """Return the name of a metric of folds, as those of boosters are named.

    >>> fold_metric("cv", "test_f1"), fold_metric("cv", "fit_time")
    ('cv/test/f1', 'cv/fit_time')
    """
    data, _, metric = name.partition("_")
    return f"{group}/{data}/{metric}" if data in ("test", "train") else f"{group}/{name}"
