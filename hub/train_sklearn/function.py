"""Any classifier or regressor of scikit-learn, LightGBM or XGBoost, on a table as it is."""

from __future__ import annotations

import re
import warnings as python_warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

import rayml

from ._columns import as_kinds, check_columns, kinds_of
from ._estimators import find_estimator, make_estimator, with_own_labels
from ._importances import importances_of, importances_plot
from ._leaks import warn_of_leaks
from ._preparation import preparation
from ._target import row_weights, split_rows, target_values

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from ._columns import Kind

_NAME = re.compile(r"\w[\w.-]{0,99}")
_SHOWN_ROWS = 5


def train_sklearn(  # noqa: PLR0913, PLR0917 - what can be asked of a training, by name
    context: rayml.Context,
    table: pd.DataFrame,
    target: str,
    estimator: str,
    params: dict[str, Any] | None = None,
    test: pd.DataFrame | None = None,
    test_size: float = 0.2,
    features: list[str] | None = None,
    drop: list[str] | None = None,
    weight: str | None = None,
    class_weight: str | dict[str, float] | None = None,
    preprocess: bool = True,  # noqa: FBT001, FBT002 - parameters of a job have names
    register_as: str | None = None,
    alias: str | None = None,
    seed: int = 0,
) -> dict[str, object]:
    """Train any scikit-learn, LightGBM or XGBoost estimator by its name, and test it.

    Numbers, categories, dates and missing values are prepared by steps of scikit-learn that are a
    part of the model: it takes rows with the columns and types of its signature, and is loaded
    without trust. Logs the artifact `model`, and what `evaluate` logs of the rows held out:
    metrics by their names with intervals, the plots of the task, tables; also the tables
    `feature_importances`, with a plot, and `warnings`, which names columns that look like the
    target in disguise. Returns the model's URI, that of the
    registered version if there is one, and the metrics.

    Args:
        context: What the run logs to.
        table: The rows to learn from.
        target: The column to predict; rows without it are left out.
        estimator: A class: "RandomForestClassifier", "LGBMRegressor", "xgboost.XGBClassifier", …
        params: Its parameters, by name.
        test: Rows to test with; by default a part of the table is held out.
        test_size: The share of the rows that is held out, each class by the same share.
        features: The columns to learn from; all but the target by default.
        drop: Columns not to learn from.
        weight: A column that says what each row counts, in training and test.
        class_weight: "balanced" to let rare classes count as much as others, or what a row of
            each class counts; in training alone.
        preprocess: False gives the estimator the columns as they are.
        register_as: Register the model by this name.
        alias: What is to name the registered version, such as "production".
        seed: Of the split and of the estimator, unless `params` gives it `random_state`.

    Raises:
        SpecError: There is no such estimator, parameter or column; the target is constant, or no
            classes for a classifier or no numbers for a regressor; or the estimator refuses its
            parameters or the rows.
    """
    _check_words(register_as, alias, test_size)
    made = make_estimator(find_estimator(estimator), dict(params or {}), seed)
    others = [*(drop or []), *([weight] if weight else [])]
    table = _checked(table, [target, *(features or []), *others])
    if target in (features or []):
        raise rayml.SpecError(f"target {target!r} is among the features; leave it out of them")
    _check_weights(made, weight, class_weight)
    warnings: list[str] = []
    known = target_values(table[target], made, warnings)
    columns = features or [name for name in table.columns if name not in (target, *others)]
    table = table.loc[known.index]
    if test is None:
        by_class = is_classifier(made)
        learn, hold = split_rows(known, test_size, seed, by_class=by_class, warnings=warnings)
        test = table.iloc[hold].assign(**{target: known.iloc[hold]})
        table, known = table.iloc[learn], known.iloc[learn]
    test = _checked(test, [target, *columns, *([weight] if weight else [])])
    kinds = kinds_of(table[columns], warnings) if preprocess else dict.fromkeys(columns)
    rows = as_kinds(table, kinds, warnings)
    warnings += warn_of_leaks(rows, known, seed, is_number=not is_classifier(made))
    counts = row_weights(known, table[weight] if weight else None, class_weight)
    model = _made_for(made, rows, kinds, _values(known), seed)
    warnings += _fit(model, rows, _values(known), counts)
    context.log_params({"rows_train": len(rows), "rows_test": len(test), "columns": len(kinds)})
    artifact = context.log_model("model", model, input_example=rows.head(_SHOWN_ROWS))
    _log_importances(context, model)
    held_out = as_kinds(test, kinds, warnings).assign(**{target: test[target]})
    held_out = held_out.assign(**{weight: test[weight]}) if weight else held_out
    scores = rayml.hub.get("evaluate")(
        model=artifact, table=held_out, target=target, weight=weight, seed=seed
    )
    if warnings:
        said = [*warnings, *scores["warnings"]]
        context.log_table("warnings", {"warning": said})
        print(*warnings, sep="\n")
    found = {"model": artifact.uri}
    if register_as is not None:
        found["version"] = rayml.register_model(artifact, register_as, alias).uri
    return {**found, **scores}


