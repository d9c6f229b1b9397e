"""A model on a dataset: how good it is, how sure that is, for whom, and from which threshold."""

from __future__ import annotations

import numpy as np
import pandas as pd

import rayml

from ._bootstrap import intervals
from ._case import Case, classes_of, constant, make_case, task_of
from ._columns import check_columns
from ._groups import by_group, compare_groups, fairness_metrics, groups_of
from ._importances import permutation_importances
from ._model import Outputs, Predictor
from ._plots import groups_plot, importances_plot, plots_of, threshold_plot
from ._scores import MAIN, by_class, score_of
from ._threshold import check_threshold, choose, curve, thin

_MOST_CLASSES = 100  # a confusion matrix of more is read by nobody


def evaluate(  # noqa: PLR0913, PLR0917 - what can be asked of a model, by name
    context: rayml.Context,
    model: rayml.Input,
    table: pd.DataFrame,
    target: str,
    reference: rayml.Input | None = None,
    positive: str | None = None,
    threshold: float | str | None = None,
    costs: dict[str, float] | None = None,
    group_by: str | None = None,
    weight: str | None = None,
    importances: int = 0,
    resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
    trusted: bool = False,  # noqa: FBT001, FBT002 - parameters of a job have names
) -> dict[str, object]:
    """Score a model on a dataset, with intervals, plots, a baseline, groups and a threshold.

    The task is told from the model and the target: binary, multiclass or regression. Logs the
    metrics by their names (`roc_auc`, `f1`, `rmse`, …), with their intervals as `<metric>/low` and
    `<metric>/high` and the baseline's as `baseline/<metric>`; the tables `metrics`, `classes`,
    `confusion_matrix`, `thresholds`, `groups`, `fairness`, `importances` and `warnings`; and the
    plots of the task: `roc`, `precision_recall`, `calibration`, `residuals`,
    `predicted_against_actual`, and those of tables, such as `confusion_matrix_plot`. Columns are
    found by the model's signature, and dates, numbers and text brought into its types. Returns the
    task, the metrics and the warnings.

    Args:
        context: What the run logs to.
        model: A registered model's URI, an artifact or its URI, or a fitted model.
        table: The rows; none that the model was trained on.
        target: The column that the model predicts; rows without it are left out.
        reference: A model to compare with; by default one that always says the share of each
            class, or the mean, of these rows.
        positive: Which of two classes is meant by precision, recall and all such; the model's
            second by default.
        threshold: From which score on a row is positive: a number, or a rule that chooses it on
            these rows: "f1" or "youden" at its highest, "cost" at its lowest, "precision=0.9" for
            the highest recall with such a precision, "recall=0.9" the other way round. By default
            the model decides.
        costs: What one mistake costs, for the rule "cost": "false_positive" and "false_negative".
        group_by: A column by whose values the metrics are compared too; of many numbers, quarters.
        weight: A column that says what each row counts; all the same by default.
        importances: How often each column is shuffled to see what the model loses; never by
            default.
        resamples: Of the rows, for the intervals; 0 for none.
        confidence: The share of the resamples that an interval covers.
        seed: Of the resamples and shuffles.
        trusted: Load a model that runs code of its own when it is loaded.

    Raises:
        SpecError: A column is missing or holds what the model does not take, there are no rows
            with a target, the target is another than the model's, or a rule cannot be followed.
    """
    check_threshold(threshold, costs)
    _check_numbers(resamples, importances, confidence)
    warnings: list[str] = []
    table = _rows(table, target, [c for c in (group_by, weight) if c], warnings)
    counts = _weights(table, weight)
    predictor = Predictor(model, trusted=trusted)
    others = [column for column in (target, weight, group_by) if column]
    rows = predictor.columns_of(table, others)
    truth = table[target]
    outputs = predictor.outputs(rows, truth)
    classes, truth = classes_of(outputs, truth, positive, warnings)
    if task_of(outputs, truth, classes) == "regression":
        truth = truth.astype(float)
    case = make_case(outputs, truth, classes, counts)
    case = _cut(context, case, threshold, costs, warnings)
    other = constant(case)
    if reference is not None:
        against = Predictor(reference, trusted=trusted)
        said = against.outputs(against.columns_of(table, others), truth)
        other = _reference_case(said, truth, case)
    metrics = _log_metrics(context, case, other, resamples, confidence, seed, warnings)
    for name, figure in plots_of(case, _log_classes(context, case)):
        context.log_plot(name, figure)
    if group_by is not None:
        _log_groups(context, case, groups_of(table[group_by]), confidence, resamples, warnings)
    if importances:
        _log_importances(context, predictor, rows, truth, case, importances, seed)
    if warnings:
        context.log_table("warnings", {"warning": warnings})
    print(_summary(predictor.name, case, metrics), *warnings, sep="\n")
    scores = dict(zip(metrics["metric"], metrics["value"], strict=True))
    return {"task": case.task, **scores, "warnings": warnings}


def _check_numbers(resamples: int, importances: int, confidence: float) -> None:
    if resamples < 0 or importances < 0:
        name, seen = ("resamples", resamples) if resamples < 0 else ("importances", importances)
        raise rayml.SpecError(f"{name}={seen} is no number of times; give 0 or more")
    if not 0 < confidence < 1:
        raise rayml.SpecError(f"confidence={confidence} is not between 0 and 1; give 0.95")


def _rows(
    table: pd.DataFrame, target: str, others: list[str], warnings: list[str]
) -> pd.DataFrame:
    """Return the rows that have a target, in a new index."""
    check_columns(table, [target, *others], "column")
    table = table.rename(columns=str)
    kept = table[table[target].notna()].reset_index(drop=True)
    if kept.empty:
        why = "no rows" if table.empty else f"no row with a value of target {target!r}"
        raise rayml.SpecError(f"the table has {why}; give rows whose target is known")
    if left_out := len(table) - len(kept):
        warnings.append(f"{left_out} rows without a value of target {target!r} are left out.")
    return kept


