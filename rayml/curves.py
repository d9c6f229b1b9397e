"""A metric of a run: its points as a table, what they amount to, and the best of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from rayml.errors import NotFound, SpecError, suggestion

if TYPE_CHECKING:
    import pandas as pd

    from rayml.tracker.runs import RunRecord
    from rayml.tracker.series import Summary


class Best(NamedTuple):
    """The best value of a metric, and the first step that has it."""

    value: float
    step: int


def read_curve(
    run: RunRecord, metric: str, axis: str | None, rank: int | None = None
) -> pd.DataFrame:
    """Return the points by step: the columns step, time (UTC) and value.

    Args:
        run: Who logged it.
        metric: Which one.
        axis: Another metric of the run, whose value at that step or the last one before it comes
            as a first column, `axis`; NaN before its first point.
        rank: Who logged both; by default all ranks' are one.

    Raises:
        NotFound: The run has no such metric.
    """
    import pandas as pd  # noqa: PLC0415 - not needed to submit

    _check_metric(run, metric)
    frame = pd.DataFrame(run.points(metric, rank), columns=["step", "time", "value"])
    frame["time"] = pd.to_datetime(frame["time"], unit="s", utc=True)
    if axis is None:
        return frame
    _check_metric(run, axis)
    along = pd.DataFrame(run.points(axis, rank), columns=["step", "time", "axis"])
    return pd.merge_asof(frame, along[["step", "axis"]], on="step")[
        ["axis", "step", "time", "value"]
    ]


def read_summary(run: RunRecord, metric: str) -> Summary:
    """Return what a metric's points amount to.

    Raises:
        NotFound: The run has no such metric.
    """
    _check_metric(run, metric)
    return run.summary(metric)


def find_best(run: RunRecord, metric: str, goal: Literal["min", "max"]) -> Best:
    """Return the best value of a metric.

    Raises:
        NotFound: The run has no such metric.
        SpecError: The goal is neither of the two.
    """
    summary = read_summary(run, metric)
    if goal == "min":
        return Best(summary.min, summary.min_step)
    if goal == "max":
        return Best(summary.max, summary.max_step)
    raise SpecError(f"goal is {goal!r}; give 'min' or 'max'")


def _check_metric(run: RunRecord, metric: str) -> None:
    if metric not in run.series:
        known = suggestion(metric, run.series)
        raise NotFound(f"run {run.spec.run} has no metric {metric!r}; {known}")
