"""What is logged of gradient boosting, by whichever library: its curves, and what it has learnt.

Of a library's estimators the rest is logged as of all of scikit-learn's.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from rayml.autologging.calls import spared, warn
from rayml.autologging.charts import draw_importances, importance_table, log_charts_at_end
from rayml.autologging.copies import NotCopied, Snapshot, snapshot
from rayml.autologging.fits import (
    KEPT_BYTES,
    keep_model,
    log_table_at_end,
    next_other,
    remember_fit,
)
from rayml.autologging.params import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from inspect import BoundArguments

    from rayml.autologging.fits import Fit, Training
    from rayml.run_context import Context

# Arguments of `train` and `cv` that are parameters, beside those in `params`.
_SETTINGS = (
    *("num_boost_round", "early_stopping_rounds", "maximize", "obj", "custom_metric", "feval"),
    *("nfold", "stratified", "shuffle", "seed", "metrics"),
)


@dataclass(frozen=True)
class Rows:
    """What is told of the rows that a booster was trained on.

    Attributes:
        count: How many.
        schema: Names and types of their columns.
        example: A few of them; None if they cannot be had.
    """

    count: int
    schema: dict[str, list[str]]
    example: Any = None


class Library(ABC):
    """What differs between libraries.

    Attributes:
        name: The package.
        estimators: The module that its estimators are in.
        importance_kinds: The main one first.
    """

    name: ClassVar[str]
    estimators: ClassVar[str]
    importance_kinds: ClassVar[tuple[str, ...]]

    @abstractmethod
    def callback(self, curves: Curves) -> object:
        """Return what a training calls after each iteration, to hand on its scores."""

    @abstractmethod
    def look(self, data: Any) -> Any:  # noqa: ANN401
        """Return what has to be kept of data before a booster is trained on it."""

    @abstractmethod
    def rows(self, booster: Any, data: Any, seen: Any) -> Rows:  # noqa: ANN401
        """Tell of the data afterwards."""

    @abstractmethod
    def best(self, booster: Any) -> tuple[int, int] | None:  # noqa: ANN401
        """Return the best iteration of a training that may end early: as it says, and from 0."""

    @abstractmethod
    def iterations(self, booster: Any) -> int:  # noqa: ANN401
        """Return how many iterations a booster has."""

    @abstractmethod
    def features(self, booster: Any) -> list[str]:  # noqa: ANN401
        """Return the names of a booster's features, the library's own where it has none."""

    @abstractmethod
    def importance(self, booster: Any, kind: str) -> Mapping[str, float] | None:  # noqa: ANN401
        """Return one kind of importance of the features that have it; None if there is none."""


@dataclass
class Curves:
    """The scores of a training, logged as they come: `valid_0/auc` by iteration."""

    training: Training
    _seen: dict[str, list[float]] = field(default_factory=dict)

    def add(self, iteration: int, scores: Iterable[tuple[str, str, float]]) -> None:
        """Log one iteration's scores: the data's name, the metric's, the value."""
        with spared("the curves of a training", self.training.context):
            if (fit := self.training.fit) is None:
                return
            for data, metric, value in scores:
                self.training.context.log_metric(f"{data}{fit.suffix}/{metric}", value, iteration)
                self._seen.setdefault(f"{data}{fit.suffix}/best_{metric}", []).append(value)

    def log_best(self, index: int) -> None:
        """Log what the scores were after an iteration, counted from 0."""
        best = {name: values[index] for name, values in self._seen.items() if index < len(values)}
        self.training.context.log_metrics(best)