def _weights(table: pd.DataFrame, weight: str | None) -> np.ndarray:
    if weight is None:
        return np.ones(len(table))
    found = pd.to_numeric(table[weight], errors="coerce").to_numpy(dtype=float)
    if not (np.isfinite(found).all() and found.min() >= 0 and found.sum() > 0):
        raise rayml.SpecError(
            f"weight column {weight!r} holds what is no weight; give numbers of at least 0, not "
            "all of them 0"
        )
    return found


def _cut(
    context: rayml.Context,
    case: Case,
    threshold: float | str | None,
    costs: dict[str, float] | None,
    warnings: list[str],
) -> Case:
    """Return the case with the wanted threshold, which is logged with what others would give."""
    if case.task != "binary" or case.scores is None:
        if threshold is not None:
            raise rayml.SpecError(
                f"threshold={threshold!r} needs a model that scores two classes, and this is "
                f"{case.task} {'without scores' if case.scores is None else ''}; leave it out"
            )
        return case
    found = curve(case, case.scores, costs)
    shown = thin(found)
    context.log_table("thresholds", shown)
    default = 0.5 if case.is_probability else 0.0
    chosen = default if threshold is None else choose(found, threshold)
    context.log_plot("thresholds_plot", threshold_plot(shown, chosen))
    if threshold is None:
        return case
    context.log_metric("threshold", chosen)
    if isinstance(threshold, str):
        warnings.append(
            f"The threshold {chosen:.4g} was chosen on these rows by {threshold!r}: its metrics "
            "are a little too good; confirm them on other rows."
        )
    return case.cut_at(chosen)


def _reference_case(said: Outputs, truth: pd.Series, case: Case) -> Case:
    if bool(said.classes) != bool(case.classes):
        raise rayml.SpecError(
            f"reference predicts {'classes' if said.classes else 'numbers'} and model does not; "
            "compare models of one task"
        )
    if unknown := [label for label in said.classes if label not in case.classes]:
        raise rayml.SpecError(
            f"reference knows the class {unknown[0]!r} and model does not; compare models of one "
            "target"
        )
    return make_case(said, truth, case.classes, case.weight)


def _log_metrics(
    context: rayml.Context,
    case: Case,
    other: Case,
    resamples: int,
    confidence: float,
    seed: int,
    warnings: list[str],
) -> pd.DataFrame:
    table = intervals(case, other, resamples, confidence, seed)
    context.log_table("metrics", table)
    context.log_metric("rows", len(case.truth))
    for row in table.to_dict("records"):
        context.log_metric(row["metric"], row["value"])
        for end in ("low", "high"):
            if end in row and np.isfinite(row[end]):
                context.log_metric(f"{row['metric']}/{end}", row[end])
        if np.isfinite(row["baseline"]):
            context.log_metric(f"baseline/{row['metric']}", row["baseline"])
    if len(np.unique(case.truth)) == 1:
        warnings.append("All rows have one and the same target: some metrics tell nothing of it.")
    return table


def _log_classes(context: rayml.Context, case: Case) -> pd.DataFrame | None:
    """Log the metrics of each class and the confusion matrix, and return that."""
    if case.task == "regression":
        return None
    known = len(case.classes)
    cells = np.bincount(known * case.truth + case.predicted, case.weight, known**2)
    matrix = cells.reshape(known, known)
    names = [str(label) for label in case.classes]
    precision, recall, f1 = by_class(matrix)
    found = {"class": names, "rows": np.bincount(case.truth, minlength=known)}
    found |= {"precision": precision, "recall": recall, "f1": f1}
    context.log_table("classes", pd.DataFrame(found))
    confusion = pd.DataFrame(matrix, index=names, columns=names)
    if known <= _MOST_CLASSES:
        context.log_table("confusion_matrix", confusion.reset_index(names="actual"))
    return confusion


def _log_groups(
    context: rayml.Context,
    case: Case,
    groups: pd.Series,
    confidence: float,
    resamples: int,
    warnings: list[str],
) -> None:
    table = by_group(case, groups, confidence, resamples)
    apart = compare_groups(table, case.task, warnings)
    context.log_table("groups", table)
    context.log_plot("groups_plot", groups_plot(table, case.task))
    if apart.empty:
        warnings.append("There are no two groups with enough rows to compare.")
        return
    context.log_table("fairness", apart)
    found = fairness_metrics(apart, case.task)
    context.log_metrics({name: value for name, value in found.items() if np.isfinite(value)})


def _log_importances(
    context: rayml.Context,
    predictor: Predictor,
    rows: pd.DataFrame,
    truth: pd.Series,
    case: Case,
    repeats: int,
    seed: int,
) -> None:
    known = score_of(case)(case.weight)
    metric = MAIN[case.task] if np.isfinite(known.get(MAIN[case.task], np.nan)) else "accuracy"

    def score(part: pd.DataFrame, places: np.ndarray) -> float:
        true = truth.iloc[places].reset_index(drop=True)
        said = make_case(predictor.outputs(part, true), true, case.classes, case.weight[places])
        return score_of(said)(said.weight)[metric]

    table = permutation_importances(rows, score, metric, repeats, seed)
    context.log_table("importances", table)
    context.log_plot("importances_plot", importances_plot(table, metric))


def _summary(name: str, case: Case, metrics: pd.DataFrame) -> str:
    shown = metrics.round(4).to_string(index=False)
    return f"{name} on {len(case.truth):,} rows, {case.task}:\n{shown}"
