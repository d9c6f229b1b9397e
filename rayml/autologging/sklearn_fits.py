"""What is logged of a fit of scikit-learn: parameters, data, scores, the model, tables and plots.

The first fit of a run is called `model` and its group of scores `train`; the second one `model-2`
and `train-2`, and so on. Transformers, which predict nothing, are no fits of their own.

Nothing here goes to the store before the run ends, and what a fit waits for has a limit: each
part may compute for a hundredth of the fit's own time, or some tenths of a second; see `Fit`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from rayml.artifacts.record import is_a
from rayml.autologging.calls import spared, warn
from rayml.autologging.ending import Task, at_end
from rayml.autologging.sklearn_charts import charts_of, trials_of
from rayml.autologging.sklearn_copies import (
    NotCopied,
    Snapshot,
    asks_own_code,
    snapshot,
    with_own_seeds,
)
from rayml.autologging.sklearn_data import digest_of, example_of, is_known, schema_of, shape_of
from rayml.autologging.sklearn_params import holds_secret, is_verbose, params_of
from rayml.autologging.sklearn_scores import Evaluation, evaluate

if TYPE_CHECKING:
    from rayml.run_context import Context

_FITS = 100  # later ones are counted: a loop may fit thousands
_KEPT_FITS = 10  # of others there is no model, table or plot
_KEPT_BYTES = 64 * 1024 * 1024  # of all models of a run
_BASES = 10
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Fit:
    """One fit of a run.

    Attributes:
        number: From 1 up.
        suffix: What ends the names that belong to it.
        seconds: How long it took.
    """

    number: int
    seconds: float = 0.0

    @property
    def suffix(self) -> str:
        """What ends the names that belong to it."""
        return "" if self.number == 1 else f"-{self.number}"

    @property
    def is_kept(self) -> bool:
        """Its model, tables and plots are kept."""
        return self.number <= _KEPT_FITS

    @property
    def most_s(self) -> float:
        """How long one part of what follows may compute.

        Little of it is needed but by slow models; the rest keeps scores from following the load.
        """
        return max(0.01 * self.seconds, 0.2 if self.is_kept else 0.05)

    @property
    def most_bytes(self) -> int:
        """How much may be read or copied for it: a GB takes about a second."""
        return int((8 + 10 * self.seconds) * _MIB)


@dataclass
class _Seen:
    """The fits of one run and the predictions of what they fitted, by the objects' identity."""

    count: int = 0
    number: int = 0
    left_bytes: int = _KEPT_BYTES
    fits: dict[int, tuple[ref[Any], Fit]] = field(default_factory=dict)
    predictions: dict[int, tuple[ref[Any], Fit]] = field(default_factory=dict)


_runs: WeakKeyDictionary[Context, _Seen] = WeakKeyDictionary()
_lock = threading.RLock()


def fit_of(context: Context, estimator: object) -> Fit | None:
    """Return the fit that an estimator has from this run, if it has one."""
    return _find(_seen(context).fits, estimator)


def fit_of_prediction(context: Context, predicted: Any) -> Fit | None:  # noqa: ANN401
    """Return the fit whose estimator has predicted an array, or the one that it is a part of."""
    known = _seen(context).predictions
    for _ in range(_BASES):
        if predicted is None:
            return None
        if (fit := _find(known, predicted)) is not None:
            return fit
        predicted = predicted.base if is_a(predicted, "numpy.ndarray") else None
    return None


def remember_prediction(context: Context, predicted: object, fit: Fit) -> None:
    """Let a score that is computed of an array belong to the fit."""
    _keep(_seen(context).predictions, predicted, fit)


def log_fit(
    context: Context,
    estimator: Any,  # noqa: ANN401
    data: Any,  # noqa: ANN401
    target: Any,  # noqa: ANN401
    seconds: float,
) -> None:
    """Log what an estimator has been fitted with and to; each part that fails is one warning."""
    if asks_own_code(type(estimator)):
        warn(f"leaves a {type(estimator).__name__} alone, whose own code would be run", context)
        return
    if not hasattr(estimator, "predict") and not hasattr(estimator, "cv_results_"):
        return
    if (fit := _next_fit(context, seconds)) is None:
        return
    _keep(_seen(context).fits, estimator, fit)
    name, group = f"{type(estimator).__name__}'s", f"train{fit.suffix}"
    with spared(f"{name} parameters", context):
        _log_params(context, fit, estimator)
    if hasattr(best := getattr(estimator, "best_estimator_", estimator), "predict"):
        with spared(f"{name} model and scores", context):
            _log_model(context, fit, best, data, target, group)
    if is_known(data):
        with spared(f"{name} data", context):
            _log_data(context, fit, data)
    if hasattr(estimator, "cv_results_"):
        with spared(f"{name} trials", context):
            _log_trials(context, fit, estimator)


