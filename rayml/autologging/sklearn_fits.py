"""What is logged of a fit of scikit-learn: parameters, data, scores, the model, tables and plots.

The first fit of a run is called `model` and its group of scores `train`; the second one `model-2`
and `train-2`, and so on. Transformers, which predict nothing, are no fits of their own.
"""

from __future__ import annotations

import copy
import random
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from rayml.autologging.calls import spared, warn
from rayml.autologging.sklearn_charts import log_charts, log_trials
from rayml.autologging.sklearn_scores import evaluate
from rayml.spec import plain_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.run_context import Context

_KEPT_FITS = 10  # later ones keep their parameters and scores: a loop may fit thousands
_SCORED_ROWS = 10_000
_HASHED_BYTES = 256 * 1024 * 1024
_SHOWN_COLUMNS = 1000
_EXAMPLE_ROWS = 5


@dataclass(frozen=True)
class Fit:
    """One fit of a run, by its number from 1 up."""

    number: int

    @property
    def suffix(self) -> str:
        """What ends the names that belong to it."""
        return "" if self.number == 1 else f"-{self.number}"


@dataclass
class _Seen:
    """The fits of one run and the predictions of what they fitted, by the objects' identity."""

    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    fits: dict[int, tuple[ref[Any], Fit]] = field(default_factory=dict)
    predictions: dict[int, tuple[ref[Any], Fit]] = field(default_factory=dict)


_runs: WeakKeyDictionary[Context, _Seen] = WeakKeyDictionary()
_lock = threading.Lock()


def fit_of(context: Context, estimator: object) -> Fit | None:
    """Return the fit that an estimator has from this run, if it has one."""
    return _find(_seen(context).fits, estimator)


def fit_of_prediction(context: Context, predicted: Any) -> Fit | None:  # noqa: ANN401
    """Return the fit whose estimator has predicted an array, or the one that it is a part of."""
    known = _seen(context).predictions
    while predicted is not None:
        if (fit := _find(known, predicted)) is not None:
            return fit
        predicted = getattr(predicted, "base", None)
    return None


def remember_prediction(context: Context, predicted: object, fit: Fit) -> None:
    """Let a score that is computed of an array belong to the fit."""
    _keep(_seen(context).predictions, predicted, fit)


def log_fit(context: Context, estimator: Any, data: Any, target: Any) -> None:  # noqa: ANN401
    """Log what an estimator has been fitted with and to; each part that fails is one warning."""
    if not hasattr(estimator, "predict") and not hasattr(estimator, "cv_results_"):
        return
    fit = Fit(_next_number(context))
    _keep(_seen(context).fits, estimator, fit)
    name = f"{type(estimator).__name__}'s"
    with spared(f"{name} parameters", context):
        context.log_params(_params(estimator, f"model{fit.suffix}"))
    is_kept = fit.number <= _KEPT_FITS
    if not is_kept:
        warn(
            f"automatic logging keeps models, tables and plots of {_KEPT_FITS} fits in a run and "
            "this run has more; keep others with context.log_model",
            context,
        )
    with spared(f"{name} data", context):
        _log_data(context, fit, data, is_kept=is_kept)
    if hasattr(estimator, "cv_results_"):
        with spared(f"{name} trials", context):
            log_trials(context, fit.suffix, estimator)
    if hasattr(estimator, "predict"):
        with _same_random_numbers():
            _log_model(context, fit, estimator, data, target, is_kept=is_kept)


def _log_model(
    context: Context,
    fit: Fit,
    estimator: Any,  # noqa: ANN401
    data: Any,  # noqa: ANN401
    target: Any,  # noqa: ANN401
    *,
    is_kept: bool,
) -> None:
    name, group = f"{type(estimator).__name__}'s", f"train{fit.suffix}"
    model, evaluation = estimator, None
    with suppress(Exception):  # one that does not tell its parameters, of which a warning is due
        model = _private(estimator)
    with spared(f"{name} scores", context):
        evaluation = evaluate(model, *_scored(data, target))
        for what, why in evaluation.failed.items():
            warn(f"automatic logging left out {name} {what}: {why}", context)
        context.log_metrics({f"{group}/{key}": value for key, value in evaluation.scores.items()})
    if is_kept:
        with spared(f"{name} model", context):
            context.log_model(f"model{fit.suffix}", model, input_example=_example(data))
        if evaluation is not None:
            log_charts(context, group, model, evaluation)


