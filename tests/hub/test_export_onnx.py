"""ONNX files: that they predict the same, and what is said of a model that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from lightgbm import Dataset, LGBMClassifier, LGBMRegressor
from lightgbm import train as train_lightgbm
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler, TargetEncoder
from xgboost import DMatrix, XGBClassifier, XGBRegressor
from xgboost import train as train_xgboost

import rayml

if TYPE_CHECKING:
    from tests.hub.calls import Tracked

pytestmark = pytest.mark.usefixtures("own_store")

NUMBERS, TAKES = ["a", "b", "n"], ["a", "b", "n", "town"]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    found = pd.DataFrame({"a": rng.normal(size=500), "b": rng.normal(size=500) * 100})
    found["n"] = rng.integers(0, 9, size=500)
    found["town"] = rng.choice(["Bonn", "Köln", "Ulm"], size=500)
    return found


@pytest.fixture(scope="module")
def late(rows: pd.DataFrame) -> pd.Series[Any]:
    return (rows.a + (rows.town == "Bonn") > 0.3).map({True: "yes", False: "no"})


def columns(encoder: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    return make_column_transformer((numbers, NUMBERS), (encoder, ["town"]))


def told(run: rayml.Run, fed: dict[str, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(str(run.artifact("model.onnx").path()))
    return [np.asarray(one) for one in session.run(None, fed)]


def log(model: object, example: object, **datasets: object) -> rayml.Artifact:
    with rayml.start_run("train") as context:
        for name, data in datasets.items():
            context.log_dataset(name, data)
        return context.log_model("model", model, input_example=example)


@pytest.mark.parametrize(
    "last",
    [
        LogisticRegression(),
        RandomForestClassifier(5, random_state=0),
        LGBMClassifier(n_estimators=5, verbose=-1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_text_and_numbers_have_an_input_each_and_the_same_predictions(
    last: Any, tracked: Tracked, rows: pd.DataFrame, late: Any
) -> None:
    model = make_pipeline(columns(OneHotEncoder(handle_unknown="ignore")), last).fit(rows, late)

    result, run = tracked("export_onnx", model=log(model, rows.head()), sample=rows)

    fed = {name: rows[[name]].to_numpy(np.float32) for name in NUMBERS}
    label, chances = told(run, fed | {"town": rows[["town"]].to_numpy(object)})
    assert label.tolist() == model.predict(rows).tolist()
    np.testing.assert_allclose(chances, model.predict_proba(rows), atol=1e-5)
    assert result["max_difference"] < 1e-5
    assert result["same_class"] == 1
    assert result["checked_rows"] == 500
    signature = run.artifact("signature").to_pandas()
    assert signature.name.tolist() == [*TAKES, "label", "probabilities"]
    made = onnx.load(run.artifact("model.onnx").path())
    assert {one.key: one.value for one in made.metadata_props}["rayml.model"].endswith("/model")


@pytest.mark.parametrize(
    "model",
    [
        LinearRegression(),
        LGBMRegressor(n_estimators=5, verbose=-1),
        XGBRegressor(n_estimators=5),
    ],
    ids=lambda model: type(model).__name__,
)
def test_numbers_alone_are_one_input(model: Any, tracked: Tracked, rows: pd.DataFrame) -> None:
    model.fit(rows[NUMBERS], rows.a * 3 + rows.n)

    _, run = tracked("export_onnx", model=log(model, rows[NUMBERS].head()))

    (said,) = told(run, {"input": rows[NUMBERS].to_numpy(np.float32)})
    np.testing.assert_allclose(said[:, 0], model.predict(rows[NUMBERS]), rtol=1e-4, atol=1e-4)


def test_an_encoder_that_knows_the_target(tracked: Tracked, rows: pd.DataFrame, late: Any) -> None:
    model = make_pipeline(columns(TargetEncoder()), LogisticRegression()).fit(rows, late)

    result, _ = tracked("export_onnx", model=log(model, rows.head()), sample=rows)

    assert result["same_class"] == 1


def test_missing_text_is_told_where_onnx_has_no_value_for_it(
    tracked: Tracked, rows: pd.DataFrame, late: Any
) -> None:
    gaps = rows.copy()
    gaps.loc[::5, "town"] = None
    model = make_pipeline(columns(OneHotEncoder(handle_unknown="ignore")), LogisticRegression())
    model.fit(gaps, late)

    result, run = tracked("export_onnx", model=log(model, gaps.head()), sample=gaps)

    assert result["checked_rows"] == 400
    assert "100 of 500 rows have missing text" in run.artifact("warnings").to_pandas().warning[0]


def test_classes_of_xgboost(tracked: Tracked, rows: pd.DataFrame) -> None:
    model = XGBClassifier(n_estimators=5).fit(rows[NUMBERS], rows.n % 3)

    _, run = tracked("export_onnx", model=log(model, rows[NUMBERS].head()), sample=rows)

    label, chances = told(run, {"input": rows[NUMBERS].to_numpy(np.float32)})
    np.testing.assert_allclose(chances, model.predict_proba(rows[NUMBERS]), atol=1e-5)
    assert label.tolist() == model.predict(rows[NUMBERS]).tolist()


def test_yes_and_no(tracked: Tracked, rows: pd.DataFrame) -> None:
    model = LogisticRegression().fit(rows[NUMBERS], rows.a > 0)

    result, _ = tracked("export_onnx", model=log(model, rows[NUMBERS].head()), sample=rows)

    assert result["same_class"] == 1


def test_boosters(tracked: Tracked, rows: pd.DataFrame) -> None:
    target = rows.a * 3 + rows.n
    light = train_lightgbm({"verbose": -1}, Dataset(rows[NUMBERS], target), 5)
    extreme = train_xgboost({}, DMatrix(rows[NUMBERS], target), 5)
    for model in (light, extreme):
        result, _ = tracked("export_onnx", model=log(model, rows[NUMBERS].head()), sample=rows)
        assert result["checked_rows"] == 500


def test_a_network(tracked: Tracked, rows: pd.DataFrame) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    saved = log(model, rows[NUMBERS].head().astype("float32"))

    result, run = tracked("export_onnx", model=saved, sample=rows, trusted=True)

    values = rows[NUMBERS].to_numpy(np.float32)
    np.testing.assert_allclose(
        told(run, {"input": values})[0], model(torch.tensor(values)).detach(), rtol=1e-4, atol=1e-4
    )
    assert result["checked_rows"] == 500
    with pytest.raises(rayml.SpecError, match="trust"):
        tracked("export_onnx", model=saved)


def test_rows_of_a_dataset_of_the_models_run_are_checked(
    tracked: Tracked, rows: pd.DataFrame, late: Any
) -> None:
    model = LogisticRegression().fit(rows[NUMBERS], late)

    result, _ = tracked("export_onnx", model=log(model, rows[NUMBERS].head(), table=rows))

    assert result["checked_rows"] == 500


def test_an_older_opset(tracked: Tracked, rows: pd.DataFrame, late: Any) -> None:
    model = LogisticRegression().fit(rows[NUMBERS], late)

    _, run = tracked("export_onnx", model=log(model, rows[NUMBERS].head()), opset=15)

    opsets = onnx.load(run.artifact("model.onnx").path()).opset_import
    assert {one.domain: one.version for one in opsets}.get("", 15) <= 15


class TestRefusals:
    def test_what_is_no_model(self, tracked: Tracked, rows: pd.DataFrame) -> None:
        with pytest.raises(rayml.SpecError, match="no artifact"):
            tracked("export_onnx", model=__file__)
        with rayml.start_run("data") as context:
            data = context.log_dataset("rows", rows)
        with pytest.raises(rayml.SpecError, match="the dataset"):
            tracked("export_onnx", model=data)

    def test_a_step_that_onnx_does_not_know_is_named(
        self, tracked: Tracked, rows: pd.DataFrame, late: Any
    ) -> None:
        model = make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=2))
        model.fit(rows[NUMBERS], late)
        with pytest.raises(rayml.SpecError, match="'histgradientboostingclassifier'"):
            tracked("export_onnx", model=log(model, rows[NUMBERS].head()))

    def test_an_encoder_in_columns_is_named(
        self, tracked: Tracked, rows: pd.DataFrame, late: Any
    ) -> None:
        bends = make_column_transformer((SplineTransformer(), NUMBERS))
        model = make_pipeline(bends, LogisticRegression()).fit(rows, late)
        with pytest.raises(rayml.SpecError, match="splinetransformer"):
            tracked("export_onnx", model=log(model, rows.head()))

    def test_categories_inside_of_a_booster(
        self, tracked: Tracked, rows: pd.DataFrame, late: Any
    ) -> None:
        typed = rows.astype({"town": "category"})
        model = LGBMClassifier(n_estimators=2, verbose=-1).fit(typed, late)
        with pytest.raises(rayml.SpecError, match="town"):
            tracked("export_onnx", model=log(model, typed.head()))

    def test_no_rows_to_check(self, tracked: Tracked, rows: pd.DataFrame, late: Any) -> None:
        model = LogisticRegression().fit(rows[NUMBERS], late)
        with pytest.raises(rayml.SpecError, match="give sample="):
            tracked("export_onnx", model=log(model, None))
        with pytest.raises(rayml.SpecError, match="lacks 'n'"):
            tracked("export_onnx", model=log(model, rows[NUMBERS].head()), sample=rows[["a", "b"]])
        with pytest.raises(rayml.SpecError, match="no rows"):
            tracked("export_onnx", model=log(model, rows[NUMBERS].head()), sample=rows[:0])

    def test_times(self, tracked: Tracked, rows: pd.DataFrame, late: Any) -> None:
        model = LogisticRegression().fit(rows[NUMBERS], late)
        sample = rows.assign(n=pd.Timestamp("2026-01-01"))
        with pytest.raises(rayml.SpecError, match="times"):
            tracked("export_onnx", model=log(model, rows[NUMBERS].head()), sample=sample)

    def test_predictions_that_differ_log_no_file(
        self, tracked: Tracked, rows: pd.DataFrame, late: Any
    ) -> None:
        model = LinearRegression().fit(rows[NUMBERS], rows.a + rows.b / 3)
        saved = log(model, rows[NUMBERS].head())
        with pytest.raises(rayml.SpecError, match="tolerance is 1e-12"):
            tracked("export_onnx", model=saved, sample=rows, tolerance=1e-12)
        (run,) = rayml.runs(where="name = 'export_onnx'")
        assert "model.onnx" not in run.artifacts
        assert run.metrics["max_difference"] > 1e-12
