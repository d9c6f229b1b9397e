"""`rayml.autolog()`: what scikit-learn does beside plain fits of models that predict."""

from __future__ import annotations

import gc
import weakref
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.cluster import DBSCAN, KMeans
from sklearn.decomposition import PCA, IncrementalPCA
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - so it is asked for
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import rayml
from rayml.autologging.data import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rayml import Run

pytestmark = pytest.mark.usefixtures("autolog")
X = np.random.default_rng(0).random((120, 4))
TWO = (X[:, 0] + X[:, 1] > 1).astype(int)
THREE = np.array(["low", "middle", "high"])[(X[:, 0] * 2.99).astype(int)]
AMOUNT = X @ [1.0, 2.0, 3.0, 4.0] + 5


def values(run: Run, metric: str) -> list[float]:
    """Return a metric's values by step."""
    found: list[float] = run.history(metric)["value"].to_list()
    return found


# Searches


@pytest.mark.filterwarnings("ignore")  # a trial's folds fail, which scikit-learn warns of
def test_the_trials_of_a_search_are_children(track: Any, tmp_path: Path) -> None:
    search = GridSearchCV(
        Ridge(),
        {"alpha": [0.1, 1.0, -1.0]},
        cv=3,
        scoring=["r2", "neg_max_error"],
        refit="r2",
        return_train_score=True,
    )
    run = track(lambda: search.fit(X, AMOUNT))
    first, second, refused = run.trials()
    assert [trial.name for trial in (first, second)] == ["search/trial-1", "search/trial-2"]
    assert second.params == {"model/class": "Ridge", "model/alpha": 1.0}
    results = search.cv_results_
    for name, data in (("r2", "test"), ("neg_max_error", "train")):
        folds = second.history(f"cv/{data}/{name}")["value"].to_list()
        assert folds == [results[f"split{fold}_{data}_{name}"][1] for fold in range(3)]
        assert second.metrics[f"cv/{data}/{name}-mean"] == results[f"mean_{data}_{name}"][1]
        assert second.metrics[f"cv/{data}/{name}-std"] == results[f"std_{data}_{name}"][1]
    assert second.metrics["cv/fit_time-mean"] == results["mean_fit_time"][1]
    assert (second.state, refused.state) == ("succeeded", "failed")
    assert {trial.parent.id for trial in run.trials() if trial.parent} == {run.id}
    assert rayml.get_run("latest", store=tmp_path / "store").id == run.id  # and none of its trials
    assert (second.experiment, second.packages) == (run.experiment, run.packages)


def test_of_many_trials_the_best_become_runs(
    track: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rayml.autologging.sklearn_trials._RUNS", 2)
    alphas = [1000.0, 0.1, 100.0, 0.01]  # the smaller, the better
    run = track(lambda: GridSearchCV(Ridge(), {"alpha": alphas}).fit(X, AMOUNT))
    assert [trial.name for trial in run.trials()] == ["search/trial-2", "search/trial-4"]
    assert len(run.artifact("search/trials").to_pandas()) == 4
    assert "runs of 2 of a search's 4 trials" in caplog.text


def test_a_search_that_halves(track: Any) -> None:
    search = HalvingGridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, factor=3)
    run = track(lambda: search.fit(X, AMOUNT))
    stages = [trial.params["cv/n_resources"] for trial in run.trials()]
    assert stages == search.cv_results_["n_resources"].tolist()


# Cross-validations


