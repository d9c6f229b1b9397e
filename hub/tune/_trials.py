"""Trials as child runs: submitted side by side, watched, and found again by a later attempt."""

from __future__ import annotations

import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import optuna
import ray

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._space import Space

_LOOK_EVERY_S = 1.0
_GRACE_S = 5.0
# When the first trials all fail, the next ones will.
_HOPELESS = 3


@dataclass(frozen=True)
class Order:
    """What each trial runs, and what counts.

    Attributes:
        function: As `rayml.submit` takes it.
        params: Those that do not vary.
        inputs: Of each trial.
        metric: That the function logs or returns.
        resources: Of each trial.
        experiment: That the trials belong to.
    """

    function: Any
    params: Mapping[str, Any]
    inputs: Mapping[str, Any]
    metric: str
    resources: rayml.Resources
    experiment: str

    def submit(self, number: int, values: Mapping[str, Any]) -> rayml.Run:
        """Start a trial."""
        run = rayml.submit(
            self.function,
            params={**self.params, **values},
            inputs=self.inputs,
            name=f"trial-{number}",
            experiment=self.experiment,
            resources=self.resources,
        )
        if not isinstance(run, rayml.Run):
            raise TypeError(run)
        return run

    def value(self, run: rayml.Run) -> float:
        """Return what a trial has come to.

        Raises:
            SpecError: It has no such metric.
        """
        metrics = run.metrics
        if self.metric not in metrics:
            near = get_close_matches(self.metric, metrics, n=1)
            known = ", ".join(sorted(metrics)) or "none"
            way_out = f"did you mean {near[0]!r}?" if near else f"it logged {known}"
            raise rayml.SpecError(f"trial {run.id} has no metric {self.metric!r}; {way_out}")
        return metrics[self.metric]


@dataclass
class Trials:
    """The trials of one search.

    Attributes:
        order: What each runs.
        space: What varies.
        study: What proposes values.
        at_once: How many run side by side.
        is_pruned: A trial is ended that is worse than most were at its step.
        runs: Each trial's run, by its number.
    """

    order: Order
    space: Space
    study: optuna.Study
    at_once: int
    is_pruned: bool
    told: Callable[[int, float], None]
    runs: dict[int, rayml.Run] = field(default_factory=dict)
    reused: int = 0
    _running: dict[Future[None], optuna.Trial] = field(default_factory=dict)
    _errors: list[str] = field(default_factory=list)

    def find_earlier(self, parent: rayml.Run) -> None:
        """Take the trials that an earlier attempt of this run has made; end what still runs."""
        for run in parent.trials():
            drawn = self.space.drawn(run.params)
            if not run.is_over:
                with suppress(rayml.RaymlError):
                    run.cancel(grace_s=0)
            elif drawn is not None and run.state == "succeeded":
                known = optuna.trial.create_trial(
                    params=drawn,
                    distributions=self.space.distributions,
                    value=self.order.value(run),
                )
                self.study.add_trial(known)
                self.runs[len(self.study.trials) - 1] = run
                self.reused += 1

    def run_all(self, trials: int, until: float) -> None:
        """Run trials until there are so many, or it is late.

        Raises:
            RuntimeError: The first ones have all failed.
        """
        left = trials - self.reused
        with ThreadPoolExecutor(self.at_once) as pool:
            try:
                while left > 0 or self._running:
                    while left > 0 and len(self._running) < self.at_once:
                        self._start(pool)
                        left -= 1
                    self._wait(until)
                    if time.monotonic() >= until:
                        left = 0
                        self._cancel()
            finally:
                self._cancel()

    def _start(self, pool: ThreadPoolExecutor) -> None:
        trial = self.study.ask(self.space.distributions)
        values = self.space.values(trial.params)
        self.runs[trial.number] = self.order.submit(trial.number, values)
        self._running[pool.submit(_see_through, self.runs[trial.number])] = trial

    def _wait(self, until: float) -> None:
        left = min(_LOOK_EVERY_S, max(0.0, until - time.monotonic()))
        timeout = left if self.is_pruned or until < float("inf") else None
        done, _ = wait(self._running, timeout, FIRST_COMPLETED)
        for future in done:
            self._end(self._running.pop(future))
        if self.is_pruned:
            for trial in self._running.values():
                self._prune(trial)

    def _end(self, trial: optuna.Trial) -> None:
        run = self.runs[trial.number]
        if run.state != "succeeded":
            was_pruned = run.state == "cancelled" and trial.user_attrs.get("pruned")
            states = optuna.trial.TrialState
            self.study.tell(trial, state=states.PRUNED if was_pruned else states.FAIL)
            self._note_failure(run, is_own=not was_pruned and run.state == "failed")
            return
        value = self.order.value(run)
        if self.is_pruned:
            self._report(trial)  # others are compared with it, however soon it was over
        self.study.tell(trial, value)
        self.told(trial.number, value)

    def _note_failure(self, run: rayml.Run, *, is_own: bool) -> None:
        if not is_own:
            return
        error = run.error
        self._errors.append(error.message if isinstance(error, rayml.JobFailed) else str(error))
        if len(self._errors) == len(self.runs) - self.reused - len(self._running) >= _HOPELESS:
            raise RuntimeError(
                f"the first {len(self._errors)} trials have all failed, the last one with: "
                f"{self._errors[-1]}"
            )

    def _prune(self, trial: optuna.Trial) -> None:
        if self._report(trial) and trial.should_prune():
            trial.set_user_attr("pruned", value=True)
            self.runs[trial.number].cancel(grace_s=_GRACE_S)

    def _report(self, trial: optuna.Trial) -> bool:
        """Tell the study what a trial has logged since the last look; return whether it has."""
        run = self.runs[trial.number]
        if self.order.metric not in run.metrics:
            return False  # it has not begun, or says nothing as it goes
        history = run.history(self.order.metric)
        known = trial.user_attrs.get("steps", 0)
        for step, value in zip(history["step"][known:], history["value"][known:], strict=True):
            trial.report(float(value), int(step))
        trial.set_user_attr("steps", len(history))
        return bool(len(history) > known)

    def _cancel(self) -> None:
        for trial in self._running.values():
            with suppress(rayml.RaymlError):
                self.runs[trial.number].cancel(grace_s=_GRACE_S)


def _see_through(run: rayml.Run) -> None:
    with suppress(rayml.RaymlError):  # how it has ended is asked of the run
        run.wait()


def at_once(wanted: int | None, cpus: float) -> int:
    """Return how many trials run side by side: by default as many as there are CPUs for now."""
    if wanted is not None:
        return wanted
    nodes = ray.nodes() if ray.is_initialized() else []
    there = sum(node["Resources"].get("CPU", 0) for node in nodes if node["Alive"])
    return max(1, int((there or os.cpu_count() or 1) / max(cpus, 1e-3)))
