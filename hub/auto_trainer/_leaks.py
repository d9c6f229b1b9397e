"""Columns that are the target in disguise: each alone tells what is to be predicted."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import cross_val_predict
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from ._encoders import make_encoder
from ._table import Columns

if TYPE_CHECKING:
    import pandas as pd

    from ._trials import Problem

_ROWS = 4000
_FOLDS = 3
_TELLS = 0.99


def find_leaks(problem: Problem, table: pd.DataFrame, truth: np.ndarray) -> dict[str, float]:
    """Return the columns that alone explain 99 % of the target, with how much they do.

    What is explained is measured on rows that were not learned from: of numbers the variance, of
    classes the errors that saying the commonest one would make.
    """
    chosen = np.random.default_rng(problem.seed).permutation(len(truth))[:_ROWS]
    table, truth = table.iloc[chosen], truth[chosen]
    if problem.classes and not _FOLDS <= np.bincount(truth.astype(int)).max() < len(truth):
        return {}  # one class alone, or none with a row in each fold
    explained = {
        name: _explained(problem, columns, table, truth)
        for name, columns in _each(problem.columns).items()
    }
    return {name: share for name, share in explained.items() if share >= _TELLS}


def _each(columns: Columns) -> dict[str, Columns]:
    one_each = {name: Columns(few=[name]) for name in columns.few}
    one_each |= {name: Columns(many=[name]) for name in columns.many}
    one_each |= {name: Columns(numbers=[name]) for name in columns.numbers}
    return one_each | {name: Columns(times={name: when}) for name, when in columns.times.items()}


def _explained(
    problem: Problem, columns: Columns, table: pd.DataFrame, truth: np.ndarray
) -> float:
    kind = DecisionTreeClassifier if problem.classes else DecisionTreeRegressor
    tree = kind(min_samples_leaf=2, random_state=problem.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer rows than folds
        rows = make_encoder("codes", columns, problem.classes).fit_transform(table, truth)
        said = cross_val_predict(tree, rows, truth, cv=_FOLDS)
    if problem.classes:
        wrong = (said != truth).mean()
        return float(1 - wrong / (1 - np.bincount(truth.astype(int)).max() / len(truth)))
    return float(1 - np.square(said - truth).mean() / truth.var())