def test_cross_validations(track: Any) -> None:
    found = {}

    def train() -> None:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=2.0))
        found.update(cross_validate(model, X, TWO, cv=3, scoring=["f1", "roc_auc"]))
        found["r2"] = cross_val_score(Ridge(), X, AMOUNT, cv=KFold(4, shuffle=True), n_jobs=2)
        predicted = cross_val_predict(LogisticRegression(), X, TWO, method="predict_proba")
        roc_auc_score(TWO, predicted[:, 1])

    run = track(train)
    assert run.params["cv/class"] == "Pipeline"
    assert run.params["cv/logisticregression__C"] == 2.0
    assert (run.params["cv/folds"], run.params["cv/rows"], run.params["cv/columns"]) == (3, 120, 4)
    assert run.params["cv/digest"] == run.params["cv-2/digest"] == digest_of(X, 10**9)
    assert run.params["cv/scoring"] == ["f1", "roc_auc"]
    assert run.history("cv/test/f1")["value"].to_list() == found["test_f1"].tolist()
    assert run.metrics["cv/test/roc_auc-mean"] == pytest.approx(found["test_roc_auc"].mean())
    assert run.metrics["cv/test/roc_auc-std"] == pytest.approx(found["test_roc_auc"].std())
    assert len(run.history("cv/fit_time")) == 3
    assert run.metrics["cv-2/test/score-mean"] == pytest.approx(found["r2"].mean())
    assert run.params["cv-2/folds"] == 4
    assert "shuffle=True" in str(run.params["cv-2/split"])
    assert run.params["cv-3/method"] == "predict_proba"
    assert 0.5 < run.metrics["TWO-cv-3/roc_auc_score"] <= 1
    assert "model/class" not in run.params


def test_a_cross_validation_with_folds_and_scores_of_its_own(track: Any) -> None:
    def folds() -> Iterator[tuple[Any, Any]]:
        rows = np.arange(120)
        yield rows[:60], rows[60:]
        yield rows[60:], rows[:60]

    def bias(model: Any, X: Any, y: Any) -> float:
        return float((model.predict(X) - y).mean())

    run = track(lambda: cross_val_score(Ridge(), X, AMOUNT, cv=folds(), scoring=bias))
    assert len(run.history("cv/test/score")) == 2
    assert "bias" in str(run.params["cv/scoring"])


def test_a_cross_validation_that_fails_is_the_users_and_logs_nothing(track: Any) -> None:
    def train() -> None:
        with pytest.raises(ValueError, match="inconsistent"):
            cross_val_score(Ridge(), X, AMOUNT[:50])

    assert track(train).params == {}


# Parts


def test_parts_are_counted_and_their_end_is_logged(track: Any) -> None:
    model = SGDClassifier(loss="log_loss", random_state=0)

    def train() -> None:
        for start in range(0, 120, 40):
            rows = slice(start, start + 40)
            model.partial_fit(X[rows], TWO[rows], classes=[0, 1])
        metrics.accuracy_score(TWO, model.predict(X))

    run = track(train)
    assert run.params["model/loss"] == "log_loss"
    counted = [run.params[f"train/{name}"] for name in ("calls", "rows", "columns")]
    assert counted == [3, 120, 4]
    assert "model-2/class" not in run.params
    assert {"train/accuracy", "train/log_loss", "TWO/accuracy_score"} <= set(run.metrics)
    assert (run.artifact("model").load().coef_ == model.coef_).all()
    assert "train/roc_curve" in run.artifacts


def test_a_model_of_parts_is_kept_after_the_code_has_let_it_go(track: Any) -> None:
    def train() -> None:
        for _ in range(2):
            SGDClassifier().partial_fit(X, TWO, classes=[0, 1])

    run = track(train)
    assert {"model", "model-2"} <= set(run.artifacts)
    assert run.params["train-2/calls"] == 1


def test_rows_that_are_written_into_after_the_last_part_are_not_scored(track: Any) -> None:
    model = SGDClassifier(random_state=0)
    rows, target = X.copy(), TWO.copy()

    def train() -> None:
        model.partial_fit(rows, target, classes=[0, 1])
        rows[:] = 0

    run = track(train)
    assert run.metrics["train/accuracy"] == pytest.approx(model.score(X, TWO))


def test_a_fit_after_parts_is_another_fit_and_parts_after_a_fit_are(track: Any) -> None:
    model = SGDClassifier(random_state=0)

    def train() -> None:
        model.partial_fit(X, TWO, classes=[0, 1])
        model.fit(X[:60], TWO[:60])
        model.partial_fit(X, TWO)

    run = track(train)
    calls = [run.params.get(f"train{end}/calls") for end in ("", "-2", "-3")]
    assert calls == [1, None, 1]
    assert set(run.artifacts) >= {"model-2", "model-3"}
    assert "model" not in run.artifacts  # it is not any more what the first part has made


