"""`rayml.autolog()`: scikit-learn code that never mentions rayml is tracked, undisturbed."""

from __future__ import annotations

import inspect
import pickle
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest

import rayml
from rayml import autologging
from rayml.artifacts.record import type_name
from rayml.config import switch
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rayml import Run

pytest.importorskip("sklearn")
joblib = pytest.importorskip("joblib")
scipy_sparse = pytest.importorskip("scipy.sparse")

from sklearn import base, metrics  # noqa: E402 - an extra
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.cluster import KMeans  # noqa: E402
from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.dummy import DummyClassifier  # noqa: E402
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge  # noqa: E402
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, roc_auc_score  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: E402
from sklearn.svm import SVC, LinearSVC  # noqa: E402

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
    """Keeps a generator, which nothing can write down."""

    def fit(self, X: Any, y: Any) -> Reader:
        self.rows_ = (row for row in X)
        super().fit(X, y)
        return self


@pytest.fixture(autouse=True)
def _autolog() -> Iterator[None]:
    rayml.autolog()
    yield
    autologging.stop()


@pytest.fixture
def track(tmp_path: Path) -> Callable[[Callable[[], object]], Run]:
    """Return what makes a run of a function."""

    def track(function: Callable[[], object]) -> Run:
        with rayml.start_run(store=tmp_path / "store") as context:
            function()
        return rayml.get_run(context.run_id, store=tmp_path / "store")

    return track


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
    charts = {"feature_importance", "confusion_matrix", "roc_curve", "precision_recall_curve"}
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
        *("feature_importance", "confusion_matrix", "roc_curve", "precision_recall_curve"),
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


def test_clusters_and_transformers(track: Any) -> None:
    def train() -> None:
        scaled = StandardScaler().fit_transform(X)
        StandardScaler().fit(X)
        KMeans(2, n_init=1, random_state=0).fit_predict(scaled)

    run = track(train)
    assert run.params["model/n_clusters"] == 2
    assert list(run.metrics) == ["train/score"]
    assert "model-2" not in run.artifacts


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
        confusion_matrix(y_test, predicted)  # no number
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


def test_fits_in_joblib_and_in_cross_validation_log_nothing(track: Any) -> None:
    def train() -> None:
        fit = joblib.delayed(LogisticRegression().fit)
        joblib.Parallel(n_jobs=2, prefer="threads")([fit(X, TWO), fit(X, TWO)])
        joblib.Parallel(n_jobs=2)([fit(X, TWO), fit(X, TWO)])
        cross_val_score(LogisticRegression(), X, TWO, n_jobs=2)

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


def test_a_model_that_skops_cannot_keep(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    run = track(lambda: Reader().fit(X, AMOUNT))
    assert "train/r2" in run.metrics
    assert "train/feature_importance" in run.artifacts
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


def test_missing_targets(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    target = np.where(X[:, 0] > 0.9, np.nan, AMOUNT)
    run = track(lambda: Mean().fit(X, target))
    assert run.params["model/class"] == "Mean"
    assert "model" in run.artifacts
    assert run.metrics == {}
    assert any("mae" in r.getMessage() for r in caplog.records)


def test_several_targets_and_lists(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    def train() -> None:
        RandomForestClassifier(3).fit(X, np.column_stack([TWO, 1 - TWO]))
        LinearRegression().fit(X.tolist(), np.column_stack([AMOUNT, AMOUNT]).tolist())
        LinearSVC().fit(X, TWO)

    run = track(train)
    assert run.metrics["train-2/r2"] == pytest.approx(1.0)
    assert "train-3/roc_auc" in run.metrics
    assert not [r for r in caplog.records if "left out" in r.getMessage()]


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


def test_a_fit_stays_quick(track: Any) -> None:
    durations: list[float] = []

    def train() -> None:
        for _ in range(6):
            started = time.perf_counter()
            LogisticRegression().fit(X, TWO)
            durations.append(time.perf_counter() - started)

    track(train)
    assert min(durations) < 0.2  # benchmarks tell how quick; this, that nothing is drawn meanwhile


# How it is turned on


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