def _next_fit(context: Context, seconds: float) -> Fit | None:
    """Return the next fit, whose model replaces none of the user's own; None after many."""
    seen = _seen(context)
    with _lock:
        seen.count += 1
        seen.number += 1
        while context.has_logged(f"model{Fit(seen.number).suffix}"):
            seen.number += 1
        fit = Fit(seen.number, seconds)
        is_first_left_out = seen.count == _FITS + 1
    if is_first_left_out:
        warn(f"counts the fits of this run from here on: it logs {_FITS}", context)
        count = Task("the number of fits", lambda: context.log_param("train/fits", seen.count))
        at_end(context, count)
    if fit.number == _KEPT_FITS + 1:
        warn(f"keeps models, tables and plots of {_KEPT_FITS} fits; log others yourself", context)
    return fit if seen.count <= _FITS else None


def _log_params(context: Context, fit: Fit, estimator: Any) -> None:  # noqa: ANN401
    prefix = f"model{fit.suffix}"
    named = {f"{prefix}/{name}": value for name, value in params_of(estimator).items()}
    context.log_params({f"{prefix}/class": type(estimator).__qualname__, **named})


def _log_data(context: Context, fit: Fit, data: Any) -> None:  # noqa: ANN401
    (rows, columns), group = shape_of(data), f"train{fit.suffix}"
    facts: dict[str, object] = {f"{group}/rows": rows, f"{group}/columns": columns}
    if (digest := digest_of(data, fit.most_bytes)) is not None:
        facts[f"{group}/digest"] = digest
    context.log_params(facts)
    if fit.is_kept:
        _table_at_end(context, f"{group}/schema", schema_of(data))


def _log_trials(context: Context, fit: Fit, search: Any) -> None:  # noqa: ANN401
    if hasattr(search, "best_score_"):
        context.log_metric(f"search{fit.suffix}/best_score", search.best_score_)
    if fit.is_kept:
        _table_at_end(context, f"search{fit.suffix}/trials", trials_of(search))


def _table_at_end(context: Context, name: str, table: dict[str, Any]) -> None:
    at_end(context, Task(f"the table {name}", partial(context.log_table, name, table)))


def _log_model(
    context: Context,
    fit: Fit,
    estimator: Any,  # noqa: ANN401
    data: Any,  # noqa: ANN401
    target: Any,  # noqa: ANN401
    group: str,
) -> None:
    kind = type(estimator).__name__
    try:
        taken = snapshot(estimator, min(fit.most_bytes, _KEPT_BYTES), fit.most_s)
    except NotCopied as exc:
        warn(f"left out model, scores and plots of a {kind}: {exc}; log it yourself", context)
        return
    evaluation = None
    if taken.has_own_code:
        warn(f"computes no scores with code of your own in a {kind}; call score yourself", context)
    elif is_known(data) and (target is None or is_known(target)):
        evaluation = _score(context, fit, taken, data, target, group)
    if fit.is_kept:
        # The example is predicted by the model as it is: one that prints would do so once more.
        is_shown = evaluation is not None and not is_verbose(estimator)
        _keep_model(context, fit, estimator, taken, data if is_shown else None)
        for task in charts_of(context, group, taken, evaluation):
            at_end(context, task)


def _score(
    context: Context,
    fit: Fit,
    taken: Snapshot,
    data: Any,  # noqa: ANN401
    target: Any,  # noqa: ANN401
    group: str,
) -> Evaluation | None:
    evaluation = None
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
    seen = _seen(context)
    with _lock:
        is_small = taken.size <= seen.left_bytes
        seen.left_bytes -= taken.size if is_small else 0
    if not is_small:
        warn(f"keeps {_KEPT_BYTES // _MIB} MiB of models, and not this {kind}", context)
        return
    example = None if data is None else example_of(data)
    store = partial(_store_model, context, f"model{fit.suffix}", taken, example)
    at_end(context, Task(f"{kind}'s model", store))


def _store_model(context: Context, name: str, taken: Snapshot, example: Any) -> None:  # noqa: ANN401
    if not context.has_logged(name):  # the user's own
        context.log_model(name, taken.restore(), input_example=example)


def _seen(context: Context) -> _Seen:
    with _lock:
        return _runs.setdefault(context, _Seen())


def _find(known: dict[int, tuple[ref[Any], Fit]], value: object) -> Fit | None:
    found, fit = known.get(id(value), (None, None))
    return fit if found is not None and found() is value else None


def _keep(known: dict[int, tuple[ref[Any], Fit]], value: object, fit: Fit) -> None:
    """Know an object as long as it lives; one that cannot be watched is not known."""
    key = id(value)
    try:
        known[key] = ref(value, lambda _: known.pop(key, None)), fit
    except TypeError:
        return
