"""`rayml.autolog()`: scikit-learn code that never mentions rayml is tracked, undisturbed."""

from __future__ import annotations

import gc
import importlib
import inspect
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest

import rayml
from rayml import autologging, launch
from rayml.artifacts.record import type_name
from rayml.autologging.ending import Task, at_end
from rayml.config import switch
from rayml.errors import SpecError, StoreUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rayml import Run

pytest.importorskip("sklearn")
joblib = pytest.importorskip("joblib")
scipy_sparse = pytest.importorskip("scipy.sparse")

from sklearn import base, metrics  # noqa: E402 - an extra
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.dummy import DummyClassifier  # noqa: E402
from sklearn.ensemble import (  # noqa: E402
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: E402, F401 - so it is asked for
from sklearn.impute import IterativeImputer  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge  # noqa: E402
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, roc_auc_score  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.multioutput import MultiOutputClassifier  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: E402
from sklearn.svm import SVC, LinearSVC  # noqa: E402

from rayml.autologging.copies import NotCopied, snapshot  # noqa: E402
from rayml.autologging.data import digest_of  # noqa: E402
from rayml.autologging.fits import Training  # noqa: E402
from rayml.autologging.sklearn_fits import log_fit  # noqa: E402
from rayml.autologging.sklearn_scores import predict_in_time  # noqa: E402

pytestmark = pytest.mark.usefixtures("autolog")
X = np.random.default_rng(0).random((120, 4))
TWO = (X[:, 0] + X[:, 1] > 1).astype(int)
THREE = np.array(["low", "middle", "high"])[(X[:, 0] * 2.99).astype(int)]
AMOUNT = X @ [1.0, 2.0, 3.0, 4.0] + 5


class Mean(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts the mean, and minds no missing target."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def fit(self, X: Any, y: Any) -> Mean:
        self.mean_ = float(np.nanmean(y))
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.mean_ + self.offset)


class Reader(Ridge):  # type: ignore[misc]
    """Keeps a generator of Python's, which nothing can copy."""

    def fit(self, X: Any, y: Any) -> Reader:
        self.rows_ = (row for row in X)
        super().fit(X, y)
        return self


def names(run: Run) -> set[str]:
    return set(run.artifacts)


# What is logged


def test_a_classifier(track: Any) -> None:
    model = LogisticRegression(C=0.5)
    run = track(lambda: model.fit(X, TWO))
    predicted, likely = model.predict(X), model.predict_proba(X)
    assert run.metrics == pytest.approx(
        {
            "train/accuracy": metrics.accuracy_score(TWO, predicted),
            "train/score": metrics.accuracy_score(TWO, predicted),
            "train/precision": metrics.precision_score(TWO, predicted, average="weighted"),
            "train/recall": metrics.recall_score(TWO, predicted, average="weighted"),
            "train/f1": metrics.f1_score(TWO, predicted, average="weighted"),
            "train/log_loss": metrics.log_loss(TWO, likely),
            "train/roc_auc": metrics.roc_auc_score(TWO, likely[:, 1]),
        }
    )
    assert run.params["model/C"] == 0.5
    assert run.params["model/class"] == "LogisticRegression"
    assert (run.params["train/rows"], run.params["train/columns"]) == (120, 4)
    curves = {"roc_curve", "precision_recall_curve", "calibration_curve"}
    charts = {"feature_importance", "confusion_matrix", *curves}
    tables = {f"train/{name}" for name in charts}
    assert names(run) - {f"train/plots/{name}" for name in charts} == {
        *("model", "train/schema"),
        *tables,
    }
    loaded = run.artifact("model")
    assert (loaded.load().predict(X) == predicted).all()
    assert loaded.meta["signature"]["inputs"][0]["shape"] == [None, 4]
    assert len(loaded.meta["input_example"]) == 5
    matrix = run.artifact("train/confusion_matrix").to_pandas()
    assert matrix[["predicted 0", "predicted 1"]].to_numpy().tolist() == (
        confusion_matrix(TWO, predicted).tolist()
    )
    curve = run.artifact("train/roc_curve").to_pandas()
    assert curve["true positives"].iloc[-1] == 1.0
    importance = run.artifact("train/feature_importance").to_pandas()
    assert set(importance["feature"][:2]) == {"x0", "x1"}


def test_plots(track: Any) -> None:
    pytest.importorskip("matplotlib")
    run = track(lambda: RandomForestClassifier(5).fit(X, THREE))
    drawn = {name for name in run.artifacts if name.startswith("train/plots/")}
    assert {name.rpartition("/")[2] for name in drawn} == {
        *("feature_importance", "confusion_matrix"),
        *("roc_curve", "precision_recall_curve", "calibration_curve"),
    }
    assert all(run.artifact(name).load().startswith(b"\x89PNG") for name in drawn)
    assert set(run.artifact("train/roc_curve").to_pandas()["class"]) == set(THREE)


def test_without_matplotlib_the_tables_are_kept(
    track: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    run = track(lambda: LogisticRegression().fit(X, TWO))
    assert "train/roc_curve" in names(run)
    assert not any("plots" in name for name in names(run))


def test_a_regressor(track: Any) -> None:
    model = RandomForestRegressor(5, random_state=0)
    run = track(lambda: model.fit(pd.DataFrame(X, columns=list("abcd")), AMOUNT))
    predicted = model.predict(pd.DataFrame(X, columns=list("abcd")))
    assert run.metrics == pytest.approx(
        {
            "train/mae": metrics.mean_absolute_error(AMOUNT, predicted),
            "train/mse": metrics.mean_squared_error(AMOUNT, predicted),
            "train/rmse": metrics.root_mean_squared_error(AMOUNT, predicted),
            "train/r2": metrics.r2_score(AMOUNT, predicted),
            "train/score": metrics.r2_score(AMOUNT, predicted),
        }
    )
    assert run.artifact("train/schema").to_pandas().to_numpy().tolist() == [
        [name, "float64"] for name in "abcd"
    ]
    assert run.artifact("train/feature_importance").to_pandas()["feature"][0] == "d"


@pytest.mark.parametrize(
    "model",
    [
        GradientBoostingClassifier(n_estimators=3),
        HistGradientBoostingClassifier(max_iter=3),
        MLPClassifier((3,), tol=10, n_iter_no_change=1),
    ],
)
def test_models_that_keep_a_generator_of_numbers(track: Any, model: Any) -> None:
    run = track(lambda: model.fit(X, TWO))
    assert 0 <= run.metrics["train/accuracy"] <= 1
    assert {"model", "train/confusion_matrix"} <= names(run)
    assert (run.artifact("model").load().predict(X) == model.predict(X)).all()


def test_a_pipeline_with_its_nested_parameters_and_words_as_columns(track: Any) -> None:
    frame = pd.DataFrame({"size": X[:, 0], "colour": np.where(X[:, 1] > 0.5, "red", "blue")})
    model = make_pipeline(
        make_column_transformer(
            (StandardScaler(), ["size"]), (OneHotEncoder(), ["colour"]), remainder="drop"
        ),
        LogisticRegression(C=2.0),
    )
    run = track(lambda: model.fit(frame, TWO))
    assert run.params["model/logisticregression__C"] == 2.0
    assert "LogisticRegression(C=2.0)" in str(run.params["model/repr"])
    assert "model/C" not in run.params
    features = set(run.artifact("train/feature_importance").to_pandas()["feature"])
    assert "onehotencoder__colour_red" in features
    assert (run.artifact("model").predict(frame) == model.predict(frame)).all()
    assert "model-2" not in run.artifacts  # steps are fitted inside


def test_a_search(track: Any) -> None:
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 10.0], "class_weight": [None, {0: 2}]})
    run = track(lambda: search.fit(X, TWO))
    assert run.metrics["search/best_score"] == pytest.approx(search.best_score_)
    assert run.params["model/C"] == search.best_params_["C"]
    assert run.params["model/class"] == "GridSearchCV"
    assert run.params["search/param_grid"]["C"] == [0.1, 10.0]
    assert run.params["search/cv"] is None
    assert "search/estimator" not in run.params  # its parameters are model/…
    trials = run.artifact("search/trials").to_pandas()
    assert trials["param_C"].tolist() == [0.1, 0.1, 10.0, 10.0]
    assert trials["mean_test_score"].max() == pytest.approx(search.best_score_)
    assert not any(name.startswith("train-2") for name in run.artifacts)
    assert (run.artifact("model").predict(X) == search.predict(X)).all()


def test_a_search_that_refits_nothing(track: Any) -> None:
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, refit=False)
    run = track(lambda: search.fit(X, AMOUNT))
    assert len(run.artifact("search/trials").to_pandas()) == 2
    assert run.params["model/alpha"] == 0.1
    assert "train/schema" in run.artifacts


def test_scores_that_the_code_computes(track: Any) -> None:
    def train() -> None:
        X_test, y_test = X[:40], TWO[:40]
        model = LogisticRegression().fit(X[40:], TWO[40:])
        predicted = model.predict(X_test)
        accuracy_score(y_test, predicted)  # imported long before the hooks
        metrics.f1_score(y_true=y_test, y_pred=predicted)
        roc_auc_score(y_test, model.predict_proba(X_test)[:, 1])
        model.score(X_test, y_test)
        second = make_pipeline(StandardScaler(), SVC()).fit(X[40:], TWO[40:])
        f1_score(y_test, second.predict(X_test))
        accuracy_score(y_test, y_test)  # of no model
        accuracy_score(TWO[:40], predicted)

    run = track(train)
    own = {name for name in run.metrics if not name.startswith("train")}
    assert own == {
        "y_test/accuracy_score",
        "y_test/f1_score",
        "y_test/roc_auc_score",
        "X_test/score",
        "y_test-2/f1_score",
        "data/accuracy_score",
    }


# Where nothing is logged, or only once


def test_outside_of_a_run_nothing_is_logged() -> None:
    model = LogisticRegression().fit(X, TWO)
    assert 0 < accuracy_score(TWO, model.predict(X)) <= 1


def test_fits_in_joblib_log_nothing(track: Any) -> None:
    def train() -> None:
        fit = joblib.delayed(LogisticRegression().fit)
        joblib.Parallel(n_jobs=2, prefer="threads")([fit(X, TWO), fit(X, TWO)])
        joblib.Parallel(n_jobs=2)([fit(X, TWO), fit(X, TWO)])

    run = track(train)
    assert (run.metrics, names(run), run.params) == ({}, set(), {})


def test_an_own_estimator_that_fits_others_is_one_fit(track: Any) -> None:
    class Twice(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any) -> Any:
            self.first_ = LogisticRegression().fit(X, y)
            self.classes_ = self.first_.classes_
            return self

        def predict(self, X: Any) -> Any:
            return self.first_.predict(X)

    run = track(lambda: Twice().fit(X, TWO))
    assert run.params["model/class"].endswith("Twice")
    assert "model-2/class" not in run.params


