"""Windows over time series: what a row could have known of the time before it."""

from __future__ import annotations

from collections import Counter
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

import rayml

from ._times import check_zone, read_times
from ._windows import Series, Window, check_aggregations, parse_window, wanted, with_days

if TYPE_CHECKING:
    from pandas.tseries.offsets import BaseOffset

Reduction = Literal["mean", "sum", "min", "max", "median", "last", "count"]
_MOST_ROWS = 50_000_000


def aggregate(  # noqa: PLR0913, PLR0917 - what can be asked of windows, by name
    context: rayml.Context,
    table: pd.DataFrame,
    time: str,
    windows: str | int | list[str | int],
    metrics: str | list[str] | None = None,
    aggregations: str | list[str] | None = None,
    by: str | list[str] | None = None,
    closed: Literal["left", "right"] = "left",
    every: str | None = None,
    reduce: Literal["mean", "sum", "min", "max", "median", "last", "count"] = "mean",
    fill: Literal["forward", "zero"] | None = None,
    time_zone: str | None = None,
    min_rows: int = 1,
    drop_empty: bool = False,  # noqa: FBT001, FBT002 - parameters of a job have names
) -> dict[str, object]:
    """Add moving means, sums, lags and more over windows of time, without a look ahead.

    Each row gets a column `<metric>_<aggregation>_<window>` for whatever is asked for, of the rows
    of its own group in the window before it. Times may be irregular, unsorted, text, with and
    without a zone; windows are of elapsed time, so that a change of the clocks moves nothing. Logs
    the dataset `aggregates`, the table's rows in their order with the new columns; the table
    `features`, a row for each of them; and the table `warnings`. Returns the dataset's URI, the
    new columns and the number of rows.

    Args:
        context: What the run logs to.
        table: The rows, in any order.
        time: The column with each row's time: times, dates, or text of them.
        windows: How far back each looks: "90min", "1h", "7d", … or a number of rows.
        metrics: The columns to aggregate; all of numbers by default.
        aggregations: "mean", "sum", "min", "max", "std", "median", "count", any percentile as
            "p95"; "lag", the last value known a window ago, or so many rows ago; "difference",
            the change over the window of the newest value that the row sees. "mean" by default.
        by: The columns whose values tell the series apart; all is one series by default.
        closed: "left": a row sees what was before its own time, so never its own values nor those
            of its moment. "right": it sees these too.
        every: First bring each series to rows this far apart, such as "1h" or "1D", each with what
            fell into the time that begins there; of the columns only time, groups and metrics are
            kept. Times without rows become empty rows.
        reduce: How several rows become one, with `every`.
        fill: What empty rows get, with `every`: the last value before ("forward"), or "zero"; they
            stay empty by default. Nothing is filled from later values.
        time_zone: Where the clock of times without a zone is, such as "Europe/Berlin"; others are
            converted to it.
        min_rows: Fewer values in a window give none.
        drop_empty: Leave out rows that have none of the new values.

    Raises:
        SpecError: A column is missing or holds no times or no numbers; there are no rows; or a
            window, an aggregation, a step or a zone is not such a thing.
    """
    asked = _listed(aggregations) or ["mean"]
    parsed = [parse_window(window) for window in _listed(windows)]
    check_aggregations(asked)
    check_zone(time_zone)
    _check(closed, reduce, fill, every, min_rows)
    groups = _listed(by)
    _check_columns(table, [time, *groups, *_listed(metrics)])
    warnings: list[str] = []
    frame = _timed(table, time, time_zone, warnings)
    chosen = _listed(metrics) or _number_columns(frame, [time, *groups])
    frame = frame.assign(**{name: _numbers(frame[name]) for name in chosen})
    if every is not None:
        frame = _at_steps(frame, time, groups, chosen, every, reduce, fill)
    columns = list(wanted(chosen, asked, parsed))
    _check_new([name for name, *_ in columns], frame)
    order, series = _sorted(frame, time, groups, sees_itself=closed == "right")
    made = {}
    for name, metric, aggregation, window in columns:
        values = frame[metric].iloc[order].reset_index(drop=True)
        made[name] = np.empty(len(frame))
        made[name][order] = series.aggregate(values, aggregation, window, min_rows)
    frame = frame.assign(**made)
    if drop_empty:
        frame = frame.dropna(subset=list(made), how="all").reset_index(drop=True)
    logged = context.log_dataset("aggregates", frame)
    _log_features(context, columns, frame)
    if warnings:
        context.log_table("warnings", {"warning": warnings})
    said = f"{len(frame):,} rows with {len(made)} new columns: {', '.join(list(made)[:10])}"
    print(said, *warnings, sep="\n")
    return {"dataset": logged.uri, "features": list(made), "rows": len(frame)}


