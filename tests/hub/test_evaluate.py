"""The hub function evaluate: its numbers against scikit-learn's, its choices and its refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

import rayml
from tests.hub.calls import warnings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hub.calls import Tracked


def halves(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return table.iloc[::2], table.iloc[1::2].reset_index(drop=True)


def fitted(model: Any, table: pd.DataFrame, target: str = "target") -> Any:
    return make_pipeline(StandardScaler(), model).fit(table.drop(columns=target), table[target])


@pytest.fixture(scope="module")
def cancer() -> tuple[pd.DataFrame, pd.DataFrame]:
    return halves(load_breast_cancer(as_frame=True).frame)


@pytest.fixture(scope="module")
def tumours(cancer: tuple[pd.DataFrame, pd.DataFrame]) -> Any:
    return fitted(LogisticRegression(C=0.01), cancer[0])


def test_binary_metrics_are_those_of_scikit_learn(
    tracked: Tracked, tumours: Any, cancer: Any
) -> None:
    test = cancer[1]
    weight = np.random.default_rng(0).uniform(0.5, 2, len(test))
    result, run = tracked(
        "evaluate", model=tumours, table=test.assign(w=weight), target="target", weight="w"
    )
    rows = test.drop(columns="target")
    said, share = tumours.predict(rows), tumours.predict_proba(rows)[:, 1]
    true, by = test["target"], {"sample_weight": weight}
    expected = {
        "accuracy": metrics.accuracy_score(true, said, **by),
        "balanced_accuracy": metrics.balanced_accuracy_score(true, said, **by),
        "precision": metrics.precision_score(true, said, **by),
        "recall": metrics.recall_score(true, said, **by),
        "specificity": metrics.recall_score(true, said, pos_label=0, **by),
        "f1": metrics.f1_score(true, said, **by),
        "mcc": metrics.matthews_corrcoef(true, said, **by),
        "selection_rate": np.average(said, weights=weight),
        "roc_auc": metrics.roc_auc_score(true, share, **by),
        "average_precision": metrics.average_precision_score(true, share, **by),
        "log_loss": metrics.log_loss(true, share, **by),
        "brier": metrics.brier_score_loss(true, share, **by),
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    assert {name: run.metrics[name] for name in expected} == pytest.approx(expected)
    assert result["task"] == "binary"
    for name, value in expected.items():
        low, high = run.metrics[f"{name}/low"], run.metrics[f"{name}/high"]
        assert low <= value <= high
        assert high - low < 0.5
    assert run.metrics["baseline/roc_auc"] == 0.5
    assert {
        "roc",
        "precision_recall",
        "calibration",
        "confusion_matrix_plot",
        "thresholds",
    } <= set(run.artifacts)


def test_multiclass_metrics_are_those_of_scikit_learn(tracked: Tracked) -> None:
    train, test = halves(
        load_wine(as_frame=True).frame.replace({"target": dict(enumerate("abc"))})
    )
    model = fitted(LogisticRegression(C=0.001), train)
    result, run = tracked("evaluate", model=model, table=test, target="target")
    rows, true = test.drop(columns="target"), test["target"]
    said, shares = model.predict(rows), model.predict_proba(rows)
    assert result["task"] == "multiclass"
    expected = {
        "accuracy": metrics.accuracy_score(true, said),
        "balanced_accuracy": metrics.balanced_accuracy_score(true, said),
        "precision_macro": metrics.precision_score(true, said, average="macro", zero_division=0),
        "recall_macro": metrics.recall_score(true, said, average="macro"),
        "f1_macro": metrics.f1_score(true, said, average="macro"),
        "f1_weighted": metrics.f1_score(true, said, average="weighted"),
        "mcc": metrics.matthews_corrcoef(true, said),
        "roc_auc_macro": metrics.roc_auc_score(true, shares, multi_class="ovr"),
        "log_loss": metrics.log_loss(true, shares),
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    classes = run.artifact("classes").load().set_index("class")
    assert classes["recall"].to_list() == pytest.approx(
        metrics.recall_score(true, said, average=None).tolist()
    )
    confusion = run.artifact("confusion_matrix").load().set_index("actual")
    assert confusion.to_numpy().tolist() == metrics.confusion_matrix(true, said).tolist()


def test_regression_metrics_are_those_of_scikit_learn(tracked: Tracked) -> None:
    train, test = halves(load_diabetes(as_frame=True).frame)
    model = fitted(LinearRegression(), train)
    result, run = tracked("evaluate", model=model, table=test, target="target", importances=3)
    said, true = model.predict(test.drop(columns="target")), test["target"]
    expected = {
        "r2": metrics.r2_score(true, said),
        "rmse": metrics.root_mean_squared_error(true, said),
        "mae": metrics.mean_absolute_error(true, said),
        "median_ae": metrics.median_absolute_error(true, said),
        "bias": float(np.mean(said - true)),
        "mape": metrics.mean_absolute_percentage_error(true, said),
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    assert run.metrics["baseline/r2"] == pytest.approx(0)
    assert {"residuals", "predicted_against_actual"} <= set(run.artifacts)
    assert run.artifact("importances").load()["column"].iloc[0] in ("bmi", "s5", "s1")


def test_a_registered_model_is_found_and_its_columns_by_name_and_type(
    tracked: Tracked, tumours: Any, cancer: Any
) -> None:
    train, test = cancer
    with rayml.start_run("training") as context:
        made = context.log_model("m", tumours, input_example=train.drop(columns="target").head())
    rayml.register_model(made, "tumours", alias="candidate")
    plain, _ = tracked("evaluate", model=tumours, table=test, target="target", resamples=0)
    # Text, another order, more columns, and labels as text: as a CSV may have it.
    messy = test.iloc[:, ::-1].astype(str).assign(note="x")
    result, run = tracked(
        "evaluate",
        model="rayml://models/tumours@candidate",
        table=messy,
        target="target",
        resamples=0,
    )
    assert result["log_loss"] == pytest.approx(plain["log_loss"])
    assert result["accuracy"] == plain["accuracy"]
    assert "low" not in run.artifact("metrics").load()


def test_threshold_rules_do_what_they_say(tracked: Tracked, tumours: Any, cancer: Any) -> None:
    test = cancer[1]
    share = tumours.predict_proba(test.drop(columns="target"))[:, 1]

    def chosen(rule: float | str, **more: object) -> tuple[dict[str, Any], float]:
        result, run = tracked(
            "evaluate",
            model=tumours,
            table=test,
            target="target",
            threshold=rule,
            resamples=0,
            **more,
        )
        return result, run.metrics["threshold"]

    fixed, threshold = chosen(0.9)
    assert threshold == 0.9
    assert fixed["recall"] == metrics.recall_score(test["target"], share >= 0.9)
    exact, _ = chosen("precision=1.0")
    assert exact["precision"] == 1.0
    precision, recall, _ = metrics.precision_recall_curve(test["target"], share)
    assert exact["recall"] == recall[precision == 1].max()
    every, _ = chosen("recall=1.0")
    assert every["recall"] == 1.0
    best = np.max(2 * precision * recall / (precision + recall))
    assert chosen("f1")[0]["f1"] == pytest.approx(best)
    costs = {"false_positive": 10.0, "false_negative": 1.0}
    careful, above = chosen("cost", costs=costs)
    assert above > chosen("cost", costs={"false_positive": 1.0, "false_negative": 10.0})[1]
    assert careful["precision"] >= every["precision"]


def test_positive_says_which_class_is_meant(tracked: Tracked, cancer: Any) -> None:
    names = {0: "malignant", 1: "benign"}
    train, test = (half.replace({"target": names}) for half in cancer)
    model = fitted(LogisticRegression(C=0.001), train)
    result, _ = tracked("evaluate", model=model, table=test, target="target", positive="benign")
    said = model.predict(test.drop(columns="target"))
    assert result["recall"] == metrics.recall_score(test["target"], said, pos_label="benign")
    share = model.predict_proba(test.drop(columns="target"))[:, 0]
    assert result["roc_auc"] == pytest.approx(
        metrics.roc_auc_score(test["target"] == "benign", share)
    )


def test_groups_are_compared(tracked: Tracked, tumours: Any, cancer: Any) -> None:
    test = cancer[1].assign(site=["a", "b"] * 142)
    test.loc[test.index[:5], "site"] = "tiny"
    result, run = tracked(
        "evaluate", model=tumours, table=test, target="target", group_by="site", resamples=20
    )
    said = pd.Series(tumours.predict(test.drop(columns=["target", "site"])))
    rate = said.groupby(test["site"]).mean()
    assert run.metrics["fairness/demographic_parity_difference"] == pytest.approx(
        abs(rate["a"] - rate["b"])
    )
    table = run.artifact("groups").load().set_index("group")
    assert table.loc["tiny", "rows"] == 5
    part = test["site"] == "a"
    assert table.loc["a", "accuracy"] == metrics.accuracy_score(test["target"][part], said[part])
    assert any("tiny" in warning for warning in result["warnings"])
    assert "groups_plot" in run.artifacts


def test_numbers_are_grouped_by_quarters(tracked: Tracked, tumours: Any, cancer: Any) -> None:
    _, run = tracked(
        "evaluate", model=tumours, table=cancer[1], target="target", group_by="mean radius"
    )
    assert run.artifact("groups").load()["rows"].to_list() == pytest.approx([71] * 4, abs=2)


def test_a_reference_is_compared_on_the_same_draws(
    tracked: Tracked, tumours: Any, cancer: Any
) -> None:
    train, test = cancer
    stump = fitted(DecisionTreeClassifier(max_depth=1), train)
    _, run = tracked("evaluate", model=tumours, table=test, target="target", reference=stump)
    table = run.artifact("metrics").load().set_index("metric")
    share = stump.predict_proba(test.drop(columns="target"))[:, 1]
    expected = metrics.roc_auc_score(test["target"], share)
    assert table.loc["roc_auc", "baseline"] == pytest.approx(expected)
    low, high = table.loc["roc_auc", ["difference_low", "difference_high"]]
    assert 0 < low < table.loc["roc_auc", "difference"] < high
    _, run = tracked("evaluate", model=tumours, table=test, target="target", reference=tumours)
    table = run.artifact("metrics").load()
    assert (table[["difference", "difference_low", "difference_high"]] == 0).all().all()


def test_a_model_without_probabilities_is_ranked_by_its_margin(
    tracked: Tracked, cancer: Any
) -> None:
    train, test = cancer
    model = fitted(LinearSVC(C=0.01), train)
    result, run = tracked("evaluate", model=model, table=test, target="target", resamples=0)
    margin = model.decision_function(test.drop(columns="target"))
    assert result["roc_auc"] == pytest.approx(metrics.roc_auc_score(test["target"], margin))
    assert "log_loss" not in result
    assert "calibration" not in run.artifacts


def test_boosters_that_are_no_estimators(tracked: Tracked, cancer: Any) -> None:
    import lightgbm

    train, test = cancer
    booster = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1},
        lightgbm.Dataset(train.drop(columns="target"), train["target"]),
        10,
    )
    with rayml.start_run("training") as context:
        made = context.log_model("m", booster, input_example=train.drop(columns="target").head())
    result, _ = tracked("evaluate", model=made, table=test, target="target", resamples=0)
    share = booster.predict(test.drop(columns="target"))
    assert result["roc_auc"] == pytest.approx(metrics.roc_auc_score(test["target"], share))
    assert result["log_loss"] == pytest.approx(metrics.log_loss(test["target"], share))


def test_rows_and_classes_that_are_not_known_are_told(
    tracked: Tracked, tumours: Any, cancer: Any
) -> None:
    test = cancer[1].astype({"target": "object"})
    test.loc[test.index[:3], "target"] = None
    test.loc[test.index[3:10], "target"] = 2
    result, run = tracked("evaluate", model=tumours, table=test, target="target", resamples=5)
    assert result["task"] == "multiclass"
    said = warnings_of(run)
    assert "3 rows without a value" in said
    assert "7 rows count as wrong" in said


def test_a_single_class_leaves_out_what_it_cannot_tell(
    tracked: Tracked, tumours: Any, cancer: Any
) -> None:
    test = cancer[1]
    result, run = tracked(
        "evaluate", model=tumours, table=test[test["target"] == 1], target="target"
    )
    assert "roc_auc" not in result
    assert "roc" not in run.artifacts
    assert any("one and the same" in warning for warning in result["warnings"])


def test_many_classes_take_no_longer_than_they_must(tracked: Tracked) -> None:
    from sklearn.naive_bayes import GaussianNB

    random = np.random.default_rng(0)
    table = pd.DataFrame({"x": random.normal(size=2000), "target": np.arange(2000) % 400})
    table["x"] += table["target"]
    model = GaussianNB().fit(table[["x"]], table["target"])
    result, run = tracked("evaluate", model=model, table=table, target="target")
    said = model.predict(table[["x"]])
    assert result["f1_macro"] == pytest.approx(
        metrics.f1_score(table["target"], said, average="macro")
    )
    assert len(run.artifact("classes").load()) == 400
    assert "confusion_matrix" not in run.artifacts


def test_a_single_row(tracked: Tracked, tumours: Any, cancer: Any) -> None:
    result, _ = tracked("evaluate", model=tumours, table=cancer[1].head(1), target="target")
    assert result["accuracy"] in (0, 1)
    train, test = halves(load_diabetes(as_frame=True).frame)
    model = fitted(LinearRegression(), train)
    result, _ = tracked("evaluate", model=model, table=test.head(1), target="target")
    assert "r2" not in result
    assert result["mae"] > 0


@pytest.mark.parametrize(
    ("change", "values", "message"),
    [
        (lambda t: t.rename(columns={"target": "targt"}), {}, "did you mean 'targt'"),
        (lambda t: t.drop(columns="mean area"), {}, "'mean area'"),
        (lambda t: t.iloc[:0], {}, "no rows"),
        (lambda t: t.rename(columns={"mean area": "target"}), {}, "two columns called 'target'"),
        (lambda t: t.assign(target=None), {}, "no row with a value"),
        (lambda t: t.assign(target="yes"), {}, "tells 0, 1 apart"),
        (lambda t: t.assign(**{"mean area": "big"}), {}, "to float: 'big'"),
        (lambda t: t, {"threshold": "best"}, "not a rule"),
        (lambda t: t, {"threshold": "cost"}, "needs costs"),
        (lambda t: t, {"threshold": "cost", "costs": {"fp": 1}}, "'false_positive'"),
        (lambda t: t, {"positive": "2"}, "not one of two classes"),
        (lambda t: t, {"group_by": "mean ara"}, "did you mean 'mean area'"),
        (lambda t: t.assign(w=-1), {"weight": "w"}, "no weight"),
        (lambda t: t, {"confidence": 95}, "between 0 and 1"),
        (lambda t: t, {"resamples": -1}, "resamples=-1"),
    ],
)
def test_what_is_wrong_is_said(
    tracked: Tracked,
    tumours: Any,
    cancer: Any,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    values: dict[str, object],
    message: str,
) -> None:
    table = change(cancer[1])
    with pytest.raises(rayml.SpecError, match=message):
        tracked("evaluate", model=tumours, table=table, target="target", **values)


def test_what_is_no_model_is_refused(tracked: Tracked, cancer: Any) -> None:
    with rayml.start_run("other") as context:
        other = context.log_table("t", [{"a": 1}])
    wrong = ((other, "is a table"), ("nowhere.txt", "there is no"), (__file__, "give the URI"))
    for given, message in wrong:
        with pytest.raises(rayml.SpecError, match=message):
            tracked("evaluate", model=given, table=cancer[1], target="target")
    with pytest.raises(rayml.SpecError, match="no predict"):
        tracked("evaluate", model={"a": 1}, table=cancer[1], target="target")
