"""The kinds of models that the search tries: how each is fitted, and what of it may vary."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import numpy as np
import xgboost as xgb
from lightgbm.callback import EarlyStopException
from sklearn import ensemble, linear_model, neural_network

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import optuna

    from ._encoders import Kind
    from ._metrics import Metric

_PATIENCE = 50
_MOST_ROUNDS = 3000
_ENOUGH_TO_ORDER = 5000
_MOST_TREES = 200
_TREES_AT_ONCE = 10
_MOST_EPOCHS = 200
_EPOCHS_PATIENCE = 12
# A forest of full trees over many rows takes gigabytes.
_MOST_LEAVES = 8000

Params = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Encoded rows to learn from, and others to see when to stop.

    Attributes:
        rows: To learn from.
        truth: Their numbers, or the places of their classes, all from 0 on.
        codes: How many of the first columns are codes of categories.
        valid: Rows to score after each round; None if the number of rounds is known.
        valid_truth: Of these.
        metric: What counts.
        rounds: How many to make, of trees or epochs; None until it gets no better.
        until: The monotonic second at which to stop, with what there is by then.
        threads: How many to use.
        seed: Of what is random.
    """

    rows: np.ndarray
    truth: np.ndarray
    codes: int
    metric: Metric
    valid: np.ndarray | None = None
    valid_truth: np.ndarray | None = None
    rounds: int | None = None
    until: float = np.inf
    threads: int = 1
    seed: int = 0

    @property
    def is_number(self) -> bool:
        """The target is one."""
        return self.metric.task == "regression"

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.truth.max()) + 1

    def is_late(self) -> bool:
        """It is time to stop."""
        return time.monotonic() > self.until


@dataclass(frozen=True)
class Family:
    """One kind of models.

    Attributes:
        kind: How its rows are encoded.
        fit: Returns a fitted estimator, and after how many rounds it was best.
        vary: Draws parameters.
        starts: Parameters that usually do well; none are the library's own defaults.
    """

    kind: Kind
    fit: Callable[[Part, Mapping[str, Any]], tuple[Any, int | None]]
    vary: Callable[[optuna.Trial], Params]
    starts: tuple[Params, ...] = field(default=({},))


# --- boosting ---


def _fit_lightgbm(part: Part, params: Mapping[str, Any]) -> tuple[Any, int | None]:
    kind = lgb.LGBMRegressor if part.is_number else lgb.LGBMClassifier
    objective: Params = {"objective": "mae"} if part.metric.name == "mae" else {}
    stops = part.rounds is None
    # Without parameters of its own it is what LightGBM does by default, rounds included.
    rounds = part.rounds or (_MOST_ROUNDS if params else 100)
    model = kind(
        n_estimators=rounds,
        n_jobs=part.threads,
        random_state=part.seed,
        verbosity=-1,
        **objective,
        **params,
    )
    callbacks: list[Any] = [_lightgbm_until(part)]
    given: Params = {}
    if stops and params:
        callbacks.append(lgb.early_stopping(_PATIENCE, first_metric_only=True, verbose=False))
    if stops and part.valid is not None:
        given = {"eval_set": [(part.valid, part.valid_truth)], "eval_metric": _eval_metric(part)}
    categories: Any = list(range(part.codes)) or "auto"
    model.fit(part.rows, part.truth, categorical_feature=categories, callbacks=callbacks, **given)
    return model, (model.best_iteration_ or model.n_iter_) if stops else rounds


def _lightgbm_until(part: Part) -> Callable[[Any], None]:
    def stop(environment: Any) -> None:  # noqa: ANN401 - a named tuple without a public name
        if part.is_late():
            raise EarlyStopException(environment.iteration, environment.evaluation_result_list)

    return stop


def _eval_metric(part: Part) -> str | None:
    """Return LightGBM's name of what to stop by; None is the loss that it fits."""
    return {"roc_auc": "auc", "average_precision": "average_precision"}.get(_stop_by(part))


