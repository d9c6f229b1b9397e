"""What is told of the data of a fit. Only kinds that are known are looked at.

Of others, such as Dask's, to ask for the length may be to compute them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from rayml.artifacts.record import is_a

if TYPE_CHECKING:
    from collections.abc import Iterator

_TABLES = ("numpy.ndarray", "pandas.DataFrame", "pandas.Series")
_SPARSE = ("scipy.sparse.spmatrix", "scipy.sparse.sparray")
_LIBRARIES = frozenset(["numpy", "pandas", "scipy"])
_NUMBERS = "biufcmM"  # kinds of dtypes that are bytes, and no references to objects
_SHOWN_COLUMNS = 1000
EXAMPLE_ROWS = 5
_HASHED_ROWS = 65_536
_WORD_COST = 600  # bytes of numbers that are digested while one word is hashed


def is_known(data: object) -> bool:
    """Tell whether it is a table in memory."""
    if type(data) in (list, tuple):
        return len(data) > 0  # type: ignore[arg-type]
    if type(data).__module__.partition(".")[0] not in _LIBRARIES:  # a class derived from theirs
        return False
    return any(is_a(data, kind) for kind in (*_TABLES, *_SPARSE)) and bool(data.shape)  # type: ignore[attr-defined]


def shape_of(data: Any) -> tuple[int, int]:  # noqa: ANN401
    """Return rows and columns."""
    if isinstance(data, list | tuple):
        is_nested = isinstance(data[0], list | tuple) or is_a(data[0], "numpy.ndarray")
        return len(data), len(data[0]) if is_nested else 1
    return int(data.shape[0]), int(data.shape[1]) if len(data.shape) > 1 else 1


def row_bytes(data: Any) -> int:  # noqa: ANN401
    """Return about how many bytes a row has."""
    rows, columns = shape_of(data)
    if is_a(data, "numpy.ndarray"):
        return int(data.nbytes // max(rows, 1)) + 1
    return (
        int(12 * data.nnz // max(rows, 1)) + 1
        if any(is_a(data, kind) for kind in _SPARSE)
        else 8 * columns + 1
    )


def digest_of(data: Any, most_bytes: int) -> str | None:  # noqa: ANN401
    """Return SHA-1 of what is in a table, with its shape; None of too many bytes.

    It copies a part at a time, and only where numbers of a column are not side by side. Words are
    told by their hashes, other objects not at all.
    """
    columns = _columns(data)
    if not columns or sum(map(_cost, columns)) > most_bytes:
        return None
    try:
        columns = [column if _is_of_numbers(column) else _hashes(column) for column in columns]
    except TypeError:  # of lists and the like
        return None
    digest = hashlib.sha1(repr(shape_of(data)).encode(), usedforsecurity=False)
    for column in columns:
        digest.update(column.dtype.str.encode())
        for part in _parts(column):
            digest.update(part)
    return digest.hexdigest()


def _columns(data: Any) -> list[Any]:  # noqa: ANN401
    if is_a(data, "numpy.ndarray"):
        return [data]
    if is_a(data, "pandas.Series"):
        return [_column(data)]
    if is_a(data, "pandas.DataFrame"):
        return [_column(data.iloc[:, place]) for place in range(data.shape[1])]
    parts = [getattr(data, name, None) for name in ("data", "indices", "indptr")]
    return parts if all(is_a(part, "numpy.ndarray") for part in parts) else []


def _column(series: Any) -> Any:  # noqa: ANN401
    """Return numpy's array of a column that is one, else the column."""
    return series.to_numpy() if hasattr(series.dtype, "str") else series


def _is_of_numbers(column: Any) -> bool:  # noqa: ANN401
    return is_a(column, "numpy.ndarray") and column.dtype.kind in _NUMBERS


def _cost(column: Any) -> int:  # noqa: ANN401
    """Return how many bytes of numbers take as long to digest as a column."""
    return int(column.nbytes if _is_of_numbers(column) else column.size * _WORD_COST)


def _hashes(column: Any) -> Any:  # noqa: ANN401
    """Return a number for each word, category or value of a type of pandas'."""
    import pandas as pd  # noqa: PLC0415 - whoever has such a column has it

    values = pd.Series(column.ravel()) if is_a(column, "numpy.ndarray") else column
    return pd.util.hash_pandas_object(values, index=False).to_numpy()


def _parts(column: Any) -> Iterator[Any]:  # noqa: ANN401
    import numpy as np  # noqa: PLC0415 - scikit-learn has it

    for start in range(0, len(column), _HASHED_ROWS):
        yield np.ascontiguousarray(column[start : start + _HASHED_ROWS]).view(np.uint8).data


def schema_of(data: Any) -> dict[str, list[str]]:  # noqa: ANN401
    """Return the names and types of the first columns."""
    shown = min(shape_of(data)[1], _SHOWN_COLUMNS)
    if is_a(data, "pandas.DataFrame"):
        names, types = list(data.columns[:shown]), list(data.dtypes.iloc[:shown])
    else:
        names = [f"x{place}" for place in range(shown)]
        types = [getattr(data, "dtype", "object")] * shown
    return {"name": [str(name) for name in names], "type": [str(kind) for kind in types]}


def some_rows(data: Any, count: int) -> Any:  # noqa: ANN401
    """Return a copy of so many evenly spread rows, or of all if there are no more.

    A copy even then: a step with `copy=False` writes into what it is asked about.
    """
    from sklearn.utils import _safe_indexing  # noqa: PLC0415 - whatever kind of table it is

    rows = shape_of(data)[0]
    if rows <= count:
        return list(data) if isinstance(data, list | tuple) else data.copy()
    return _safe_indexing(data, [place * rows // count for place in range(count)])


def example_of(data: Any) -> Any:  # noqa: ANN401
    """Return a copy of a few rows in a form that a signature has; None of a sparse one."""
    import numpy as np  # noqa: PLC0415 - scikit-learn has it

    if is_a(data, "pandas.DataFrame"):
        return data.iloc[:EXAMPLE_ROWS].copy()
    if isinstance(data, list | tuple):
        return np.asarray(data[:EXAMPLE_ROWS])
    return data[:EXAMPLE_ROWS].copy() if is_a(data, "numpy.ndarray") else None
