"""Estimators that are trained part by part: `partial_fit` is counted, its end is logged.

A call costs a look at its rows, however many calls there are. The estimator is held until the run
ends: only then its scores, curves and model are those of all parts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from rayml.autologging.calls import warn
from rayml.autologging.copies import NotCopied, snapshot
from rayml.autologging.data import is_known, row_bytes, shape_of, some_rows
from rayml.autologging.ending import Task, at_end
from rayml.autologging.fits import KEPT_BYTES, fit_of
from rayml.autologging.sklearn_fits import begin_fit, log_model

if TYPE_CHECKING:
    from rayml.autologging.fits import Fit, Training
    from rayml.run_context import Context

_BATCH_BYTES = 8 * 1024 * 1024
_COPYING = 0.01  # of the training's own time


@dataclass
class _Parts:
    """The calls of `partial_fit` of one estimator.

    Attributes:
        known: The estimator, as long as it lives.
        held: The same, if it is to live until the run ends.
        fit: None if nothing is logged of it.
        batch: A copy of the rows and targets of one of the last.
        copying_s: What copies of them have taken.
    """

    known: ref[Any]
    held: Any
    fit: Fit | None
    calls: int = 0
    rows: int = 0
    columns: int = 0
    seconds: float = 0.0
    copying_s: float = 0.0
    batch: tuple[Any, Any] = (None, None)

    def add(self, data: Any, target: Any, seconds: float) -> None:  # noqa: ANN401
        """Count a call, and keep its rows if that takes a small part of the training's time."""
        self.calls += 1
        self.seconds += seconds
        if self.fit is None or not is_known(data):
            return
        rows, self.columns = shape_of(data)
        self.rows += rows
        if self.copying_s <= _COPYING * self.seconds:
            started = time.perf_counter()
            self.batch = _copied(data, target)
            self.copying_s += time.perf_counter() - started

    def end(self, context: Context, fit: Fit) -> None:
        """Log what has come of them."""
        counts = {"calls": self.calls, "rows": self.rows, "columns": self.columns}
        context.log_params({f"{fit.group}/{name}": count for name, count in counts.items()})
        if (estimator := self.known()) is None:
            warn("left out scores of a model that was let go before the run's end", context)
        elif fit_of(context, estimator) == fit:  # else it has been fitted anew since
            log_model(context, replace(fit, seconds=self.seconds), estimator, *self.batch)


_runs: WeakKeyDictionary[Context, dict[int, _Parts]] = WeakKeyDictionary()


def log_part(
    training: Training,
    estimator: Any,  # noqa: ANN401
    data: Any,  # noqa: ANN401
    target: Any,  # noqa: ANN401
    seconds: float,
) -> None:
    """Count a call of `partial_fit`; with an estimator's first one its parameters are logged."""
    known = _runs.setdefault(training.context, {})
    parts = known.get(id(estimator))
    if parts is None or fit_of(training.context, estimator) != parts.fit:
        parts = _begin(training, estimator, known)
    parts.add(data, target, seconds)


def _begin(training: Training, estimator: Any, known: dict[int, _Parts]) -> _Parts:  # noqa: ANN401
    context, key, fit = training.context, id(estimator), begin_fit(training, estimator)
    held = estimator if fit is not None and fit.is_kept and _is_small(estimator, fit) else None
    parts = _Parts(ref(estimator, lambda _: known.pop(key, None)), held, fit)
    known[key] = parts
    if fit is not None:
        end = partial(parts.end, context, fit)
        at_end(context, Task("what partial_fit has trained", end, is_brief=True))
    return parts


def _is_small(estimator: Any, fit: Fit) -> bool:  # noqa: ANN401
    """Tell whether its model can be kept, as far as its first part tells."""
    try:
        snapshot(estimator, KEPT_BYTES, fit.most_s)
    except NotCopied:
        return False
    return True


def _copied(data: Any, target: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Return copies of the same rows of both, as many as are no burden until the run ends."""
    rows = min(shape_of(data)[0], _BATCH_BYTES // row_bytes(data) + 1)
    if target is None:
        return some_rows(data, rows), None
    return (some_rows(data, rows), some_rows(target, rows)) if is_known(target) else (None, None)
