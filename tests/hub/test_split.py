"""`split`: which rows are where, and what leaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

import rayml
from tests.hub.calls import warnings_of

if TYPE_CHECKING:
    from tests.hub.calls import Tracked

ROWS = 1_000


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "row": range(ROWS),
            "amount": rng.normal(size=ROWS),
            "customer": rng.integers(0, 40, ROWS),
            "day": pd.date_range("2024-01-01", periods=ROWS // 4).repeat(4),
            "kind": rng.choice(["a", "b", "c"], ROWS, p=[0.7, 0.25, 0.05]),
        }
    )


def parts_of(run: rayml.Run) -> dict[str, pd.DataFrame]:
    names = ("train", "validation", "test")
    return {name: run.artifact(name).load() for name in names if name in run.artifacts}


WAYS = [
    {"by": "random"},
    {"by": "stratified", "target": "kind"},
    {"by": "stratified", "target": "amount"},
    {"by": "time", "time": "day"},
    {"by": "group", "group": "customer"},
]


@pytest.mark.parametrize("way", WAYS)
def test_each_row_is_in_one_part_in_the_tables_order(
    way: dict[str, str], table: pd.DataFrame, tracked: Tracked
) -> None:
    sizes, run = tracked("split", table=table, validation_size=0.1, **way)

    parts = parts_of(run)
    assert list(parts) == ["train", "validation", "test"]
    assert {name: len(part) for name, part in parts.items()} == sizes
    assert sorted(np.concatenate([part["row"] for part in parts.values()])) == list(range(ROWS))
    for part in parts.values():
        expected = table.iloc[part["row"]].reset_index(drop=True)
        pd.testing.assert_frame_equal(part, expected, check_dtype=False)
        assert part["row"].is_monotonic_increasing
    assert sizes["test"] == pytest.approx(200, abs=30)
    assert sizes["validation"] == pytest.approx(100, abs=30)
    shown = run.artifact("sizes").load().set_index("part")["rows"]
    assert shown.to_dict() == sizes
    assert {name: run.metrics[f"rows/{name}"] for name in sizes} == sizes


def test_a_seed_gives_the_same_parts_and_another_one_others(
    table: pd.DataFrame, tracked: Tracked
) -> None:
    first, again, other = (
        set(parts_of(tracked("split", table=table, seed=seed)[1])["test"]["row"])
        for seed in (1, 1, 2)
    )

    assert first == again != other


def test_stratified_parts_have_the_shares_of_the_whole(tracked: Tracked) -> None:
    data = load_breast_cancer(as_frame=True).frame

    _, run = tracked("split", table=data, by="stratified", target="target", validation_size=0.2)

    share = data["target"].mean()
    for name, part in parts_of(run).items():
        assert part["target"].mean() == pytest.approx(share, abs=0.01)
        assert run.metrics[f"target/{name}/1"] == pytest.approx(part["target"].mean())
    assert run.metrics["leaks/disguised_columns"] == 0
    shown = run.artifact("target").load().set_index("class")
    assert shown.loc["1", "test"] == pytest.approx(share, abs=0.01)


def test_numbers_are_stratified_by_their_size(tracked: Tracked) -> None:
    data = load_diabetes(as_frame=True).frame

    _, run = tracked("split", table=data, by="stratified", target="target")

    parts = parts_of(run)
    for share in (0.25, 0.5, 0.75):
        middle = data["target"].quantile(share)
        assert (parts["test"]["target"] <= middle).mean() == pytest.approx(share, abs=0.03)
    assert run.metrics["target/test/mean"] == pytest.approx(parts["test"]["target"].mean())


def test_a_class_of_one_row_is_learnt_from_with_a_warning(
    table: pd.DataFrame, tracked: Tracked
) -> None:
    table.loc[17, "kind"] = "rare"

    _, run = tracked("split", table=table, by="stratified", target="kind")

    assert 17 in set(parts_of(run)["train"]["row"])
    assert "1 classes of 'kind' have a single row, which is in train: 'rare'" in warnings_of(run)


def test_as_many_classes_as_rows_can_be_stratified(tracked: Tracked) -> None:
    data = pd.DataFrame({"word": [f"w{i}" for i in range(50_000)] * 2})

    sizes, _ = tracked("split", table=data, by="stratified", target="word")

    assert sizes == {"train": 80_000, "test": 20_000}


@pytest.mark.parametrize("written", ["as it is", "%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "number"])
def test_the_latest_rows_are_to_test_with_however_the_time_is_written(
    written: str, table: pd.DataFrame, tracked: Tracked
) -> None:
    if written == "number":
        table["day"] = table["day"].astype("int64")
    elif "%" in written:
        table["day"] = table["day"].dt.strftime(written)
    mixed_up = table.sample(frac=1, random_state=0)

    _, run = tracked("split", table=mixed_up, by="time", time="day", validation_size=0.2)

    parts = parts_of(run)
    assert set(parts["test"]["row"]) == set(range(800, 1000))
    assert set(parts["validation"]["row"]) == set(range(600, 800))
    assert run.metrics["leaks/future_rows"] == 0


def test_rows_of_one_moment_stay_together_and_those_without_are_left_out(
    table: pd.DataFrame, tracked: Tracked
) -> None:
    table.loc[:9, "day"] = None

    sizes, run = tracked("split", table=table, by="time", time="day", test_size=0.111)

    parts = parts_of(run)
    assert parts["train"]["day"].max() < parts["test"]["day"].min()
    assert sum(sizes.values()) == ROWS - 10
    assert "10 rows have no 'day' and are in no part" in warnings_of(run)


def test_groups_stay_together_and_rows_without_one_go_alone(
    table: pd.DataFrame, tracked: Tracked
) -> None:
    table["customer"] = table["customer"].astype("float").where(table["row"] >= 100)

    _, run = tracked("split", table=table, by="group", group="customer")

    parts = parts_of(run)
    train, test = (set(parts[name]["customer"].dropna()) for name in ("train", "test"))
    assert train.isdisjoint(test)
    assert train | test == set(table["customer"].dropna())
    alone = [int(parts[name]["customer"].isna().sum()) for name in ("train", "test")]
    assert all(alone)
    assert sum(alone) == 100


def test_groups_that_are_too_large_for_their_part_are_told(
    table: pd.DataFrame, tracked: Tracked
) -> None:
    table["customer"] = ["large"] * 499 + ["small"] * 2 + ["huge"] * 499

    sizes, run = tracked("split", table=table, by="group", group="customer", target="kind")

    assert sizes["test"] == 2
    assert "test has 0.2% of the rows, and 20% were asked for" in warnings_of(run)
    assert run.metrics["leaks/disguised_columns"] == 0


class TestLeaks:
    def test_rows_that_are_there_twice_are_counted(
        self, table: pd.DataFrame, tracked: Tracked
    ) -> None:
        twice = pd.concat([table, table.iloc[:300]])

        _, run = tracked("split", table=twice)

        parts = parts_of(run)
        both = parts["test"]["row"].isin(parts["train"]["row"]).sum()
        assert run.metrics["leaks/same_rows"] == both > 0
        assert f"{both} rows of test" in warnings_of(run)

    def test_groups_on_both_sides_and_rows_of_the_future_are_counted(
        self, table: pd.DataFrame, tracked: Tracked
    ) -> None:
        _, run = tracked("split", table=table, time="day", group="customer")

        parts = parts_of(run)
        both = set(parts["train"]["customer"]) & set(parts["test"]["customer"])
        assert run.metrics["leaks/same_groups"] == len(both)
        later = (parts["train"]["day"] > parts["test"]["day"].min()).sum()
        assert run.metrics["leaks/future_rows"] == later > 0

    def test_columns_that_are_the_target_in_disguise_are_named_and_others_not(
        self, table: pd.DataFrame, tracked: Tracked
    ) -> None:
        table["copy"] = table["kind"].str.upper()
        table["code"] = table["kind"].map({"a": 7, "b": 3, "c": 5})
        table["score"] = table["code"] + np.random.default_rng(1).uniform(-0.4, 0.4, ROWS)
        table["honest"] = table["code"] + np.random.default_rng(1).normal(scale=2, size=ROWS)

        _, run = tracked("split", table=table, target="kind")

        assert run.metrics["leaks/disguised_columns"] == 3
        named = [line.split("'")[1] for line in warnings_of(run).splitlines() if "itself" in line]
        assert named == ["copy", "code", "score"]

    def test_numbers_that_are_the_target_in_disguise_are_named(
        self, table: pd.DataFrame, tracked: Tracked
    ) -> None:
        table["twice"] = 2 * table["amount"] + 1
        table["power"] = np.exp(-table["amount"])
        table["near"] = table["amount"] + np.random.default_rng(1).normal(size=ROWS)

        _, run = tracked("split", table=table, target="amount")

        assert run.metrics["leaks/disguised_columns"] == 2


class TestBadInput:
    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"target": "kimd"}, "no column 'kimd' (target); did you mean 'kind'"),
            ({"by": "group"}, "by='group' needs a column; name it in group="),
            ({"by": "stratified"}, "name it in target="),
            ({"by": "time", "time": "kind"}, "values that are no times, such as"),
            ({"by": "group", "group": "one"}, "1 group, too few for 2 parts"),
            ({"by": "time", "time": "one"}, "different times"),
            ({"target": "empty"}, "no value in any row"),
            ({"by": "stratified", "target": "lists"}, "holds lists or dicts"),
            ({"test_size": 1.5}, "test_size=1.5 is no share"),
            ({"test_size": 0.6, "validation_size": 0.4}, "leaves nothing to train with"),
        ],
    )
    def test_it_is_refused_with_a_way_out(
        self, values: dict[str, Any], said: str, table: pd.DataFrame, tracked: Tracked
    ) -> None:
        lists = pd.Series([[1], [2]] * (ROWS // 2))
        with pytest.raises(rayml.SpecError) as refused:
            tracked("split", table=table.assign(one=1, empty=None, lists=lists), **values)

        assert said in str(refused.value)

    @pytest.mark.parametrize("rows", [0, 1])
    def test_too_few_rows_are_refused(
        self, rows: int, table: pd.DataFrame, tracked: Tracked
    ) -> None:
        with pytest.raises(rayml.SpecError, match=f"{rows} rows"):
            tracked("split", table=table.head(rows))

    def test_two_columns_of_a_name_are_refused(
        self, table: pd.DataFrame, tracked: Tracked
    ) -> None:
        with pytest.raises(rayml.SpecError, match="two columns called 'row'"):
            tracked("split", table=pd.concat([table, table[["row"]]], axis=1))

    def test_several_levels_of_names_become_one(
        self, table: pd.DataFrame, tracked: Tracked
    ) -> None:
        levels = pd.MultiIndex.from_tuples([("all", name) for name in table])

        _, run = tracked("split", table=table.set_axis(levels, axis=1))

        assert list(parts_of(run)["train"]) == [str(names) for names in levels]

    def test_mixed_types_become_text_and_a_constant_target_is_told(
        self, table: pd.DataFrame, tracked: Tracked
    ) -> None:
        odd = table.assign(mixed=[1, "a"] * (ROWS // 2), kind="a", lists=pd.Series([[1]] * ROWS))
        odd["endless"] = np.where(odd["row"] % 10 == 0, np.inf, odd["row"])
        odd["gone"] = pd.Series(pd.array([1, None] * (ROWS // 2), dtype="Int64"))
        odd.loc[:5, "day"] = None

        _, run = tracked("split", table=odd, by="stratified", target="kind")

        assert set(parts_of(run)["train"]["mixed"]) == {"1", "a"}
        assert "kept as text: 'mixed'" in warnings_of(run)
        assert "'kind' is the same in all rows" in warnings_of(run)
