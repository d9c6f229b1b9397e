"""Tables of a fit of scikit-learn: confusion matrix, curves, importances of features."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from rayml.autologging.boosting import importances
from rayml.autologging.charts import draw_importances, importance_table, log_charts_at_end
from rayml.autologging.sklearn_learned import final_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rayml.autologging.charts import Chart
    from rayml.autologging.copies import Snapshot
    from rayml.autologging.sklearn_scores import Evaluation
    from rayml.run_context import Context

CLASSES = 100  # of a confusion matrix
_CURVES = 20
_POINTS = 500


def log_model_charts(
    context: Context, group: str, taken: Snapshot, evaluation: Evaluation | None
) -> None:
    """Log each table that applies to the model, and its plot, when the run ends."""
    tables: dict[str, Chart] = {}
    if not taken.has_own_code:
        tables["feature_importance"] = (lambda: _importances(taken.restore()), draw_importances)
    if evaluation is not None and 2 <= len(evaluation.classes) <= CLASSES:
        tables["confusion_matrix"] = (lambda: _confusion(evaluation), draw_confusion)
        tables |= _curve_charts(evaluation)
    log_charts_at_end(context, group, tables)


def _curve_charts(evaluation: Evaluation) -> dict[str, Chart]:
    if evaluation.certainty is None or len(evaluation.classes) > _CURVES:
        return {}
    charts: dict[str, Chart] = {
        "roc_curve": (partial(_curves, evaluation, _roc), draw_curves),
        "precision_recall_curve": (partial(_curves, evaluation, _precision), draw_curves),
    }
    if evaluation.is_likelihood:
        compute = partial(_curves, evaluation, _calibration)
        charts["calibration_curve"] = (compute, draw_calibration)
    return charts


def _confusion(evaluation: Evaluation) -> dict[str, Any]:
    from sklearn.metrics import confusion_matrix  # noqa: PLC0415 - is imported already

    classes = evaluation.classes
    counts = confusion_matrix(evaluation.target, evaluation.predicted, labels=classes)
    return confusion_table(classes, counts)


def confusion_table(classes: Iterable[Any], counts: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a confusion matrix with the names of its classes."""
    words = [str(name) for name in classes]
    columns = {f"predicted {word}": counts[:, place] for place, word in enumerate(words)}
    return {"actual": words, **columns}


def draw_confusion(axes: Any, table: dict[str, Any]) -> None:  # noqa: ANN401
    """Draw a confusion matrix."""
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
            text = f"{value:.4g}"  # of shares, where the counts are normalized
            axes.text(column, row, text, ha="center", color="white" if dark else "black")


def _curves(evaluation: Evaluation, curve: Callable[[Any, Any], Iterable[Any]]) -> Any:  # noqa: ANN401
    """Return the points of each class's curve against the rest; of two classes, the second's."""
    import numpy as np  # noqa: PLC0415 - scikit-learn has it

    target = np.asarray(evaluation.target).ravel()
    classes = evaluation.classes[-evaluation.certainty.shape[1] :]
    parts: list[tuple[Any, ...]] = []
    for place, name in enumerate(classes):
        is_it = target == name
        if 0 < is_it.sum() < len(is_it):
            x, y = thinned(*curve(is_it, evaluation.certainty[:, place]))
            parts.append(([str(name)] * len(x), x, y))
    if not parts:
        return None
    return {
        name: np.concatenate(values)
        for name, values in zip(("class", *_AXES[curve]), zip(*parts, strict=True), strict=True)
    }


def _roc(is_it: Any, certainty: Any) -> tuple[Any, Any]:  # noqa: ANN401
    from sklearn.metrics import roc_curve  # noqa: PLC0415

    false_positives, true_positives, _ = roc_curve(is_it, certainty)
    return false_positives, true_positives


def _precision(is_it: Any, certainty: Any) -> tuple[Any, Any]:  # noqa: ANN401
    from sklearn.metrics import precision_recall_curve  # noqa: PLC0415

    precision, recall, _ = precision_recall_curve(is_it, certainty)
    return recall, precision


def _calibration(is_it: Any, likely: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Return the mean probability of each tenth, and how often it came true, as scikit-learn."""
    import numpy as np  # noqa: PLC0415 - scikit-learn has it

    bins = np.searchsorted(np.linspace(0, 1, 11)[1:-1], likely)
    rows = np.bincount(bins, minlength=10)
    sums = (np.bincount(bins, weights=values, minlength=10) for values in (likely, is_it))
    mean, share = (values[rows > 0] / rows[rows > 0] for values in sums)
    return mean, share


_AXES: dict[Callable[..., Any], tuple[str, str]] = {
    _roc: ("false positives", "true positives"),
    _precision: ("recall", "precision"),
    _calibration: ("probability", "share that is true"),
}


def thinned(x: Any, y: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Return some hundred points of a curve, both ends among them."""
    import numpy as np  # noqa: PLC0415

    if len(x) <= _POINTS:
        return x, y
    chosen = np.linspace(0, len(x) - 1, _POINTS).astype(int)  # both ends are among them
    return x[chosen], y[chosen]


def draw_curves(axes: Any, table: dict[str, Any]) -> None:  # noqa: ANN401
    """Draw a curve for each class."""
    (_, names), (x_label, x), (y_label, y) = table.items()
    for name in dict.fromkeys(names.tolist()):
        axes.plot(x[names == name], y[names == name], label=name)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.legend()


def draw_calibration(axes: Any, table: dict[str, Any]) -> None:  # noqa: ANN401
    """Draw how often what has a probability comes true, beside how often it should."""
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey", label="as it should be")
    draw_curves(axes, table)


def _importances(model: Any) -> dict[str, Any] | None:  # noqa: ANN401
    """Return the most important features; of coefficients, by their mean size over the classes."""
    import numpy as np  # noqa: PLC0415 - scikit-learn has it

    final = final_of(model)
    values = getattr(final, "feature_importances_", None)
    if values is None:
        values = getattr(final, "coef_", None)
        if not isinstance(values, np.ndarray):
            return None
        values = np.abs(np.atleast_2d(values)).mean(axis=0)
    names = _feature_names(model, final, len(values))
    return importance_table(names, values, {"importance": values, **_kinds(final)})


def _kinds(estimator: Any) -> dict[str, list[float]]:  # noqa: ANN401
    """Return all kinds of importance that a booster tells apart; of others, none."""
    match type(estimator).__module__.partition(".")[0]:
        case "xgboost":
            from rayml.autologging import xgboost_hooks  # noqa: PLC0415 - it has the library

            return importances(xgboost_hooks.LIBRARY, estimator.get_booster())
        case "lightgbm":
            from rayml.autologging import lightgbm_hooks  # noqa: PLC0415

            return importances(lightgbm_hooks.LIBRARY, estimator.booster_)
        case _:
            return {}


def _feature_names(model: Any, final: Any, features: int) -> list[str]:  # noqa: ANN401
    names = getattr(final, "feature_names_in_", None)
    if names is None and final is not model:
        with suppress(AttributeError, ValueError):  # a step does not tell them
            names = model[:-1].get_feature_names_out()
    if names is None or len(names) != features:
        return [f"x{place}" for place in range(features)]
    return [str(name) for name in names]
