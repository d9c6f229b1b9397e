"""Hooks on Ray Train: what the ranks of a trainer do that a run's code makes, and their reports.

The ranks are processes of their own, maybe elsewhere. Each joins the run for as long as its
function runs, with a context of its own and the same hooks.
"""

from __future__ import annotations

import functools
import pickle
import sys
from contextlib import ExitStack, contextmanager
from numbers import Real
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import cloudpickle

from rayml.autologging import asked, autolog, stop
from rayml.autologging.calls import caller, spared, user_run, user_run_of_rank
from rayml.autologging.curves import OwnNames
from rayml.autologging.ending import finish
from rayml.autologging.methods import replace
from rayml.run_context import enter, leave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rayml.run_context import Context

_TRAINERS = "ray.train.v2.api.data_parallel_trainer"
_REPORTS = "ray.train.v2._internal.execution.train_fn_utils"  # where all of a rank's reports go
_CLOSE_S = 30.0
_undo: dict[str, Callable[[], None]] = {}
_reported: WeakKeyDictionary[Context, Reports] = WeakKeyDictionary()


def install() -> None:
    """Hook what there is of it.

    Raises:
        AttributeError: It does not have what is hooked.
    """
    for module, owner, name, seen in (
        (_TRAINERS, "DataParallelTrainer", "fit", _seen_fit),
        (_REPORTS, "DistributedTrainFnUtils", "report", _seen_report),
    ):
        if module in sys.modules and module not in _undo:
            kind = getattr(sys.modules[module], owner)
            _undo[module] = replace(kind, name, seen(getattr(kind, name)))


def uninstall() -> None:
    """Put everything back that is still hooked."""
    while _undo:
        _undo.popitem()[1]()


def _seen_fit(fit: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fit)
    def call(trainer: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        function = trainer.train_loop_per_worker
        with spared("the ranks of a trainer of Ray's"):
            context = user_run(caller(1))
            if context is not None and not trainer.running_in_local_mode:
                trainer.train_loop_per_worker = _joining(function, context)
        try:
            return fit(trainer, *args, **kwargs)
        finally:
            trainer.train_loop_per_worker = function

    return call


def _joining(function: Callable[..., Any], context: Context) -> Callable[..., Any]:
    """Return what calls a function in a process that joins the run before."""
    # In bytes, which are read where an error of theirs is a warning.
    told = cloudpickle.dumps((context.for_ranks(), *asked()))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with joined(told):
            return function(*args, **kwargs)

    return call


@contextmanager
def joined(told: bytes) -> Iterator[None]:
    """In the block, let this process be a rank of a run, in which training code is logged."""
    with ExitStack() as stack:
        with spared("what a rank trains"):
            _join(stack, told)
        yield


def _join(stack: ExitStack, told: bytes) -> None:
    from rayml._ray.train import this_rank  # noqa: PLC0415 - loads Ray Train, which is there

    make, frameworks, gradient_norm = pickle.loads(told)  # noqa: S301 - made by this job
    context = make(this_rank())
    stack.callback(_close, context)
    stack.callback(stop)
    autolog(*frameworks, gradient_norm=gradient_norm)
    enter(context)
    stack.callback(leave, context)
    stack.push(lambda kind, _error, _trace: finish(context, failed=kind is not None))


def _close(context: Context) -> None:
    with spared("what a rank has logged", context):
        context.close(_CLOSE_S)


def _seen_report(report: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(report)
    def call(rank: Any, metrics: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        report(rank, metrics, *args, **kwargs)
        with spared("what is reported to Ray Train"):
            if (context := user_run_of_rank(caller(1))) is not None:
                _reported.setdefault(context, Reports()).add(context, metrics)

    return call


class Reports:
    """What a rank has reported in a run."""

    def __init__(self) -> None:
        self._count = 0
        self._own = OwnNames()

    def add(self, context: Context, metrics: Mapping[str, Any]) -> None:
        """Log the numbers in a report, by its place among the others."""
        for name, value in metrics.items():
            if isinstance(value, Real) and self._own.take(context, name):
                context.log_metric(name, float(value), self._count)
        self._count += 1
