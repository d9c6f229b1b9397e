"""What scores columns: filters, which look at one at a time, and models, which see all of them.

Each takes coded columns and the target, and returns a score of at least 0 for each column.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.feature_selection import (
    chi2,
    f_classif,
    f_regression,
    mutual_info_classif,
    mutual_info_regression,
)
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LassoCV
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Callable

    Judge = Callable[[np.ndarray, np.ndarray, int], np.ndarray]

# How many judges work at once: as many as the task has CPUs, as Ray says to OpenMP.
CPUS = int(os.environ.get("OMP_NUM_THREADS") or 1)
_MODEL_ROWS = 20_000
_SLOW_ROWS = 4_000
_REPEATS = 3


def anova(values: np.ndarray, target: np.ndarray, _seed: int) -> np.ndarray:
    """Return the F statistic: variance between classes by that within, or that of a line."""
    score = f_regression if _is_amount(target) else f_classif
    found: np.ndarray = score(values, target)[0]
    return found


def mutual_info(values: np.ndarray, target: np.ndarray, seed: int) -> np.ndarray:
    """Return what each column tells of the target, in nats, whatever the shape of it."""
    score = mutual_info_regression if _is_amount(target) else mutual_info_classif
    rows = some_rows(len(target), _SLOW_ROWS, seed)
    found: np.ndarray = score(values[rows], target[rows], random_state=seed)
    return found


def chi_squared(values: np.ndarray, target: np.ndarray, _seed: int) -> np.ndarray:
    """Return chi² of the classes and the columns, between 0 and 1."""
    found: np.ndarray = chi2(MinMaxScaler().fit_transform(values), target)[0]
    return found


def correlation(values: np.ndarray, target: np.ndarray, _seed: int) -> np.ndarray:
    """Return the size of Spearman's correlation with the target, or the class it fits best."""
    goals = [target] if _is_amount(target) else [target == label for label in np.unique(target)]
    ranks = _standard(pd.DataFrame(values).rank().to_numpy())
    aims = _standard(pd.DataFrame(np.column_stack(goals).astype(float)).rank().to_numpy())
    sizes: np.ndarray = np.abs(ranks.T @ aims / len(target)).max(axis=1)
    return sizes


def l1(values: np.ndarray, target: np.ndarray, seed: int) -> np.ndarray:
    """Return the size of the coefficients of a linear model that may leave columns out."""
    rows = some_rows(len(target), _MODEL_ROWS, seed)
    if _is_amount(target):
        scaled = _standard(target[rows].reshape(-1, 1))[:, 0]
        coefficients = LassoCV(cv=3, random_state=seed).fit(values[rows], scaled).coef_
    else:
        model = LinearSVC(C=0.05, penalty="l1", dual=False, random_state=seed)
        coefficients = model.fit(values[rows], target[rows]).coef_
    sizes: np.ndarray = np.abs(np.atleast_2d(coefficients)).max(axis=0)
    return sizes


def trees(values: np.ndarray, target: np.ndarray, seed: int) -> np.ndarray:
    """Return by how much extremely randomized trees use each column."""
    rows = some_rows(len(target), _MODEL_ROWS, seed)
    kind = ExtraTreesRegressor if _is_amount(target) else ExtraTreesClassifier
    model = kind(n_estimators=100, min_samples_leaf=5, random_state=seed)
    found: np.ndarray = model.fit(values[rows], target[rows]).feature_importances_
    return found


def permutation(values: np.ndarray, target: np.ndarray, seed: int) -> np.ndarray:
    """Return what boosted trees lose, on rows they have not seen, where a column is shuffled."""
    rows = some_rows(len(target), _SLOW_ROWS, seed)
    learn, hold = train_test_split(rows, test_size=0.3, random_state=seed)
    boosting = (
        HistGradientBoostingRegressor if _is_amount(target) else HistGradientBoostingClassifier
    )
    model = boosting(max_iter=50, early_stopping=False, random_state=seed)
    model.fit(values[learn], target[learn])
    lost = permutation_importance(
        model, values[hold], target[hold], n_repeats=_REPEATS, random_state=seed
    )
    losses: np.ndarray = np.clip(lost.importances_mean, 0, None)
    return losses


FILTERS: dict[str, Judge] = {
    "anova": anova,
    "mutual_info": mutual_info,
    "chi2": chi_squared,
    "correlation": correlation,
}
MODELS: dict[str, Judge] = {"l1": l1, "trees": trees, "permutation": permutation}
OF_CLASSES_ALONE = ("chi2",)


def judge(name: str, values: np.ndarray, target: np.ndarray, seed: int) -> np.ndarray:
    """Return a judge's scores; what its library warns of is no news to whoever asks for votes."""
    # Threads of a library beside those of the judges would only wait for each other.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {**FILTERS, **MODELS}[name](values, target, seed)


def alone(values: np.ndarray, target: np.ndarray, seed: int) -> float:
    """Return how well a small tree predicts the target by these columns alone; 1 is perfect."""
    rows = some_rows(len(target), _SLOW_ROWS, seed)
    kind, scoring = DecisionTreeClassifier, "balanced_accuracy"
    if _is_amount(target):
        kind, scoring = DecisionTreeRegressor, "r2"
    tree = kind(max_leaf_nodes=256, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = cross_val_score(tree, values[rows], target[rows], cv=2, scoring=scoring)
    return float(np.mean(scores))


def some_rows(count: int, most: int, seed: int) -> np.ndarray:
    """Return the places of all rows, or of so many drawn ones."""
    return np.random.default_rng(seed).permutation(count)[:most]


def _is_amount(target: np.ndarray) -> bool:
    return target.dtype.kind == "f"


def _standard(values: np.ndarray) -> np.ndarray:
    deviation = values.std(axis=0)
    found: np.ndarray = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    return found