class Boosting:
    """A training that is about to begin, and is told when it has ended.

    Args:
        library: Which.
        training: The fit that it is, or that it is a part of.
        bound: The call's arguments, to which a callback is added.
        is_whole: User code has called it, and no estimator.
    """

    def __init__(
        self, library: Library, training: Training, bound: BoundArguments, *, is_whole: bool
    ) -> None:
        self._library = library
        self._training = training
        self._curves = Curves(training)
        self._is_whole = is_whole
        self._data = bound.args[1]
        self._params = params_of(bound) if is_whole else {}
        self._seen = library.look(self._data) if is_whole else None
        # The first one: after another that ends the training it would not be called.
        own = library.callback(self._curves)
        bound.arguments["callbacks"] = [own, *(bound.arguments.get("callbacks") or ())]

    def log(self, booster: Any, seconds: float) -> None:  # noqa: ANN401
        """Log what has come of it; each part that fails is one warning."""
        context = self._training.context
        if (fit := self._training.ended(seconds)) is None:
            return
        with spared("the iterations of a booster", context):
            self._log_iterations(fit, booster)
        if self._is_whole:
            remember_fit(context, booster, fit)
            with spared("the parameters of a booster", context):
                self._log_params(fit)
            with spared("a booster and its data", context):
                self._log_booster(fit, booster)

    def _log_iterations(self, fit: Fit, booster: Any) -> None:  # noqa: ANN401
        told = {"iterations": self._library.iterations(booster)}
        if (best := self._library.best(booster)) is not None:
            told["best_iteration"], index = best
            self._curves.log_best(index)
        group = f"train{fit.suffix}"
        self._training.context.log_metrics({f"{group}/{name}": n for name, n in told.items()})

    def _log_params(self, fit: Fit) -> None:
        prefix = f"model{fit.suffix}"
        named = {f"{prefix}/{name}": value for name, value in self._params.items()}
        self._training.context.log_params(
            {f"{prefix}/class": f"{self._library.name}.Booster", **named}
        )

    def _log_booster(self, fit: Fit, booster: Any) -> None:  # noqa: ANN401
        context, group = self._training.context, f"train{fit.suffix}"
        rows = self._library.rows(booster, self._data, self._seen)
        columns = len(rows.schema["name"])
        context.log_params({f"{group}/rows": rows.count, f"{group}/columns": columns})
        if not fit.is_kept:
            return
        log_table_at_end(context, f"{group}/schema", rows.schema)
        try:
            taken = snapshot(booster, min(fit.most_bytes, KEPT_BYTES), fit.most_s)
        except NotCopied as exc:
            warn(f"left out a booster and its plot: {exc}; log it yourself", context)
            return
        keep_model(context, fit, "Booster", taken, rows.example)
        compute = partial(_importances, self._library, taken)
        log_charts_at_end(context, group, {"feature_importance": (compute, draw_importances)})


def _importances(library: Library, taken: Snapshot) -> dict[str, Any] | None:
    """Return the most important features with each kind of importance; the main one first."""
    booster = taken.restore()
    if not (kinds := importances(library, booster)):
        return None
    (_, main), *others = kinds.items()
    columns = {"importance": main, **dict(others)}
    return importance_table(library.features(booster), list(map(abs, main)), columns)


def importances(library: Library, booster: Any) -> dict[str, list[float]]:  # noqa: ANN401
    """Return each kind of importance that a booster has, by feature; 0 of one it does not use."""
    names, kinds = library.features(booster), {}
    for kind in library.importance_kinds:
        if (found := library.importance(booster, kind)) is not None:
            kinds[kind] = [float(found.get(name, 0.0)) for name in names]
    return kinds


def log_validation(context: Context, bound: BoundArguments, result: Any) -> None:  # noqa: ANN401
    """Log a cross-validation: its parameters, and each score's mean and deviation by iteration."""
    if (validation := next_other(context, "cv")) is None:
        return
    group = validation.group
    context.log_params({f"{group}/{name}": value for name, value in params_of(bound).items()})
    curves = {str(name): list(values) for name, values in result.items() if name != "cvbooster"}
    for name, values in curves.items():
        data, metric = re.split("[ -]", name, maxsplit=1)  # `valid auc-mean`, `test-auc-mean`
        for step, value in enumerate(values):
            context.log_metric(f"{group}/{data}/{metric}", value, step)
    rounds = max(map(len, curves.values()), default=0)
    context.log_metric(f"{group}/iterations", rounds)


def params_of(bound: BoundArguments) -> dict[str, object]:
    """Return the parameters that a call gives a training, defaults of the function included."""
    params = dict(bound.arguments["params"] or {})
    for name in _SETTINGS:
        parameter = bound.signature.parameters.get(name)
        value = bound.arguments.get(name, parameter and parameter.default)
        if value not in (None, ()):
            params.setdefault(name, value)
    for callback in bound.arguments.get("callbacks") or ():
        patience = getattr(callback, "stopping_rounds", None) or getattr(callback, "rounds", None)
        if isinstance(patience, int):
            params.setdefault("early_stopping_rounds", patience)
    return shown(params)
