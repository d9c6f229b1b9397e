"""Whether onnxruntime predicts what the model itself does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

import rayml

from ._convert import is_text

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    import pandas as pd

_STRING = "tensor(string)"


@dataclass(frozen=True)
class Found:
    """How far the predictions are from each other.

    Attributes:
        metrics: `max_difference`, `checked_rows`, and of a classifier `same_class`.
        warnings: What to know of rows that ONNX cannot represent.
    """

    metrics: dict[str, float]
    warnings: list[str]

    def check(self, tolerance: float) -> None:
        """Accept them, or raise SpecError."""
        difference = self.metrics["max_difference"]
        same = self.metrics.get("same_class", 1.0)
        if not difference <= tolerance or same < 1:
            raise rayml.SpecError(
                f"the ONNX model's predictions differ by {difference:.3g}, where tolerance is "
                f"{tolerance:g}, and name the same class for {same:.2%} of "
                f"{self.metrics['checked_rows']:,.0f} rows; nothing was logged but the metrics"
            )


def expected(
    artifact: rayml.Artifact,
    model: Any,  # noqa: ANN401
    rows: pd.DataFrame,
    trusted: bool,  # noqa: FBT001
) -> list[np.ndarray[Any, Any]]:
    """Return what the model itself says: a classifier's classes and their probabilities."""
    if hasattr(model, "get_params"):
        inputs = (artifact.meta.get("signature") or {}).get("inputs", [])
        data = rows.to_numpy() if inputs and inputs[0]["name"] is None else rows
        said = [model.predict(data)]
        return [*said, model.predict_proba(data)] if hasattr(model, "predict_proba") else said
    found = artifact.predict(rows, trusted=trusted)
    several = found.values() if isinstance(found, dict) else found
    return list(several) if isinstance(found, dict | tuple) else [found]


def runner(model: onnx.ModelProto) -> Callable[[pd.DataFrame], list[np.ndarray[Any, Any]]]:
    """Return what runs the model on rows."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = session.get_inputs()

    def run(rows: pd.DataFrame) -> list[np.ndarray[Any, Any]]:
        parts = [rows] if len(inputs) == 1 else [rows[[name]] for name in rows]
        fed = {one.name: _fed(part, one.type) for one, part in zip(inputs, parts, strict=True)}
        return [np.asarray(one) for one in session.run(None, fed)]

    return run


def _fed(part: pd.DataFrame, kind: str) -> np.ndarray[Any, Any]:
    if kind == _STRING:
        return part.astype(object).where(part.notna(), "").astype(str).to_numpy(dtype=object)
    return part.to_numpy(dtype="float64" if kind == "tensor(double)" else "float32")


def compare(
    own: list[np.ndarray[Any, Any]],
    run: Callable[[pd.DataFrame], list[np.ndarray[Any, Any]]],
    rows: pd.DataFrame,
) -> Found:
    """Compare the predictions; rows with missing text apart, which ONNX does not know."""
    texts = [name for name in rows if is_text(rows[name])]
    without = rows[texts].isna().any(axis=1).to_numpy()
    theirs = run(rows)
    whole = _differences(own, theirs, ~without)
    warnings = []
    if without.any() and _differences(own, theirs, without)[0] > 1e-3:
        said = (
            f"{without.sum():,} of {len(rows):,} rows have missing text, for which ONNX has no "
            "value: given as '' they are predicted otherwise; fill them before the model"
        )
        warnings.append(said)
    metrics = {"max_difference": whole[0], "checked_rows": float((~without).sum())}
    return Found(metrics | ({"same_class": whole[1]} if whole[1] is not None else {}), warnings)


def _differences(
    own: list[np.ndarray[Any, Any]],
    theirs: list[np.ndarray[Any, Any]],
    which: np.ndarray[Any, Any],
) -> tuple[float, float | None]:
    """Return the largest difference of numbers, and the share of the same classes if there are."""
    largest, same = 0.0, None
    is_classifier = len(own) == 2 and len(theirs) >= 2
    for place, pair in enumerate(zip(own, theirs, strict=False)):
        a, b = (one[which] for one in pair)
        if is_classifier and place == 0:
            told = a.astype(int) if a.dtype == bool else a  # ONNX calls those classes 0 and 1
            same = float((told.astype(str) == b.reshape(a.shape).astype(str)).mean())
        elif len(a):
            off = np.abs(a.astype(float) - b.reshape(a.shape).astype(float)) / np.maximum(
                1, np.abs(a)
            )
            largest = max(largest, float(np.nan_to_num(off, nan=np.inf).max()))
    return largest, same


def signature(model: onnx.ModelProto) -> list[dict[str, str]]:
    """Return what the ONNX model takes and gives, a row for each."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    ways = [("input", session.get_inputs()), ("output", session.get_outputs())]
    return [
        {"way": way, "name": one.name, "type": one.type, "shape": str(one.shape)}
        for way, several in ways
        for one in several
    ]
