"""`clean`: what becomes of columns, learnt from the rows of the training alone."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import rayml
from tests.hub.calls import warnings_of

if TYPE_CHECKING:
    from tests.hub.calls import Tracked

ROWS = 400


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    start = pd.Timestamp("2024-01-01")
    return pd.DataFrame(
        {
            "amount": rng.normal(size=ROWS),
            "price": rng.normal(size=ROWS).round(3).astype(str),
            "day": pd.date_range(start, periods=ROWS).strftime("%d.%m.%Y"),
            "time": pd.date_range(start, periods=ROWS, freq="h", tz="Europe/Berlin"),
            "kind": rng.choice(["a", "b", "c"], ROWS),
            "shop": rng.choice([f"s{i}" for i in range(100)], ROWS),
            "late": rng.random(ROWS) < 0.5,
        }
    )


def told(run: rayml.Run, column: str) -> str:
    columns = run.artifact("columns").load().set_index("column")
    return str(columns.loc[column, "done"])


def test_a_table_becomes_numbers_that_a_model_takes(table: pd.DataFrame, tracked: Tracked) -> None:
    result, run = tracked("clean", table=table, target="late")

    train = run.artifact("train").load()
    features = train.drop(columns="late")
    assert sorted(train) == [
        *("amount", "day", "kind_a", "kind_b", "kind_c", "late", "price", "shop", "time"),
    ]
    assert train.columns[-1] == "late"
    assert set(features.dtypes) == {np.dtype("float64")}
    assert np.isfinite(features).all(axis=None)
    LogisticRegression().fit(features / features.abs().max(), train["late"])
    assert result == {
        "transformer": run.artifact("transformer").uri,
        "rows": ROWS,
        "columns": features.shape[1],
    }
    np.testing.assert_array_equal(train["price"], table["price"].astype(float))
    expected = pd.to_datetime(table["day"], format="%d.%m.%Y")
    np.testing.assert_array_equal(pd.to_datetime(train["day"], unit="s"), expected)
    in_utc = table["time"].dt.tz_convert("UTC").dt.tz_localize(None)
    np.testing.assert_array_equal(pd.to_datetime(train["time"], unit="s"), in_utc)
    np.testing.assert_array_equal(train["kind_a"], table["kind"] == "a")


def test_the_transformer_is_loaded_without_trust_and_makes_the_same_of_raw_rows(
    table: pd.DataFrame, tracked: Tracked
) -> None:
    table.loc[:9, "amount"] = np.nan
    table.loc[5, "price"] = "n/a"
    test = table.sample(100, random_state=1)

    result, run = tracked("clean", table=table, test=test, target="late")

    loaded = rayml.load_model(result["transformer"])
    made = loaded.transform(test.drop(columns="late").assign(other=1))
    logged = run.artifact("test").load().drop(columns="late")
    assert list(made.index) == list(test.index)
    pd.testing.assert_frame_equal(made.reset_index(drop=True), logged)
    assert list(logged) == list(run.artifact("train").load().drop(columns="late"))
    one = loaded.transform(test.head(1))
    pd.testing.assert_frame_equal(one.reset_index(drop=True), logged.head(1))


def test_all_is_learnt_from_the_training_alone(table: pd.DataFrame, tracked: Tracked) -> None:
    test = table.assign(amount=1000.0, shop="s0")
    table.loc[0, "amount"] = np.nan
    test.loc[0, "amount"] = np.nan

    _, run = tracked("clean", table=table, test=test, validation=test, encoding="ordinal")

    median = table["amount"].median()
    assert run.artifact("train").load()["amount"][0] == median
    assert run.artifact("test").load()["amount"][0] == median
    assert run.artifact("validation").load().equals(run.artifact("test").load())


def test_missing_values_are_filled_and_marked(table: pd.DataFrame, tracked: Tracked) -> None:
    for column in ("amount", "price", "day", "time", "kind"):
        table.loc[table.index[:7], column] = None
    table["flag"] = pd.Series([True, None] * (ROWS // 2), dtype=object)
    table["count"] = pd.array([1, 2, None, 4] * (ROWS // 4), dtype="Int64")

    _, run = tracked("clean", table=table)

    train = run.artifact("train").load()
    assert not train.isna().any(axis=None)
    for column in ("amount", "price", "day", "time", "flag", "count"):
        expected = table[column].isna().astype(float)
        np.testing.assert_array_equal(train[f"missingindicator_{column}"], expected)
    np.testing.assert_array_equal(train["kind_(missing)"], table["kind"].isna())
    assert train["count"][2] == 2
    assert "7 missing values became the median" in told(run, "amount")


class TestOutliers:
    def test_few_are_clipped_and_a_long_tail_is_kept(
        self, table: pd.DataFrame, tracked: Tracked
    ) -> None:
        table["tail"] = np.random.default_rng(1).pareto(1, ROWS)
        table.loc[3, "amount"] = 1e6

        _, run = tracked("clean", table=table)

        train = run.artifact("train").load()
        low, high = table["amount"].quantile([0.25, 0.75])
        assert train["amount"][3] == pytest.approx(high + 3 * (high - low))
        np.testing.assert_array_equal(train["amount"].drop(3), table["amount"].drop(3))
        np.testing.assert_array_equal(train["tail"], table["tail"])
        assert "1 outliers were brought to" in told(run, "amount")
        assert "long tail" in told(run, "tail")

    def test_they_are_kept_if_asked_for(self, table: pd.DataFrame, tracked: Tracked) -> None:
        table.loc[3, "amount"] = 1e6

        _, run = tracked("clean", table=table, outliers="keep")

        assert run.artifact("train").load()["amount"][3] == 1e6
        assert "kept, as asked for" in told(run, "amount")

    def test_infinities_become_finite(self, table: pd.DataFrame, tracked: Tracked) -> None:
        test = table.assign(price=np.inf)
        table.loc[:1, "amount"] = [np.inf, -np.inf]

        _, run = tracked("clean", table=table, test=test)

        train = run.artifact("train").load()
        assert train["amount"][0] == table["amount"][2:].max()
        assert np.isfinite(run.artifact("test").load().select_dtypes(float)).all(axis=None)


class TestCategories:
    def test_those_that_were_never_seen_are_no_error(
        self, table: pd.DataFrame, tracked: Tracked
    ) -> None:
        test = table.assign(kind="new", shop=7, price="garbage", day="no day")

        result, run = tracked("clean", table=table, test=test, target="late")

        made = run.artifact("test").load()
        assert (made[["kind_a", "kind_b", "kind_c"]] == 0).all(axis=None)
        assert (made["shop"] == made["shop"][0]).all()
        assert (made["price"] == table["price"].astype(float).median()).all()
        assert f"{ROWS} rows of test have a 'kind' that train has not" in warnings_of(run)
        rayml.load_model(result["transformer"]).transform(test)

    @pytest.mark.parametrize(
        ("encoding", "most_columns"), [("auto", 2), ("onehot", 21), ("ordinal", 2), ("target", 2)]
    )
    def test_fifty_thousand_stay_few_columns(
        self, encoding: str, most_columns: int, tracked: Tracked
    ) -> None:
        words = [f"w{i}" for i in range(50_000)]
        rows = pd.DataFrame({"word": words + words[:10_000], "x": np.arange(60_000.0)})

        result, run = tracked(
            "clean", table=rows.assign(y=rows["x"]), target="y", encoding=encoding
        )

        assert result["columns"] <= most_columns
        assert run.artifact("transformer").size < 16 * 2**20
        assert "as unseen ones" in told(run, "word")

    def test_the_targets_means_leak_no_rows_own_target(self, tracked: Tracked) -> None:
        rng = np.random.default_rng(0)
        rows = pd.DataFrame({"word": rng.choice([f"w{i}" for i in range(500)], 1000)})
        rows["y"] = rng.normal(size=1000)

        _, run = tracked("clean", table=rows, target="y", encoding="target")

        train = run.artifact("train").load()
        assert abs(train["word"].corr(train["y"])) < 0.15

    def test_they_stay_text_if_asked_for(self, table: pd.DataFrame, tracked: Tracked) -> None:
        table.loc[0, "kind"] = None

        _, run = tracked("clean", table=table, encoding="keep", dates="keep")

        train = run.artifact("train").load()
        assert list(train["kind"][:2]) == ["(missing)", table["kind"][1]]
        np.testing.assert_array_equal(
            train["day"], pd.to_datetime(table["day"], format="%d.%m.%Y")
        )

    def test_names_that_would_clash_are_told_apart(self, tracked: Tracked) -> None:
        rows = pd.DataFrame({"a": ["b", "c"] * 20, "a_b": np.arange(40.0)})

        _, run = tracked("clean", table=rows)

        assert run.artifact("train").load().shape == (40, 3)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("%Y-%m-%dT%H:%M:%S", "ISO 8601"),
        ("%Y-%m-%d", "ISO 8601"),
        ("%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M"),
        ("%m-%d-%Y", "%m-%d-%Y"),
        ("%d.%m.%y", "%d.%m.%y"),
        ("%b %d, %Y", "%b %d, %Y"),
        ("%I:%M %p", ""),
    ],
)
def test_dates_in_text_are_read_however_they_are_written(
    written: str, said: str, table: pd.DataFrame, tracked: Tracked
) -> None:
    table["when"] = pd.date_range("2024-01-01", periods=ROWS).strftime(written)
    table.loc[3, "when"] = "?"

    _, run = tracked("clean", table=table, dates="keep")

    if not said:
        assert "categories" in told(run, "when")
        return
    assert f"read as {said}" in told(run, "when")
    train = run.artifact("train").load()
    np.testing.assert_array_equal(
        train["when"].drop(3), pd.Series(pd.date_range("2024-01-01", periods=ROWS)).drop(3)
    )


def test_days_that_may_be_months_are_told(table: pd.DataFrame, tracked: Tracked) -> None:
    table["when"] = ["01/02/2024", "03/04/2024"] * (ROWS // 2)

    _, run = tracked("clean", table=table)

    assert "may also be %d/%m/%Y" in warnings_of(run)


def test_columns_that_tell_nothing_are_dropped_with_a_word(
    table: pd.DataFrame, tracked: Tracked
) -> None:
    odd = table.assign(
        one=1,
        empty=None,
        word="x",
        key=[f"k{i}" for i in range(ROWS)],
        lists=pd.Series([[1]] * ROWS),
        same=dt.date(2024, 1, 1),
        gone="n/a",
    )

    _, run = tracked("clean", table=odd, drop="amount")

    for column in ("one", "empty", "word", "key", "lists", "same", "gone", "amount"):
        assert told(run, column).startswith("left out")
        assert not [name for name in run.artifact("train").load() if name.startswith(column)]


def test_mixed_types_become_text_and_codes_keep_their_zeros(
    table: pd.DataFrame, tracked: Tracked
) -> None:
    table["mixed"] = [1, "a", 2.5, None] * (ROWS // 4)
    table["almost"] = [*range(ROWS - 1), "x"]
    table["zip"] = ["007", "008"] * (ROWS // 2)

    _, run = tracked("clean", table=table)

    train = run.artifact("train").load()
    assert {"mixed_1", "mixed_a", "mixed_2.5", "mixed_(missing)"} <= set(train)
    assert {"zip_007", "zip_008"} <= set(train)
    assert train["almost"][5] == 5
    assert "1 values are no numbers and count as missing: 'x'" in told(run, "almost")


class TestRows:
    def test_twins_and_rows_without_a_target_leave_the_training_alone(
        self, table: pd.DataFrame, tracked: Tracked
    ) -> None:
        table["late"] = table["late"].astype(object)
        table.loc[:4, "late"] = None
        rows = pd.concat([table, table.iloc[100:110]])

        _, run = tracked("clean", table=rows, test=rows, target="late")

        assert len(run.artifact("train").load()) == ROWS - 5
        assert len(run.artifact("test").load()) == len(rows)
        assert run.metrics["rows/duplicates"] == 10
        assert run.metrics["rows/without_target"] == 5
        assert "10 rows of test are there twice, and stay" in warnings_of(run)

    def test_a_target_of_numbers_in_text_becomes_numbers(
        self, table: pd.DataFrame, tracked: Tracked
    ) -> None:
        test = table.drop(columns="price")

        _, run = tracked("clean", table=table, test=test, target="price")

        np.testing.assert_array_equal(
            run.artifact("train").load()["price"], table["price"].astype(float)
        )
        assert "price" not in run.artifact("test").load()

    @pytest.mark.parametrize("kinds", [["a"] + ["b"] * (ROWS - 1), ["a"] * ROWS, None])
    def test_a_class_of_one_row_or_of_all_is_no_error(
        self, kinds: list[str] | None, table: pd.DataFrame, tracked: Tracked
    ) -> None:
        table["late"] = kinds or [f"k{i % 7}" for i in range(ROWS)]

        _, run = tracked("clean", table=table, target="late")

        assert len(run.artifact("train").load()) == ROWS
        assert ("the same in all rows" in warnings_of(run)) == (kinds == ["a"] * ROWS)


def test_a_class_for_each_of_a_few_rows_is_no_error(tracked: Tracked) -> None:
    rows = pd.DataFrame({"word": list("aabbccdd"), "y": list("stuvwxyz")})

    _, run = tracked("clean", table=rows, target="y", max_categories=2)

    assert len(run.artifact("train").load()) == 8


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"target": "lat"}, "no column 'lat'; did you mean 'late'"),
        ({"drop": "amont"}, "no column 'amont'; did you mean 'amount'"),
        ({"drop": ["late"], "target": "late"}, "is the target and in drop="),
        ({"encoding": "target"}, "needs a target"),
        ({"encoding": "hot"}, "encoding='hot' is not known"),
        ({"max_categories": 1}, "max_categories=1 is too few"),
        ({"target": "empty"}, "no row has a target 'empty'"),
        (
            {"drop": ["amount", "price", "day", "time", "kind", "shop", "late"]},
            "no column is left",
        ),
    ],
)
def test_bad_input_is_refused_with_a_way_out(
    values: dict[str, Any], said: str, table: pd.DataFrame, tracked: Tracked
) -> None:
    with pytest.raises(rayml.SpecError) as refused:
        tracked("clean", table=table.assign(empty=None), **values)

    assert said in str(refused.value)


def test_several_levels_of_names_become_one(table: pd.DataFrame, tracked: Tracked) -> None:
    levels = pd.MultiIndex.from_tuples([("all", name) for name in table])

    _, run = tracked("clean", table=table.set_axis(levels, axis=1))

    assert "('all', 'price')" in set(run.artifact("columns").load()["column"])


def test_no_rows_and_a_test_without_a_column_are_refused(
    table: pd.DataFrame, tracked: Tracked
) -> None:
    with pytest.raises(rayml.SpecError, match="0 rows"):
        tracked("clean", table=table.head(0))
    with pytest.raises(rayml.SpecError, match="lacks 1 of the 7 columns that are used"):
        tracked("clean", table=table, test=table.drop(columns="kind"))
