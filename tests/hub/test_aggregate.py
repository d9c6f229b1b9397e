"""The hub function aggregate: windows against a slow computation, and no look ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hub.calls import Tracked

# pyarrow 26 asks pandas 3.1 for the values of a column with a zone as pandas no longer wants it.
OF_PYARROW = pytest.mark.filterwarnings("ignore:Series.values returning an ndarray")
REDUCERS: dict[str, Callable[[Any], Any]] = {
    "mean": lambda part: part.mean(),
    "sum": lambda part: part.sum(min_count=1),
    "min": lambda part: part.min(),
    "max": lambda part: part.max(),
    "std": lambda part: part.std(),
    "median": lambda part: part.median(),
    "p90": lambda part: part.quantile(0.9),
    "count": lambda part: float(part.count()),
}


def readings(rows: int = 150) -> pd.DataFrame:
    """Return irregular, unsorted readings of three meters with gaps and simultaneous rows."""
    random = np.random.default_rng(0)
    hours = random.integers(0, 300, rows) / 2
    table = pd.DataFrame(
        {
            "at": pd.Timestamp("2024-03-30") + pd.to_timedelta(hours, "h"),
            "meter": np.array(["a", "b", None])[random.integers(0, 3, rows)],
            "load": random.normal(size=rows),
        }
    )
    table.loc[::9, "load"] = np.nan
    return table


def made(run: rayml.Run) -> pd.DataFrame:
    table: pd.DataFrame = run.artifact("aggregates").load()
    return table


@pytest.mark.parametrize("closed", ["left", "right"])
@pytest.mark.parametrize("window", ["5h", "2d"])
def test_windows_of_time_hold_what_a_slow_look_finds(
    tracked: Tracked, closed: str, window: str
) -> None:
    table = readings()
    result, run = tracked(
        "aggregate",
        table=table,
        time="at",
        by="meter",
        windows=[window],
        aggregations=list(REDUCERS),
        closed=closed,
    )
    found = made(run)
    assert found[["at", "load"]].equals(table[["at", "load"]])
    span = pd.Timedelta(window.replace("d", "D"))
    keys = table["meter"].fillna("none")
    for place, at in enumerate(table["at"]):
        age = at - table["at"]
        seen = (age > pd.Timedelta(0)) & (age <= span)
        if closed == "right":
            seen = (age >= pd.Timedelta(0)) & (age < span)
        part = table["load"][seen & (keys == keys[place])]
        for name, reduce in REDUCERS.items():
            value = found[f"load_{name}_{window}"].iloc[place]
            assert value == pytest.approx(reduce(part), nan_ok=True), (place, name)
    assert result["features"] == [f"load_{name}_{window}" for name in REDUCERS]


def test_no_row_sees_itself_its_moment_or_its_future(tracked: Tracked) -> None:
    table = readings()
    asked = ["mean", "max", "lag", "difference", "count"]
    given = {"time": "at", "by": "meter", "windows": ["6h", 3], "aggregations": asked}
    _, run = tracked("aggregate", table=table, **given)
    before = made(run)
    for place in (3, 40, 77, 149):
        at = table.loc[place, "at"]
        changed = table.assign(load=table["load"].mask(table["at"] >= at, 1e6))
        _, run = tracked("aggregate", table=changed, **given)
        columns = before.columns.drop(["at", "meter", "load"])
        assert made(run)[columns].iloc[place].equals(before[columns].iloc[place])


def test_rows_lags_and_differences(tracked: Tracked) -> None:
    at = pd.date_range("2024-01-01", periods=6, freq="D")
    table = pd.DataFrame({"at": at, "x": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]})
    given = {"table": table, "time": "at", "windows": [2, "2d"]}
    asked = {"aggregations": ["sum", "lag", "difference"]}
    _, run = tracked("aggregate", **given, **asked)
    left = made(run)
    nan = np.nan
    for window in ("2rows", "2d"):
        expected = {
            f"x_sum_{window}": [nan, 1, 3, 6, 12, 24],
            f"x_lag_{window}": [nan, nan, 1, 2, 4, 8],
            f"x_difference_{window}": [nan, nan, nan, 3, 6, 12],
        }
        for name, values in expected.items():
            assert left[name].to_list() == pytest.approx(values, nan_ok=True), name
    _, run = tracked("aggregate", **given, **asked, closed="right")
    right = made(run)
    assert right["x_sum_2rows"].to_list() == [1, 3, 6, 12, 24, 48]
    assert right["x_difference_2d"].to_list() == pytest.approx(
        [nan, nan, 3, 6, 12, 24], nan_ok=True
    )


@OF_PYARROW
def test_text_and_clocks_that_change_are_understood(tracked: Tracked) -> None:
    """An hour of elapsed time is one, also where clocks skip it."""
    text = ["2024-03-31 01:30", "2024-03-31 03:10", "2024-03-31 03:40"]
    table = pd.DataFrame({"at": text, "x": [1, 2, 3]})
    _, run = tracked(
        "aggregate",
        table=table,
        time="at",
        windows=["1h"],
        aggregations=["count"],
        time_zone="Europe/Berlin",
    )
    found = made(run)
    assert str(found["at"].dtype).endswith("Europe/Berlin]")
    assert found["x_count_1h"].to_list() == [0, 1, 1 + 0]
    offsets = pd.DataFrame({"at": ["2024-01-01T10:00+01:00", "2024-01-01T09:30+00:00"], "x": 1})
    _, run = tracked("aggregate", table=offsets, time="at", windows=["1h"], aggregations=["count"])
    assert made(run)["x_count_1h"].to_list() == [0, 1]


def test_steps_are_regular_and_filled_from_the_past_alone(tracked: Tracked) -> None:
    at = pd.to_datetime(["2024-01-01 00:10", "2024-01-01 00:50", "2024-01-01 03:20"])
    table = pd.DataFrame({"at": at, "g": "a", "x": [1.0, 3.0, 9.0], "note": "n"})
    given = {"table": table, "time": "at", "by": ["g"], "windows": ["2h"], "every": "1h"}
    expected = {
        None: [2.0, np.nan, np.nan, 9.0],
        "forward": [2.0, 2, 2, 9],
        "zero": [2.0, 0, 0, 9],
    }
    found = pd.DataFrame()
    for fill, values in expected.items():
        _, run = tracked("aggregate", **given, fill=fill)
        found = made(run)
        assert found["x"].to_list() == pytest.approx(values, nan_ok=True)
        assert list(found.columns) == ["g", "at", "x", "x_mean_2h"]
    assert found["x_mean_2h"].to_list() == pytest.approx([np.nan, 2, 1, 0], nan_ok=True)
    _, run = tracked("aggregate", **given, reduce="sum")
    assert made(run)["x"].to_list() == pytest.approx([4, np.nan, np.nan, 9], nan_ok=True)


@OF_PYARROW
def test_days_are_those_of_the_zone(tracked: Tracked) -> None:
    at = pd.date_range("2024-03-29 23:30", periods=5, freq="D", tz="UTC")
    table = pd.DataFrame({"at": at, "x": 1.0})
    _, run = tracked(
        "aggregate", table=table, time="at", windows=[1], every="1d", time_zone="Europe/Berlin"
    )
    days = made(run)["at"]
    assert (days.dt.hour == 0).all()
    assert days.dt.day.to_list() == [30, 31, 1, 2, 3]


def test_few_values_and_empty_rows(tracked: Tracked) -> None:
    at = pd.date_range("2024-01-01", periods=4, freq="h")
    table = pd.DataFrame({"at": at, "x": [1.0, 2, 3, 4], "y": True})
    given = {"table": table, "time": "at", "windows": ["2h"], "metrics": ["x", "y"]}
    _, run = tracked("aggregate", **given, min_rows=2)
    assert made(run)["x_mean_2h"].to_list() == pytest.approx(
        [np.nan, np.nan, 1.5, 2.5], nan_ok=True
    )
    result, run = tracked("aggregate", **given, drop_empty=True)
    assert result["rows"] == 3
    assert made(run)["y_mean_2h"].to_list() == [1, 1, 1]


def test_rows_without_a_time_are_left_out_and_told(tracked: Tracked) -> None:
    table = pd.DataFrame({"at": ["2024-01-01", "soon", None, "2024-01-02"], "x": [1, 2, 3, 4]})
    result, run = tracked("aggregate", table=table, time="at", windows=["1d"])
    assert result["rows"] == 2
    assert made(run)["x_mean_1d"].to_list() == pytest.approx([np.nan, 1], nan_ok=True)
    assert "2 rows without a time" in run.artifact("warnings").load()["warning"][0]


def test_times_that_are_not_iso_are_read_and_told(tracked: Tracked) -> None:
    table = pd.DataFrame({"at": ["3/4/2024 10:00", "3/4/2024 11:00"], "x": [1, 2]})
    _, run = tracked("aggregate", table=table, time="at", windows=["1h"])
    assert made(run)["at"].dt.month.to_list() == [3, 3]
    assert "read month first" in run.artifact("warnings").load()["warning"][0]


def test_a_large_value_leaves_no_trace_in_later_windows(tracked: Tracked) -> None:
    at = pd.date_range("2024-01-01", periods=40, freq="D")
    table = pd.DataFrame({"at": at, "x": 0.1})
    table.loc[5, "x"] = 1e15
    _, run = tracked("aggregate", table=table, time="at", windows="1d", aggregations="sum")
    assert made(run)["x_sum_1d"].iloc[7:].to_list() == pytest.approx([0.1] * 33)


@pytest.mark.parametrize(
    ("change", "values", "message"),
    [
        (lambda t: t, {"time": "att"}, "did you mean 'at'"),
        (lambda t: t, {"by": "metre"}, "did you mean 'meter'"),
        (lambda t: t, {"metrics": ["laod"]}, "did you mean 'load'"),
        (lambda t: t, {"metrics": ["meter"]}, "no number"),
        (lambda t: t, {"windows": ["soon"]}, "no length of time"),
        (lambda t: t, {"windows": [0]}, "holds no rows"),
        (lambda t: t, {"windows": ["-1h"]}, "not longer than nothing"),
        (lambda t: t, {"aggregations": ["average"]}, "no aggregation 'average'"),
        (lambda t: t, {"closed": "both"}, "closed='both'"),
        (lambda t: t, {"every": "hourly"}, "no step of time"),
        (lambda t: t, {"every": "1us"}, "take longer steps"),
        (lambda t: t, {"fill": "zero"}, "give it"),
        (lambda t: t, {"time_zone": "Europe/Berln"}, "did you mean 'Europe/Berlin'"),
        (lambda t: t.iloc[:0], {}, "no rows"),
        (lambda t: t.assign(at=range(len(t))), {}, "holds numbers"),
        (lambda t: t.assign(at="soon"), {}, "no value that is a time"),
        (lambda t: t.assign(load_mean_1h=1), {}, "already"),
        (lambda t: t[["at", "meter"]], {}, "no column of numbers"),
        (lambda t: t, {"windows": ["1h", "1h"]}, "asked for twice"),
    ],
)
def test_what_is_wrong_is_said(
    tracked: Tracked,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    values: dict[str, object],
    message: str,
) -> None:
    given = {"time": "at", "windows": ["1h"], **values}
    with pytest.raises(rayml.SpecError, match=message):
        tracked("aggregate", table=change(readings()), **given)
