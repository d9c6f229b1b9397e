"""Automatic logging of XGBoost and LightGBM: native trainings, estimators, cross-validations."""

from __future__ import annotations

import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest

import rayml
from rayml import autologging

if TYPE_CHECKING:
    from rayml import Run

pytest.importorskip("sklearn")
lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")

from sklearn.metrics import roc_auc_score  # noqa: E402 - an extra
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from xgboost.callback import TrainingCallback  # noqa: E402

pytestmark = pytest.mark.usefixtures("autolog")
RANDOM = np.random.default_rng(0)
X = RANDOM.random((400, 3))
Y = (X[:, 0] + 0.5 * X[:, 1] + 0.3 * RANDOM.random(400) > 0.9).astype(int)
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])
XGB = {
    "objective": "binary:logistic",
    "eval_metric": ["logloss", "auc"],
    "max_depth": 2,
    "nthread": 1,
}
LGB = {"objective": "binary", "metric": ["auc", "binary_logloss"], "num_leaves": 7, "verbose": -1}
LGB |= {"num_threads": 1, "deterministic": True}


def boost(rounds: int = 12, **options: Any) -> Any:
    """Train with XGBoost on the first 300 rows, and evaluate on the others too."""
    train = xgboost.DMatrix(FRAME[:300], label=Y[:300])
    valid = xgboost.DMatrix(FRAME[300:], label=Y[300:])
    evals = [(train, "train"), (valid, "valid")]
    return xgboost.train(XGB, train, rounds, **{"evals": evals, "verbose_eval": False, **options})


def boost_light(rounds: int = 12, **options: Any) -> Any:
    """Train with LightGBM on the first 300 rows, and evaluate on the others too."""
    train = lightgbm.Dataset(FRAME[:300], label=Y[:300])
    valid = lightgbm.Dataset(FRAME[300:], label=Y[300:], reference=train)
    given = {"valid_sets": [valid], "valid_names": ["valid"], **options}
    return lightgbm.train(LGB, train, num_boost_round=rounds, **given)


def values(run: Run, name: str) -> list[float]:
    return list(run.history(name)["value"])


# What is logged


def test_a_booster_of_xgboost(track: Any) -> None:
    told: dict[str, Any] = {}
    kept: list[Any] = []
    run = track(lambda: kept.append(boost(evals_result=told, early_stopping_rounds=50)))
    (model,) = kept
    best = model.best_iteration
    for data in ("train", "valid"):
        assert values(run, f"{data}/auc") == pytest.approx(told[data]["auc"])
        assert values(run, f"{data}/logloss") == pytest.approx(told[data]["logloss"])
    assert run.metrics["train/iterations"] == 12
    assert run.metrics["train/best_iteration"] == best
    assert run.metrics["valid/best_auc"] == pytest.approx(told["valid"]["auc"][best])
    shown = {name: run.params[f"model/{name}"] for name in ("class", "max_depth", "eval_metric")}
    assert shown == {"class": "xgboost.Booster", "max_depth": 2, "eval_metric": ["logloss", "auc"]}
    assert run.params["model/num_boost_round"] == 12
    assert run.params["model/early_stopping_rounds"] == 50
    assert (run.params["train/rows"], run.params["train/columns"]) == (300, 3)
    schema = run.artifact("train/schema").to_pandas()
    assert schema["name"].tolist() == ["a", "b", "c"]

    stored = run.artifact("model")
    matrix = xgboost.DMatrix(FRAME)
    assert stored.load().predict(matrix).tolist() == model.predict(matrix).tolist()
    assert [column["name"] for column in stored.meta["signature"]["inputs"]] == ["a", "b", "c"]
    assert len(stored.meta["input_example"]) == 5
    importance = run.artifact("train/feature_importance").to_pandas()
    assert set(importance.columns[1:]) == {
        *("importance", "weight", "cover", "total_gain", "total_cover"),
    }
    gain = model.get_score(importance_type="gain")
    shown = dict(zip(importance["feature"], importance["importance"], strict=True))
    assert shown == pytest.approx({"a": 0.0, "b": 0.0, "c": 0.0} | gain)
    assert "train/plots/feature_importance" in run.artifacts