def _stop_by(part: Part) -> str:
    """Return the metric to stop by; of few rows, how these are ordered is too much of a chance."""
    is_sure = part.valid is not None and len(part.valid) >= _ENOUGH_TO_ORDER
    return part.metric.name if part.metric.task == "binary" and is_sure else ""


def _vary_lightgbm(trial: optuna.Trial) -> Params:
    return {
        "learning_rate": trial.suggest_float("lightgbm/learning_rate", 0.01, 0.3, log=True),
        "num_leaves": trial.suggest_int("lightgbm/num_leaves", 4, 256, log=True),
        "min_child_samples": trial.suggest_int("lightgbm/min_child_samples", 2, 128, log=True),
        "subsample": trial.suggest_float("lightgbm/subsample", 0.5, 1),
        "subsample_freq": 1,
        "colsample_bytree": trial.suggest_float("lightgbm/colsample_bytree", 0.3, 1),
        "reg_alpha": trial.suggest_float("lightgbm/reg_alpha", 1e-4, 10, log=True),
        "reg_lambda": trial.suggest_float("lightgbm/reg_lambda", 1e-3, 100, log=True),
    }


class _XGBoostUntil(xgb.callback.TrainingCallback):
    def __init__(self, part: Part) -> None:
        super().__init__()
        self._part = part

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ANN401, ARG002
        return self._part.is_late()


def _fit_xgboost(part: Part, params: Mapping[str, Any]) -> tuple[Any, int | None]:
    kind = xgb.XGBRegressor if part.is_number else xgb.XGBClassifier
    objective = {"objective": "reg:absoluteerror"} if part.metric.name == "mae" else {}
    metric = {"roc_auc": "auc", "average_precision": "aucpr"}.get(_stop_by(part))
    types = ["c"] * part.codes + ["q"] * (part.rows.shape[1] - part.codes)
    stops = part.rounds is None
    model = kind(
        n_estimators=part.rounds or _MOST_ROUNDS,
        tree_method="hist",
        enable_categorical=part.codes > 0,
        feature_types=types if part.codes else None,
        n_jobs=part.threads,
        random_state=part.seed,
        early_stopping_rounds=_PATIENCE if stops else None,
        eval_metric=metric,
        callbacks=[_XGBoostUntil(part)],
        **objective,
        **params,
    )
    given = {"eval_set": [(part.valid, part.valid_truth)]} if stops else {}
    model.fit(part.rows, part.truth, verbose=False, **given)
    model.set_params(callbacks=None, early_stopping_rounds=None)
    return model, model.best_iteration + 1 if stops else part.rounds


def _vary_xgboost(trial: optuna.Trial) -> Params:
    return {
        "learning_rate": trial.suggest_float("xgboost/learning_rate", 0.01, 0.3, log=True),
        "max_depth": trial.suggest_int("xgboost/max_depth", 2, 10),
        "min_child_weight": trial.suggest_float("xgboost/min_child_weight", 0.01, 64, log=True),
        "subsample": trial.suggest_float("xgboost/subsample", 0.5, 1),
        "colsample_bytree": trial.suggest_float("xgboost/colsample_bytree", 0.3, 1),
        "gamma": trial.suggest_float("xgboost/gamma", 1e-6, 10, log=True),
        "reg_alpha": trial.suggest_float("xgboost/reg_alpha", 1e-4, 10, log=True),
        "reg_lambda": trial.suggest_float("xgboost/reg_lambda", 1e-3, 100, log=True),
    }


