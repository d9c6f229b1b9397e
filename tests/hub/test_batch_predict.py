"""Predictions over tables: what comes out, in which order, and what is refused before the work."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from lightgbm import LGBMClassifier
from obstore.store import S3Store
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import rayml
from tests.s3 import BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.hub.calls import Tracked

pytestmark = [
    pytest.mark.ray,
    pytest.mark.s3,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]
NUMBERS = ["a", "b"]


@pytest.fixture(scope="module", autouse=True)
def local_ray(s3_environment: dict[str, str]) -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """5,000 rows in which text and numbers tell a class."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"a": rng.normal(size=5000), "b": rng.normal(size=5000)})
    rows["town"] = rng.choice(["Bonn", "Köln", "Ulm"], size=5000)
    rows["row"] = range(5000)
    told = rows.a + (rows.town == "Bonn") + rng.normal(scale=0.5, size=5000) > 0.3
    return rows.assign(late=np.where(told, "yes", "no"))


@pytest.fixture(scope="module")
def mixed(frame: pd.DataFrame) -> Any:
    columns = make_column_transformer((StandardScaler(), NUMBERS), (OneHotEncoder(), ["town"]))
    return make_pipeline(columns, LogisticRegression()).fit(frame[[*NUMBERS, "town"]], frame.late)


@pytest.fixture
def logged(tmp_path: Path) -> Callable[..., rayml.Artifact]:
    """Log a model to the test's store."""

    def log(model: object, example: object = None, **options: Any) -> rayml.Artifact:
        with rayml.start_run("train") as context:
            return context.log_model("model", model, input_example=example, **options)

    return log


class TestPredictions:
    def test_a_folder_of_parquet_is_predicted_in_order_with_probabilities_and_scores(
        self, tracked: Tracked, logged: Any, mixed: Any, frame: pd.DataFrame, tmp_path: Path
    ) -> None:
        folder = tmp_path / "table"
        folder.mkdir()
        for place, start in enumerate(range(0, 5000, 1000)):
            part = frame[start : start + 1000]
            part.to_parquet(folder / f"{place}.parquet", row_group_size=400, index=False)
        takes = [*NUMBERS, "town"]
        model = logged(mixed, frame[takes].head())

        result, run = tracked("batch_predict", model=model, table=folder, target="late")

        found = run.artifact("predictions").to_pandas()
        chances = mixed.predict_proba(frame[takes])
        pd.testing.assert_frame_equal(found[list(frame)], frame)
        assert found.prediction.tolist() == mixed.predict(frame[takes]).tolist()
        np.testing.assert_allclose(found[["probability_no", "probability_yes"]], chances)
        truth, said = frame.late, found.prediction
        assert result["accuracy"] == pytest.approx((truth == said).mean())
        assert result["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, said))
        assert result["f1"] == pytest.approx(f1_score(truth, said, average="macro"))
        assert result["log_loss"] == pytest.approx(log_loss(truth, chances))
        area = roc_auc_score(truth == "yes", chances[:, 1])
        assert result["roc_auc"] == pytest.approx(area, abs=1e-4)
        assert (run.metrics["rows"], run.metrics["failed_rows"]) == (5000, 0)
        assert run.metrics["rows_per_s"] > 0

    def test_text_is_read_as_the_model_knows_it(
        self, tracked: Tracked, logged: Any, tmp_path: Path
    ) -> None:
        rows = pd.DataFrame(
            {"code": ["007", "123", "007", "123"] * 10, "x": [1.0, 2.5, 3.0, 4.5] * 10}
        )
        model = make_pipeline(
            make_column_transformer((OneHotEncoder(), ["code"]), remainder="passthrough"),
            LinearRegression(),
        ).fit(rows, range(40))
        rows.to_csv(tmp_path / "rows.csv.gz", index=False)

        result, run = tracked(
            "batch_predict",
            model=logged(model, rows.head()),
            table=tmp_path / "rows.csv.gz",
            batch_size=7,
        )

        found = run.artifact("predictions").to_pandas()
        np.testing.assert_allclose(found.prediction, model.predict(rows))
        assert found.code.tolist() == rows.code.tolist()
        assert result["rows"] == 40

    def test_a_dataset_artifact_and_kept_columns_alone(
        self, tracked: Tracked, logged: Any, mixed: Any, frame: pd.DataFrame
    ) -> None:
        with rayml.start_run("data") as context:
            data = context.log_dataset("rows", frame)
        takes = [*NUMBERS, "town"]

        _, run = tracked(
            "batch_predict",
            model=logged(mixed, frame[takes].head()).uri,
            table=data.uri,
            keep=["row"],
        )

        found = run.artifact("predictions").to_pandas()
        assert list(found) == ["row", "prediction", "probability_no", "probability_yes"]
        assert found.row.tolist() == list(range(5000))

    @pytest.mark.thorough
    @pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "folder"])
    def test_tables_in_a_bucket(
        self, name: str, tracked: Tracked, logged: Any, mixed: Any, frame: pd.DataFrame
    ) -> None:
        key, few = f"{uuid.uuid4().hex}/{name}", frame[:200]
        data = few.to_csv(index=False).encode() if name == "rows.csv" else few.to_parquet()
        place = f"{key}/part-0.parquet" if name == "folder" else key
        obstore.put(S3Store(BUCKET, client_options={"allow_http": True}), place, data)
        model = logged(mixed, frame[[*NUMBERS, "town"]].head())

        _, run = tracked("batch_predict", model=model, table=f"s3://{BUCKET}/{key}", keep=["row"])

        found = run.artifact("predictions").to_pandas()
        assert found.row.tolist() == few.row.tolist()
        assert found.prediction.tolist() == mixed.predict(few[[*NUMBERS, "town"]]).tolist()

    def test_drift_against_the_rows_that_were_trained_on(
        self, tracked: Tracked, frame: pd.DataFrame
    ) -> None:
        model = LinearRegression().fit(frame[NUMBERS], frame.row)
        rows = frame.assign(b=frame.b + 2)

        _, run = tracked("batch_predict", model=model, table=rows, reference=frame)

        drift = run.artifact("drift").to_pandas().set_index("column").verdict
        assert (drift["a"], drift["b"]) == ("stable", "drifted")

    def test_a_regression_has_its_scores(self, tracked: Tracked, frame: pd.DataFrame) -> None:
        rows = frame.assign(y=frame.a * 2 + frame.b + 1000)
        rows.loc[:9, "y"] = None  # nobody knows
        model = LinearRegression().fit(frame[["a"]], frame.a * 2 + 1000)

        result, _ = tracked("batch_predict", model=model, table=rows, target="y", keep=[])

        known = rows.dropna(subset="y")
        said = model.predict(known[["a"]])
        assert result["scored_rows"] == 4990
        assert result["r2"] == pytest.approx(r2_score(known.y, said))
        assert result["rmse"] == pytest.approx(((known.y - said) ** 2).mean() ** 0.5)
        assert result["mae"] == pytest.approx((known.y - said).abs().mean())

    def test_categories_are_categories_again_and_the_likeliest_class_is_the_prediction(
        self, tracked: Tracked, logged: Any, frame: pd.DataFrame
    ) -> None:
        takes = frame[["a", "town"]].astype({"town": "category"})
        model = LGBMClassifier(n_estimators=5, verbose=-1).fit(takes, frame.late)

        _, run = tracked("batch_predict", model=logged(model, takes.head()), table=frame[::5])

        found = run.artifact("predictions").to_pandas()
        said: Any = model.predict(takes[::5])
        assert found.prediction.tolist() == said.tolist()

    def test_a_pytorch_program_takes_trust_and_numbers(
        self, tracked: Tracked, logged: Any, frame: pd.DataFrame
    ) -> None:
        import torch

        network = torch.nn.Linear(2, 2)
        model = logged(network, frame[NUMBERS].head().astype("float32"))

        _, run = tracked(
            "batch_predict", model=model, table=frame[:100], trusted=True, keep=["row"]
        )

        found = run.artifact("predictions").to_pandas()
        said = network(torch.tensor(frame[NUMBERS][:100].to_numpy()).float()).detach().numpy()
        np.testing.assert_allclose(found[["prediction_0", "prediction_1"]], said, rtol=1e-5)
        with pytest.raises(rayml.SpecError, match="trust"):
            tracked("batch_predict", model=model, table=frame)

    def test_a_model_of_arrays_takes_the_columns_in_their_order(
        self, tracked: Tracked, logged: Any, frame: pd.DataFrame
    ) -> None:
        model = RandomForestClassifier(3).fit(frame[NUMBERS].to_numpy(), frame.late)

        _, run = tracked("batch_predict", model=logged(model), table=frame[NUMBERS], keep=["a"])

        found = run.artifact("predictions").to_pandas()
        assert found.prediction.tolist() == model.predict(frame[NUMBERS].to_numpy()).tolist()


