"""Rows with what is true of them and what a model says: in numbers, ready to be scored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

import rayml

if TYPE_CHECKING:
    from ._model import Outputs

Task = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True)
class Case:
    """What one model says of rows.

    Attributes:
        task: What kind of target it is.
        truth: A class's place, or a number; of two classes the positive one is 1.
        predicted: The same, as the model says.
        scores: Of two classes, how likely a row is positive; of more, a column for each; or None.
        classes: What the places stand for.
        weight: What a row counts.
        is_probability: The scores are probabilities.
    """

    task: Task
    truth: np.ndarray
    predicted: np.ndarray
    scores: np.ndarray | None
    classes: tuple[Any, ...]
    weight: np.ndarray
    is_probability: bool = False

    def take(self, rows: np.ndarray) -> Case:
        """Return some of the rows."""
        scores = None if self.scores is None else self.scores[rows]
        return replace(
            self,
            truth=self.truth[rows],
            predicted=self.predicted[rows],
            scores=scores,
            weight=self.weight[rows],
        )

    def cut_at(self, threshold: float) -> Case:
        """Return the case with every row positive whose score is at least the threshold."""
        if self.scores is None:
            return self
        return replace(self, predicted=(self.scores >= threshold).astype(int))


def task_of(outputs: Outputs, truth: pd.Series, classes: tuple[Any, ...]) -> Task:
    """Return the task; raise SpecError where numbers are predicted and the target has none."""
    if outputs.classes:
        return "binary" if len(classes) == 2 else "multiclass"
    if truth.dtype.kind not in "biuf":
        raise rayml.SpecError(
            f"the model predicts numbers and target {truth.name!r} holds {truth.iloc[0]!r}; "
            "give the column that it was trained for"
        )
    return "regression"


def classes_of(
    outputs: Outputs, truth: pd.Series, positive: object, warnings: list[str]
) -> tuple[tuple[Any, ...], pd.Series]:
    """Return all classes, of two the positive one last, and the truth in the model's own words.

    Labels that only differ as text, such as 1 and "1", are the same.
    """
    truth = _in_words_of(outputs.classes, truth)
    unknown = sorted(set(truth.unique()) - set(outputs.classes), key=str)
    if unknown and len(outputs.classes):
        rows = int(truth.isin(unknown).sum())
        shown = ", ".join(map(repr, unknown[:5]))
        if rows == len(truth):
            known = ", ".join(map(repr, outputs.classes[:10]))
            raise rayml.SpecError(
                f"target {truth.name!r} holds {shown} and the model tells {known} apart; give the "
                "column that it was trained for"
            )
        warnings.append(
            f"The model does not know {shown} of target {truth.name!r}: {rows} rows count as "
            "wrong."
        )
    classes = (*outputs.classes, *unknown)
    return _with_positive_last(classes, positive), truth


def make_case(
    outputs: Outputs, truth: pd.Series, classes: tuple[Any, ...], weight: np.ndarray
) -> Case:
    """Return the case of a model's outputs."""
    task = task_of(outputs, truth, classes)
    if task == "regression":
        values = truth.to_numpy(dtype=float)
        return Case(task, values, outputs.said, None, (), weight)
    places = {label: place for place, label in enumerate(classes)}
    codes = truth.map(places).to_numpy(dtype=int)
    said = _in_words_of(classes, pd.Series(outputs.said))
    predicted = said.map(places).to_numpy(dtype=int)
    scores = _scores(outputs, classes)
    return Case(task, codes, predicted, scores, classes, weight, outputs.is_probability)


def constant(case: Case) -> Case:
    """Return a model that always says the same: the share of each class, or the mean."""
    rows = len(case.truth)
    if case.task == "regression":
        mean = np.average(case.truth, weights=case.weight)
        return replace(case, predicted=np.full(rows, mean))
    shares = np.bincount(case.truth, case.weight, len(case.classes)) / case.weight.sum()
    scores = np.full(rows, shares[1]) if case.task == "binary" else np.tile(shares, (rows, 1))
    predicted = np.full(rows, shares.argmax())
    return replace(case, predicted=predicted, scores=scores, is_probability=True)


def _scores(outputs: Outputs, classes: tuple[Any, ...]) -> np.ndarray | None:
    """Return the scores with a column for each of all classes; of two, the positive one's."""
    scores = outputs.scores
    if scores is None or not outputs.classes:
        return None
    if scores.ndim == 1:
        if len(classes) != 2:
            return None
        return scores if outputs.classes[1] == classes[1] else -scores
    spread = np.zeros((len(scores), len(classes)))
    spread[:, [classes.index(label) for label in outputs.classes]] = scores
    return spread[:, 1] if len(classes) == 2 else spread


def _in_words_of(classes: tuple[Any, ...], truth: pd.Series) -> pd.Series:
    known, by_text = set(classes), {str(label): label for label in classes}
    if not classes or truth.isin(known).all():
        return truth
    return truth.map(lambda v: v if v in known else by_text.get(_text(v), v)).astype(object)


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _with_positive_last(classes: tuple[Any, ...], positive: object) -> tuple[Any, ...]:
    if positive is None:
        return classes
    found = [label for label in classes if label == positive or str(label) == str(positive)]
    if not found or len(classes) != 2:
        shown = ", ".join(map(repr, classes[:10])) or "numbers"
        raise rayml.SpecError(
            f"positive={positive!r} is not one of two classes; the target has {shown}"
        )
    return (*(label for label in classes if label != found[0]), found[0])