def test_a_booster_of_lightgbm(track: Any) -> None:
    told: dict[str, Any] = {}
    kept: list[Any] = []
    callbacks = [lightgbm.record_evaluation(told), lightgbm.early_stopping(3, verbose=False)]
    run = track(lambda: kept.append(boost_light(60, callbacks=callbacks)))
    (model,) = kept
    assert values(run, "valid/auc") == pytest.approx(told["valid"]["auc"])
    assert 0 < model.best_iteration < 60
    assert run.metrics["train/best_iteration"] == model.best_iteration
    assert run.metrics["valid/best_auc"] == pytest.approx(model.best_score["valid"]["auc"])
    assert run.params["model/class"] == "lightgbm.Booster"
    assert run.params["model/early_stopping_rounds"] == 3
    assert (run.params["model/num_leaves"], run.params["model/num_boost_round"]) == (7, 60)
    assert (run.params["train/rows"], run.params["train/columns"]) == (300, 3)
    schema = run.artifact("train/schema").to_pandas()
    assert schema.to_dict("list") == {"name": ["a", "b", "c"], "type": ["float64"] * 3}

    stored = run.artifact("model")
    assert stored.load().predict(X).tolist() == model.predict(X).tolist()
    assert [column["name"] for column in stored.meta["signature"]["inputs"]] == ["a", "b", "c"]
    importance = run.artifact("train/feature_importance").to_pandas()
    shown = dict(zip(importance["feature"], importance["split"], strict=True))
    assert shown == dict(zip("abc", model.feature_importance("split"), strict=True))


BOTH = (
    (
        lambda: xgboost.XGBClassifier(n_estimators=9, eval_metric="auc", n_jobs=1),
        {"eval_set": [(X[300:], Y[300:])], "verbose": False},
        "validation_0",
    ),
    (
        lambda: lightgbm.LGBMClassifier(n_estimators=9, metric="auc", verbose=-1, n_jobs=1),
        {"eval_X": X[300:], "eval_y": Y[300:]},
        "valid_0",
    ),
)


@pytest.mark.parametrize(("model", "options", "names"), BOTH)
def test_an_estimator_has_its_curves_too(
    track: Any, model: Any, options: dict[str, Any], names: str
) -> None:
    estimator = model()
    run = track(lambda: estimator.fit(X[:300], Y[:300], **options))
    results = estimator.evals_result_ if names == "valid_0" else estimator.evals_result()
    assert values(run, f"{names}/auc") == pytest.approx(list(results[names]["auc"]))
    assert run.metrics["train/iterations"] == 9
    assert run.params["model/n_estimators"] == 9
    assert run.metrics["train/accuracy"] == estimator.score(X[:300], Y[:300])
    importance = run.artifact("train/feature_importance").to_pandas().set_index("feature")
    assert importance["importance"].tolist() == sorted(estimator.feature_importances_)[::-1]
    assert "gain" in importance.columns
    assert run.artifact("model").load().n_estimators == 9


def test_what_an_estimator_is_inside_of_is_one_fit_without_curves(track: Any) -> None:
    grid = GridSearchCV(
        xgboost.XGBClassifier(n_estimators=3, n_jobs=1), {"max_depth": [1, 2]}, cv=2
    )
    pipeline = make_pipeline(
        StandardScaler(), lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1)
    )

    def fit() -> None:
        grid.fit(X, Y)
        pipeline.fit(X, Y)

    run = track(fit)
    assert run.params["model/max_depth"] == grid.best_params_["max_depth"]
    assert run.params["model-2/class"] == "Pipeline"
    assert not [name for name in run.metrics if "iterations" in name]
    assert "gain" in run.artifact("train-2/feature_importance").to_pandas().columns


