"""Tables whose columns are read one at a time, so that a large file needs the memory of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Table:
    """A table, of which nothing is in memory but what it came with.

    Attributes:
        rows: How many.
        names: Of its columns, in order.
        read: Returns a column by its name.
    """

    rows: int
    names: list[str]
    read: Callable[[str], pa.ChunkedArray]


@dataclass(frozen=True)
class Column:
    """One column's values, without those that are missing.

    Attributes:
        kind: `"number"`, `"time"`, `"category"` (text and booleans), `"empty"` or `"other"`.
        type: Arrow's name of its type.
        rows: How many, missing ones too.
        numbers: Of numbers, and of times in milliseconds since 1970.
        counts: How often each category is there.
    """

    kind: str
    type: str
    rows: int
    numbers: np.ndarray
    counts: pd.Series[int]

    @property
    def present(self) -> int:
        """How many rows have a value."""
        return len(self.numbers) + int(self.counts.sum())

    @property
    def missing(self) -> float:
        """The share of the rows that have none."""
        return 1 - self.present / self.rows


def open_table(name: str, given: rayml.Input) -> Table:
    """Return an input as a table; Parquet files are read when their columns are asked for.

    Raises:
        rayml.SpecError: It is no table, has no rows, or two columns of one name.
    """
    table = _open(name, given)
    if not table.rows:
        raise rayml.SpecError(f"{name} has 0 rows; give a table that has some")
    return table


def _open(name: str, given: rayml.Input) -> Table:
    if not given.uri.startswith("memory://") and _is_parquet(path := given.path()):
        return _of_parquet(path)
    if type(given.value).__module__.startswith("dask."):
        return _of_dask(given.value)
    if type(given.value).__module__.startswith("ray.data"):
        return _of_ray(given.value)
    if given.uri.startswith("memory://") and not isinstance(given.value, pd.DataFrame):
        whole = given.to_arrow()
        return Table(whole.num_rows, whole.column_names, whole.column)
    return _of_pandas(name, given.to_pandas())


def read_column(table: Table, name: str) -> Column:
    """Read one column and take its values apart."""
    array = table.read(name)
    kind, numbers, counts = kind_of(array.type), np.empty(0), pd.Series(dtype="int64")
    if kind in ("number", "time"):
        numbers = _numbers(array)
    elif kind == "category":
        counts = _counts(array)
    if kind != "other" and not len(numbers) and not len(counts):
        kind = "empty"
    return Column(kind, _type_name(array.type), table.rows, numbers, counts)


def kind_of(kind: pa.DataType) -> str:
    """Return what a type's values are compared as.

    >>> kind_of(pa.int8()), kind_of(pa.bool_()), kind_of(pa.date32()), kind_of(pa.null())
    ('number', 'category', 'time', 'empty')
    """
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_duration(kind):
        return "number"
    if types.is_temporal(kind):
        return "time"
    if types.is_boolean(kind) or types.is_dictionary(kind) or _is_text(kind):
        return "category"
    return "empty" if types.is_null(kind) else "other"


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return _type_name(kind.value_type)
    return "string" if _is_text(kind) else str(kind)


def _is_parquet(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() == ".parquet"


def _of_parquet(path: Path) -> Table:
    parts = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    rows, schemas = 0, []
    for part in parts:
        with pq.ParquetFile(part) as file:
            rows += file.metadata.num_rows
            schemas.append(file.schema_arrow)
    index = {name for schema in schemas for name in _index_of(schema)}
    names = dict.fromkeys(name for schema in schemas for name in schema.names)

    def read(name: str) -> pa.ChunkedArray:
        tables = pa.concat_tables(_parts(parts, name), promote_options="permissive")
        return tables.column(name)

    return Table(rows, [name for name in names if name not in index], read)


def _parts(parts: list[Path], name: str) -> Iterator[pa.Table]:
    for part in parts:
        with pq.ParquetFile(part) as file:
            has_it = name in file.schema_arrow.names
            table = file.read([name] if has_it else [])
            missing = pa.nulls(file.metadata.num_rows)
        yield table if has_it else pa.table({name: missing})


def _index_of(schema: pa.Schema) -> list[str]:
    """Return the columns that were a DataFrame's index."""
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    return [name for name in index if isinstance(name, str)]


def _of_dask(frame: Any) -> Table:  # noqa: ANN401 - a DataFrame of Dask, an extra
    names = {str(column): column for column in frame.columns}
    return Table(len(frame), list(names), lambda name: _arrow(frame[names[name]].compute()))


def _of_ray(dataset: Any) -> Table:  # noqa: ANN401 - a Dataset of Ray, which need not be loaded
    def read(name: str) -> pa.ChunkedArray:
        blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow")
        tables = [block.select([name]) for block in blocks]
        return pa.concat_tables(tables, promote_options="permissive").column(name)

    return Table(dataset.count(), dataset.schema().names, read)


def _of_pandas(name: str, frame: pd.DataFrame) -> Table:
    columns = {str(column): place for place, column in enumerate(frame.columns)}
    if len(columns) < frame.shape[1]:
        raise rayml.SpecError(f"{name} has two columns of one name; rename one of them")
    return Table(len(frame), list(columns), lambda column: _arrow(frame.iloc[:, columns[column]]))


def _arrow(series: pd.Series[Any]) -> pa.ChunkedArray:
    """Return a column as Arrow; one of mixed types as text."""
    try:
        array = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        texts = series.astype(object).map(str, na_action="ignore")
        array = pa.array(texts, pa.string(), from_pandas=True)
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _numbers(array: pa.ChunkedArray) -> np.ndarray:
    kind = array.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        array = array.cast(pa.timestamp("ms", getattr(kind, "tz", None)), safe=False)
    if pa.types.is_temporal(kind):
        array = array.cast(pa.int64() if array.type.bit_width == 64 else pa.int32())
    numbers: np.ndarray = array.cast(pa.float64(), safe=False).drop_null().to_numpy()
    found: np.ndarray = numbers[~np.isnan(numbers)]
    return found


def _counts(array: pa.ChunkedArray) -> pd.Series[int]:
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    found = pc.value_counts(array.drop_null().cast(pa.large_string())).flatten()
    values, counts = (field.to_numpy(zero_copy_only=False) for field in found)
    return pd.Series(counts, index=values)
