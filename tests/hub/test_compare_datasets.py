"""Drift between two tables, against what scipy and a hand computation say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

import rayml

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hub.calls import Tracked

RANDOM = np.random.default_rng(0)
REFERENCE = pd.DataFrame(
    {
        "same": RANDOM.normal(size=4000),
        "moved": RANDOM.normal(size=4000),
        "colour": RANDOM.choice(["red", "green"], 4000),
        "is_open": RANDOM.random(4000) < 0.5,
        "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(RANDOM.random(4000) * 30, "D"),
    }
)
TABLE = pd.DataFrame(
    {
        "same": RANDOM.normal(size=3000),
        "moved": RANDOM.normal(1, size=3000),
        "colour": RANDOM.choice(["red", "blue"], 3000),
        "is_open": RANDOM.random(3000) < 0.5,
        "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(RANDOM.random(3000) * 30, "D"),
    }
)


def test_each_column_gets_a_verdict(tracked: Tracked) -> None:
    result, run = tracked("compare_datasets", table=TABLE, reference=REFERENCE)
    verdicts = {name: found["verdict"] for name, found in result["columns"].items()}
    assert verdicts == {
        "same": "stable",
        "moved": "drifted",
        "colour": "drifted",
        "is_open": "stable",
        "when": "stable",
    }
    assert result["drifted"] == ["colour", "moved"]
    assert run.metrics["drifted_share"] == pytest.approx(0.4)
    assert run.metrics["compared_columns"] == 5
    table = run.artifact("drift").load().set_index("column")
    assert table["verdict"].to_dict() == verdicts
    assert {"drift_by_column", "drift_distributions", "drift.html"} <= set(run.artifacts)


def test_measures_are_those_of_their_definitions(tracked: Tracked) -> None:
    result, _ = tracked("compare_datasets", table=TABLE, reference=REFERENCE)
    found = result["columns"]["moved"]
    edges = np.quantile(REFERENCE["moved"], np.arange(1, 10) / 10, method="inverted_cdf")
    limits = [-np.inf, *edges, np.inf]
    first, second = (
        pd.cut(frame["moved"], limits).value_counts(sort=False).to_numpy() / len(frame)
        for frame in (REFERENCE, TABLE)
    )
    assert found["bins"]["reference"] == pytest.approx(first)
    assert found["bins"]["table"] == pytest.approx(second)
    assert found["psi"] == pytest.approx(((second - first) * np.log(second / first)).sum())
    assert found["js"] == pytest.approx(jensenshannon(first, second, base=2))
    assert found["tv"] == pytest.approx(np.abs(first - second).sum() / 2)
    ks = stats.ks_2samp(REFERENCE["moved"], TABLE["moved"])
    assert found["ks"] == pytest.approx(ks.statistic)
    counts = pd.concat([REFERENCE, TABLE], keys=["reference", "table"]).reset_index(level=0)
    chi2 = stats.chi2_contingency(pd.crosstab(counts["level_0"], counts["colour"]))
    assert result["columns"]["colour"]["chi2"] == pytest.approx(chi2.statistic)


def test_new_and_lost_categories_are_named(tracked: Tracked) -> None:
    result, run = tracked("compare_datasets", table=TABLE, reference=REFERENCE)
    found = result["columns"]["colour"]
    assert (found["new_categories"], found["lost_categories"]) == (["blue"], ["green"])
    assert found["new_share"] == pytest.approx((TABLE["colour"] == "blue").mean())
    rows = run.artifact("drift_categories").load()
    assert set(rows.itertuples(index=False, name=None)) == {
        ("colour", "blue", "new"),
        ("colour", "green", "lost"),
    }
    assert any("such as blue" in text for text in result["warnings"])


def test_columns_may_come_go_and_change_their_type(tracked: Tracked) -> None:
    changed = TABLE.rename(columns={"same": "other"}).assign(moved=TABLE["colour"])
    result, run = tracked("compare_datasets", table=changed, reference=REFERENCE)
    verdicts = {name: found["verdict"] for name, found in result["columns"].items()}
    assert (verdicts["same"], verdicts["other"], verdicts["moved"]) == ("gone", "new", "retyped")
    # of five columns of the reference: one is gone, one has another type, and the colours drifted
    assert run.metrics["drifted_share"] == pytest.approx(3 / 5)
    assert (run.metrics["missing_columns"], run.metrics["new_columns"]) == (1, 1)


def test_values_that_go_missing_are_drift(tracked: Tracked) -> None:
    holes = REFERENCE.assign(
        same=REFERENCE["same"].where(np.random.default_rng(1).random(4000) > 0.4)
    )
    result, _ = tracked("compare_datasets", table=holes, reference=REFERENCE)
    found = result["columns"]["same"]
    assert (found["verdict"], found["bins"]["labels"][-1]) == ("drifted", "(missing)")
    assert found["missing_table"] == pytest.approx(0.4, abs=0.05)
    gone, _ = tracked("compare_datasets", table=REFERENCE.assign(same=np.nan), reference=REFERENCE)
    assert gone["columns"]["same"]["verdict"] == "drifted"


def test_few_rows_that_differ_by_chance_raise_no_alarm(tracked: Tracked) -> None:
    few, many = REFERENCE[["same"]].head(25), REFERENCE[["same"]]
    result, _ = tracked("compare_datasets", table=few, reference=many, threshold=0.1)
    found = result["columns"]["same"]
    assert found["psi"] > 0.1
    assert "chance" in found["reason"]
    assert found["verdict"] == "stable"


def test_threshold_and_measure_can_be_chosen(tracked: Tracked) -> None:
    given = {"table": TABLE, "reference": REFERENCE}
    strict, _ = tracked("compare_datasets", **given, measure="tv", threshold=0.9)
    assert not strict["drifted"]
    assert strict["columns"]["moved"]["measure"] == strict["columns"]["moved"]["tv"]
    ignored, _ = tracked("compare_datasets", **given, ignore=["colour"])
    assert ignored["drifted"] == ["moved"]


def test_a_value_that_most_rows_have_is_a_bin_of_its_own(tracked: Tracked) -> None:
    zeros = pd.DataFrame({"rain": np.maximum(np.random.default_rng(1).random(4000) - 0.9, 0)})
    below = zeros.where(zeros > 0, -1)
    result, _ = tracked("compare_datasets", table=below, reference=zeros)
    assert result["columns"]["rain"]["tv"] == pytest.approx(0.9, abs=0.02)


def test_parquet_folder_is_read_as_the_frame_is(tmp_path: Path, tracked: Tracked) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    TABLE.head(1000).to_parquet(folder / "a.parquet", index=False)
    TABLE.tail(2000).to_parquet(folder / "b.parquet", row_group_size=300)  # with its index
    result, _ = tracked("compare_datasets", table=folder, reference=REFERENCE)
    whole, _ = tracked("compare_datasets", table=TABLE, reference=REFERENCE)
    assert result["rows"] == whole["rows"]
    assert list(result["columns"]) == list(whole["columns"])
    for name, found in whole["columns"].items():
        assert result["columns"][name]["psi"] == pytest.approx(found["psi"]), name


def test_columns_of_dask_are_compared_as_the_whole(tracked: Tracked) -> None:
    import dask.dataframe as dd

    parts = dd.from_pandas(TABLE, npartitions=3)
    result, _ = tracked("compare_datasets", table=parts, reference=REFERENCE)
    whole, _ = tracked("compare_datasets", table=TABLE, reference=REFERENCE)
    assert {name: found["psi"] for name, found in result["columns"].items()} == pytest.approx(
        {name: found["psi"] for name, found in whole["columns"].items()}
    )


def test_part_without_a_column_counts_as_missing(tmp_path: Path, tracked: Tracked) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    pq.write_table(pa.table({"x": [1, 2, 3], "y": [1.5, 2.5, 3.5]}), folder / "a.parquet")
    pq.write_table(pa.table({"x": [1.0, 2.0, 3.0]}), folder / "b.parquet")
    result, _ = tracked(
        "compare_datasets", table=folder, reference=pd.DataFrame({"x": [1], "y": [2.0]})
    )
    assert result["columns"]["y"]["missing_table"] == pytest.approx(0.5)
    assert result["columns"]["x"]["type_table"] == "double"


@pytest.mark.parametrize(
    ("column", "other", "verdict"),
    [
        ([None] * 200, [None] * 200, "skipped"),
        ([f"id-{i}" for i in range(200)], [f"id-{i}" for i in range(200, 400)], "skipped"),
        ([[1]] * 200, [[2]] * 200, "skipped"),
        ([1, "a"] * 100, [1, "a"] * 100, "stable"),
        ([7] * 200, [7] * 200, "stable"),
        ([np.inf, 1.0] * 100, [np.inf, 1.0] * 100, "stable"),
        (list(range(50_000)), [str(i) for i in range(50_000)], "retyped"),
    ],
)
def test_odd_columns_get_a_sensible_verdict(
    tracked: Tracked, column: list[Any], other: list[Any], verdict: str
) -> None:
    tables = {"reference": pd.DataFrame({"x": column}), "table": pd.DataFrame({"x": other})}
    result, _ = tracked("compare_datasets", **tables)
    assert result["columns"]["x"]["verdict"] == verdict


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"table": TABLE.head(0)}, "table has 0 rows"),
        ({"reference": REFERENCE.head(0)}, "reference has 0 rows"),
        ({"table": TABLE.add_suffix("_2")}, "no column in common"),
        ({"ignore": ["color"]}, "is it colour"),
        ({"measure": "kl"}, "measure='kl'"),
        ({"threshold": 0}, "threshold=0"),
        ({"table": pd.concat([TABLE, TABLE], axis=1)}, "two columns of one name"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(
    tracked: Tracked, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(rayml.SpecError, match=message):
        tracked("compare_datasets", **{"table": TABLE, "reference": REFERENCE} | given)


def test_report_is_one_page_that_asks_the_web_for_nothing(tracked: Tracked) -> None:
    frames = [frame.rename(columns={"colour": "<b>"}) for frame in (TABLE, REFERENCE)]
    _, run = tracked("compare_datasets", table=frames[0], reference=frames[1])
    page = run.artifact("drift.html").load().decode()
    assert "http" not in page
    assert "&lt;b&gt;" in page
    assert "<b><b>" not in page
    assert len(page) < 100_000