class TestFailures:
    def test_rows_that_fail_are_counted_and_kept_apart(
        self, tracked: Tracked, logged: Any, frame: pd.DataFrame
    ) -> None:
        model = LinearRegression().fit(frame[NUMBERS], frame.row)
        rows = frame.copy()
        rows.loc[[0, 1234, 4999], "a"] = np.nan

        result, run = tracked(
            "batch_predict", model=logged(model, frame[NUMBERS].head()), table=rows
        )

        failed = run.artifact("failed_rows").to_pandas()
        assert failed.row.tolist() == [0, 1234, 4999]
        assert failed.error.str.contains("NaN").all()
        assert (result["rows"], result["failed_rows"]) == (4997, 3)
        assert run.artifact("predictions").to_pandas().row.tolist() == [
            row for row in range(5000) if row not in {0, 1234, 4999}
        ]
        assert "3 rows" in run.artifact("warnings").to_pandas().warning[0]

    def test_the_first_one_ends_the_run_if_that_is_wished(
        self, tracked: Tracked, logged: Any, frame: pd.DataFrame
    ) -> None:
        model = LinearRegression().fit(frame[NUMBERS], frame.row)
        rows = frame.copy()
        rows.loc[4000, "a"] = np.nan
        with pytest.raises(rayml.SpecError, match="NaN"):
            tracked("batch_predict", model=logged(model), table=rows, failed="raise")

    def test_most_rows_failing_ends_the_run(
        self, tracked: Tracked, logged: Any, frame: pd.DataFrame
    ) -> None:
        model = LinearRegression().fit(frame[NUMBERS], frame.row)
        rows = frame.copy()
        rows.loc[50:, "a"] = np.nan
        with pytest.raises(rayml.SpecError, match=r"fails on .* rows"):
            tracked("batch_predict", model=logged(model), table=rows, batch_size=2000)


class TestRefusals:
    @pytest.fixture
    def model(self, logged: Any, mixed: Any, frame: pd.DataFrame) -> rayml.Artifact:
        found: rayml.Artifact = logged(mixed, frame[[*NUMBERS, "town"]].head())
        return found

    @pytest.mark.parametrize(
        ("change", "options", "said"),
        [
            (lambda rows: rows.rename(columns={"town": "towns"}), {}, "did you mean 'towns'"),
            (lambda rows: rows.drop(columns=["a", "b"]), {}, "lacks 'a', 'b'"),
            (lambda rows: rows.assign(a="x"), {}, "'a' is large_string and was float64"),
            (lambda rows: rows.assign(town=1), {}, "'town' is int64"),
            (lambda rows: rows[:0], {}, "no rows"),
            (lambda rows: rows.assign(prediction=1), {}, "'prediction' already"),
            (lambda rows: rows, {"keep": ["rows"]}, "did you mean 'row'"),
            (lambda rows: rows, {"target": "delay"}, "'delay' which is the target"),
            (lambda rows: rows, {"batch_size": 0}, "batch_size is 0"),
            (lambda rows: rows, {"failed": "drop"}, "'apart' or 'raise'"),
            (lambda rows: rows.assign(town="Rom"), {}, "all of the first 100 rows"),
        ],
    )
    def test_a_table_that_does_not_fit_is_refused_before_the_work(
        self,
        change: Any,
        options: dict[str, Any],
        said: str,
        tracked: Tracked,
        model: rayml.Artifact,
        frame: pd.DataFrame,
    ) -> None:
        with pytest.raises(rayml.SpecError, match=said):
            tracked("batch_predict", model=model, table=change(frame), **options)

    def test_what_is_no_model_is_refused(self, tracked: Tracked, frame: pd.DataFrame) -> None:
        with rayml.start_run("data") as context:
            data = context.log_dataset("rows", frame)
        with pytest.raises(rayml.SpecError, match="no model"):
            tracked("batch_predict", model=data, table=frame)
        with pytest.raises(rayml.SpecError, match="no artifact"):
            tracked("batch_predict", model=__file__, table=frame)

    def test_parquet_files_that_disagree_are_refused(
        self, tracked: Tracked, model: rayml.Artifact, tmp_path: Path
    ) -> None:
        folder = tmp_path / "table"
        folder.mkdir()
        pq.write_table(pa.table({"a": [1.0]}), folder / "1.parquet")
        pq.write_table(pa.table({"a": ["x"]}), folder / "2.parquet")
        with pytest.raises(rayml.SpecError, match="disagree"):
            tracked("batch_predict", model=model, table=folder)


def test_a_job_that_holds_all_cpus_predicts_on_all_of_them(
    tracked: Tracked, logged: Any, mixed: Any, frame: pd.DataFrame, tmp_path: Path
) -> None:
    frame.to_parquet(tmp_path / "rows.parquet", row_group_size=500)
    model = logged(mixed, frame[[*NUMBERS, "town"]].head())

    run: Any = rayml.submit(
        "hub://batch_predict",
        inputs={"model": model, "table": tmp_path / "rows.parquet"},
        resources=rayml.Resources(cpus=2),
    )
    run.wait()

    assert (run.metrics["rows"], run.metrics["workers"]) == (5000, 2)
    told = str(rayml.lineage(run.artifact("predictions").uri))
    assert model.uri in told
    assert run.id in told