def test_after_ten_estimators_trained_in_parts_none_is_held(track: Any) -> None:
    def train() -> None:
        models = [SGDClassifier() for _ in range(12)]
        for model in models:
            model.partial_fit(X, TWO, classes=[0, 1])
        known = weakref.ref(models[11])
        del models, model
        gc.collect()
        assert known() is None

    run = track(train)
    assert run.params["train-12/calls"] == 1


def test_an_error_of_a_part_is_the_users_own(track: Any) -> None:
    def train() -> None:
        with pytest.raises(ValueError, match="classes"):
            SGDClassifier().partial_fit(X, TWO)

    assert track(train).params == {}


# Curves


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")  # three rounds are enough
def test_curves_that_an_estimator_keeps(track: Any) -> None:
    boosting = GradientBoostingRegressor(n_estimators=5)
    network = MLPClassifier(max_iter=3, early_stopping=True, random_state=0)
    histograms = HistGradientBoostingClassifier(max_iter=4, early_stopping=True)
    by_score = HistGradientBoostingClassifier(max_iter=4, early_stopping=True, scoring="accuracy")

    def train() -> None:
        boosting.fit(X, AMOUNT)
        make_pipeline(StandardScaler(), network).fit(X, TWO)
        histograms.fit(X, TWO)
        by_score.fit(X, TWO)

    run = track(train)
    assert values(run, "train/loss") == boosting.train_score_.tolist()
    assert values(run, "train-2/loss") == network.loss_curve_
    assert values(run, "valid-2/iteration_score") == network.validation_scores_
    assert values(run, "train-3/loss") == [-score for score in histograms.train_score_]
    assert values(run, "valid-3/loss") == [-score for score in histograms.validation_score_]
    assert values(run, "valid-4/iteration_score") == by_score.validation_score_.tolist()


