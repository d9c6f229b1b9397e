"""The hub function train_sklearn: estimators by name on tables as they are."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline

import rayml
from tests.hub.calls import warnings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hub.calls import Tracked


def mixed(rows: int = 400) -> pd.DataFrame:
    """Return a table with something of everything; each kind of column tells of the target."""
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "size": random.normal(size=rows),
            "count": random.integers(0, 5, rows),
            "colour": random.choice(["red", "green", "blue"], rows),
            "town": [f"town {n}" for n in random.integers(0, 60, rows)],
            "is_new": random.random(rows) < 0.5,
            "day": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(random.integers(0, 500, rows), "D"),
            "text_day": [
                f"2024-{m:02}-10T0{h}:30:00Z"
                for m, h in zip(
                    random.integers(1, 13, rows), random.integers(0, 10, rows), strict=True
                )
            ],
        }
    )
    effect = (
        table["size"]
        + (table["colour"] == "red")
        + (table["day"].dt.day_of_week < 2) * 2
        + table["is_new"]
    )
    table["late"] = np.where(effect + random.normal(size=rows) * 0.3 > 1.2, "yes", "no")
    table.loc[::7, "size"] = np.nan
    table.loc[::11, "colour"] = None
    table.loc[::13, "day"] = pd.NaT
    table["empty"], table["same"], table["key"] = None, 1, [f"k{n}" for n in range(rows)]
    return table


ESTIMATORS = {
    "RandomForestClassifier": {"n_estimators": 30},
    "sklearn.linear_model.LogisticRegression": {},
    "LGBMClassifier": {"n_estimators": 30, "n_jobs": 1},
    "xgboost.XGBClassifier": {"n_estimators": 20, "n_jobs": 1},
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_mixed_table_is_learned_and_the_model_takes_it_as_it_is(
    tracked: Tracked, estimator: str
) -> None:
    table = mixed()
    result, run = tracked(
        "train_sklearn",
        table=table,
        target="late",
        estimator=estimator,
        params=ESTIMATORS[estimator],
    )
    assert result["task"] == "binary"
    assert run.metrics["roc_auc"] > 0.8
    assert run.metrics["rows"] == 80
    model = rayml.load_model(result["model"])
    assert isinstance(model, Pipeline)
    assert list(model.classes_) == ["no", "yes"]
    said = rayml.hub.get("evaluate")(
        model=result["model"], table=table, target="late", resamples=0
    )
    assert said["roc_auc"] > 0.85
    warnings = warnings_of(run)
    for words in ("missing: 'empty'", "same: 'same'", "its own: 'key'"):
        assert words.replace("its own", "own") in warnings


def test_every_step_is_of_a_library_and_is_loaded_without_trust(tracked: Tracked) -> None:
    result, _ = tracked(
        "train_sklearn", table=mixed(), target="late", estimator="LogisticRegression"
    )
    artifact = rayml.artifact(result["model"])
    assert artifact.meta["untrusted_types"] == []
    names = [entry["name"] for entry in artifact.meta["signature"]["inputs"]]
    assert names == ["size", "count", "colour", "town", "is_new", "day", "text_day"]


def test_dates_are_told_by_their_weekday_whatever_their_unit(tracked: Tracked) -> None:
    days = pd.date_range("2022-01-01", periods=1000, freq="D")
    table = pd.DataFrame({"day": days.as_unit("s"), "y": days.day_of_week * 1.0})
    result, run = tracked(
        "train_sklearn", table=table, target="y", estimator="Ridge", params={"alpha": 1e-6}
    )
    assert run.metrics["r2"] > 0.9
    later = pd.date_range("2024-12-01", periods=100, freq="D")
    for unit in ("s", "ns"):
        test = pd.DataFrame({"day": later.as_unit(unit), "y": later.day_of_week * 1.0})
        said = rayml.hub.get("evaluate")(model=result["model"], table=test, target="y")
        assert said["r2"] > 0.9


def test_importances_say_which_part_of_a_column_tells(tracked: Tracked) -> None:
    _, run = tracked("train_sklearn", table=mixed(), target="late", estimator="LogisticRegression")
    table = run.artifact("feature_importances").load()
    assert "size" in set(table["feature"].head(8))
    told = {"colour_red", "is_new", "day trend", "day week 3", "day missing", "town"}
    assert told <= set(table["feature"])
    assert (table["importance"] == table["coefficient"].abs()).all()


def test_text_that_may_be_dates_in_two_ways_stays_text(tracked: Tracked) -> None:
    days = pd.date_range("2024-01-01", periods=300)
    table = pd.DataFrame({"iso": days.strftime("%Y-%m-%d"), "other": days.strftime("%d/%m/%Y")})
    table["x"], table["y"] = range(300), range(300)
    result, run = tracked("train_sklearn", table=table, target="y", estimator="Ridge")
    inputs = rayml.artifact(result["model"]).meta["signature"]["inputs"]
    kinds = {entry["name"]: entry["dtype"] for entry in inputs}
    assert kinds.keys() == {"iso", "x"}
    assert kinds["iso"].startswith("datetime64")
    assert "'other'" in run.artifact("warnings").load()["warning"][0]


def test_what_is_held_out_is_not_learned_and_its_scores_are_logged(tracked: Tracked) -> None:
    table = load_iris(as_frame=True).frame
    result, run = tracked(
        "train_sklearn",
        table=table,
        target="target",
        estimator="DecisionTreeClassifier",
        test_size=0.4,
    )
    assert run.metrics["rows"] == 60
    assert run.artifact("classes").load()["rows"].to_list() == [20, 20, 20]
    assert run.params["rows_train"] == 90
    assert 0.85 < result["accuracy"] < 1
    assert {"roc", "confusion_matrix", "feature_importances"} <= set(run.artifacts)
    again, _ = tracked(
        "train_sklearn",
        table=table,
        target="target",
        estimator="DecisionTreeClassifier",
        test_size=0.4,
    )
    assert again["accuracy"] == result["accuracy"]


def test_a_test_table_is_used_as_it_is(tracked: Tracked) -> None:
    table = load_diabetes(as_frame=True).frame
    train, test = table.iloc[:300], table.iloc[300:]
    result, run = tracked(
        "train_sklearn",
        table=train,
        test=test,
        target="target",
        estimator="LinearRegression",
        drop=["sex"],
    )
    model = rayml.load_model(result["model"])
    features = train.columns.drop(["target", "sex"])
    assert list(model.feature_names_in_) == list(features)
    assert result["r2"] == pytest.approx(model.score(test[features], test["target"]))
    assert run.metrics["rows"] == len(test)


def test_the_model_is_registered_with_its_alias(tracked: Tracked) -> None:
    result, _ = tracked(
        "train_sklearn",
        table=load_iris(as_frame=True).frame,
        target="target",
        estimator="GaussianNB",
        register_as="iris",
        alias="candidate",
    )
    assert result["version"] == "rayml://models/iris@1"
    assert rayml.model("iris").version("candidate").artifact.uri == result["model"]


def test_weights_of_classes_and_rows_change_the_fit(tracked: Tracked) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=1000)
    table = pd.DataFrame({"x": x, "y": (x + random.normal(size=1000) > 2.2).astype(int)})
    given = {"table": table, "target": "y", "estimator": "LogisticRegression"}
    plain, _ = tracked("train_sklearn", **given)
    balanced, _ = tracked("train_sklearn", **given, class_weight="balanced")
    named, _ = tracked("train_sklearn", **given, class_weight={"0": 1, "1": 50})
    assert plain["recall"] < balanced["recall"] <= named["recall"]
    weighted, _ = tracked(
        "train_sklearn", **given | {"table": table.assign(w=1 + 50.0 * table["y"])}, weight="w"
    )
    names = rayml.artifact(weighted["model"]).meta["signature"]["inputs"]
    assert [entry["name"] for entry in names] == ["x"]
    assert weighted["selection_rate"] > plain["selection_rate"]


def test_labels_of_xgboost_stay_words(tracked: Tracked) -> None:
    table = load_iris(as_frame=True).frame
    table["target"] = table["target"].map({0: "a", 1: "b", 2: "c"})
    result, run = tracked(
        "train_sklearn",
        table=table,
        target="target",
        estimator="XGBClassifier",
        params={"n_estimators": 20},
    )
    said = rayml.artifact(result["model"]).predict(table)
    assert set(said) == {"a", "b", "c"}
    assert (said == table["target"]).mean() > 0.9
    assert "feature_importances" in run.artifacts


def test_columns_can_go_to_the_estimator_as_they_are(tracked: Tracked) -> None:
    table = load_iris(as_frame=True).frame
    result, _ = tracked(
        "train_sklearn",
        table=table,
        target="target",
        estimator="LGBMClassifier",
        preprocess=False,
    )
    assert len(rayml.load_model(result["model"])) == 1


def test_a_class_with_one_row_and_missing_targets_are_told(tracked: Tracked) -> None:
    table = load_iris(as_frame=True).frame.astype({"target": "object"})
    table.loc[0, "target"] = "lone"
    table.loc[1, "target"] = None
    table["sepal width (cm)"] = table["sepal width (cm)"].replace(3.0, np.inf)
    result, run = tracked(
        "train_sklearn", table=table, target="target", estimator="RandomForestClassifier"
    )
    said = warnings_of(run)
    for words in ("one row alone ('lone')", "1 rows without", "several types", "infinite values"):
        assert words in said
    assert result["accuracy"] > 0.8


@pytest.mark.parametrize("target", ["late", "size"])
def test_columns_that_are_the_target_in_disguise_are_named(target: str, tracked: Tracked) -> None:
    table = mixed().dropna(subset="size")
    codes = pd.factorize(table[target])[0] if target == "late" else table["size"]
    table = table.assign(paid=codes * -9.5, word=[f"w{c}" for c in codes], exact=np.exp(codes))
    _, run = tracked(
        "train_sklearn",
        table=table,
        target=target,
        estimator="DecisionTreeClassifier" if target == "late" else "DecisionTreeRegressor",
    )
    told = [line for line in warnings_of(run).splitlines() if "alone tells" in line]
    disguised = ["paid", "word", "exact"] if target == "late" else ["paid", "exact"]
    assert [line.split("'")[1] for line in told] == disguised


def test_what_pandas_has_of_types(tracked: Tracked) -> None:
    """Each of them is learned, and evaluated from the table as it came."""
    random = np.random.default_rng(0)
    rows = 200
    flag = random.random(rows) < 0.5
    table = pd.DataFrame(
        {
            "flag": flag,
            "maybe": pd.Series(flag, dtype="object").mask(random.random(rows) < 0.2, None),
            "nullable": pd.array([1, None] * (rows // 2), dtype="Int64"),
            "exact": [Decimal(n) / 10 for n in range(rows)],
            "several": pd.Series([1, "a", 2.5, None] * (rows // 4), dtype=object),
            "codes": pd.Categorical(random.integers(0, 40, rows)),
            "rare": pd.Series([f"m{n}" for n in random.integers(0, 80, rows)]).where(flag),
            "zoned": pd.date_range("2024-01-01", periods=rows, freq="h", tz="Europe/Berlin"),
            "span": pd.to_timedelta(random.integers(0, 1000, rows), "s"),
            "period": pd.period_range("2020-01", periods=rows, freq="D"),
            5: random.normal(size=rows),
        }
    )
    table["y"] = np.where(flag ^ (random.random(rows) < 0.05), "p", "q")
    result, _ = tracked(
        "train_sklearn",
        table=table,
        target="y",
        estimator="LogisticRegression",
        params={"C": 0.1},
    )
    assert result["warnings"] == []
    said = rayml.hub.get("evaluate")(model=result["model"], table=table, target="y", resamples=0)
    assert said["roc_auc"] > 0.9


def test_fifty_thousand_categories(tracked: Tracked) -> None:
    random = np.random.default_rng(0)
    town = random.integers(0, 50_000, 60_000)
    table = pd.DataFrame({"town": np.char.add("t", town.astype(str))})
    table["y"] = random.integers(0, 2, len(table))
    table["x"] = table["y"] + random.normal(size=len(table))
    result, _ = tracked("train_sklearn", table=table, target="y", estimator="LogisticRegression")
    assert result["roc_auc"] == pytest.approx(roc_auc_score(table["y"], table["x"]), abs=0.02)


@pytest.mark.parametrize(
    ("change", "values", "message"),
    [
        (lambda t: t, {"estimator": "RandomForrestClasifier"}, "'RandomForestClassifier'"),
        (lambda t: t, {"estimator": "lgbmclassifier"}, "'LGBMClassifier'"),
        (lambda t: t, {"estimator": "os.system"}, "no classifier or regressor"),
        (lambda t: t, {"estimator": "KMeans"}, "no classifier or regressor"),
        (lambda t: t, {"params": {"max_dept": 3}}, "did you mean 'max_depth'"),
        (lambda t: t, {"params": {"max_depth": "deep"}}, "cannot be fitted"),
        (lambda t: t, {"target": "lat"}, "did you mean 'late'"),
        (lambda t: t, {"features": ["siz"]}, "did you mean 'size'"),
        (lambda t: t, {"features": ["size", "late"]}, "among the features"),
        (lambda t: t, {"estimator": "Ridge"}, "did you mean 'RidgeClassifier'|choose a"),
        (lambda t: t, {"estimator": "RandomForestRegressor"}, "'RandomForestClassifier'"),
        (lambda t: t, {"target": "size"}, "'RandomForestRegressor'"),
        (lambda t: t.assign(late="no"), {}, "in all rows"),
        (lambda t: t.assign(late=None), {}, "in 0 of 400 rows"),
        (lambda t: t.iloc[:0], {}, "no rows"),
        (lambda t: t[["late", "empty", "same"]], {}, "no column is left"),
        (lambda t: t.assign(tags=[["a"]] * len(t)), {}, "holds lists"),
        (lambda t: t, {"test_size": 20}, "between 0 and 1"),
        (lambda t: t, {"alias": "production"}, "give `register_as`"),
        (lambda t: t, {"register_as": "a/b"}, "cannot be a model's name"),
        (lambda t: t, {"class_weight": "even"}, "'balanced'"),
        (lambda t: t, {"class_weight": {"yes": 2}}, "'no' is only in one"),
        (lambda t: t, {"estimator": "KNeighborsClassifier", "class_weight": "balanced"},
         "takes no weights"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    tracked: Tracked,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    values: dict[str, object],
    message: str,
) -> None:
    given = {"target": "late", "estimator": "RandomForestClassifier", **values}
    with pytest.raises(rayml.SpecError, match=message):
        tracked("train_sklearn", table=change(mixed()), **given)
