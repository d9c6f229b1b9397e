"""AutoML: from a table and the name of a column to the best model that a time budget allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.ensemble import VotingClassifier, VotingRegressor
from sklearn.frozen import FrozenEstimator

import rayml

from ._data import Data, read_data
from ._families import FAMILIES
from ._memory import memory_bytes, share_out
from ._metrics import all_scores, find_metric
from ._recorder import Recorder
from ._report import (
    importances,
    leaderboard,
    plot_effects,
    plot_importances,
    plots_of_classes,
    plots_of_numbers,
    progress,
)
from ._search import Found, Search
from ._tasks import OwnProcess, RayTasks, Tasks, held_cpus, unlogged

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from ._trials import Problem

_EXAMPLE_ROWS = 5
_CATEGORY = 10  # about how many columns one of categories becomes


def auto_trainer(  # noqa: PLR0913 - a search has many sides, all but the table's optional
    context: rayml.Context,
    table: pd.DataFrame,
    target: str,
    test: pd.DataFrame | None = None,
    *,
    task: Literal["auto", "binary", "multiclass", "regression"] = "auto",
    metric: str | None = None,
    budget_s: float = 60,
    max_trials: int | None = None,
    models: list[str] | None = None,
    memory: str | None = None,
    drop: list[str] | None = None,
    test_size: float = 0.2,
    seed: int = 0,
    register_as: str | None = None,
    alias: str | None = None,
) -> dict[str, Any]:
    """Find and train the best model for a table within a time budget (AutoML).

    It finds the task from the target, encodes what the columns hold (missing values, any number of
    categories, dates as text, mixed types), and tries LightGBM, XGBoost, scikit-learn's gradient
    boosting, forests, linear models and small networks: first with settings that usually do well,
    LightGBM's own defaults before all others, then as Optuna proposes. Trials run side by side as
    Ray tasks on all CPUs that the job holds; outside of a job, one after the other. Each is scored
    on rows that it did not learn from, by cross-validation where there is time for it; boosting
    stops where it gets no better, and what falls behind is given up. The best models that together
    do better than one alone are fitted on all rows but those of the test, and become one model of
    weighted votes. The search never sees the test: its scores are what to expect of new rows.

    Logged are the model (`model`; it loads without pickle), every score of the test as `test/…`,
    of LightGBM's defaults there as `baseline/…` and of the search as `valid/…`; the tables
    `leaderboard`, `importances` and `warnings` (columns that are the target in disguise, that were
    left out, that mix types); plots of the search, of importances and effects of columns, and of
    the errors; the rows of the test as the dataset `test`. Each trial is a child run.

    Args:
        context: What the run logs to.
        table: The rows to learn from, target included.
        target: The column to predict.
        test: Rows to test on; without them, `test_size` of the table is kept back for it.
        task: What the target is; by default it is found.
        metric: What to search for: roc_auc, log_loss, accuracy, balanced_accuracy, f1, f1_macro,
            average_precision, rmse, r2, mae, median_ae or mape; by default roc_auc, of more than
            two classes log_loss, of numbers rmse.
        budget_s: Seconds for the search and the final fit, a tenth more at most unless nothing is
            there by then; plots take some more.
        max_trials: At most so many trials; by default as many as there is time for.
        models: Which to try, of lightgbm, xgboost, hist, forest, extra_trees, linear and network;
            by default all.
        memory: What the search may take, all processes together, such as "4Gi"; by default 60 % of
            what is free. More rows than fit are left out, and in a job a trial that takes more
            is ended.
        drop: Columns not to learn from.
        test_size: The share of rows that is kept back, of each class the same.
        seed: Of all that is random.
        register_as: Register the model under this name.
        alias: What is to name that version, such as "production".

    Raises:
        SpecError: A value or column is not such a thing, or the target cannot be learned: it is
            constant, has too few rows or as many classes as rows.
    """
    _check_settings(budget_s, max_trials, test_size, register_as, alias)
    families = _check_models(models)
    data = read_data(
        table, test, target, task=task, drop=drop or [], test_size=test_size, seed=seed
    )
    problem = data.problem(find_metric(metric, data.target.task), seed)
    tasks, limit = _place(memory_bytes(memory), data, seed)
    unlogged(data.note_leaks, problem)
    _tell(context, problem, data, tasks)
    with Recorder(context, problem.metric) as recorder:
        search = Search(
            problem,
            tasks,
            budget_s=budget_s,
            most_trials=max_trials,
            families=families,
            memory=limit,
            record=recorder.record,
        )
        found = search.run(data.train, data.truth)
    model = unlogged(_together, found, data)
    saved = context.log_model("model", model, input_example=data.train.head(_EXAMPLE_ROWS))
    score = unlogged(_report, context, problem, data, found, model)
    if register_as is not None:
        rayml.register_model(saved, register_as, alias)
    return {
        "task": data.target.task,
        "metric": problem.metric.name,
        "score": score,
        "trials": len(found.tried),
        "model": " + ".join(f"{weight:.2f} {one.name}" for one, _, weight in found.members),
    }


def _check_settings(
    budget_s: float,
    max_trials: int | None,
    test_size: float,
    register_as: str | None,
    alias: str | None,
) -> None:
    if not budget_s > 0:
        raise rayml.SpecError(f"budget_s={budget_s!r} is no time; give seconds, such as 60")
    if max_trials is not None and max_trials < 1:
        raise rayml.SpecError(f"max_trials={max_trials!r} tries nothing; give at least 1")
    if not 0 < test_size < 1:
        raise rayml.SpecError(
            f"test_size={test_size!r} is no share of rows; give a number between 0 and 1"
        )
    if alias is not None and register_as is None:
        raise rayml.SpecError(
            f"alias={alias!r} names a version of no model; say register_as as well"
        )


def _check_models(models: Sequence[str] | None) -> list[str]:
    wanted = list(FAMILIES if models is None else models)
    if unknown := [name for name in wanted if name not in FAMILIES]:
        raise rayml.SpecError(
            f"models has {unknown[0]!r}, which is none; give some of {', '.join(FAMILIES)}"
        )
    if not wanted:
        raise rayml.SpecError("models is empty; name some, or leave it out for all")
    return wanted


def _place(budget: int, data: Data, seed: int) -> tuple[Tasks, int]:
    """Return where trials run, and how many bytes each one's process may take there."""
    columns = data.columns
    width = len(columns.used) + _CATEGORY * (len(columns.few) + len(columns.times))
    at_once, rows = share_out(budget, len(data.train), width)
    data.keep_rows(rows, seed)
    cpus = held_cpus()
    if not cpus:
        return OwnProcess(len(data.train)), 0
    tasks = RayTasks(cpus, at_once)
    return tasks, budget // tasks.at_once