def test_several_fits_have_names_of_their_own(track: Any) -> None:
    def train() -> None:
        for c in (0.1, 1.0, 10.0):
            LogisticRegression(C=c).fit(X, TWO)

    run = track(train)
    assert [run.params[f"model{end}/C"] for end in ("", "-2", "-3")] == [0.1, 1.0, 10.0]
    assert run.artifact("model-3").load().C == 10.0
    assert {"train/accuracy", "train-2/accuracy", "train-3/accuracy"} <= set(run.metrics)


def test_two_fits_in_threads(track: Any) -> None:
    def train() -> None:
        barrier = Barrier(2)

        def fit(c: float) -> object:
            barrier.wait()
            return LogisticRegression(C=c).fit(X, TWO)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(fit, (0.1, 10.0)))

    run = track(train)
    assert {run.params["model/C"], run.params["model-2/C"]} == {0.1, 10.0}
    for end in ("", "-2"):
        assert run.params[f"model{end}/C"] == run.artifact(f"model{end}").load().C


def test_a_loop_of_many_fits_keeps_ten_models_and_all_scores(
    track: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run = track(lambda: [DummyClassifier().fit(X, TWO) for _ in range(13)])
    models = {name for name in run.artifacts if name.startswith("model")}
    assert len(models) == 10
    assert "train-13/accuracy" in run.metrics
    assert len([r for r in caplog.records if "10 fits" in r.getMessage()]) == 1


# It does not disturb


def test_results_are_the_same_to_the_bit(track: Any) -> None:
    def train() -> list[Any]:
        np.random.seed(7)  # noqa: NPY002
        random.seed(7)
        own = np.random.RandomState(3)
        forest = RandomForestClassifier(5).fit(X, THREE)
        guess = DummyClassifier(strategy="uniform").fit(X, TWO)  # it draws when it predicts
        other = DummyClassifier(strategy="uniform", random_state=own).fit(X, TWO)
        linear = LogisticRegression().fit(X, THREE)
        return [
            forest.predict_proba(X),
            guess.predict(X),
            other.predict(X),
            linear.coef_,
            np.random.get_state(legacy=False)["state"]["key"],  # noqa: NPY002
            own.get_state(legacy=False)["state"]["key"],
            [random.random()],
        ]

    logged: list[Any] = []
    track(lambda: logged.extend(train()))
    autologging.stop()
    for with_it, without in zip(logged, train(), strict=True):
        assert np.asarray(with_it).tobytes() == np.asarray(without).tobytes()


def test_everything_is_undone() -> None:
    autologging.stop()
    fit, inner = vars(LogisticRegression)["fit"], f1_score.__closure__
    assert inner is not None
    before = [cell.cell_contents for cell in inner]
    finders = list(sys.meta_path)
    rayml.autolog("sklearn")
    rayml.autolog()
    assert vars(LogisticRegression)["fit"] is not fit
    assert inspect.signature(LogisticRegression.fit) == inspect.signature(fit)
    autologging.stop()
    assert vars(LogisticRegression)["fit"] is fit
    assert [cell.cell_contents for cell in inner] == before
    assert "__init_subclass__" not in vars(BaseEstimator)
    assert sys.meta_path == finders


def test_estimators_are_pickled_without_the_run(track: Any) -> None:
    code = "from sklearn.linear_model import Ridge\nclass Own(Ridge):\n    def fit(self, X, y):\n"
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(f"{code}        return super().fit(X, y)", space)  # noqa: S102 - as in a notebook

    def train() -> None:
        own = cloudpickle.loads(cloudpickle.dumps(space["Own"]().fit(X, AMOUNT)))
        assert own.predict(X) == pytest.approx(AMOUNT, rel=0.2)
        assert pickle.loads(pickle.dumps(LinearRegression().fit(X, AMOUNT))).coef_.shape == (4,)

    run = track(train)
    assert run.params["model-2/class"] == "LinearRegression"


def test_an_error_of_a_fit_is_the_users_own_and_nothing_is_logged(track: Any) -> None:
    def train() -> None:
        with pytest.raises(ValueError, match="inconsistent numbers of samples") as caught:
            LogisticRegression().fit(X, TWO[:5])
        assert caught.value.__cause__ is None

    run = track(train)
    assert (run.metrics, names(run), run.params) == ({}, set(), {})


def test_an_estimator_that_breaks_the_contract(
    track: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(BaseEstimator):  # type: ignore[misc]
        def __init__(self, *rest: object) -> None:
            self.rest = rest

        def fit(self, rows: Any, labels: Any) -> str:
            return "fitted"

        def predict(self) -> None:
            raise RuntimeError("nobody knows")

    results: list[str] = []
    run = track(lambda: results.append(Broken(1).fit(X, TWO)))
    assert results == ["fitted"]
    assert run.params["train/rows"] == 120
    left_out = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert any("Broken's parameters" in said for said in left_out)
    assert len(left_out) == len(set(left_out))


def test_a_model_that_cannot_be_copied(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    run = track(lambda: Reader().fit(X, AMOUNT))
    assert run.params["train/rows"] == 120
    assert "model" not in run.artifacts
    said = [r.getMessage() for r in caplog.records if "Reader's model" in r.getMessage()]
    assert len(said) == 1


def test_sparse_rows(track: Any) -> None:
    run = track(lambda: LogisticRegression().fit(scipy_sparse.csr_matrix(X), TWO))
    assert run.params["train/columns"] == 4
    assert {"model", "train/roc_curve"} <= names(run)


def test_very_many_features(track: Any) -> None:
    wide = np.random.default_rng(1).random((20, 30_000))
    run = track(lambda: Ridge().fit(wide, np.arange(20.0)))
    assert run.params["train/columns"] == 30_000
    assert len(run.artifact("train/schema").to_pandas()) == 1000
    assert len(run.artifact("train/feature_importance").to_pandas()) == 1000
    assert run.artifact("model").meta["signature"]["inputs"][0]["shape"] == [None, 30_000]


def test_a_single_class(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    run = track(lambda: DummyClassifier().fit(X, np.zeros(120)))
    assert run.metrics["train/accuracy"] == 1.0
    assert "train/roc_auc" not in run.metrics
    assert not [r for r in caplog.records if "left out" in r.getMessage()]


def test_missing_targets(track: Any) -> None:
    target = np.where(X[:, 0] > 0.9, np.nan, AMOUNT)
    run = track(lambda: Mean().fit(X, target))
    assert run.params["model/class"] == "Mean"
    assert "model" in run.artifacts
    assert run.metrics == {}


def test_several_targets_and_lists(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    def train() -> None:
        RandomForestClassifier(3).fit(X, np.column_stack([TWO, 1 - TWO]))
        LinearRegression().fit(X.tolist(), np.column_stack([AMOUNT, AMOUNT]).tolist())
        LinearSVC().fit(X, TWO)

    run = track(train)
    assert run.metrics["train-2/r2"] == pytest.approx(1.0)
    assert "train-3/roc_auc" in run.metrics
    said = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert [line for line in said if "the time is short" not in line] == []  # on a busy machine


def test_a_hooked_class_that_has_moved_is_named(
    track: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    autologging.stop()
    monkeypatch.delattr(base, "BaseEstimator")
    rayml.autolog()
    assert any("sklearn.base.BaseEstimator" in r.getMessage() for r in caplog.records)
    model = LogisticRegression()
    run = track(lambda: model.fit(X, TWO))
    assert model.coef_.shape == (1, 4)
    assert run.metrics == {}


def test_a_metric_that_cannot_be_watched_is_named(
    track: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    autologging.stop()
    monkeypatch.setattr(metrics, "f1_score", f1_score.__wrapped__)
    rayml.autolog()
    assert any("sklearn.metrics.f1_score" in r.getMessage() for r in caplog.records)

    def train() -> None:
        accuracy_score(TWO, LogisticRegression().fit(X, TWO).predict(X))

    assert "TWO/accuracy_score" in track(train).metrics


# It runs no code of the user's and keeps what it costs within bounds


class Counted(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts otherwise each time, and ends the process if it is asked for more."""

    def __init__(self, api_key: str = "") -> None:
        self.api_key = api_key

    def fit(self, X: Any, y: Any) -> Counted:
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        raise SystemExit(3)


def test_code_of_the_users_is_not_called_after_the_fit(
    track: Any, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def distance(a: Any, b: Any) -> float:
        calls.append(1)
        return float(abs(a - b).sum())

    def train() -> None:
        Counted().fit(X, TWO)
        KNeighborsClassifier(metric=distance, algorithm="brute").fit(X, TWO)

    run = track(train)
    assert run.metrics == {}
    assert not calls
    assert run.params["model-2/metric"].endswith("distance")
    assert any("code of your own in a Counted" in r.getMessage() for r in caplog.records)


def test_generators_of_a_fitted_model_draw_the_same_numbers(track: Any) -> None:
    holes = np.where(X > 0.9, np.nan, X)

    def train() -> list[Any]:
        generator = np.random.RandomState(5)
        imputer = IterativeImputer(sample_posterior=True, random_state=generator, max_iter=2)
        model = make_pipeline(imputer, Ridge()).fit(holes, AMOUNT)
        return [model.predict(holes), generator.random(3)]

    logged: list[Any] = []
    run = track(lambda: logged.extend(train()))
    assert "train/r2" in run.metrics
    autologging.stop()
    for with_it, without in zip(logged, train(), strict=True):
        assert with_it.tobytes() == without.tobytes()


def test_numpys_shared_generator_is_neither_used_nor_set(track: Any) -> None:
    before: list[Any] = []

    def train() -> None:
        model = DummyClassifier(strategy="uniform")
        pipeline = make_pipeline(StandardScaler(), VotingClassifier([("dummy", model)]))
        np.random.seed(1)  # noqa: NPY002
        pipeline.fit(X, TWO)
        before.append(np.random.random(4))  # noqa: NPY002

    assert "train/accuracy" in track(train).metrics
    np.random.seed(1)  # noqa: NPY002
    assert (before[0] == np.random.random(4)).all()  # noqa: NPY002


def test_of_a_slow_model_fewer_rows_are_scored() -> None:
    asked: list[int] = []

    def predict(rows: Any) -> Any:
        asked.append(len(rows))
        until = time.process_time() + 0.002 * len(rows)
        while time.process_time() < until:
            pass
        return np.zeros(len(rows))

    predicted, rows = predict_in_time(predict, np.zeros((5000, 2)), 0.05)
    assert len(predicted) == rows < 500
    assert sum(asked) < 1000
    quick, rows = predict_in_time(lambda rows: np.zeros(len(rows)), np.zeros((5000, 2)), 0.05)
    assert len(quick) == rows == 5000


def test_what_the_first_prediction_loads_is_not_counted() -> None:
    asked: list[int] = []

    def predict(rows: Any) -> Any:
        until = time.process_time() + 0.2 * (not asked)
        asked.append(len(rows))
        while time.process_time() < until:
            pass
        return np.zeros(len(rows))

    assert predict_in_time(predict, np.zeros((5000, 2)), 0.05)[1] == 5000
    assert asked[:3] == [1, 1, 8]


def test_there_are_no_scores_of_a_few_rows_among_many(
    monkeypatch: pytest.MonkeyPatch, track: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def predict(self: Any, rows: Any) -> Any:
        until = time.process_time() + 0.01 * len(rows)
        while time.process_time() < until:
            pass
        return np.zeros(len(rows))

    monkeypatch.setattr(LinearRegression, "predict", predict)
    run = track(lambda: LinearRegression().fit(np.ones((2000, 2)), np.arange(2000)))
    assert not run.metrics
    assert "train/scored_rows" not in run.params
    assert "left out the scores: in their time" in caplog.text

    few = track(lambda: LinearRegression().fit(np.eye(5), np.arange(5)))
    assert few.metrics["train/mae"] == 2.0


def test_a_large_model_is_not_copied(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    big = np.random.default_rng(2).random((40_000, 40))

    def train() -> None:
        tracemalloc.start()
        model = KNeighborsClassifier().fit(big, np.arange(40_000) % 2)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        log_fit(Training(rayml.context()), model, big, None, 0.001)
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.stop()

    peaks: list[int] = []
    run = track(train)
    assert not [name for name in run.artifacts if name.startswith("model")]
    assert peaks[0] < big.nbytes / 4
    assert any("left out model, scores and plots" in r.getMessage() for r in caplog.records)


def test_models_of_a_run_are_kept_up_to_a_size() -> None:
    with pytest.raises(NotCopied, match="larger"):
        snapshot(LinearRegression().fit(X, AMOUNT), 100, 1.0)
    taken = snapshot(LinearRegression().fit(X, AMOUNT), 10_000, 1.0)
    assert taken.size < 10_000
    assert taken.restore().predict(X).shape == (120,)


def test_after_a_hundred_fits_they_are_only_counted(
    track: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run = track(lambda: [StandardScalerModel().fit(X, TWO) for _ in range(130)])
    assert "model-100/class" in run.params
    assert "model-101/class" not in run.params
    assert run.params["train/fits"] == 130
    assert len([r for r in caplog.records if "counts the fits" in r.getMessage()]) == 1
    assert len(run.artifacts) <= 20


class StandardScalerModel(BaseEstimator):  # type: ignore[misc]
    """Fits nothing, quickly."""

    def fit(self, X: Any, y: Any) -> StandardScalerModel:
        return self

    def predict(self, X: Any) -> Any:
        return X


def test_a_time_limit_that_ends_while_it_logs_is_the_users(
    track: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object) -> None:
        raise TimeoutError("the user's")

    def interrupted(*_: object) -> float:
        signal.raise_signal(signal.SIGALRM)
        return 0.0

    before = signal.signal(signal.SIGALRM, late)
    monkeypatch.setattr(metrics, "accuracy_score", interrupted)
    try:
        with pytest.raises(TimeoutError, match="the user's"):
            track(lambda: LogisticRegression().fit(X, TWO))
        monkeypatch.setattr("rayml.autologging.sklearn_fits.params_of", interrupted)
        with pytest.raises(TimeoutError, match="the user's"):
            track(lambda: LogisticRegression().fit(X, TWO))
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_limit_at_the_end_ends_the_run_too(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    def train() -> None:
        with rayml.start_run(store=tmp_path) as context:
            at_end(context, Task("a table", interrupt))

    with pytest.raises(KeyboardInterrupt):
        train()
    assert rayml.get_run("latest", store=tmp_path).state == "succeeded"
    with rayml.start_run(store=tmp_path):  # it is no run within the other
        pass


def test_data_that_a_step_writes_into_is_left_as_it_is(track: Any) -> None:
    def train() -> Any:
        rows = X.copy()
        make_pipeline(StandardScaler(copy=False), LogisticRegression()).fit(rows, TWO)
        return rows

    logged: list[Any] = []
    track(lambda: logged.append(train()))
    autologging.stop()
    assert logged[0].tobytes() == train().tobytes()


def test_of_wide_rows_few_are_copied() -> None:
    wide = np.zeros((300, 100_000))
    tracemalloc.start()
    predict_in_time(lambda rows: rows[:, 0], wide, 100)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 80 * 1024 * 1024


class Pickled(Ridge):  # type: ignore[misc]
    """Would close what it has open, were it pickled."""

    calls = 0

    def __getstate__(self) -> Any:
        type(self).calls += 1
        return super().__getstate__()

    def __del__(self) -> None:
        type(self).calls += 1


def test_what_says_how_it_is_pickled_is_not(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    made = Pickled()
    run = track(lambda: make_pipeline(made).fit(X, AMOUNT))
    assert Pickled.calls == 0
    assert "model" not in run.artifacts
    assert any("code of its own for copies" in r.getMessage() for r in caplog.records)


def test_warnings_of_its_own_are_neither_shown_nor_counted(
    track: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracy = metrics.accuracy_score

    def warned(*args: Any) -> Any:
        warnings.warn("of the score", stacklevel=1)
        np.array([1e300]) * 1e300
        return accuracy(*args)

    monkeypatch.setattr(metrics, "accuracy_score", warned)
    globals().pop("__warningregistry__", None)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("error")
        run = track(lambda: LogisticRegression().fit(X, TWO))
        filters = list(warnings.filters)
    assert not seen
    assert "train/accuracy" in run.metrics
    assert set(globals().get("__warningregistry__", {})) <= {"version"}
    assert not [one for one in filters if "rayml" in type(one[1]).__module__]


def test_predictions_of_its_own_print_nothing(
    track: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    model = RandomForestClassifier(3, verbose=1)
    track(lambda: model.fit(X, TWO))
    logged = capfd.readouterr()
    autologging.stop()
    model.fit(X, TWO)
    quiet = capfd.readouterr()
    assert logged.out.count("Done") == quiet.out.count("Done")
    assert logged.err.count("Done") == quiet.err.count("Done")


def test_a_model_is_stored_without_loading_other_libraries(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, rayml, numpy as np\n"
        "from sklearn.dummy import DummyClassifier\n"
        "rayml.autolog()\n"
        f"with rayml.start_run(store={str(tmp_path / 'store')!r}):\n"
        "    DummyClassifier().fit(np.zeros((9, 2)), [0, 1, 0] * 3)\n"
        "print([name for name in ('torch', 'dask') if name in sys.modules])\n"
        "print(rayml.get_run('latest', store=sys.argv[1]).artifacts.keys())\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[]\n")
    assert "'model'" in done.stdout


def test_a_model_is_gone_as_soon_as_nobody_holds_it(track: Any) -> None:
    gone: list[bool] = []

    def train() -> None:
        for kind in (LogisticRegression, Reader):
            model = kind().fit(X, TWO)
            model.predict(X)
            known = weakref.ref(model)
            del model
            gone.append(known() is None)

    gc.disable()
    try:
        track(train)
    finally:
        gc.enable()
    assert gone == [True, True]


def test_a_weak_method_is_called_as_any(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    def train() -> None:
        model = LogisticRegression().fit(X, TWO)
        predict = weakref.WeakMethod(model.predict)()
        assert predict is not None
        assert (predict(X) == model.predict(X)).all()

    track(train)
    assert not [r for r in caplog.records if "a call of" in r.getMessage()]


def test_filters_of_warnings_go_to_other_processes(track: Any) -> None:
    several = MultiOutputClassifier(DummyClassifier(), n_jobs=2)
    run = track(lambda: several.fit(X, np.column_stack([TWO, TWO])))
    assert "train/accuracy" in run.metrics


def test_what_would_run_own_code_is_not_asked(
    track: Any, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    class Asked(Ridge):  # type: ignore[misc]
        def get_params(self, deep: bool = True) -> Any:
            if deep:  # else a fit has asked
                asked.append("parameters")
            return super().get_params(deep)

    class Delegating(BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any) -> Delegating:
            return self

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("__"):  # copies and such
                asked.append(name)
            raise AttributeError(name)

    class Rows(np.ndarray):
        def copy(self, *args: Any) -> Any:
            asked.append("rows")
            return super().copy(*args)

    def train() -> None:
        Asked().fit(X, AMOUNT)
        Delegating().fit(X, AMOUNT)
        Ridge().fit(X.view(Rows), AMOUNT)

    run = track(train)
    assert not asked
    assert "train/rows" not in run.params
    assert any("leaves a Delegating alone" in r.getMessage() for r in caplog.records)


def test_plots_are_not_drawn_after_an_error(tmp_path: Path) -> None:
    def train() -> None:
        with rayml.start_run(store=tmp_path):
            LogisticRegression().fit(X, TWO)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    run = rayml.get_run("latest", store=tmp_path)
    assert "model" in run.artifacts
    assert not [name for name in run.artifacts if "plots" in name]


def compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.mark.parametrize(("spend", "seconds"), [(compute, 0.11), (time.sleep, 0.33)])
def test_plots_that_take_too_long_are_left_out(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    spend: Callable[[float], None],
    seconds: float,
) -> None:
    """A busy machine gives them more time, but no more than three times as much."""
    monkeypatch.setattr("rayml.autologging.ending._MOST_S", 0.5)
    drawn: list[int] = []

    def draw() -> None:
        drawn.append(1)
        spend(seconds)

    with rayml.start_run(store=tmp_path) as context:
        for _ in range(10):
            at_end(context, Task("a plot", draw, is_plot=True))
    assert 4 <= len(drawn) <= 6
    assert any("the time is short" in r.getMessage() for r in caplog.records)


def test_a_store_that_refuses_is_asked_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    def refuse() -> None:
        asked.append(1)
        raise StoreUnreachable("store x does not answer; wait")

    with rayml.start_run(store=tmp_path) as context:
        for _ in range(5):
            at_end(context, Task("a table", refuse))
    assert asked == [1]
    assert any("does not answer" in r.getMessage() for r in caplog.records)


def test_secrets_among_parameters_are_not_written_down(track: Any, tmp_path: Path) -> None:
    def train() -> None:
        Counted(api_key="hunter2hunter2").fit(X, TWO)
        Counted(api_key={"password": "hunter2hunter2"}).fit(X, TWO)  # type: ignore[arg-type]
        GridSearchCV(Secretive(), {"password": ["hunter2hunter2"]}, cv=2).fit(X, AMOUNT)

    run = track(train)
    assert run.params["model/api_key"] == run.params["model-3/password"] == "***"
    assert run.params["model-2/api_key"] == {"password": "***"}
    assert not [name for name in run.artifacts if name.startswith("model")]
    assert run.artifact("search-3/trials").to_pandas()["param_password"].tolist() == ["***"]
    stored = [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert not any(b"hunter2hunter2" in data for data in stored)


class Secretive(Ridge):  # type: ignore[misc]
    """Takes a password."""

    def __init__(self, password: str = "") -> None:
        super().__init__()
        self.password = password


# Classes and calls look as they did


def test_signatures_and_warnings_are_as_without_it(track: Any) -> None:
    class Warner(BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any = None, *, weight: float = 1.0) -> Any:
            warnings.warn("look there", UserWarning, stacklevel=2)
            return self

        def predict(self, X: Any) -> Any:
            return X

    def train() -> None:
        with pytest.warns(UserWarning, match="look there") as caught:
            Warner().fit(X)
        assert caught[0].filename == __file__

    track(train)
    assert list(inspect.signature(Warner().fit).parameters) == ["X", "y", "weight"]
    assert list(inspect.signature(Warner.fit).parameters) == ["self", "X", "y", "weight"]
    assert inspect.ismethod(Warner().fit)
    assert inspect.isfunction(Warner.fit)
    model = Warner()
    assert model.fit == model.fit
    assert vars(type(model))["fit"].__get__(model).__self__ is model


def test_classes_with_slots_that_are_made_anew() -> None:
    attrs = pytest.importorskip("attrs")

    @attrs.define(slots=True, eq=False)
    class Slotted(Ridge):  # type: ignore[misc]
        extra: float = 1.0

        def fit(self, X: Any, y: Any) -> Any:
            return super().fit(X, y)

    slotted = Slotted()
    Ridge.__init__(slotted)
    assert slotted.fit(X, AMOUNT).coef_.shape == (4,)
    autologging.stop()
    assert inspect.isfunction(vars(Slotted)["fit"])


def test_a_class_goes_without_rayml_to_another_process(tmp_path: Path) -> None:
    space: dict[str, Any] = {"__name__": "__main__", "BaseEstimator": BaseEstimator}
    code = "class Own(BaseEstimator):\n    def fit(self, X, y=None):\n        return 'fitted'\n"
    exec(code, space)  # noqa: S102 - as in a notebook
    (tmp_path / "own").write_bytes(cloudpickle.dumps((space["Own"], space["Own"]().fit)))
    (tmp_path / "ridge").write_bytes(cloudpickle.dumps(Ridge().fit))
    check = (
        "import sys, pickle; sys.modules['rayml'] = None\n"
        "own, fit = pickle.load(open('own', 'rb'))\n"
        "pickle.load(open('ridge', 'rb'))([[1.0]], [1.0])\n"
        "print(own().fit(1), fit(1))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", check], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True
    )
    assert told.stdout == "fitted fitted\n"


def test_a_class_out_of_a_pickle_is_seen_and_its_super_is_not(track: Any) -> None:
    code = "class Late(Ridge):\n    def fit(self, X, y):\n        return super().fit(X, y)\n"
    space: dict[str, Any] = {"__name__": "__main__", "Ridge": Ridge}
    exec(code, space)  # noqa: S102 - as in a notebook
    data = cloudpickle.dumps(space["Late"])
    late: list[Any] = []

    def train() -> None:
        unseen = cloudpickle.loads(data)
        unseen().fit(X, AMOUNT)
        rayml.autolog()
        late.append(unseen)
        unseen().fit(X, AMOUNT)

    autologging.stop()
    rayml.autolog()
    run = track(train)
    classes = {name: value for name, value in run.params.items() if name.endswith("/class")}
    assert list(classes.values()) == [late[0].__qualname__]


def test_a_foreign_descriptor_is_left_alone(track: Any) -> None:
    class Fits:
        def __get__(self, instance: object, owner: type) -> Any:
            return str

    class Model(BaseEstimator):  # type: ignore[misc]
        fit = Fits()

    track(lambda: results.append(Model().fit(X)))
    assert isinstance(vars(Model)["fit"], Fits)


results: list[Any] = []


def test_data_is_let_go_before_the_run_ends(track: Any) -> None:
    def train() -> None:
        rows, labels = X.copy(), TWO.copy()
        watched = [weakref.ref(rows), weakref.ref(labels)]
        LogisticRegression().fit(rows, labels)
        del rows, labels
        gc.collect()
        assert [watch() for watch in watched] == [None, None]

    assert "train/accuracy" in track(train).metrics


def test_what_a_frame_holds_is_let_go(track: Any) -> None:
    class Data(np.ndarray):
        pass

    def train() -> None:
        model = LogisticRegression().fit(X, TWO)
        y_test = TWO[:40].view(Data)
        watched = weakref.ref(y_test)
        accuracy_score(y_test, model.predict(X[:40]))
        del y_test
        gc.collect()
        assert watched() is None

    assert "y_test/accuracy_score" in track(train).metrics


def test_data_that_would_have_to_be_computed_is_not_asked(track: Any) -> None:
    class Lazy:
        def __len__(self) -> int:
            raise AssertionError("computed")

        shape = property(__len__)

    class Takes(BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any = None) -> Any:
            return self

        def predict(self, X: Any) -> Any:
            return X

    run = track(lambda: Takes().fit(Lazy()))
    assert "model/class" in run.params
    assert "train/rows" not in run.params


def test_an_array_whose_base_never_ends_is_no_prediction(track: Any) -> None:
    class Endless(np.ndarray):
        base = property(lambda self: self.view())

    def train() -> None:
        fitted = LogisticRegression().fit(X, TWO)
        assert fitted.score(X, TWO) > 0
        accuracy_score(TWO, TWO.view(Endless))

    assert "TWO/accuracy_score" not in track(train).metrics


def test_a_table_is_digested_by_its_content() -> None:
    frame = pd.DataFrame(X, columns=list("abcd"))
    assert digest_of(frame, 10_000) == digest_of(frame.copy(), 10_000) is not None
    assert digest_of(X, 10_000) != digest_of(X[::-1], 10_000)
    words = frame.assign(word="x", kind=pd.Categorical(["a"] * len(X)))
    assert digest_of(words, 10**6) == digest_of(words.copy(), 10**6) is not None
    assert digest_of(words, 10**6) != digest_of(words.assign(word="y"), 10**6)
    assert digest_of(words, 10_000) is None
    assert digest_of(frame.assign(lists=pd.Series([[1]] * len(X), dtype=object)), 10**6) is None
    assert digest_of(np.array(["a", "b"], dtype=object), 10**6) is not None
    dates = pd.Series(pd.date_range("2026-01-01", periods=3, tz="UTC"))
    assert digest_of(dates, 10**6) != digest_of(dates + pd.Timedelta("1s"), 10**6)
    assert digest_of(X, 100) is None
    assert digest_of(scipy_sparse.csr_matrix(X), 10_000) is not None


# Imports


def run_code(code: str, cwd: Path) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(
        command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def test_a_script_that_turns_it_on_itself_imports_sklearn(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import rayml\nrayml.autolog()\nimport sklearn.base\n")
    environment = {**os.environ, launch.AUTOLOG: "1"}
    command = [sys.executable, launch.__file__, str(tmp_path / "told"), "script.py"]
    subprocess.run(command, cwd=tmp_path, check=True, env=environment)


def test_a_loader_that_another_finder_wraps(tmp_path: Path) -> None:
    told = run_code(
        """
        import sys, rayml
        rayml.autolog()
        class Wrapped:
            def __init__(self, loader): self._loader = loader
            def __getattr__(self, name): return getattr(self._loader, name)
        class Finder:
            def find_spec(self, name, path=None, target=None):
                for finder in sys.meta_path[1:]:
                    if spec := finder.find_spec(name, path, target):
                        if name == "sklearn.base":
                            spec.loader = Wrapped(spec.loader)
                        return spec
        sys.meta_path.insert(0, Finder())
        import sklearn.base
        print("__init_subclass__" in vars(sklearn.base.BaseEstimator),
              sklearn.base.__spec__.loader.get_filename("sklearn.base")[-7:])
        """,
        tmp_path,
    )
    assert told == "True base.py"


def test_a_forked_child_that_imports_sklearn_first_logs_nothing(tmp_path: Path) -> None:
    told = run_code(
        """
        import os, rayml
        rayml.autolog()
        with rayml.start_run(store="store") as context:
            if os.fork() == 0:
                from sklearn.linear_model import LinearRegression
                LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
                os._exit(0)
            os.wait()
        print(context.run_id)
        """,
        tmp_path,
    )
    assert rayml.get_run(told, store=tmp_path / "store").params == {}


# How it is turned on


def test_each_one_who_watches_for_a_module_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "watched_by_two.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    before, told = list(sys.meta_path), list[str]()
    for who in ("one", "other"):
        launch.ImportWatch("watched_by_two", partial(told.append, who))
    module = importlib.import_module("watched_by_two")
    monkeypatch.delitem(sys.modules, "watched_by_two")
    assert sorted(told) == ["one", "other"]
    assert sys.meta_path == before
    assert "exec_module" not in vars(module.__loader__)


def test_it_imports_no_framework_and_hooks_what_is_imported_later(tmp_path: Path) -> None:
    code = (
        "import sys, rayml\nrayml.autolog()\n"
        "assert not {'sklearn', 'numpy', 'joblib', 'ray', 'pandas'} & set(sys.modules)\n"
        f"with rayml.start_run(store={str(tmp_path)!r}) as context:\n"
        "    from sklearn.linear_model import LinearRegression\n"
        "    LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])\n"
        "print(context.run_id)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    )
    run = rayml.get_run(told.stdout.strip(), store=tmp_path)
    assert run.metrics["train/r2"] == pytest.approx(1.0)


def test_an_unknown_framework() -> None:
    with pytest.raises(SpecError, match="'sklern', which it does not know; did you mean"):
        rayml.autolog("sklern")


def test_the_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "rayml.toml").write_text("autolog = false\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYML_AUTOLOG", raising=False)
    assert switch("autolog", None, default=True) is False
    monkeypatch.setenv("RAYML_AUTOLOG", "on")
    assert switch("autolog", None, default=False) is True
    assert switch("autolog", argument=False, default=True) is False
    monkeypatch.setenv("RAYML_AUTOLOG", "perhaps")
    with pytest.raises(SpecError, match="'autolog' is 'perhaps', neither on nor off"):
        switch("autolog", None, default=True)


def test_a_model_that_user_code_has_logged_before_is_not_replaced(track: Any) -> None:
    def train() -> None:
        rayml.context().log_model("model", {"a": 1}, format="pickle")
        LogisticRegression().fit(X, TWO)

    run = track(train)
    assert run.artifact("model").format == "pickle"
    assert run.artifact("model-2").format == "skops"
    assert "train-2/accuracy" in run.metrics


def test_what_user_code_logs_under_the_same_name_is_kept(track: Any) -> None:
    def train() -> None:
        model = LogisticRegression().fit(X, TWO)
        rayml.context().log_model("model", model, format="pickle")

    run = track(train)
    assert run.artifact("model").format == "pickle"
    assert type_name(run.artifact("model").load(trusted=True)).endswith("LogisticRegression")