def _fit_hist(part: Part, params: Mapping[str, Any]) -> tuple[Any, int | None]:
    kind = ensemble.HistGradientBoostingRegressor
    loss = {"loss": "absolute_error"} if part.metric.name == "mae" else {}
    if not part.is_number:
        kind = ensemble.HistGradientBoostingClassifier
    stops = part.rounds is None
    model = kind(
        max_iter=part.rounds or 400,
        early_stopping=stops,
        n_iter_no_change=20,
        random_state=part.seed,
        categorical_features=list(range(part.codes)),
        **loss,
        **params,
    )
    given = {"X_val": part.valid, "y_val": part.valid_truth} if stops else {}
    model.fit(part.rows, part.truth, **given)
    return model, model.n_iter_


def _vary_hist(trial: optuna.Trial) -> Params:
    return {
        "learning_rate": trial.suggest_float("hist/learning_rate", 0.02, 0.3, log=True),
        "max_leaf_nodes": trial.suggest_int("hist/max_leaf_nodes", 4, 128, log=True),
        "min_samples_leaf": trial.suggest_int("hist/min_samples_leaf", 2, 128, log=True),
        "l2_regularization": trial.suggest_float("hist/l2_regularization", 1e-6, 10, log=True),
        "max_features": trial.suggest_float("hist/max_features", 0.3, 1),
    }


# --- forests ---


def _fit_forest(part: Part, params: Mapping[str, Any]) -> tuple[Any, int | None]:
    kinds = ensemble.RandomForestClassifier, ensemble.RandomForestRegressor
    return _grow(kinds[part.is_number], part, params)


def _fit_extra_trees(part: Part, params: Mapping[str, Any]) -> tuple[Any, int | None]:
    kinds = ensemble.ExtraTreesClassifier, ensemble.ExtraTreesRegressor
    return _grow(kinds[part.is_number], part, params)


def _grow(kind: Any, part: Part, params: Mapping[str, Any]) -> tuple[Any, int]:  # noqa: ANN401
    """Add trees until there are enough, or it is late."""
    trees = part.rounds or _MOST_TREES
    features = {"max_features": 0.5} if part.is_number else {"max_features": "sqrt"}
    given = features | dict(params)
    given["min_samples_leaf"] = max(
        given.get("min_samples_leaf", 1), len(part.rows) // _MOST_LEAVES
    )
    model = kind(
        n_estimators=0, warm_start=True, n_jobs=part.threads, random_state=part.seed, **given
    )
    while model.n_estimators < trees and not (model.n_estimators and part.is_late()):
        model.n_estimators = min(trees, model.n_estimators + _TREES_AT_ONCE)
        model.fit(part.rows, part.truth)
    return model.set_params(warm_start=False), model.n_estimators


def _vary_forest(name: str) -> Callable[[optuna.Trial], Params]:
    def vary(trial: optuna.Trial) -> Params:
        return {
            "max_features": trial.suggest_float(f"{name}/max_features", 0.05, 1, log=True),
            "min_samples_leaf": trial.suggest_int(f"{name}/min_samples_leaf", 1, 32, log=True),
        }

    return vary


# --- what adds up ---


def _fit_linear(part: Part, params: Mapping[str, Any]) -> tuple[Any, int | None]:
    strength = params.get("C", 1.0)
    if not part.is_number:
        model = linear_model.LogisticRegression(C=strength, max_iter=300)
    else:
        model = linear_model.Ridge(alpha=1 / strength)
    return model.fit(part.rows, part.truth), None


def _vary_linear(trial: optuna.Trial) -> Params:
    return {"C": trial.suggest_float("linear/C", 1e-4, 1e3, log=True)}