def test_cross_validations(track: Any) -> None:
    told: list[Any] = []

    def validate() -> None:
        matrix = xgboost.DMatrix(X, label=Y)
        told.append(xgboost.cv(XGB, matrix, 4, nfold=2, seed=1))
        told.append(
            lightgbm.cv(LGB, lightgbm.Dataset(X, label=Y), 5, nfold=3, return_cvbooster=True)
        )
        boost()

    run = track(validate)
    assert values(run, "cv/test/auc-mean") == pytest.approx(told[0]["test-auc-mean"].tolist())
    assert values(run, "cv/train/logloss-std") == pytest.approx(
        told[0]["train-logloss-std"].tolist()
    )
    assert values(run, "cv-2/valid/auc-mean") == pytest.approx(told[1]["valid auc-mean"])
    assert (run.params["cv/nfold"], run.params["cv/max_depth"], run.params["cv-2/nfold"]) == (
        2,
        2,
        3,
    )
    assert (run.metrics["cv/iterations"], run.metrics["cv-2/iterations"]) == (4, 5)
    assert run.params["model/class"] == "xgboost.Booster"


@pytest.mark.parametrize("train", [boost, boost_light])
def test_scores_of_what_a_booster_predicts(track: Any, train: Any) -> None:
    score = {}

    def job() -> None:
        valid = Y[300:]
        model = train()
        data = FRAME[300:] if train is boost_light else xgboost.DMatrix(FRAME[300:])
        score["auc"] = roc_auc_score(valid, model.predict(data))

    run = track(job)
    assert run.metrics["valid/roc_auc_score"] == score["auc"]


def test_scores_of_what_xgboost_predicts_without_a_matrix(track: Any) -> None:
    def job() -> None:
        valid = Y[300:]
        roc_auc_score(valid, boost().inplace_predict(FRAME[300:]))

    assert "valid/roc_auc_score" in track(job).metrics


def test_several_trainings_have_names_of_their_own(track: Any) -> None:
    run = track(lambda: [boost(3), boost_light(4)])
    assert len(values(run, "valid/auc")) == 3
    assert len(values(run, "valid-2/auc")) == 4
    assert run.params["model-2/class"] == "lightgbm.Booster"
    assert run.metrics["train-2/iterations"] == 4


def test_two_trainings_in_threads(track: Any) -> None:
    together = Barrier(2)

    def one(_: int) -> None:
        together.wait()
        boost(5)

    def both() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, range(2)))

    run = track(both)
    assert len(values(run, "valid/auc")) == len(values(run, "valid-2/auc")) == 5


# Of other kinds


