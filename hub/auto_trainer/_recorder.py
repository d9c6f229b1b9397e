"""Trials as child runs, recorded beside the search: none of their time is taken for it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import rayml

if TYPE_CHECKING:
    from types import TracebackType

    from ._metrics import Metric
    from ._search import Tried


class Recorder:
    """Makes a child run of each trial, with its parameters and scores."""

    def __init__(self, context: rayml.Context, metric: Metric) -> None:
        self._context = context
        self._metric = metric
        self._experiment = rayml.get_run(context.run_id, store=context.store).experiment
        self._pool = ThreadPoolExecutor(1)
        self._recorded: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait until all are recorded; raise what one of them could not be for."""
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for future in self._recorded:
                future.result()

    def record(self, one: Tried) -> None:
        """Record a trial that has ended, soon."""
        self._recorded.append(self._pool.submit(self._record, one))

    def _record(self, one: Tried) -> None:
        params = {"model": one.trial.family, **one.trial.params}
        with (
            suppress(RuntimeError, KeyboardInterrupt),  # which only say how the run ends
            rayml.start_run(
                one.name,
                experiment=self._experiment,
                params=params,
                labels={"trial": one.state},
                parent=self._context.run_id,
                store=self._context.store,
            ) as run,
        ):
            self._log(run, one)

    def _log(self, run: rayml.Context, one: Tried) -> None:
        outcome = one.outcome
        if outcome is None:
            raise KeyboardInterrupt if one.state == "out of time" else RuntimeError(one.error)
        for fold, goodness in enumerate(outcome.goodness):
            run.log_metric(f"fold/{self._metric.name}", self._metric.sign * goodness, step=fold)
        run.log_metric(f"valid/{self._metric.name}", self._metric.sign * one.goodness)
        run.log_metrics({"seconds": outcome.seconds, "fit_s": outcome.fit_s})
        if outcome.rounds is not None:
            run.log_metric("rounds", outcome.rounds)