def _fit_network(part: Part, params: Mapping[str, Any]) -> tuple[Any, int | None]:
    """Fit epoch by epoch, and go back to the best one."""
    given = {"hidden_layer_sizes": (128,), "alpha": 1e-3} | _layers(params)
    kind = neural_network.MLPRegressor if part.is_number else neural_network.MLPClassifier
    model = kind(random_state=part.seed, batch_size=_batch(len(part.rows)), **given)
    mean, scale = (part.truth.mean(), part.truth.std() or 1.0) if part.is_number else (0, 1)
    truth = (part.truth - mean) / scale if part.is_number else part.truth
    classes = {} if part.is_number else {"classes": np.arange(part.classes)}
    best, best_epoch, weights = -np.inf, 0, None
    for epoch in range(1, (part.rounds or _MOST_EPOCHS) + 1):
        model.partial_fit(part.rows, truth, **classes)
        if part.valid is not None and part.rounds is None:
            score = _network_score(model, part, mean, scale)
            if score > best:
                best, best_epoch = score, epoch
                weights = copy.deepcopy((model.coefs_, model.intercepts_))
            elif epoch - best_epoch >= _EPOCHS_PATIENCE:
                break
        if part.is_late():
            break
    if weights is not None:
        model.coefs_, model.intercepts_ = weights
    _unscale(model, mean, scale)
    return model, best_epoch or part.rounds


def _batch(rows: int) -> int:
    return int(np.clip(rows // 50, min(rows, 16), 256))


def _layers(params: Mapping[str, Any]) -> Params:
    given = dict(params)
    if "width" in given:
        given["hidden_layer_sizes"] = (given.pop("width"),) * given.pop("layers")
    return given


def _network_score(model: Any, part: Part, mean: float, scale: float) -> float:  # noqa: ANN401
    if part.is_number:
        said = model.predict(part.valid) * scale + mean
        return -float(np.square(said - part.valid_truth).mean())
    shares = model.predict_proba(part.valid)
    own = shares[np.arange(len(shares)), np.asarray(part.valid_truth, dtype=int)]
    return float(np.log(np.clip(own, 1e-15, 1)).mean())


def _unscale(model: Any, mean: float, scale: float) -> None:  # noqa: ANN401
    """Let a network say the target itself: its last layer is linear."""
    if scale != 1 or mean != 0:
        model.coefs_[-1] = model.coefs_[-1] * scale
        model.intercepts_[-1] = model.intercepts_[-1] * scale + mean


def _vary_network(trial: optuna.Trial) -> Params:
    return {
        "width": trial.suggest_int("network/width", 16, 256, log=True),
        "layers": trial.suggest_int("network/layers", 1, 3),
        "alpha": trial.suggest_float("network/alpha", 1e-6, 1, log=True),
        "learning_rate_init": trial.suggest_float(
            "network/learning_rate_init", 2e-4, 2e-2, log=True
        ),
    }


_STEADY = {"learning_rate": 0.05, "num_leaves": 31, "subsample": 0.8, "subsample_freq": 1}
_SMALL = {"learning_rate": 0.05, "num_leaves": 8, "min_child_samples": 5, "colsample_bytree": 0.5}

# Where columns tell something only together, as a month and a day do, a tree needs all of them.
_LARGE = {"num_leaves": 63, "reg_lambda": 10.0}

# In the order in which they are tried: what is good on most tables first.
FAMILIES: dict[str, Family] = {
    "lightgbm": Family(
        "codes",
        _fit_lightgbm,
        _vary_lightgbm,
        ({}, _LARGE, _STEADY | {"colsample_bytree": 0.7}, _SMALL | {"reg_lambda": 1.0}),
    ),
    "linear": Family("scaled", _fit_linear, _vary_linear),
    "extra_trees": Family("codes", _fit_extra_trees, _vary_forest("extra_trees")),
    "xgboost": Family(
        "codes",
        _fit_xgboost,
        _vary_xgboost,
        (
            {"learning_rate": 0.1, "max_depth": 6, "subsample": 0.8, "colsample_bytree": 0.8},
            {"learning_rate": 0.05, "max_depth": 3, "subsample": 0.7, "colsample_bytree": 0.5},
        ),
    ),
    "network": Family("scaled", _fit_network, _vary_network),
    "forest": Family("codes", _fit_forest, _vary_forest("forest")),
    "hist": Family("codes", _fit_hist, _vary_hist),
}
