"""Tables and plots of a fit: confusion matrix, curves, importances of features, trials.

A plot shows its table, and drawing it takes longer than many a fit: it waits for the end of the
run. Without matplotlib there are the tables alone.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rayml.artifacts.record import json_safe
from rayml.autologging.calls import at_end, spared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rayml.autologging.sklearn_scores import Evaluation
    from rayml.run_context import Context

_CLASSES = 100  # of a confusion matrix
_CURVES = 20
_POINTS = 500
_IMPORTANCES = 1000
_DRAWN_IMPORTANCES = 30


def log_charts(context: Context, group: str, model: Any, evaluation: Evaluation) -> None:  # noqa: ANN401
    """Log what applies to the model; each that fails is one warning."""
    charts: list[tuple[str, Callable[[], Any], Callable[[Any, Any], None]]] = [
        ("feature_importance", lambda: _importances(model), _draw_importances),
    ]
    if 2 <= len(evaluation.classes) <= _CLASSES:
        matrix = lambda: _confusion(evaluation)  # noqa: E731 - as those around it
        charts.append(("confusion_matrix", matrix, _draw_confusion))
    if evaluation.certainty is not None and len(evaluation.classes) <= _CURVES:
        charts += [
            ("roc_curve", lambda: _curves(evaluation, _roc), _draw_curves),
            ("precision_recall_curve", lambda: _curves(evaluation, _precision), _draw_curves),
        ]
    for name, compute, draw in charts:
        with spared(f"{type(model).__name__}'s {name}", context):
            if (table := compute()) is not None:
                context.log_table(f"{group}/{name}", table)
                at_end(context, partial(_plot, context, group, name, table, draw))


def log_trials(context: Context, suffix: str, search: Any) -> None:  # noqa: ANN401
    """Log what a search has tried, and the best score of it."""
    if hasattr(search, "best_score_"):
        context.log_metric(f"search{suffix}/best_score", search.best_score_)
    columns = {
        name: _cells(values) for name, values in search.cv_results_.items() if name != "params"
    }
    context.log_table(f"search{suffix}/trials", columns)


def _cells(values: Any) -> list[Any]:  # noqa: ANN401
    """Return a column of one type; what a trial does not have is None."""
    cells = [json_safe(value) for value in values.tolist()]
    if len({type(cell) for cell in cells if cell is not None}) <= 1:
        return cells
    return [cell if cell is None or isinstance(cell, str) else json.dumps(cell) for cell in cells]


def _plot(
    context: Context,
    group: str,
    name: str,
    table: dict[str, Any],
    draw: Callable[[Any, Any], None],
) -> None:
    with spared(f"the plot {group}/{name}", context):
        if find_spec("matplotlib") is None:
            return
        # Not pyplot, which has state that belongs to the user.
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra

        figure = Figure(layout="constrained")
        axes = figure.subplots()
        axes.set_title(f"{group}: {name.replace('_', ' ')}")
        draw(axes, table)
        context.log_plot(f"{group}/plots/{name}", figure)


def _confusion(evaluation: Evaluation) -> dict[str, Any]:
    from sklearn.metrics import confusion_matrix  # noqa: PLC0415 - is imported already

    classes = evaluation.classes
    counts = confusion_matrix(evaluation.target, evaluation.predicted, labels=classes)
    words = [str(name) for name in classes]
    columns = {f"predicted {word}": counts[:, place] for place, word in enumerate(words)}
    return {"actual": words, **columns}


def _draw_confusion(axes: Any, table: dict[str, Any]) -> None:  # noqa: ANN401
    import numpy as np  # noqa: PLC0415 - scikit-learn has it

    words, *columns = table.values()
    counts = np.column_stack(columns)
    axes.imshow(counts, cmap="Blues")
    axes.set(xlabel="predicted", ylabel="actual")
    axes.set_xticks(range(len(words)), words, rotation=45)
    axes.set_yticks(range(len(words)), words)
    if len(words) <= _CURVES:
        for (row, column), value in np.ndenumerate(counts):
            dark = value > counts.max() / 2
            axes.text(column, row, value, ha="center", color="white" if dark else "black")


def _curves(evaluation: Evaluation, curve: Callable[[Any, Any], Iterable[Any]]) -> Any:  # noqa: ANN401
    """Return the points of each class's curve against the rest; of two classes, the second's."""
    import numpy as np  # noqa: PLC0415 - scikit-learn has it

    target = np.asarray(evaluation.target).ravel()
    classes = evaluation.classes[-evaluation.certainty.shape[1] :]
    parts: list[tuple[Any, ...]] = []
    for place, name in enumerate(classes):
        is_it = target == name
        if 0 < is_it.sum() < len(is_it):
            x, y = _thinned(*curve(is_it, evaluation.certainty[:, place]))
            parts.append(([str(name)] * len(x), x, y))
    if not parts:
        return None
    labels = ("false positives", "true positives") if curve is _roc else ("recall", "precision")
    return {
        name: np.concatenate(values)
        for name, values in zip(("class", *labels), zip(*parts, strict=True), strict=True)
    }


def _roc(is_it: Any, certainty: Any) -> tuple[Any, Any]:  # noqa: ANN401
    from sklearn.metrics import roc_curve  # noqa: PLC0415

    false_positives, true_positives, _ = roc_curve(is_it, certainty)
    return false_positives, true_positives


def _precision(is_it: Any, certainty: Any) -> tuple[Any, Any]:  # noqa: ANN401
    from sklearn.metrics import precision_recall_curve  # noqa: PLC0415

    precision, recall, _ = precision_recall_curve(is_it, certainty)
    return recall, precision


def _thinned(x: Any, y: Any) -> tuple[Any, Any]:  # noqa: ANN401
    import numpy as np  # noqa: PLC0415

    if len(x) <= _POINTS:
        return x, y
    chosen = np.linspace(0, len(x) - 1, _POINTS).astype(int)  # both ends are among them
    return x[chosen], y[chosen]


def _draw_curves(axes: Any, table: dict[str, Any]) -> None:  # noqa: ANN401
    (_, names), (x_label, x), (y_label, y) = table.items()
    for name in dict.fromkeys(names.tolist()):
        axes.plot(x[names == name], y[names == name], label=name)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.legend()


def _importances(model: Any) -> dict[str, Any] | None:  # noqa: ANN401
    """Return the most important features; of coefficients, by their mean size over the classes."""
    import numpy as np  # noqa: PLC0415 - scikit-learn has it

    model = getattr(model, "best_estimator_", model)
    final = model[-1] if hasattr(model, "named_steps") else model
    values = getattr(final, "feature_importances_", None)
    if values is None:
        values = getattr(final, "coef_", None)
        if not isinstance(values, np.ndarray):
            return None
        values = np.abs(np.atleast_2d(values)).mean(axis=0)
    names = _feature_names(model, final, len(values))
    order = np.argsort(-values, kind="stable")[:_IMPORTANCES]
    return {"feature": [names[place] for place in order], "importance": values[order]}


def _feature_names(model: Any, final: Any, features: int) -> list[str]:  # noqa: ANN401
    names = getattr(final, "feature_names_in_", None)
    if names is None and final is not model:
        with suppress(AttributeError, ValueError):  # a step does not tell them
            names = model[:-1].get_feature_names_out()
    if names is None or len(names) != features:
        return [f"x{place}" for place in range(features)]
    return [str(name) for name in names]


def _draw_importances(axes: Any, table: dict[str, Any]) -> None:  # noqa: ANN401
    names, values = table["feature"][:_DRAWN_IMPORTANCES], table["importance"]
    axes.barh(range(len(names)), values[: len(names)][::-1])
    axes.set_yticks(range(len(names)), names[::-1])
    axes.set(xlabel="importance")