def _tell(context: rayml.Context, problem: Problem, data: Data, tasks: Tasks) -> None:
    """Say what is about to be searched for; a run that is long tells so at its beginning."""
    rows, kept = len(data.train), len(data.test)
    what = {"task": data.target.task, "metric": problem.metric.name, "train_rows": rows}
    context.log_params({"found": what | {"test_rows": kept, "at_once": tasks.at_once}})
    print(
        f"{data.target.task} target {data.target.name!r}: {rows:,} rows to learn from, "
        f"{kept:,} to test on, {len(data.columns.used)} columns; {tasks.at_once} trials at once, "
        f"by {problem.metric.name}"
    )
    for sentence in data.warnings:
        print(f"warning: {sentence}")


def _together(found: Found, data: Data) -> VotingClassifier | VotingRegressor:
    """Return the members as one model, which says labels as the target has them."""
    members = [(one.name, FrozenEstimator(model)) for one, model, _ in found.members]
    weights = [weight for *_, weight in found.members]
    if data.target.task == "regression":
        return VotingRegressor(members, weights=weights).fit(data.train, data.truth)
    model = VotingClassifier(members, voting="soft", weights=weights)
    # The members have learned already: what is learned here is which labels there are.
    return model.fit(data.train.head(len(data.target.classes)), data.target.classes)


def _report(
    context: rayml.Context,
    problem: Problem,
    data: Data,
    found: Found,
    model: VotingClassifier | VotingRegressor,
) -> float:
    """Log scores, tables and plots; return the score of the test."""

    def say(rows: pd.DataFrame) -> np.ndarray:
        return _say(model, rows)

    metric, classes = problem.metric, data.target.classes.tolist()
    said = say(data.test)
    scores = _log_scores(context, problem, data, found, said)
    context.log_table("leaderboard", leaderboard(found, metric))
    if data.warnings:
        context.log_table("warnings", [{"warning": sentence} for sentence in data.warnings])
    context.log_dataset("test", _test_rows(data))
    matters = importances(say, metric, data.test, data.test_truth, problem.seed)
    context.log_table("importances", matters)
    plots = {"search": progress(found, metric), "importance": plot_importances(matters, metric)}
    if data.target.task == "regression":
        plots |= plots_of_numbers(data.test_truth, said, problem.seed)
    else:
        plots |= plots_of_classes(data.test_truth, said, classes)
    effects = plot_effects(say, data.test, matters["column"].tolist(), classes)
    plots |= {f"effects/{name}": figure for name, figure in effects.items()}
    for name, figure in plots.items():
        context.log_plot(name, figure)
    return scores[metric.name]


def _log_scores(
    context: rayml.Context, problem: Problem, data: Data, found: Found, said: np.ndarray
) -> dict[str, float]:
    metric, task = problem.metric, data.target.task
    scores = all_scores(task, data.test_truth, said)
    context.log_metrics({f"test/{name}": value for name, value in scores.items()})
    context.log_metric(f"valid/{metric.name}", found.score)
    if found.baseline is not None:
        baseline = all_scores(task, data.test_truth, _say(found.baseline, data.test))
        context.log_metrics({f"baseline/{name}": value for name, value in baseline.items()})
    context.log_metrics(
        {
            "trials": len(found.tried),
            "trials/failed": sum(one.state == "failed" for one in found.tried),
            "trials/given_up": sum(one.state == "given up" for one in found.tried),
            "search_s": found.search_s,
            "final_s": found.final_s,
            "folds": found.folds,
        }
    )
    return scores


def _say(model: Any, rows: pd.DataFrame) -> np.ndarray:  # noqa: ANN401
    """Return numbers, or a column of probabilities for each class."""
    say = model.predict_proba if hasattr(model, "predict_proba") else model.predict
    return np.asarray(say(rows), dtype=float)


def _test_rows(data: Data) -> pd.DataFrame:
    """Return the rows of the test with their target, as another function takes them."""
    labels = data.target.classes
    truth = labels[data.test_truth] if len(labels) else data.test_truth
    return data.test.assign(**{data.target.name: truth})
