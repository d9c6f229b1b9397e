"""Hyperparameter search of any function that a job can run."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna import visualization

import rayml

from ._space import Space
from ._trials import Order, Trials, at_once

if TYPE_CHECKING:
    import pandas as pd

_FEW = 4  # trials, of which no importance can be told
_BEFORE_PRUNING = 3


def tune(  # noqa: PLR0913 - a search has many sides, most of them optional
    context: rayml.Context,
    function: str,
    space: dict[str, Any],
    metric: str = "result",
    table: rayml.Input | None = None,
    *,
    direction: Literal["maximize", "minimize"] = "maximize",
    params: dict[str, Any] | None = None,
    inputs: dict[str, Any] | None = None,
    start: dict[str, Any] | None = None,
    trials: int = 20,
    budget_s: float | None = None,
    parallel: int | None = None,
    cpus: float = 1,
    memory: str | None = None,
    prune: bool = False,
    seed: int = 0,
    register_as: str | None = None,
    alias: str | None = None,
) -> dict[str, Any]:
    """Search the parameters with which a function does best (hyperparameter tuning).

    The function is anything that `rayml.submit` runs: a function in a file, one of a package, or
    another hub function. Optuna proposes values, and each trial is a child run with parameters,
    metrics, artifacts and log of its own, several of them side by side. An attempt that follows a
    failed one goes on from the trials that are there; a trial that fails does not end the search
    unless the first three do. On a cluster that grows for its jobs, say how many may run in
    `parallel`.

    Logged are the best parameters as `best/…`, the metric of each trial by its number and the best
    one as `best/<metric>`; the table `trials`; plots of the search, of how much each parameter
    matters, and of the values tried. The result names the best run.

    Args:
        context: What the run logs to.
        function: `"file.py:function"`, `"package.module:function"` or `"hub://name"`.
        space: What varies, by parameter: a list of values to choose from, or
            `{"low": 1, "high": 10}`, integers if both are, with `"log": true` or a `"step"`.
        metric: What counts: one that the function logs or returns; by default the number that it
            returns.
        table: An input called `table`, for functions that take one.
        direction: Whether more of the metric is better.
        params: Parameters that do not vary.
        inputs: Further inputs, by name: paths, URIs or artifacts.
        start: Values to try first, of all that varies.
        trials: How many.
        budget_s: Seconds after which no trial goes on; by default there is no limit.
        parallel: How many run at once; by default as many as there are free CPUs for.
        cpus: Of each trial.
        memory: Of each trial, such as "2Gi".
        prune: End a trial early that is worse than the median was at its step; the function logs
            the metric by step for that.
        seed: Of the search.
        register_as: Register the best run's artifact `model` under this name.
        alias: What is to name that version, such as "production".

    Raises:
        SpecError: A value is not such a thing, or no trial has the metric.
    """
    _check(trials, parallel, budget_s, register_as, alias)
    own = rayml.get_run(context.run_id, store=context.store)
    given = dict(inputs or {})
    if table is not None:
        given["table"] = table.uri if table.value is None else table.value
    order = Order(
        function,
        params or {},
        given,
        metric,
        rayml.Resources(cpus=cpus, memory=memory),
        own.experiment,
    )
    varies = Space(space)
    both = sorted(varies.distributions.keys() & order.params.keys())
    if both:
        raise rayml.SpecError(f"{both[0]!r} is in space and in params; take it out of one")
    study = _study(direction, seed)

    def told(number: int, value: float) -> None:
        context.log_metric(metric, value, step=number)
        print(f"trial {number}: {metric} = {value:.6g}, the best is {study.best_value:.6g}")

    search = Trials(order, varies, study, at_once(parallel, cpus), prune, told)
    search.find_earlier(own)
    if start is not None:
        _enqueue(study, varies, start)
    search.run_all(trials, time.monotonic() + (budget_s or float("inf")))
    return _report(context, search, register_as, alias)


def _check(
    trials: int,
    parallel: int | None,
    budget_s: float | None,
    register_as: str | None,
    alias: str | None,
) -> None:
    for name, value in (("trials", trials), ("parallel", parallel)):
        if value is not None and value < 1:
            raise rayml.SpecError(f"{name}={value!r} runs nothing; give at least 1")
    if budget_s is not None and not budget_s > 0:
        raise rayml.SpecError(f"budget_s={budget_s!r} is no time; give seconds, such as 600")
    if alias is not None and register_as is None:
        raise rayml.SpecError(
            f"alias={alias!r} names a version of no model; say register_as as well"
        )


def _study(direction: Literal["maximize", "minimize"], seed: int) -> optuna.Study:
    if direction not in ("maximize", "minimize"):
        raise rayml.SpecError(f"direction={direction!r}; say 'maximize' or 'minimize'")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some settings count as experimental
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_BEFORE_PRUNING)
    return optuna.create_study(direction=direction, sampler=sampler, pruner=pruner)


def _enqueue(study: optuna.Study, space: Space, start: dict[str, Any]) -> None:
    drawn = space.drawn(start)
    if drawn is None:
        names = ", ".join(space.distributions)
        raise rayml.SpecError(
            f"start={start!r} is not in the space; give a value of it to each of {names}"
        )
    study.enqueue_trial(drawn, skip_if_exists=True)


def _report(
    context: rayml.Context, search: Trials, register_as: str | None, alias: str | None
) -> dict[str, Any]:
    study, metric = search.study, search.order.metric
    done = [one for one in study.trials if one.state == optuna.trial.TrialState.COMPLETE]
    context.log_table("trials", _rows(search))
    if not done:
        raise rayml.SpecError("no trial has come to an end; raise budget_s, or see their logs")
    best = study.best_trial
    run = search.runs[best.number]
    values = search.space.values(best.params)
    context.log_params({f"best/{name}": value for name, value in values.items()})
    context.log_metric(f"best/{metric}", study.best_value)
    for name, figure in _plots(study, metric, len(done)).items():
        context.log_plot(name, figure)
    if register_as is not None:
        rayml.register_model(run.artifact("model"), register_as, alias)
    return {
        "best_params": values,
        "best_value": study.best_value,
        "best_run": run.id,
        "trials": len(done),
        "reused": search.reused,
    }


def _rows(search: Trials) -> pd.DataFrame:
    table = search.study.trials_dataframe(attrs=("number", "value", "params", "state"))
    table.columns = [str(name).removeprefix("params_") for name in table.columns]
    return table.assign(run=[search.runs[number].id for number in table["number"]])


def _plots(study: optuna.Study, metric: str, done: int) -> dict[str, Any]:
    found = {
        "search": visualization.plot_optimization_history(study, target_name=metric),
        "values": visualization.plot_slice(study, target_name=metric),
    }
    if done >= _FEW and len({one.value for one in study.trials}) > 1:
        judge = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found["importance"] = visualization.plot_param_importances(
            study, evaluator=judge, target_name=metric
        )
    return found