def _check_words(register_as: str | None, alias: str | None, test_size: float) -> None:
    """Refuse before the training what would be refused after it."""
    if alias is not None and register_as is None:
        raise rayml.SpecError(f"alias={alias!r} needs a registered model; give `register_as`")
    for name in (register_as, alias):
        if name is not None and not _NAME.fullmatch(name):
            raise rayml.SpecError(
                f"{name!r} cannot be a model's name or alias; use letters, digits and _ . -"
            )
    if not 0 < test_size < 1:
        raise rayml.SpecError(f"test_size={test_size} is not between 0 and 1; give 0.2")


def _checked(table: pd.DataFrame, wanted: list[str]) -> pd.DataFrame:
    """Return the table with columns named by text, and an index of its own."""
    check_columns(table, wanted, "column")
    if table.empty:
        raise rayml.SpecError("the table has no rows; give some to learn from and to test with")
    return table.rename(columns=str).reset_index(drop=True)


def _check_weights(
    made: BaseEstimator, weight: str | None, class_weight: str | dict[str, float] | None
) -> None:
    name = type(made).__name__
    if (weight or class_weight) and not has_fit_parameter(made, "sample_weight"):
        raise rayml.SpecError(
            f"{name} takes no weights of rows; leave out `weight` and `class_weight`"
        )
    if class_weight and not is_classifier(made):
        raise rayml.SpecError(f"{name} has no classes; leave out `class_weight`")


def _values(target: pd.Series) -> np.ndarray:
    """Return the target as an array, words as numpy's own type, which a model file can hold."""
    is_text = pd.api.types.is_object_dtype(target.dtype) or target.dtype == "str"
    return np.asarray(target.tolist(), dtype=str) if is_text else target.to_numpy()


def _made_for(
    made: BaseEstimator,
    rows: pd.DataFrame,
    kinds: dict[str, Kind | None],
    target: np.ndarray,
    seed: int,
) -> Pipeline:
    """Return the model, not yet fitted: the steps of preparation, if wanted, and the estimator."""
    last = ("estimator", with_own_labels(made, target))
    if None in kinds.values():
        return Pipeline([last])
    return Pipeline([("prepare", preparation(rows, kinds, target, made, seed)), last])


def _fit(
    model: Pipeline, rows: pd.DataFrame, target: np.ndarray, counts: np.ndarray | None
) -> list[str]:
    """Fit the model, and return what its library warns of."""
    weights = {} if counts is None else {"estimator__sample_weight": counts}
    name = type(model[-1]).__name__
    with python_warnings.catch_warnings(record=True) as caught:
        python_warnings.simplefilter("always")
        try:
            model.fit(rows, target, **weights)
        except Exception as exc:
            said = (str(exc).splitlines() or [type(exc).__name__])[0]
            raise rayml.SpecError(
                f"{name} cannot be fitted to {len(rows)} rows: {said}; change `params` or the "
                "table"
            ) from exc
    told = [f"{name}: {str(one.message).strip().splitlines()[0]}" for one in caught]
    return list(dict.fromkeys(told))


def _log_importances(context: rayml.Context, model: Pipeline) -> None:
    if (table := importances_of(model)) is not None:
        context.log_table("feature_importances", table)
        context.log_plot("feature_importances_plot", importances_plot(table))