def _listed(given: object) -> list:  # type: ignore[type-arg]
    """Return a list of what may be one, several or none."""
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _check(closed: str, reduce: str, fill: str | None, every: str | None, min_rows: int) -> None:
    words = {
        "closed": (closed, ("left", "right")),
        "reduce": (reduce, get_args(Reduction)),
        "fill": (fill, (None, "forward", "zero")),
    }
    for name, (word, known) in words.items():
        if word not in known:
            shown = ", ".join(repr(one) for one in known if one)
            raise rayml.SpecError(f"{name}={word!r} is not known; give one of {shown}")
    if fill is not None and every is None:
        raise rayml.SpecError(f"fill={fill!r} fills the steps of `every`; give it, such as '1h'")
    if min_rows < 1:
        raise rayml.SpecError(f"min_rows={min_rows} is fewer than one; give 1 or more")
    if every is not None:
        _step(every)


def _step(every: str) -> BaseOffset:
    try:
        return pd.tseries.frequencies.to_offset(with_days(every))
    except ValueError as exc:
        raise rayml.SpecError(
            f"every={every!r} is no step of time; give such as '15min', '1h', '1D' or '1W'"
        ) from exc


def _check_columns(table: pd.DataFrame, wanted_names: list[str]) -> None:
    known = [str(column) for column in table.columns]
    if twice := [name for name, count in Counter(known).items() if count > 1]:
        raise rayml.SpecError(f"the table has two columns called {twice[0]!r}; rename one")
    if missing := [name for name in wanted_names if name not in known]:
        near = get_close_matches(missing[0], known, n=1)
        way_out = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known[:30])}"
        raise rayml.SpecError(f"the table has no column {missing[0]!r}; {way_out}")
    if table.empty:
        raise rayml.SpecError("the table has no rows; give some to aggregate")


def _timed(
    table: pd.DataFrame, time: str, time_zone: str | None, warnings: list[str]
) -> pd.DataFrame:
    """Return the rows that have a time, with these read."""
    table = table.rename(columns=str)
    times = read_times(table[time], time_zone, warnings)
    if left_out := int(times.isna().sum()):
        warnings.append(f"{left_out} rows without a time in {time!r} are left out.")
    kept = table.assign(**{time: times})
    return kept[times.notna()].reset_index(drop=True)


def _number_columns(frame: pd.DataFrame, others: list[str]) -> list[str]:
    found = [str(c) for c in frame.select_dtypes("number").columns if c not in others]
    if not found:
        raise rayml.SpecError(
            f"the table has no column of numbers besides {', '.join(map(repr, others))}; name "
            "the `metrics`"
        )
    return found


def _numbers(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    bad = column[numbers.isna() & column.notna()]
    if len(bad):
        raise rayml.SpecError(
            f"metric {column.name!r} holds {bad.iloc[0]!r}, which is no number; clean it, or name "
            "others as `metrics`"
        )
    return numbers


def _at_steps(
    frame: pd.DataFrame,
    time: str,
    groups: list[str],
    metrics: list[str],
    every: str,
    reduce: str,
    fill: str | None,
) -> pd.DataFrame:
    """Return a row for each step of each series, from its first to its last."""
    step = _step(every)
    first = frame[time].min()
    span = frame[time].max() - first
    steps = span / (first + step - first)
    if steps > _MOST_ROWS:
        raise rayml.SpecError(
            f"every={every!r} makes {steps:,.0f} rows of a series over {span}; take longer steps"
        )
    series = frame.groupby(groups, dropna=False) if groups else frame
    sampled = series.resample(step, on=time)[metrics]
    least = {"min_count": 1} if reduce == "sum" else {}  # of nothing is nothing known
    made: pd.DataFrame = getattr(sampled, reduce)(**least).reset_index()
    if fill == "zero":
        return made.fillna(dict.fromkeys(metrics, 0.0))
    if fill == "forward":
        kept = made.groupby(groups, dropna=False) if groups else made
        made[metrics] = kept[metrics].ffill()
    return made


def _check_new(names: list[str], frame: pd.DataFrame) -> None:
    if taken := [name for name in names if name in frame]:
        raise rayml.SpecError(
            f"the table has a column {taken[0]!r} already, as one to be made is called; rename it"
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise rayml.SpecError(f"{twice[0]!r} is asked for twice; name each thing once")


def _sorted(
    frame: pd.DataFrame, time: str, groups: list[str], *, sees_itself: bool
) -> tuple[np.ndarray, Series]:
    """Return the order of the rows by group and time, and the series in that order."""
    codes: np.ndarray = np.zeros(len(frame), dtype=np.int64)
    if groups:
        codes = frame.groupby(groups, dropna=False, sort=False).ngroup().to_numpy()
    times = frame[time]
    moments = (
        times.dt.tz_convert("UTC").dt.tz_localize(None) if times.dt.tz else times
    ).to_numpy()
    moments = moments.astype("datetime64[ns]")
    order = np.lexsort((moments, codes))
    return order, Series(codes[order], moments[order], sees_itself=sees_itself)


def _log_features(
    context: rayml.Context, columns: list[tuple[str, str, str, Window]], frame: pd.DataFrame
) -> None:
    rows = [
        {
            "feature": name,
            "metric": metric,
            "aggregation": aggregation,
            "window": window.text,
            "missing": float(frame[name].isna().mean()) if len(frame) else 1.0,
        }
        for name, metric, aggregation, window in columns
    ]
    context.log_table("features", rows)
    context.log_metrics({"rows": len(frame), "features": len(rows)})
