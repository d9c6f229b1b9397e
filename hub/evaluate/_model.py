"""Any model that rayml can load, and what it says of rows: labels, values, probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor

import rayml

from ._columns import as_signed, check_columns

if TYPE_CHECKING:
    import pandas as pd

_MOST_CLASSES = 20  # whole numbers of more values are taken for amounts


@dataclass(frozen=True)
class Outputs:
    """What a model says of rows.

    Attributes:
        said: A label or a number for each row.
        classes: What it tells apart; empty for numbers.
        scores: A column for each class, or one value of a row that says how likely it is the
            second of two classes; None without any.
        is_probability: The scores are probabilities.
    """

    said: np.ndarray
    classes: tuple[Any, ...] = ()
    scores: np.ndarray | None = None
    is_probability: bool = False


class Predictor:
    """A loaded model that takes whole tables and picks its own columns."""

    def __init__(self, given: rayml.Input, *, trusted: bool) -> None:
        self.artifact = _artifact_of(given)
        self.model: Any = self.artifact.load(trusted) if self.artifact else given.value
        self.name = self.artifact.uri if self.artifact else type(self.model).__name__
        self._trusted = trusted
        if not hasattr(self.model, "predict") and self.artifact is None:
            raise rayml.SpecError(
                f"model is a {self.name}, which has no predict(); give an artifact or its URI"
            )

    def columns_of(self, table: pd.DataFrame, others: list[str]) -> pd.DataFrame:
        """Return the columns that the model takes.

        Args:
            table: The rows.
            others: Columns that are no features, if the model does not know its own by name.

        Raises:
            SpecError: Some are missing; or it takes another number of columns without names.
        """
        dtypes = self._dtypes(table)
        if dtypes is not None:
            check_columns(table, list(dtypes), f"feature of model {self.name}:")
            return as_signed(table, dtypes)
        rows = table.drop(columns=[name for name in others if name in table])
        wanted = getattr(self.model, "n_features_in_", rows.shape[1])
        if rows.shape[1] != wanted:
            raise rayml.SpecError(
                f"model {self.name} takes {wanted} columns, whose names it does not know, and the "
                f"table has {rows.shape[1]} without the target; give it these columns alone"
            )
        return rows

    def outputs(self, rows: pd.DataFrame, truth: pd.Series) -> Outputs:
        """Return what the model says of rows, of which `truth` is the target.

        Raises:
            SpecError: It fails on them, or says several things of each.
        """
        try:
            found = self._ask(rows, truth)
        except rayml.RaymlError:
            raise
        except Exception as exc:
            said = (str(exc).splitlines() or [type(exc).__name__])[0]
            raise rayml.SpecError(
                f"model {self.name} fails on this table: {said}; give it rows like those that it "
                "was trained on"
            ) from exc
        if found.said.shape != (len(rows),):
            raise rayml.SpecError(
                f"model {self.name} predicts the shape {found.said.shape} for {len(rows)} rows; "
                "evaluate takes models of one target"
            )
        if found.said.dtype.kind == "f" and not np.isfinite(found.said).all():
            missing = int((~np.isfinite(found.said)).sum())
            raise rayml.SpecError(
                f"model {self.name} predicts no finite number for {missing} of {len(rows)} rows; "
                "leave these out, or mend the model"
            )
        return found

    def _ask(self, rows: pd.DataFrame, truth: pd.Series) -> Outputs:
        is_estimator = isinstance(self.model, BaseEstimator)
        if is_estimator and is_classifier(self.model):
            return self._ask_classifier(rows)
        if is_estimator and is_regressor(self.model):
            return Outputs(np.asarray(self.model.predict(self._plain(rows)), dtype=float))
        said = self.artifact.predict(rows, trusted=self._trusted) if self.artifact else None
        said = np.asarray(self.model.predict(rows) if said is None else said)
        return _interpret(said, truth)

    def _ask_classifier(self, rows: pd.DataFrame) -> Outputs:
        rows = self._plain(rows)
        values = np.asarray(self.model.predict(rows))
        classes = tuple(np.asarray(self.model.classes_).tolist())
        if hasattr(self.model, "predict_proba"):
            return Outputs(
                values, classes, np.asarray(self.model.predict_proba(rows)), is_probability=True
            )
        if hasattr(self.model, "decision_function") and len(classes) == 2:
            return Outputs(values, classes, np.asarray(self.model.decision_function(rows)))
        return Outputs(values, classes)

    def _plain(self, rows: pd.DataFrame) -> Any:  # noqa: ANN401 - as it was trained
        """Return an array for an estimator that was fitted with one: it warns of names."""
        return rows if hasattr(self.model, "feature_names_in_") else rows.to_numpy()

    def _dtypes(self, table: pd.DataFrame) -> dict[str, str] | None:
        signature = self.artifact.meta.get("signature") if self.artifact else None
        if signature and not signature["left_out"] and signature["inputs"][0]["name"] is not None:
            return {entry["name"]: entry["dtype"] for entry in signature["inputs"]}
        names = getattr(self.model, "feature_names_in_", None)
        if names is None:
            return None
        return {name: str(table[name].dtype) if name in table else "" for name in names}


def _artifact_of(given: rayml.Input) -> rayml.Artifact | None:
    if (found := given.artifact) is None:
        if given.uri.startswith("memory://"):
            return None
        raise rayml.SpecError(
            f"model is {given.uri!r}; give the URI of a model, such as rayml://models/churn@1, or "
            "an artifact"
        )
    if found.kind != "model":
        raise rayml.SpecError(f"artifact {found.uri} is a {found.kind}; give one that is a model")
    return found


def _interpret(said: np.ndarray, truth: pd.Series) -> Outputs:
    """Return what numbers of a booster or a network mean, which has no names for its classes."""
    said = said[:, 0] if said.ndim == 2 and said.shape[1] == 1 else said
    labels = np.unique(truth)
    is_text = truth.dtype.kind not in "biuf"
    if said.ndim == 2:
        classes = labels if len(labels) == said.shape[1] else np.arange(said.shape[1])
        shares = said if _are_shares(said) else _softmax(said)
        return Outputs(
            classes[said.argmax(axis=1)], tuple(classes.tolist()), shares, is_probability=True
        )
    if len(labels) == 2 and said.dtype.kind == "f" and said.min() >= 0 and said.max() <= 1:
        shares = np.column_stack([1 - said, said])
        return Outputs(
            labels[(said >= 0.5).astype(int)], tuple(labels.tolist()), shares, is_probability=True
        )
    if is_text or (len(labels) <= _MOST_CLASSES and np.isin(said, labels).all()):
        return Outputs(said, tuple(labels.tolist()))
    return Outputs(said.astype(float))


def _are_shares(said: np.ndarray) -> bool:
    return bool(said.min() >= 0 and np.allclose(said.sum(axis=1), 1, atol=1e-3))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares
