"""What is told of the data that Keras trains with: arrays, frames and tensors in memory.

Nothing else is looked at: to ask a generator or a pipeline for rows would take them from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rayml.artifacts.record import is_a
from rayml.autologging.data import (
    EXAMPLE_ROWS,
    digest_of,
    example_of,
    is_known,
    schema_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_TENSORS = ("torch.Tensor", "tensorflow.Tensor", "jax.Array")


def data_of(given: Mapping[str, Any], most_bytes: int) -> dict[tuple[str, str], object]:
    """Return facts about the data in a call's arguments, of which so much may be read."""
    facts = {("train", name): fact for name, fact in _facts(given.get("x"), most_bytes).items()}
    validation = given.get("validation_data")
    if isinstance(validation, tuple) and validation:
        rows = _facts(validation[0], 0).get("rows")
        facts |= {("valid", "rows"): rows} if rows is not None else {}
    return facts


def _facts(data: Any, most_bytes: int) -> dict[str, object]:  # noqa: ANN401
    """Return rows and columns, or the shape of a row, and the digest of one array."""
    first = _first(data)
    if not is_array(first):
        return {}
    facts: dict[str, object] = {"rows": int(first.shape[0])}
    if first is not data:  # several inputs
        return facts
    if len(first.shape) > 2:
        facts["row_shape"] = [int(length) for length in first.shape[1:]]
    else:
        facts["columns"] = int(first.shape[1]) if len(first.shape) > 1 else 1
    digest = digest_of(data, most_bytes) if is_known(data) else None
    return facts if digest is None else {**facts, "digest": digest}


def is_array(data: Any) -> bool:  # noqa: ANN401
    """Tell whether its rows are in memory; a list of Keras's is one of inputs, and not of rows."""
    if isinstance(data, list | tuple):
        return False
    is_tensor = any(is_a(data, kind) for kind in _TENSORS)
    return is_known(data) or (is_tensor and len(data.shape) > 0)


def _first(data: Any) -> Any:  # noqa: ANN401
    """Return the first of several inputs."""
    if isinstance(data, dict):
        data = list(data.values())
    return data[0] if isinstance(data, list | tuple) and data else data


def table_of(data: Any) -> dict[str, list[str]] | None:  # noqa: ANN401
    """Return the schema of a table; None of what has no columns."""
    return schema_of(data) if is_known(data) and is_array(data) and len(data.shape) <= 2 else None


def rows_of(data: Any) -> Any:  # noqa: ANN401
    """Return a copy of the first rows; None if they cannot be had."""
    if not is_array(data):
        return None
    if is_known(data):
        return example_of(data)
    import keras  # noqa: PLC0415 - is imported already

    return keras.ops.convert_to_numpy(data[:EXAMPLE_ROWS]).copy()