def _params(estimator: Any, prefix: str) -> dict[str, object]:  # noqa: ANN401
    """Return parameters, nested ones too; of a search, those of the best it found."""
    best = getattr(estimator, "best_estimator_", None)
    if best is None and hasattr(estimator, "best_params_"):
        params = dict(estimator.best_params_)
    else:
        params = (estimator if best is None else best).get_params(deep=True)
    named = {f"{prefix}/{name}": plain_value(value) for name, value in params.items()}
    return {f"{prefix}/class": type(estimator).__qualname__, **named}


def _log_data(context: Context, fit: Fit, data: Any, *, is_kept: bool) -> None:  # noqa: ANN401
    shape, group = _shape(data), f"train{fit.suffix}"
    facts: dict[str, object] = {f"{group}/rows": shape[0], f"{group}/columns": shape[1]}
    size = _bytes(data)
    if size <= _HASHED_BYTES:
        import joblib  # noqa: PLC0415 - scikit-learn has it

        facts[f"{group}/digest"] = joblib.hash(data, hash_name="sha1")
    context.log_params(facts)
    if is_kept:
        context.log_table(f"{group}/schema", _schema(data, shape[1]))


def _schema(data: Any, columns: int) -> dict[str, list[str]]:  # noqa: ANN401
    shown = min(columns, _SHOWN_COLUMNS)
    if hasattr(data, "dtypes") and hasattr(data, "columns"):
        names, types = list(data.columns)[:shown], list(data.dtypes)[:shown]
    else:
        names = [f"x{place}" for place in range(shown)]
        types = [getattr(data, "dtype", "object")] * shown
    return {"name": [str(name) for name in names], "type": [str(kind) for kind in types]}


def _shape(data: Any) -> tuple[int, int]:  # noqa: ANN401
    shape = getattr(data, "shape", None) or (len(data), len(data[0]))
    return int(shape[0]), int(shape[1]) if len(shape) > 1 else 1


def _bytes(data: Any) -> int:  # noqa: ANN401
    if hasattr(data, "memory_usage"):
        return int(data.memory_usage().sum())
    return int(getattr(getattr(data, "data", data), "nbytes", 0))


def _scored(data: Any, target: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Return the rows that scores are of: all, or evenly spread ones of many."""
    from sklearn.utils import _safe_indexing  # noqa: PLC0415 - whatever kind of table it is

    rows = _shape(data)[0]
    if rows <= _SCORED_ROWS:
        return data, target
    chosen = [place * rows // _SCORED_ROWS for place in range(_SCORED_ROWS)]
    return _safe_indexing(data, chosen), None if target is None else _safe_indexing(target, chosen)


def _example(data: Any) -> Any:  # noqa: ANN401
    """Return a few rows in a form that a signature has, or None: a sparse one has none."""
    import numpy as np  # noqa: PLC0415 - scikit-learn has it

    if hasattr(data, "iloc") and hasattr(data, "columns"):
        return data.iloc[:_EXAMPLE_ROWS]
    if isinstance(data, list | tuple):
        return np.asarray(data[:_EXAMPLE_ROWS])
    return data[:_EXAMPLE_ROWS] if isinstance(data, np.ndarray) else None


def _private(estimator: Any) -> Any:  # noqa: ANN401
    """Return a copy of an estimator that draws from a generator of its own when it predicts."""
    import numpy as np  # noqa: PLC0415 - scikit-learn has it

    generators = (np.random.RandomState, np.random.Generator)
    values = estimator.get_params(deep=True).values()
    return (
        copy.deepcopy(estimator) if any(isinstance(v, generators) for v in values) else estimator
    )


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Let the code around draw the numbers that it would have drawn without the block."""
    import numpy as np  # noqa: PLC0415 - scikit-learn has it

    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the shared one
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


def _seen(context: Context) -> _Seen:
    with _lock:
        return _runs.setdefault(context, _Seen())


def _next_number(context: Context) -> int:
    """Return the next number whose model replaces none that user code has logged."""
    numbers = _seen(context).numbers
    return next(n for n in numbers if not context.has_logged(f"model{Fit(n).suffix}"))


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
