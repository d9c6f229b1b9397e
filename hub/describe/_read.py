"""Where a table's rows come from, part by part, so that no more than a part is in memory."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_WHOLE_BYTES = 256 * 1024**2  # of values, unpacked: up to here a file is read at once
_CELL_BYTES = 8
_PART_BYTES = 128 * 1024**2
_BATCH_ROWS = 2**18


@dataclass(frozen=True)
class Source:
    """Rows in parts: each is read where it is needed, as often as it is needed.

    Attributes:
        parts: Each returns its tables, one after the other; a delayed DataFrame of Dask, or a
            reference to a table of Ray Data.
        kind: `"whole"` (one table, in memory), `"files"`, `"dask"` or `"ray"`.
        notes: What was found about columns while they were read.
    """

    parts: list[Any]
    kind: str
    notes: dict[str, str] = field(default_factory=dict)


def open_source(name: str, given: rayml.Input) -> Source:
    """Return where an input's rows come from.

    Raises:
        rayml.SpecError: It is no table, has no columns, or two of one name.
    """
    module = type(given.value).__module__
    if module.startswith("ray.data"):
        return Source(given.to_ray().to_arrow_refs(), "ray")
    if module.startswith("dask."):
        return Source(given.value.to_delayed(), "dask")
    if not given.uri.startswith("memory://") and _is_parquet(path := given.path()):
        return _of_parquet(name, given, path)
    if given.uri.startswith("memory://") and not isinstance(given.value, pd.DataFrame):
        return Source([given.to_arrow()], "whole")
    return _of_pandas(name, given.to_pandas())


def _is_parquet(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() == ".parquet"


def _of_parquet(name: str, given: rayml.Input, path: Path) -> Source:
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    parts, schemas, size = [], [], 0
    for file in files:
        with pq.ParquetFile(file) as opened:
            schemas.append(opened.schema_arrow)
            for groups, group_bytes in _groups(opened.metadata):
                parts.append((file, groups))
                size += group_bytes
    schema = _schema(name, schemas)
    readers = [partial(read_groups, *part, schema) for part in parts]
    if size <= _WHOLE_BYTES:
        tables = [table for reader in readers for table in reader()]
        return Source([pa.concat_tables(tables) if tables else schema.empty_table()], "whole")
    if not given.uri.startswith("/") and _has_nodes():
        return Source(given.to_ray().to_arrow_refs(), "ray")  # the copy is on this machine only
    return Source(readers, "files")


def _has_nodes() -> bool:
    """Tell whether other machines may be asked to read."""
    if "ray" not in sys.modules:
        return False
    import ray  # noqa: PLC0415 - a table of this process does without it

    return bool(ray.is_initialized()) and len(ray.nodes()) > 1


def _groups(metadata: pq.FileMetaData) -> Iterator[tuple[list[int], int]]:
    """Yield neighbouring row groups that are read together, and their size."""
    held: list[int] = []
    size = 0
    for number in range(metadata.num_row_groups):
        held.append(number)
        group = metadata.row_group(number)
        # What a dictionary has packed counts as what it is in memory.
        size += max(group.total_byte_size, group.num_rows * group.num_columns * _CELL_BYTES)
        if size >= _PART_BYTES:
            yield held, size
            held, size = [], 0
    if held:
        yield held, size


def _schema(name: str, schemas: list[pa.Schema]) -> pa.Schema:
    """Return the one type of each column that all files' fit into, without a frame's index."""
    if not schemas:
        raise rayml.SpecError(
            f"{name} is a folder without a .parquet file; give one that has some"
        )
    try:
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as exc:
        raise rayml.SpecError(
            f"the files of {name} disagree on a column's type: {exc}; write them with one type"
        ) from exc
    index = {column for one in schemas for column in _index_of(one)}
    return pa.schema([entry for entry in schema if entry.name not in index])


def _index_of(schema: pa.Schema) -> list[str]:
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    return [name for name in index if isinstance(name, str)]


def read_groups(path: Path, groups: list[int], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield some row groups' rows in batches, in the types and the order of a schema."""
    with pq.ParquetFile(path) as file:
        there = [name for name in schema.names if name in file.schema_arrow.names]
        for batch in file.iter_batches(_BATCH_ROWS, groups, there):
            yield _fitted(pa.Table.from_batches([batch]), schema)


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    arrays = [
        table.column(entry.name).cast(entry.type)
        if entry.name in table.column_names
        else pa.nulls(table.num_rows, entry.type)
        for entry in schema
    ]
    return pa.table(arrays, schema=schema)


def _of_pandas(name: str, frame: pd.DataFrame) -> Source:
    names = [str(column) for column in frame.columns]
    if len(set(names)) < len(names):
        raise rayml.SpecError(f"{name} has two columns of one name; rename one of them")
    notes: dict[str, str] = {}
    arrays = [_arrow(column, frame.iloc[:, i], notes) for i, column in enumerate(names)]
    return Source([pa.table(arrays, names)], "whole", notes)


def frame_table(frame: pd.DataFrame) -> pa.Table:
    """Return a part of a Dask DataFrame as Arrow."""
    table: pa.Table = _of_pandas("table", frame).parts[0]
    return table


def _arrow(name: str, series: pd.Series[Any], notes: dict[str, str]) -> pa.ChunkedArray:
    """Return a column as Arrow; one of mixed types as text, which is noted."""
    if isinstance(getattr(series.dtype, "categories", None), pd.IntervalIndex):
        series = series.astype(object).map(str, na_action="ignore")  # as pandas shows them
    try:
        array = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        types = series.dropna().map(lambda value: type(value).__name__).value_counts()
        notes[name] = ", ".join(f"{count:,} {kind}" for kind, count in types.items())
        texts = series.astype(object).map(str, na_action="ignore")
        array = pa.array(texts, pa.string(), from_pandas=True)
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def tables_of(source: Source) -> Callable[[], Iterator[pa.Table]]:
    """Return what yields all tables of a source that is read here, each time it is called."""

    def read() -> Iterator[pa.Table]:
        for part in source.parts:
            yield from [part] if isinstance(part, pa.Table) else part()

    return read
