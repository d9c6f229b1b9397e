"""Curves of scikit-learn: of an estimator by iteration, of scores by rows or by a setting."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rayml.artifacts.record import json_safe
from rayml.autologging.calls import spared
from rayml.autologging.charts import log_charts_at_end
from rayml.autologging.fits import next_other
from rayml.autologging.sklearn_folds import log_settings
from rayml.autologging.sklearn_learned import final_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rayml.autologging.fits import Fit
    from rayml.autologging.sklearn_functions import Called
    from rayml.run_context import Context

_POINTS = 10_000  # of a curve: a network that is trained in parts keeps the loss of each
_LOSS = {"loss_curve_": "train/loss", "validation_scores_": "valid/iteration_score"}
_STAGES = {"train_score_": "train", "validation_score_": "valid"}


def log_own_curves(context: Context, fit: Fit, estimator: Any) -> None:  # noqa: ANN401
    """Log what an estimator, or the last of a pipeline, has kept of each of its iterations."""
    final = final_of(estimator)
    for name, values in _own_curves(final).items():
        data, _, metric = name.partition("/")
        each = -(-len(values) // _POINTS)
        for step in range(0, len(values), each):
            context.log_metric(f"{data}{fit.suffix}/{metric}", values[step], step)


def _own_curves(estimator: Any) -> dict[str, Any]:  # noqa: ANN401
    kept = {name: getattr(estimator, name, None) for name in (*_LOSS, *_STAGES)}
    found = {name: values for name, values in kept.items() if values is not None and len(values)}
    curves = {_LOSS[name]: values for name, values in found.items() if name in _LOSS}
    is_scored = hasattr(estimator, "validation_score_")
    for name, data in _STAGES.items():
        if name in found and not is_scored:  # boosting, which keeps its loss
            curves[f"{data}/loss"] = found[name]
        elif name in found and estimator.scoring == "loss":  # boosting by histograms
            curves[f"{data}/loss"] = [-value for value in found[name]]
        elif name in found:
            curves[f"{data}/iteration_score"] = found[name]
    return curves


def log_scored_curve(called: Called) -> None:
    """Log a learning or validation curve: its scores as metrics, and as a table with a plot."""
    context = called.context
    if (found := next_other(context, called.name)) is None:
        return
    curve = replace(found, seconds=called.seconds)
    with spared(f"the settings of a {called.name}", context):
        log_settings(context, curve, called.arguments)
    with spared(f"the scores of a {called.name}", context):
        _log_scores(context, curve, called)


def _log_scores(context: Context, curve: Fit, called: Called) -> None:
    if called.name == "learning_curve":
        sizes, train, test = called.result[:3]
        axis, places = "rows", [int(size) for size in sizes]
        values: Sequence[Any] = places
    else:
        train, test = called.result
        axis, values = str(called.arguments["param_name"]), _told(called.arguments["param_range"])
        places = list(range(len(values)))
    table = {
        axis: values,
        "train": train.mean(axis=1),
        "train_std": train.std(axis=1),
        "test": test.mean(axis=1),
        "test_std": test.std(axis=1),
    }
    for name in ("train", "test"):
        for place, score in zip(places, table[name].tolist(), strict=True):
            context.log_metric(f"{curve.group}/{name}/score", score, place)
    log_charts_at_end(context, curve.group, {"scores": (lambda: table, _draw_scores)})


def _told(values: Any) -> list[Any]:  # noqa: ANN401
    """Return the values of a parameter as a column of one type."""
    told = [json_safe(value) for value in getattr(values, "tolist", lambda: list(values))()]
    is_number = all(isinstance(value, int | float) for value in told)
    return told if is_number else [str(value) for value in told]


def _draw_scores(axes: Any, table: dict[str, Any]) -> None:  # noqa: ANN401
    axis, values = next(iter(table.items()))
    for name in ("train", "test"):
        mean, width = table[name], table[f"{name}_std"]
        axes.plot(values, mean, marker="o", label=name)
        axes.fill_between(values, mean - width, mean + width, alpha=0.2)
    axes.set(xlabel=axis, ylabel="score")
    axes.legend()
