"""The target: what kind of task it makes, and rows kept back to test what was learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

import rayml

if TYPE_CHECKING:
    from collections.abc import Sequence

Task = Literal["binary", "multiclass", "regression"]
_MOST_CLASSES = 20  # of whole numbers; of words there may be more
_LEAST_ROWS = 20


@dataclass(frozen=True)
class Target:
    """What is to be predicted.

    Attributes:
        name: Of the column.
        task: binary, multiclass or regression.
        classes: The labels, sorted; empty of numbers.
        warnings: What was found, a sentence for each.
    """

    name: str
    task: Task
    classes: np.ndarray
    warnings: list[str] = field(default_factory=list)

    def encode(self, column: pd.Series) -> np.ndarray:
        """Return numbers, or the place of each label.

        Raises:
            SpecError: There is a label that the target did not have.
        """
        if self.task == "regression":
            numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
            if not np.isfinite(numbers).all():
                raise rayml.SpecError(
                    f"target {self.name!r} holds what is no number; clean the column"
                )
            return numbers
        labels = _labels(column)
        places = {label: place for place, label in enumerate(self.classes.tolist())}
        unknown = sorted({str(label) for label in labels.tolist() if label not in places})
        if unknown:
            raise rayml.SpecError(
                f"target {self.name!r} of the test holds {unknown[0]!r}, which no row to learn "
                "from has; leave such rows out"
            )
        return np.array([places[label] for label in labels.tolist()], dtype=int)


def read_target(column: pd.Series, task: str) -> Target:
    """Return what a target without gaps is.

    Args:
        column: Its values.
        task: binary, multiclass or regression, or auto.

    Raises:
        SpecError: It is constant, has too few rows, or does not fit the task.
    """
    name = str(column.name)
    if len(column) < _LEAST_ROWS:
        raise rayml.SpecError(
            f"target {name!r} has {len(column)} rows with a value; give at least {_LEAST_ROWS}"
        )
    distinct = column.astype(str).nunique() if column.dtype == object else column.nunique()
    if distinct == 1:
        raise rayml.SpecError(
            f"target {name!r} is {column.tolist()[0]!r} in every row; choose one that varies"
        )
    found = _find_task(column, distinct)
    if task == "auto":
        task = found
    if task == "regression":
        if pd.to_numeric(column, errors="coerce").isna().any():
            raise rayml.SpecError(
                f"target {name!r} holds {column.tolist()[0]!r} and task='regression' takes "
                "numbers; leave task out, or clean the column"
            )
        return Target(name, "regression", np.array([]))
    if task == "binary" and distinct != 2:
        raise rayml.SpecError(
            f"target {name!r} has {distinct} values and task='binary' takes two; "
            "say task='multiclass', or leave it out"
        )
    return _of_classes(column, "binary" if distinct == 2 else "multiclass")


def _find_task(column: pd.Series, distinct: int) -> Task:
    if distinct == 2:
        return "binary"
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise rayml.SpecError(
            f"target {column.name!r} is a time; make it a number, such as days from now"
        )
    if not pd.api.types.is_numeric_dtype(column.dtype):
        numbers = pd.to_numeric(column.astype(str), errors="coerce")
        if column.dtype == "category" or numbers.isna().any() or distinct <= _MOST_CLASSES:
            return "multiclass"
        return "regression"
    values = column.to_numpy(dtype=float)
    is_whole = bool((values == np.round(values)).all())
    is_label = is_whole and distinct <= _MOST_CLASSES and distinct * 5 <= len(column)
    return "multiclass" if is_label else "regression"


def _of_classes(column: pd.Series, task: Task) -> Target:
    name = str(column.name)
    labels = _labels(column)
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) > len(labels) / 2:
        raise rayml.SpecError(
            f"target {name!r} has {len(classes)} classes in {len(labels)} rows; it looks like an "
            "identifier or text: choose another column"
        )
    lone = [str(label) for label in classes[counts == 1]]
    if lone and len(classes) - len(lone) < 2:
        raise rayml.SpecError(
            f"class {lone[0]!r} of target {name!r} has one row, which cannot be both learned and "
            "tested; add rows of it"
        )
    notes = [
        f"class {label!r} of target {name!r} has one row: it is learned from and never tested"
        for label in lone[:10]
    ]
    rarest = int(counts.min())
    if not lone and rarest < 10:
        rare = str(classes[counts.argmin()])
        notes.append(f"class {rare!r} of target {name!r} has {rarest} rows: its scores say little")
    return Target(name, task, classes, notes)


def _labels(column: pd.Series) -> np.ndarray:
    """Return labels of one type: numbers, truth values or text."""
    if pd.api.types.is_bool_dtype(column.dtype):
        return column.to_numpy(dtype=bool)
    if pd.api.types.is_numeric_dtype(column.dtype):
        numbers = column.to_numpy(dtype=float)
        return numbers.astype(int) if (numbers == np.round(numbers)).all() else numbers
    return column.astype(str).to_numpy(dtype=str)


def keep_back(
    truth: np.ndarray, *, is_number: bool, test_size: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of rows to learn from and of those to test on, with as many of each class.

    A class's only row is learned from.
    """
    places = np.arange(len(truth))
    if is_number:
        return _sorted(train_test_split(places, test_size=test_size, random_state=seed))
    counts = np.bincount(truth)
    lone = counts[truth] == 1
    try:
        train, test = train_test_split(
            places[~lone], test_size=test_size, random_state=seed, stratify=truth[~lone]
        )
    except ValueError:  # fewer rows to test on than classes
        _, first = np.unique(truth, return_index=True)
        train, test = train_test_split(places[~lone], test_size=test_size, random_state=seed)
        train, test = np.union1d(train, first), np.setdiff1d(test, first)
    return _sorted([np.union1d(train, places[lone]), test])


def _sorted(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    train, test = parts
    return np.sort(train), np.sort(test)
