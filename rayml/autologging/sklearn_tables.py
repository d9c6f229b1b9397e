"""Tables of what `sklearn.metrics` tells of predictions where that is more than a number."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rayml.artifacts.record import is_a
from rayml.autologging.charts import log_newest_at_end
from rayml.autologging.sklearn_charts import (
    CLASSES,
    confusion_table,
    draw_calibration,
    draw_confusion,
    draw_curves,
    thinned,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rayml.autologging.charts import Draw
    from rayml.autologging.sklearn_functions import Called

_REPORT = ("precision", "recall", "f1-score", "support")
_NUMBERS = re.compile(r"(?:\s+(?:[\d.]+|nan))+\s*$")
# Of each function that returns a curve: which of its results are x and y, and what they are.
_CURVES: dict[str, tuple[tuple[int, str], tuple[int, str], Draw]] = {
    "roc_curve": ((0, "false positives"), (1, "true positives"), draw_curves),
    "det_curve": ((0, "false positives"), (1, "false negatives"), draw_curves),
    "precision_recall_curve": ((1, "recall"), (0, "precision"), draw_curves),
    "calibration_curve": ((1, "probability"), (0, "share that is true"), draw_calibration),
}


def log_table(called: Called, group: str) -> None:
    """Log the table of a call, and its plot, when the run ends; of a call without one, nothing."""
    if called.name == "precision_recall_fscore_support" and called.arguments["average"]:
        named = zip(("precision", "recall", "fscore"), called.result[:3], strict=True)
        called.context.log_metrics({f"{group}/{name}": value for name, value in named})
    elif called.name in _CURVES:
        log_newest_at_end(called.context, group, called.name, *_curve(called))
    elif (table := _table(called)) is not None:
        draw = draw_confusion if called.name == "confusion_matrix" else None
        log_newest_at_end(called.context, group, called.name, table, draw)


def _curve(called: Called) -> tuple[dict[str, Any], Draw]:
    import numpy as np  # noqa: PLC0415 - scikit-learn has it

    (first, x_name), (second, y_name), draw = _CURVES[called.name]
    x, y = thinned(called.result[first], called.result[second])
    label = called.arguments.get("pos_label")
    names = np.full(len(x), "1" if label is None else str(label))
    return {"class": names, x_name: x, y_name: y}, draw


def _table(called: Called) -> dict[str, Any] | None:
    result = called.result
    match called.name:
        case "confusion_matrix":
            classes = _classes(called)
            return confusion_table(classes, result) if len(classes) <= CLASSES else None
        case "classification_report":
            return _report(_told(result) if isinstance(result, str) else result)
        case "precision_recall_fscore_support":
            names = ("precision", "recall", "fscore", "support")
            return _by_class(called, dict(zip(names, result, strict=True)))
    is_column = is_a(result, "numpy.ndarray") and result.ndim == 1
    return _by_class(called, {called.name: result}) if is_column else None


def _by_class(called: Called, columns: dict[str, Any]) -> dict[str, Any] | None:
    """Return values of each class, or of each output where there are several."""
    count = len(next(iter(columns.values())))
    if count > CLASSES:
        return None
    if "labels" not in called.arguments:
        return {"output": list(range(count)), **columns}
    classes = [str(name) for name in _classes(called)]
    return {"class": classes, **columns} if len(classes) == count else None


def _classes(called: Called) -> Sequence[Any]:
    """Return the classes that a function tells of, in its order."""
    from sklearn.utils.multiclass import unique_labels  # noqa: PLC0415

    if (labels := called.arguments.get("labels")) is not None:
        return list(labels)
    found: Sequence[Any] = unique_labels(*list(called.arguments.values())[:2])
    return found


def _told(report: str) -> dict[str, dict[str, float]]:
    """Return the rows of a report in words; that of the accuracy has but one score."""
    rows = {}
    for line in report.splitlines()[1:]:
        if (found := _NUMBERS.search(line)) is not None:
            numbers = [float(number) for number in found.group().split()[-len(_REPORT) :]]
            name = " ".join(line.split()[: -len(numbers)])
            rows[name] = dict(zip(_REPORT[-len(numbers) :], numbers, strict=True))
    return rows


def _report(rows: dict[str, Any]) -> dict[str, list[Any]]:
    """Return a report as columns."""
    told = [row if isinstance(row, dict) else {"f1-score": row} for row in rows.values()]
    return {"class": list(rows), **{name: [row.get(name) for row in told] for name in _REPORT}}
