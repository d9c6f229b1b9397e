"""What a model takes and gives, as data: names, types and shapes, without the number of rows."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from rayml.artifacts.record import is_a, json_safe, type_name
from rayml.errors import SpecError

if TYPE_CHECKING:
    from rayml.artifacts.record import ArtifactRecord

_KINDS = ("pandas.DataFrame", "numpy.ndarray", "torch.Tensor")
_SAMPLE_ROWS = 5
_TIME = re.compile(r"datetime64\[(s|ms|us|ns)\]")  # of no zone
# The record lives in the journal, which must stay quick to read whatever was logged.
_COLUMNS = 1000
_SAMPLE_VALUES = 1000


def check_example(name: str, example: Any) -> None:  # noqa: ANN401
    """Accept some rows in a form that models take, or raise SpecError."""
    if not any(is_a(example, kind) for kind in _KINDS):
        raise SpecError(
            f"model {name!r} has a {type_name(example)} as its input example; give a few rows as "
            "a pandas DataFrame, a numpy array or a tensor"
        )
    if not example.shape or not len(example):
        raise SpecError(
            f"model {name!r} has an input example of the shape {tuple(example.shape)}, which has "
            "no rows; give a few"
        )


def describe(example: Any, result: Any) -> dict[str, object]:  # noqa: ANN401
    """Return what a model took and gave: the first 1,000 columns, and how many are left out."""
    inputs, outputs = _entries(example), _entries(result)
    left_out = max(0, len(inputs) - _COLUMNS)
    return {"inputs": inputs[:_COLUMNS], "outputs": outputs[:_COLUMNS], "left_out": left_out}


def _entries(data: Any) -> list[dict[str, object]]:  # noqa: ANN401
    """Return name, dtype and shape of each column, or of the array; None stands for the rows.

    >>> import numpy as np
    >>> _entries(np.zeros((7, 3)))
    [{'name': None, 'dtype': 'float64', 'shape': [None, 3]}]
    """
    if is_a(data, "pandas.DataFrame"):
        return [_entry(str(name), column) for name, column in data.items()]
    if isinstance(data, dict):
        return [_entry(str(name), value) for name, value in data.items()]
    if isinstance(data, tuple | list):
        return [_entry(str(place), value) for place, value in enumerate(data)]
    return [_entry(None, data)]


def sample(data: Any) -> list[object] | None:  # noqa: ANN401
    """Return the first rows as JSON, or None where they are too large for a record."""
    rows = data[:_SAMPLE_ROWS]
    if math.prod(rows.shape) > _SAMPLE_VALUES:
        return None
    return [json_safe(row) for row in values_of(rows).tolist()]


def values_of(data: Any) -> Any:  # noqa: ANN401
    """Return a DataFrame's values, and other data as it is."""
    return data.to_numpy() if is_a(data, "pandas.DataFrame") else data


def fit_in(record: ArtifactRecord, data: Any) -> Any:  # noqa: ANN401
    """Return the data as the model's input example was: the same columns in the same order.

    A DataFrame becomes an array for a model whose example was one, and the other way round. A
    model that was logged without an example, or whose columns are too many for its signature,
    takes the data as it is.

    Raises:
        SpecError: Columns are missing, or the shape of a row is another.
    """
    known: Any = record.meta.get("signature")
    if known is None or known["left_out"]:
        return data
    inputs = known["inputs"]
    names = [entry["name"] for entry in inputs]
    if names == [None]:
        return _array(record.name, inputs[0]["shape"], data)
    if is_a(data, "pandas.DataFrame"):
        chosen = data[_columns(record.name, names, data)]
        return _in_same_units(chosen, [str(entry["dtype"]) for entry in inputs])
    import pandas as pd  # noqa: PLC0415 - only for what is none yet

    return pd.DataFrame(_array(record.name, [None, len(names)], data), columns=names)


def _in_same_units(frame: Any, dtypes: list[str]) -> Any:  # noqa: ANN401
    """Return times as fractions of a second as in training: models may see their numbers."""
    pairs = zip(frame.columns, map(str, frame.dtypes), dtypes, strict=False)
    units = {
        column: wanted
        for column, given, wanted in pairs
        if given != wanted and _TIME.fullmatch(given) and _TIME.fullmatch(wanted)
    }
    return frame.astype(units) if units else frame


def _array(model: str, shape: list[int | None], data: Any) -> Any:  # noqa: ANN401
    values = values_of(data)
    given = list(getattr(values, "shape", ()))
    if not given or not _fits(given[1:], shape[1:]):
        raise SpecError(
            f"model {model!r} takes rows of the shape {shape[1:]} and got {type_name(data)} of "
            f"the shape {given}; give it what its signature says"
        )
    return values


def _fits(given: list[int], shape: list[int | None]) -> bool:
    """Tell whether each length is as it should be, where that is known.

    >>> _fits([28, 3], [None, 3]), _fits([28, 4], [None, 3])
    (True, False)
    """
    known = len(given) == len(shape)
    return known and all(n in (None, got) for got, n in zip(given, shape, strict=True))


def _columns(model: str, names: list[str], frame: Any) -> list[object]:  # noqa: ANN401
    known = {str(column): column for column in frame.columns}
    if missing := [name for name in names if name not in known]:
        raise SpecError(
            f"model {model!r} takes {len(names)} columns, of which the data lacks "
            f"{', '.join(map(repr, missing))}; add them"
        )
    return [known[name] for name in names]


def _entry(name: str | None, value: Any) -> dict[str, object]:  # noqa: ANN401
    dtype = str(getattr(value, "dtype", type_name(value))).removeprefix("torch.")
    if dtype.startswith("<U"):  # how long the example's words are says nothing about others
        dtype = "str"
    # A model's own input and output, as Keras has them, may leave more open than the rows.
    shape = [n if n is None else int(n) for n in getattr(value, "shape", ())]
    return {"name": name, "dtype": dtype, "shape": [None, *shape[1:]] if shape else []}
