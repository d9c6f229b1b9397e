"""What is logged of a fit of scikit-learn: parameters, data, scores, the model, tables and plots.

What only transforms rows has names and numbers of its own: it is hardly what a run is for.

Nothing here goes to the store before the run ends, and what a fit waits for has a limit: each
part may compute for a hundredth of the fit's own time, or some tenths of a second; see `Fit`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rayml.autologging.calls import spared, warn
from rayml.autologging.copies import (
    NotCopied,
    Snapshot,
    asks_own_code,
    snapshot,
    with_own_seeds,
)
from rayml.autologging.data import digest_of, example_of, is_known, schema_of, shape_of
from rayml.autologging.fits import (
    KEPT_BYTES,
    keep_model,
    log_table_at_end,
    next_other,
    remember_fit,
)
from rayml.autologging.params import holds_secret, is_verbose, params_of
from rayml.autologging.sklearn_charts import log_model_charts
from rayml.autologging.sklearn_curves import log_own_curves
from rayml.autologging.sklearn_learned import log_learned
from rayml.autologging.sklearn_scores import Evaluation, evaluate
from rayml.autologging.sklearn_trials import log_trials

if TYPE_CHECKING:
    from rayml.autologging.fits import Fit, Training
    from rayml.run_context import Context

_OF_MODELS = ("predict", "fit_predict", "cv_results_")
_OF_TRANSFORMERS = ("transform", "fit_transform")


def log_fit(
    training: Training,
    estimator: Any,  # noqa: ANN401
    data: Any,  # noqa: ANN401
    target: Any,  # noqa: ANN401
    seconds: float,
) -> None:
    """Log what an estimator has been fitted with and to; each part that fails is one warning."""
    context = training.context
    if (found := begin_fit(training, estimator)) is None:
        return
    fit = replace(found, seconds=seconds)
    name = f"{type(estimator).__name__}'s"
    with spared(f"{name} model and scores", context):
        log_model(context, fit, getattr(estimator, "best_estimator_", estimator), data, target)
    if is_known(data):
        with spared(f"{name} data", context):
            _log_data(context, fit, data, target)
    if hasattr(estimator, "cv_results_"):
        with spared(f"{name} trials", context):
            log_trials(context, fit, estimator)


def begin_fit(training: Training, estimator: Any) -> Fit | None:  # noqa: ANN401
    """Return the fit that a fitted estimator has, its parameters logged; None if it has none."""
    context = training.context
    if asks_own_code(type(estimator)):
        warn(f"leaves a {type(estimator).__name__} alone, whose own code would be run", context)
        return None
    if any(hasattr(estimator, name) for name in _OF_MODELS):
        fit = training.fit
    elif any(hasattr(estimator, name) for name in _OF_TRANSFORMERS):
        fit = next_other(context, "transform")
    else:
        return None
    if fit is not None:
        remember_fit(context, estimator, fit)
        with spared(f"{type(estimator).__name__}'s parameters", context):
            _log_params(context, fit, estimator)
    return fit


def _log_params(context: Context, fit: Fit, estimator: Any) -> None:  # noqa: ANN401
    named = {f"{fit.model}/{name}": value for name, value in params_of(estimator).items()}
    context.log_params({f"{fit.model}/class": type(estimator).__qualname__, **named})


def _log_data(context: Context, fit: Fit, data: Any, target: Any) -> None:  # noqa: ANN401
    (rows, columns), group = shape_of(data), fit.group
    facts: dict[str, object] = {f"{group}/rows": rows, f"{group}/columns": columns}
    for name, table in (("digest", data), ("target_digest", target)):
        known = table is not None and is_known(table)
        if known and (digest := digest_of(table, fit.most_bytes)) is not None:
            facts[f"{group}/{name}"] = digest
    context.log_params(facts)
    if fit.is_kept:
        log_table_at_end(context, f"{group}/schema", schema_of(data))


def log_model(
    context: Context,
    fit: Fit,
    estimator: Any,  # noqa: ANN401
    data: Any,  # noqa: ANN401
    target: Any,  # noqa: ANN401
) -> None:
    """Log what an estimator has learned, its scores on rows, its tables and itself."""
    kind = type(estimator).__name__
    with spared(f"{kind}'s curves", context):
        log_own_curves(context, fit, estimator)
    with spared(f"what a {kind} has learned", context):
        log_learned(context, fit, estimator)
    try:
        taken = snapshot(estimator, min(fit.most_bytes, KEPT_BYTES), fit.most_s)
    except NotCopied as exc:
        warn(f"left out model, scores and plots of a {kind}: {exc}; log it yourself", context)
        return
    evaluation = None
    if taken.has_own_code:
        warn(f"computes no scores with code of your own in a {kind}; call score yourself", context)
    elif not fit.kind and is_known(data) and (target is None or is_known(target)):
        evaluation = _score(context, fit, taken, data, target)
    if not taken.has_own_code and not holds_secret(estimator):
        # What differs from the defaults, at a glance, as a notebook shows it.
        context.log_param(f"{fit.model}/repr", " ".join(repr(estimator).split()))
    if fit.is_kept:
        # The example is predicted by the model as it is: one that prints would do so once more.
        is_shown = evaluation is not None and not is_verbose(estimator)
        is_shown = is_shown and hasattr(estimator, "predict")
        _keep_model(context, fit, estimator, taken, data if is_shown else None)
        log_model_charts(context, fit.group, taken, evaluation)


def _score(
    context: Context,
    fit: Fit,
    taken: Snapshot,
    data: Any,  # noqa: ANN401
    target: Any,  # noqa: ANN401
) -> Evaluation | None:
    evaluation, group = None, fit.group
    with spared("scores", context):
        evaluation = evaluate(with_own_seeds(taken.restore()), data, target, fit.most_s)
        for what, why in evaluation.failed.items():
            warn(f"left out {what}: {why}", context)
        context.log_metrics(
            {f"{group}/{name}": value for name, value in evaluation.scores.items()}
        )
        if evaluation.scores and evaluation.rows < shape_of(data)[0]:
            context.log_param(f"{group}/scored_rows", evaluation.rows)
    return evaluation


def _keep_model(
    context: Context,
    fit: Fit,
    estimator: Any,  # noqa: ANN401
    taken: Snapshot,
    data: Any,  # noqa: ANN401
) -> None:
    kind = type(estimator).__name__
    if holds_secret(estimator):
        warn(f"does not keep a {kind}, which holds a secret among its parameters", context)
        return
    example = None if data is None else example_of(data)
    keep_model(context, fit, kind, taken, example)