def test_a_long_curve_is_thinned(track: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayml.autologging.sklearn_curves._POINTS", 2)
    run = track(lambda: GradientBoostingRegressor(n_estimators=5).fit(X, AMOUNT))
    assert run.history("train/loss")["step"].to_list() == [0, 3]


def test_learning_and_validation_curves(track: Any) -> None:
    found = {}

    def train() -> None:
        found["rows"] = learning_curve(Ridge(alpha=0.5), X, AMOUNT, cv=3, train_sizes=[20, 60])
        found["alpha"] = validation_curve(
            Ridge(), X, AMOUNT, param_name="alpha", param_range=[0.1, 10.0], cv=3
        )
        validation_curve(
            LogisticRegression(), X, TWO, param_name="class_weight", param_range=[None, "balanced"]
        )

    run = track(train)
    assert run.params["learning_curve/alpha"] == 0.5
    assert run.params["learning_curve/folds"] == 3
    curve = run.history("learning_curve/test/score")
    assert curve["step"].to_list() == [20, 60]
    assert curve["value"].to_list() == pytest.approx(found["rows"][2].mean(axis=1))
    table = run.artifact("validation_curve/scores").to_pandas()
    assert table["alpha"].to_list() == [0.1, 10.0]
    assert table["train"].to_list() == pytest.approx(found["alpha"][0].mean(axis=1))
    settings = run.artifact("validation_curve-2/scores").to_pandas()["class_weight"]
    assert settings.to_list() == ["None", "balanced"]
    if find_spec("matplotlib"):
        assert "learning_curve/plots/scores" in run.artifacts


# What code computes of predictions


def test_tables_of_predictions(track: Any) -> None:
    late = TWO[:60]

    def train() -> None:
        model = LogisticRegression().fit(X[60:], TWO[60:])
        predicted, likely = model.predict(X[:60]), model.predict_proba(X[:60])[:, 1]
        metrics.confusion_matrix(late, predicted)
        metrics.confusion_matrix(late, predicted, labels=[1, 0])  # the last one counts
        metrics.roc_curve(late, likely)
        metrics.precision_recall_curve(late, likely)
        calibration_curve(late, likely, n_bins=4)
        metrics.classification_report(late, predicted, target_names=["in time", "late 1"])
        metrics.precision_recall_fscore_support(late, predicted, average="macro")
        metrics.f1_score(late, predicted, average=None)
        metrics.accuracy_score(late, predicted, normalize=False)
        metrics.confusion_matrix(late, late)  # of no model

    run = track(train)
    matrix = run.artifact("late/confusion_matrix").to_pandas()
    assert list(matrix.columns) == ["actual", "predicted 1", "predicted 0"]
    assert matrix.drop(columns="actual").to_numpy().sum() == 60
    assert list(run.artifact("late/roc_curve").to_pandas().columns) == [
        *("class", "false positives", "true positives"),
    ]
    assert run.artifact("late/precision_recall_curve").to_pandas()["recall"].max() == 1.0
    assert len(run.artifact("late/calibration_curve").to_pandas()) <= 4
    report = run.artifact("late/classification_report").to_pandas().set_index("class")
    assert report.loc[["in time", "late 1"], "support"].sum() == 60
    assert report.loc["accuracy", "support"] == 60
    by_class = run.artifact("late/f1_score").to_pandas()
    assert by_class["class"].to_list() == ["0", "1"]
    assert run.metrics["late/fscore"] == pytest.approx(by_class["f1_score"].mean())
    assert run.metrics["late/accuracy_score"] > 30
    if find_spec("matplotlib"):
        drawn = {name for name in run.artifacts if name.startswith("late/plots/")}
        curves = ("roc_curve", "precision_recall_curve", "calibration_curve")
        assert drawn == {f"late/plots/{name}" for name in ("confusion_matrix", *curves)}


def test_a_report_as_a_dict_and_of_several_outputs(track: Any) -> None:
    both = np.column_stack([AMOUNT, -AMOUNT])

    def train() -> None:
        predicted = LogisticRegression().fit(X, THREE).predict(X)
        metrics.classification_report(THREE, predicted, output_dict=True)
        metrics.r2_score(both, Ridge().fit(X, both).predict(X), multioutput="raw_values")

    run = track(train)
    report = run.artifact("THREE/classification_report").to_pandas()
    assert {"high", "low", "middle", "accuracy", "macro avg"} <= set(report["class"])
    assert run.artifact("both-2/r2_score").to_pandas()["output"].to_list() == [0, 1]


def test_of_many_tables_some_are_kept(
    track: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rayml.autologging.charts._TABLES", 1)

    def train() -> None:
        predicted = LogisticRegression().fit(X, TWO).predict(X)
        metrics.confusion_matrix(TWO, predicted)
        metrics.classification_report(TWO, predicted)

    run = track(train)
    assert "TWO/confusion_matrix" in run.artifacts
    assert "TWO/classification_report" not in run.artifacts
    assert "not TWO/classification_report" in caplog.text


# Scores and curves of classifiers


def test_probabilities_and_how_often_they_come_true(track: Any) -> None:
    model = LogisticRegression()
    run = track(lambda: model.fit(X, TWO))
    share, likely = calibration_curve(TWO, model.predict_proba(X)[:, 1], n_bins=10)
    table = run.artifact("train/calibration_curve").to_pandas()
    assert table["probability"].to_list() == pytest.approx(likely)
    assert table["share that is true"].to_list() == pytest.approx(share)


def test_certainty_that_is_no_probability_is_not_calibrated(track: Any) -> None:
    run = track(lambda: LinearSVC().fit(X, TWO))
    assert "train/roc_curve" in run.artifacts
    assert "train/calibration_curve" not in run.artifacts


def test_means_over_more_than_two_classes(track: Any) -> None:
    model = LogisticRegression()
    run = track(lambda: model.fit(X, THREE))
    predicted, likely = model.predict(X), model.predict_proba(X)
    for end, average in (("", "weighted"), ("_macro", "macro")):
        for name in ("precision", "recall", "f1"):
            expected = getattr(metrics, f"{name}_score")(THREE, predicted, average=average)
            assert run.metrics[f"train/{name}{end}"] == pytest.approx(expected)
        area = roc_auc_score(THREE, likely, multi_class="ovr", average=average)
        assert run.metrics[f"train/roc_auc{end}"] == pytest.approx(area)
    area = roc_auc_score(THREE, likely, multi_class="ovr", average="micro")
    assert run.metrics["train/roc_auc_micro"] == pytest.approx(area)


# What predicts nothing


def test_transformers_have_names_of_their_own(track: Any) -> None:
    scaler, reduced = StandardScaler(), make_pipeline(StandardScaler(), PCA(2))

    def train() -> None:
        LogisticRegression().fit(scaler.fit_transform(X), TWO)
        reduced.fit_transform(X)

    run = track(train)
    assert run.params["model/class"] == "LogisticRegression"
    assert run.params["transform/class"] == "StandardScaler"
    assert (run.params["transform/rows"], run.params["transform/columns"]) == (120, 4)
    assert run.params["transform-2/pca__n_components"] == 2
    assert "model-2/class" not in run.params
    assert (run.artifact("transform/model").load().mean_ == scaler.mean_).all()
    shares = reduced[-1].explained_variance_ratio_
    assert run.metrics["transform-2/explained_variance"] == pytest.approx(shares.sum())
    table = run.artifact("transform-2/explained_variance").to_pandas()
    assert table["ratio"].to_list() == shares.tolist()


def test_clusters(track: Any) -> None:
    groups, spread = DBSCAN(eps=0.25), KMeans(2, n_init=1, random_state=0)

    def train() -> None:
        groups.fit_predict(X)
        make_pipeline(StandardScaler(), spread).fit_predict(X)

    run = track(train)
    assert run.params["model/eps"] == 0.25
    assert run.metrics["train/clusters"] == len(set(groups.labels_) - {-1})
    assert run.metrics["train/unclustered"] == (groups.labels_ == -1).sum()
    assert run.metrics["train-2/inertia"] == pytest.approx(spread.inertia_)
    assert run.metrics["train-2/n_iter"] == spread.n_iter_
    assert {"model", "model-2"} <= set(run.artifacts)


def test_what_is_reduced_in_parts(track: Any) -> None:
    def train() -> None:
        reduced = IncrementalPCA(2)
        for _ in range(3):
            reduced.partial_fit(X)

    run = track(train)
    assert run.params["transform/calls"] == 3
    assert "transform/explained_variance" in run.metrics
    assert "transform/model" in run.artifacts


def test_what_others_put_into_a_method_that_exists_on_a_condition_is_called() -> None:
    hook, calls = vars(Pipeline)["predict"], []
    function = object.__getattribute__(hook, "fn")  # as MLflow does

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return function(*args, **kwargs)

    hook.fn = counted
    try:
        make_pipeline(StandardScaler(), LogisticRegression()).fit(X, TWO).predict(X)
    finally:
        hook.fn = function
    assert calls == [1]


def test_a_class_s_method_is_the_function_that_it_gives() -> None:
    # What looks whether a method is one of the usual kind, as MLflow does, finds it so.
    hook, function = vars(LogisticRegression)["fit"], LogisticRegression.fit
    assert hook == function
    assert function == hook
    assert hash(hook) == hash(function)
    assert hook != vars(Ridge)["fit"]


def test_a_permutation_test_tells_its_score_and_how_likely_it_is_by_chance(track: Any) -> None:
    found: list[Any] = []
    run = track(
        lambda: found.append(
            permutation_test_score(LogisticRegression(), X, TWO, cv=3, n_permutations=5)
        )
    )

    score, permuted, chance = found[0]
    assert run.metrics["cv/test/score"] == score
    assert run.metrics["cv/p_value"] == chance
    assert values(run, "cv/permutation_score") == permuted.tolist()


def test_scores_of_a_model_that_the_run_has_not_fitted_have_its_own_name(
    track: Any,
) -> None:
    loaded = LogisticRegression().fit(X, TWO)
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)

    def evaluate() -> None:
        accuracy_score(TWO, loaded.predict(X))
        loaded.score(X, TWO)
        search.fit(X, TWO)
        accuracy_score(TWO, search.best_estimator_.predict(X))
        accuracy_score(TWO, search.predict(X))

    run = track(evaluate)

    assert run.params["other/class"] == run.params["other-2/class"] == "LogisticRegression"
    assert run.metrics["TWO-other/accuracy_score"] == run.metrics["X-other/score"]
    assert run.metrics["TWO-other-2/accuracy_score"] == run.metrics["TWO/accuracy_score"]


def test_the_target_has_a_digest_of_its_own(track: Any) -> None:
    run = track(lambda: LogisticRegression().fit(X, THREE))

    assert run.params["train/target_digest"] == digest_of(THREE, 10**9)
    assert run.params["train/digest"] == digest_of(X, 10**9)
