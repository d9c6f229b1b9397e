"""Rows as a client sends them: JSON, checked against what the model takes.

Named columns come as records, `[{"age": 1}, {"age": 2}]`, as one record, or as columns,
`{"age": [1, 2]}`; arrays as nested lists. What is wrong is told in one sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NUMBERS: frozenset[type] = frozenset({int, float})
_NULL: frozenset[type] = frozenset({type(None)})
_BOOLS: frozenset[type] = frozenset({bool})
_TEXTS: frozenset[type] = frozenset({str, type(None)})
_SCALARS: frozenset[type] = frozenset({str, int, float, bool, type(None)})
_SHOWN = 60
_ZONE = r"[T ].*(?:[zZ]|[+-]\d\d(?::?\d\d)?)$"
_NAMED = 5
_WORDS = {
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "an object",
}


class Refused(Exception):
    """What a client sent cannot be predicted; the text is for whoever sent it.

    Attributes:
        status: Of the HTTP answer.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class _Kind:
    """What a column of one dtype takes.

    Attributes:
        words: What that is.
        types: Of Python, as JSON gives them.
        make: Makes an array of them.
    """

    words: str
    types: frozenset[type]
    make: Callable[[list[Any]], Any]


class Signature:
    """What a model takes: columns by name, one array, or anything where nobody knows."""

    def __init__(self, meta: Mapping[str, Any]) -> None:
        """Take what is known of the model's artifact."""
        known = meta.get("signature") or {"inputs": [], "outputs": [], "left_out": 0}
        self.inputs: list[dict[str, Any]] = known["inputs"]
        self.outputs: list[dict[str, Any]] = known["outputs"]
        self._is_whole = not known["left_out"]
        names = [entry["name"] for entry in self.inputs]
        self._is_array = names == [None]
        self._kinds: dict[str, _Kind] = {}
        if not self._is_array:
            self._kinds = {entry["name"]: _kind(entry["dtype"]) for entry in self.inputs}
        self.example = self._example(meta.get("input_example"))

    @property
    def is_table(self) -> bool:
        """Whether it takes columns by name."""
        return bool(self._kinds)

    def read(self, body: bytes) -> Any:  # noqa: ANN401
        """Return the rows of a request, in the form that the model takes.

        Raises:
            Refused: They are no JSON, no rows, or not those that the model takes.
        """
        data = _decoded(body)
        if self._is_array:
            return self._array(data)
        return self._frame(data) if self._kinds else _untyped(data)

    def _frame(self, data: object) -> pd.DataFrame:
        columns = self._columns(data)
        made = {name: _made(name, kind, columns[name]) for name, kind in self._kinds.items()}
        if self._is_whole:
            return pd.DataFrame(made, copy=False)
        return pd.DataFrame({**columns, **made})

    def _columns(self, data: object) -> dict[str, list[Any]]:
        if isinstance(data, dict):
            return self._known(_lists(data))
        if not isinstance(data, list):
            raise Refused(422, f"rows are a list of objects and this is {_told(data)}")
        if not data:
            raise Refused(422, "there are no rows; send at least one")
        names = dict.fromkeys(self._kinds)
        for number, row in enumerate(data):
            if type(row) is not dict:
                raise Refused(
                    422, f"row {number} is {_told(row)}; write each row as an object of columns"
                )
            if row.keys() != names.keys():
                self._check_names(row, f"row {number}")
                names |= dict.fromkeys(row)  # only those of a model whose signature is cut
        if len(names) == len(self._kinds):
            return {name: [row[name] for row in data] for name in names}
        return {name: [row.get(name) for row in data] for name in names}

    def _known(self, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        self._check_names(columns, "the data")
        return columns

    def _check_names(self, given: Mapping[str, object], what: str) -> None:
        missing = [name for name in self._kinds if name not in given]
        unknown = [name for name in given if name not in self._kinds] if self._is_whole else []
        if missing:
            near = get_close_matches(missing[0], unknown, n=1)
            hint = f"is {near[0]!r} meant for it?" if near else "write null for what is not known"
            raise Refused(422, f"{what} lacks {_some(missing)}, which the model takes; {hint}")
        if unknown:
            near = get_close_matches(unknown[0], self._kinds, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else "leave out what the model does not take"
            )
            raise Refused(
                422, f"{what} has {_some(unknown)}, which the model does not know; {hint}"
            )

    def _array(self, data: object) -> Any:  # noqa: ANN401
        entry = self.inputs[0]
        shape, kind = entry["shape"][1:], _kind(entry["dtype"])
        form = f"rows of the shape {shape}, as nested lists" if shape else "a list of values"
        if not isinstance(data, list):
            raise Refused(422, f"the model takes {form}, and this is {_told(data)}")
        if not data:
            raise Refused(422, "there are no rows; send at least one")
        flat, given = _flat(data)
        fits = len(given) == len(shape) + 1
        if not fits or any(n not in (None, m) for n, m in zip(shape, given[1:], strict=True)):
            raise Refused(422, f"the model takes {form}, and this has the shape {given}")
        return np.asarray(_made(None, kind, flat)).reshape(given)

    def _example(self, rows: list[Any] | None) -> Any:  # noqa: ANN401
        """Return some rows as a client may send them; of an unknown model None."""
        if not self._kinds:
            return rows
        if rows is None:
            return None
        return [dict(zip(self._kinds, row, strict=False)) for row in rows]


def _decoded(body: bytes) -> object:
    if not body.strip():
        raise Refused(400, "the body is empty; send rows as JSON")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        literals = (b"NaN", b"Infinity")
        hint = next(
            (f"; {word.decode()} is none, write null" for word in literals if word in body), ""
        )
        raise Refused(400, f"the body is not JSON: {_first_line(exc)}{hint}") from exc


def _lists(data: dict[str, Any]) -> dict[str, list[Any]]:
    """Return columns, of which one record is a row."""
    if not data:
        raise Refused(422, "there are no columns; send at least one row")
    lists = {name: column for name, column in data.items() if isinstance(column, list)}
    if not lists:
        return {name: [value] for name, value in data.items()}
    if len(lists) < len(data):
        alone = next(name for name in data if name not in lists)
        raise Refused(
            422,
            f"column {_text(alone)} is {_told(data[alone])} and others are lists; give each of "
            "them a list of values, or all of them one value",
        )
    lengths = {len(column) for column in lists.values()}
    if len(lengths) > 1:
        (name, first), *_ = lists.items()
        other = next(n for n, column in lists.items() if len(column) != len(first))
        raise Refused(
            422,
            f"column {_text(name)} has {len(first)} values and {_text(other)} has "
            f"{len(lists[other])}; give all the same number",
        )
    if lengths == {0}:
        raise Refused(422, "the columns have no rows; send at least one")
    return lists


def _untyped(data: object) -> Any:  # noqa: ANN401
    """Return rows for a model that was logged without an example."""
    if isinstance(data, dict):
        return pd.DataFrame(_lists(data))
    if not isinstance(data, list) or not data:
        raise Refused(422, f"rows are a list with something in it and this is {_told(data)}")
    if all(type(row) is dict for row in data):
        return pd.DataFrame.from_records(data)
    flat, shape = _flat(data)
    array = np.empty(len(flat), object)
    array[:] = flat
    numeric = {*map(type, flat)} <= _NUMBERS | {type(None)}
    try:
        return (array.astype(float) if numeric else array).reshape(shape)
    except (ValueError, OverflowError) as exc:  # a number too large, or lists too deep
        raise Refused(422, f"the rows are no array: {_first_line(exc)}") from exc


def _flat(data: list[Any]) -> tuple[list[Any], list[int]]:
    """Return an array's values in a row, and its shape."""
    shape, level = [len(data)], data
    while level and type(level[0]) is list:
        lengths = {len(row) if type(row) is list else -1 for row in level}
        if len(lengths) > 1:
            raise Refused(422, "the rows are not all of one shape; give each the same length")
        shape.append(lengths.pop())
        level = [value for row in level for value in row]
    if not level:
        raise Refused(422, f"the rows of the shape {shape} hold no values")
    return level, shape


def _made(name: str | None, kind: _Kind, values: list[Any]) -> Any:  # noqa: ANN401
    """Return a column's values as the model takes them."""
    if not {*map(type, values)} <= kind.types:
        row = next(i for i, value in enumerate(values) if type(value) not in kind.types)
        raise _wrong(name, kind, row, values[row])
    try:
        return kind.make(values)
    except _WrongValue as exc:
        raise _wrong(name, kind, exc.row, values[exc.row]) from exc
    except (ValueError, TypeError, OverflowError) as exc:
        raise Refused(
            422, f"{_column(name)} takes {kind.words}, and this is none: {_first_line(exc)}"
        ) from exc


class _WrongValue(ValueError):
    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


def _wrong(name: str | None, kind: _Kind, row: int, value: object) -> Refused:
    where = f"row {row}" if name is not None else f"value {row}"
    return Refused(422, f"{_column(name)} takes {kind.words}, and {where} has {_told(value)}")


def _column(name: str | None) -> str:
    return "the array" if name is None else f"column {_text(name)}"


def _kind(text: str) -> _Kind:  # noqa: PLR0911 - one line per kind of type
    """Return what a column of a dtype takes."""
    try:
        dtype: Any = pd.api.types.pandas_dtype("object" if text == "list" else text)
    except (TypeError, NotImplementedError):  # those of Arrow with parameters are the latter
        return _Kind("any value", _SCALARS, list)
    is_nullable = isinstance(dtype, pd.api.extensions.ExtensionDtype)
    null = _NULL if is_nullable else frozenset()
    types = pd.api.types
    if isinstance(dtype, pd.CategoricalDtype):
        return _Kind("a category", _SCALARS, lambda values: pd.Series(values, dtype="category"))
    if types.is_bool_dtype(dtype):
        return _Kind("true or false", _BOOLS | null, lambda v: _series(v, dtype))
    if types.is_integer_dtype(dtype):
        return _Kind("whole numbers", _NUMBERS | null, lambda v: _series(_whole(v), dtype))
    if types.is_float_dtype(dtype):
        return _Kind("numbers", _NUMBERS | _NULL, lambda v: _series(v, dtype))
    if types.is_datetime64_any_dtype(dtype):
        return _Kind("times in ISO 8601", _TEXTS, lambda v: _times(v, dtype))
    if types.is_string_dtype(dtype) and dtype != np.dtype(object):
        return _Kind("text", _TEXTS, lambda v: pd.array(v, dtype=dtype))
    return _Kind("one value", _SCALARS, lambda values: _objects(values, dtype))


def _series(values: list[Any], dtype: Any) -> Any:  # noqa: ANN401
    if isinstance(dtype, np.dtype):
        with np.errstate(over="raise"):
            return np.array(values, dtype)
    return pd.array(values, dtype=dtype)


def _objects(values: list[Any], dtype: Any) -> Any:  # noqa: ANN401
    if dtype != np.dtype(object):
        return pd.Series(values).astype(dtype)
    made = np.empty(len(values), object)
    made[:] = values
    return made


def _whole(values: list[Any]) -> list[Any]:
    """Return whole numbers, which other languages may write as 3.0."""
    if float not in {*map(type, values)}:
        return values
    for row, value in enumerate(values):
        if type(value) is float and not value.is_integer():
            raise _WrongValue(row)
    return [int(value) if type(value) is float else value for value in values]


def _times(values: list[Any], dtype: Any) -> Any:  # noqa: ANN401
    texts = pd.Series(values, dtype="str")
    times = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    if (wrong := times.isna() & texts.notna()).any():
        raise _WrongValue(int(wrong.to_numpy().argmax()))
    if isinstance(dtype, pd.DatetimeTZDtype):
        return times.astype(dtype)
    if (zoned := texts.str.contains(_ZONE, na=False)).any():
        row = int(zoned.to_numpy().argmax())
        raise ValueError(f"row {row} has a time zone, which the model's times have not")
    return times.dt.tz_localize(None).astype(dtype)


def _told(value: object) -> str:
    """Return a value and what it is, for people."""
    words = _WORDS.get(type(value), "something else")
    if value is None or isinstance(value, list | dict):
        return words
    return f"{words}, {_text(value)}"


def _text(value: object) -> str:
    """Return a value as JSON, cut where it is long."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(_text, names[:_NAMED])) + more


def _first_line(exc: Exception) -> str:
    lines = str(exc).strip().splitlines() or [type(exc).__name__]
    return lines[0] if len(lines[0]) <= 4 * _SHOWN else f"{lines[0][: 4 * _SHOWN]}…"
