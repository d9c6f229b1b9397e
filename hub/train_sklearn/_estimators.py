"""Estimators by name: found, checked and made."""

from __future__ import annotations

import inspect
import os
from difflib import get_close_matches
from typing import Any

import lightgbm
import numpy as np
import xgboost
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import VotingClassifier
from sklearn.utils import all_estimators

import rayml

_BOOSTERS = (
    lightgbm.LGBMClassifier,
    lightgbm.LGBMRegressor,
    xgboost.XGBClassifier,
    xgboost.XGBRegressor,
    xgboost.XGBRFClassifier,
    xgboost.XGBRFRegressor,
)


def find_estimator(name: str) -> type[BaseEstimator]:
    """Return the class that a bare or dotted name means.

    Raises:
        SpecError: scikit-learn, LightGBM and XGBoost have no such classifier or regressor.
    """
    known: dict[str, type[BaseEstimator]] = {
        **dict(all_estimators(type_filter=["classifier", "regressor"])),
        **{kind.__name__: kind for kind in _BOOSTERS},
    }
    package, _, last = name.rpartition(".")
    kind = known.get(last)
    if kind is not None and kind.__module__.startswith(package.partition(".")[0]):
        return kind
    near = _nearest(last, list(known))
    way_out = f"did you mean {near!r}?" if near else "give such as 'RandomForestClassifier'"
    raise rayml.SpecError(
        f"estimator={name!r} is no classifier or regressor of scikit-learn, LightGBM or XGBoost; "
        f"{way_out}"
    )


def make_estimator(kind: type[BaseEstimator], params: dict[str, Any], seed: int) -> BaseEstimator:
    """Return the estimator with these parameters, and the seed wherever none is given.

    Raises:
        SpecError: It has no parameter of that name, or lacks one that it needs.
    """
    if kind.__module__.startswith("lightgbm."):
        params = {"verbose": -1, **params}
    taken = inspect.signature(kind).parameters.values()
    known = [p.name for p in taken if p.kind is not inspect.Parameter.VAR_KEYWORD]
    if len(known) == len(taken) and (unknown := [name for name in params if name not in known]):
        near = _nearest(unknown[0], known)
        way_out = f"did you mean {near!r}?" if near else f"known: {', '.join(sorted(known))}"
        raise rayml.SpecError(f"{kind.__name__} has no parameter {unknown[0]!r}; {way_out}")
    try:
        made: Any = kind(**params)
    except TypeError as exc:
        raise rayml.SpecError(f"{kind.__name__} cannot be made: {exc}; set `params`") from exc
    own = made.get_params(deep=False)
    if own.get("random_state", 0) is None:
        made.set_params(random_state=seed)
    if kind.__module__.startswith("sklearn.ensemble.") and own.get("n_jobs", 0) is None:
        made.set_params(n_jobs=_cpus())
    return made


def other_kind(kind: type[BaseEstimator]) -> str:
    """Return the way out where a classifier is given numbers, or a regressor words."""
    name = kind.__name__
    swapped = name.replace("Classifier", "\0").replace("Regressor", "Classifier")
    swapped = swapped.replace("\0", "Regressor")
    if swapped == name:
        return f"choose a {'regressor' if issubclass(kind, ClassifierMixin) else 'classifier'}"
    return f"did you mean {swapped!r}?"


def with_own_labels(estimator: BaseEstimator, target: np.ndarray) -> BaseEstimator:
    """Return the estimator so that it takes these labels.

    XGBoost takes 0, 1, 2 and so on alone. A vote of one is scikit-learn's own class that keeps
    the labels, so that the model predicts them and is loaded without any code of ours.
    """
    if not isinstance(estimator, xgboost.XGBClassifier):
        return estimator
    labels = np.unique(target)
    if labels.dtype.kind in "iu" and np.array_equal(labels, np.arange(len(labels))):
        return estimator
    return VotingClassifier([("xgboost", estimator)], voting="soft")


def _nearest(name: str, known: list[str]) -> str:
    """Return the likest name, whatever its case: `randomforestclassifier` is one."""
    by_lower = {one.lower(): one for one in known}
    near = get_close_matches(name.lower(), list(by_lower), n=1)
    return by_lower[near[0]] if near else ""


def _cpus() -> int | None:
    """Return how many CPUs the task has, as Ray says to OpenMP; None for one."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    count = int(given) if given.isdecimal() else len(os.sched_getaffinity(0))
    return count if count > 1 else None