@pytest.mark.parametrize(
    "params",
    [
        {"booster": "gblinear", "objective": "reg:squarederror"},
        {"booster": "dart", "objective": "binary:logistic"},
        {"objective": "multi:softprob", "num_class": 3},
    ],
)
def test_other_boosters_of_xgboost(
    track: Any, params: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    matrix = xgboost.DMatrix(X, label=(X[:, 0] * 2.99).astype(int) if "num_class" in params else Y)
    run = track(lambda: xgboost.train({**params, "nthread": 1}, matrix, 3))
    assert not caplog.records
    importance = run.artifact("train/feature_importance").to_pandas()
    assert importance["feature"][0] == "f0"
    assert run.artifact("model").meta["signature"]["inputs"][0]["shape"] == [None, 3]


def test_a_matrix_of_quantiles_has_no_example(
    track: Any, caplog: pytest.LogCaptureFixture
) -> None:
    matrix = xgboost.QuantileDMatrix(X, label=Y)
    run = track(lambda: xgboost.train(XGB, matrix, 3))
    assert not caplog.records
    assert run.params["train/rows"] == 400
    assert run.artifact("model").load().num_boosted_rounds() == 3


def test_categories(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    words = FRAME.assign(d=pd.Categorical(np.where(X[:, 0] > 0.5, "high", "low")))

    def train() -> None:
        xgboost.train(XGB, xgboost.DMatrix(words, label=Y, enable_categorical=True), 3)
        lightgbm.train(LGB, lightgbm.Dataset(words, label=Y), 3)

    run = track(train)
    assert not caplog.records
    assert run.artifact("train/schema").to_pandas()["type"].tolist() == [*["float"] * 3, "c"]
    assert run.artifact("train-2/schema").to_pandas()["type"].tolist()[3] == "category"
    assert (run.artifact("model-2").predict(words) >= 0).all()


# Left as it is


@pytest.mark.parametrize("train", [boost, boost_light])
def test_results_are_the_same_to_the_bit(track: Any, train: Any) -> None:
    kept: list[Any] = []
    track(lambda: kept.append(train()))
    autologging.stop()
    kept.append(train())
    logged, plain = ([m.predict(X) if train is boost_light else m.save_raw()] for m in kept)
    assert np.array_equal(logged, plain)


def test_callbacks_of_the_users_are_called_as_before(track: Any) -> None:
    seen: list[int] = []

    class Stop(TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            seen.append(epoch)
            return epoch == 2

    given = [Stop()]
    run = track(lambda: boost(callbacks=given))
    assert (seen, len(given)) == ([0, 1, 2], 1)
    assert len(values(run, "valid/auc")) == 3
    assert run.metrics["train/iterations"] == 3

    light: list[int] = []
    run = track(lambda: boost_light(4, callbacks=[lambda env: light.append(env.iteration)]))
    assert light == [0, 1, 2, 3]


def test_outside_of_a_run_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert boost(2).num_boosted_rounds() == 2
    assert boost_light(2).current_iteration() == 2
    assert not caplog.records


def test_an_error_of_a_training_is_the_users_own(track: Any) -> None:
    def fail(*_: object) -> tuple[str, float]:
        raise ZeroDivisionError

    def train() -> None:
        with pytest.raises(ZeroDivisionError):
            boost(custom_metric=fail)
        with pytest.raises(TypeError, match="dtrain"):
            xgboost.train(XGB)
        with pytest.raises(xgboost.core.XGBoostError):
            xgboost.train({"max_depth": -3}, xgboost.DMatrix(X, label=Y))

    run = track(train)
    assert not [name for name in run.params if name.startswith("model")]
    assert run.artifacts == {}


def test_a_name_that_cannot_be_logged_is_one_warning(
    track: Any, caplog: pytest.LogCaptureFixture
) -> None:
    matrix = xgboost.DMatrix(X, label=Y)
    run = track(
        lambda: xgboost.train(XGB, matrix, 4, evals=[(matrix, "v" * 300)], verbose_eval=False)
    )
    assert len(caplog.records) == 1
    assert "the curves of a training" in caplog.records[0].getMessage()
    assert run.metrics["train/iterations"] == 4


@pytest.mark.parametrize("library", [xgboost, lightgbm])
def test_what_has_moved_is_named(
    library: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    autologging.stop()
    monkeypatch.delattr(library, "cv")
    rayml.autolog()
    (said,) = {record.getMessage() for record in caplog.records}
    assert f"{library.__name__}.cv cannot be watched" in said
    assert library.__version__ in said


@pytest.mark.parametrize("library", [xgboost, lightgbm])
def test_everything_is_undone(library: Any) -> None:
    hooked, plain = library.train, library.train.__wrapped__
    assert inspect.signature(hooked) == inspect.signature(plain)
    assert library.sklearn.train is hooked
    autologging.stop()
    assert library.train is library.sklearn.train is plain
    assert "rayml" not in library.cv.__code__.co_filename
    assert inspect.isfunction(vars(library.Booster)["predict"])


@pytest.mark.parametrize("library", [xgboost, lightgbm])
def test_nothing_of_rayml_goes_to_another_process(library: Any) -> None:
    told = cloudpickle.dumps([library.train, library.cv, library.Booster.predict])
    assert b"rayml" not in told
    autologging.stop()
    assert pickle.loads(told)[0] is library.train
