"""Scores of predictions, from sums over the rows: no more than a part of them is in memory."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    import rayml

_BINS = 1 << 16  # of a probability, for the area under the curve


def score(predictions: rayml.Artifact, target: str, classes: list[Any] | None) -> dict[str, float]:
    """Return the scores of a logged dataset of predictions; of no row with a truth, none."""
    names = {column["name"] for column in predictions.meta["schema"]}
    if "prediction" not in names:  # several outputs, of which none is the one
        return {}
    if classes is None:
        return _of_numbers(_parts(predictions, [target, "prediction"]))
    chances = [f"probability_{name}" for name in classes]
    if not names.issuperset(chances):
        chances = []
    return _of_classes(_parts(predictions, [target, "prediction", *chances]), classes, chances)


def _parts(predictions: rayml.Artifact, columns: list[str]) -> Iterator[pa.RecordBatch]:
    for part in ds.dataset(predictions.path()).to_batches(columns=columns):
        known = part.filter(pc.is_valid(part.column(0)))
        if known.num_rows:
            yield known


def _of_numbers(parts: Iterator[pa.RecordBatch]) -> dict[str, float]:
    sums = np.zeros(5)
    for part in parts:
        truth, said = (
            part.column(i).cast("float64").to_numpy(zero_copy_only=False) for i in (0, 1)
        )
        off = said - truth
        sums += [len(off), np.abs(off).sum(), (off**2).sum(), truth.sum(), (truth**2).sum()]
    rows, absolute, squares, total, total_squares = sums.tolist()
    if not rows:
        return {"scored_rows": 0}
    spread = total_squares - total**2 / rows
    found = {"scored_rows": rows, "mae": absolute / rows, "rmse": (squares / rows) ** 0.5}
    return found | ({"r2": 1 - squares / spread} if spread > 0 else {})


def _of_classes(
    parts: Iterator[pa.RecordBatch], classes: list[Any], chances: list[str]
) -> dict[str, float]:
    places = {str(name): place for place, name in enumerate(classes)}
    pairs: Counter[tuple[int, int]] = Counter()
    loss, bins = 0.0, np.zeros((2, _BINS))
    for part in parts:
        truth, said = (_places(part.column(i), places) for i in (0, 1))
        pairs.update(zip(truth.tolist(), said.tolist(), strict=True))
        if chances:
            table = np.stack(
                [part.column(name).to_numpy(zero_copy_only=False) for name in chances], axis=1
            )
            known = truth >= 0  # a class that the model has never seen has no probability
            right = table[known, truth[known]]
            loss -= float(np.log(np.clip(right, 1e-15, 1)).sum()) + (~known).sum() * np.log(1e-15)
            if len(classes) == 2:
                place = np.clip(table[known, 1] * _BINS, 0, _BINS - 1).astype(int)
                np.add.at(bins, (truth[known], place), 1)
    rows = sum(pairs.values())
    if not rows:
        return {"scored_rows": 0}
    found = {"scored_rows": float(rows), **_of_pairs(pairs, rows)}
    if chances:
        found["log_loss"] = loss / rows
    if bins.any(axis=1).all():
        found["roc_auc"] = _area(bins)
    return found


def _places(column: pa.Array, places: dict[str, int]) -> np.ndarray[Any, Any]:
    """Return the place of each value among the classes; -1 for one that is none of them."""
    coded = column.dictionary_encode()
    known = [_place(value, places) for value in coded.dictionary.to_pylist()]
    found: np.ndarray[Any, Any] = np.asarray(known, dtype=int)
    indices: np.ndarray[Any, Any] = coded.indices.to_numpy(zero_copy_only=False)
    return found.take(indices)


def _place(value: Any, places: dict[str, int]) -> int:  # noqa: ANN401
    """Return the place of a class: as it is written, or as the whole number that it is."""
    is_whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    if is_whole and str(value) not in places:
        value = int(value)
    return places.get(str(value), -1)


def _of_pairs(pairs: Counter[tuple[int, int]], rows: int) -> dict[str, float]:
    """Return accuracy, and recall and F1 averaged over the classes that there are."""
    truths, saids, right = Counter[int](), Counter[int](), Counter[int]()
    for (truth, said), count in pairs.items():
        truths[truth] += count
        saids[said] += count
        right[truth] += count if truth == said else 0
    every = {*truths, *saids}
    f1 = [2 * right[name] / (truths[name] + saids[name]) for name in every]
    recall = [right[name] / count for name, count in truths.items()]
    return {
        "accuracy": sum(right.values()) / rows,
        "balanced_accuracy": sum(recall) / len(recall),
        "f1": sum(f1) / len(f1),
    }


def _area(bins: np.ndarray[Any, Any]) -> float:
    """Return the area under the ROC curve, in which rows of one bin are ties."""
    negative, positive = bins
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / negative.sum() / positive.sum())
