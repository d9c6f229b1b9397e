"""Datasets: a pandas, Arrow, Polars, Ray, Dask or Spark table, kept as Parquet and described."""

from __future__ import annotations

import importlib
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from rayml.artifacts.describe import Description
from rayml.artifacts.record import (
    ArtifactRecord,
    FileRecord,
    add_file,
    check_name,
    is_a,
    type_name,
)
from rayml.errors import SpecError
from rayml.store import read_blob
from rayml.store.base import blob_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pandas as pd
    import pyarrow as pa
    from ray.data import Dataset

    from rayml.store import Store

_DATA = "data.parquet"
_BATCH_BYTES = 16 * 1024 * 1024
PART_BYTES = 256 * 1024 * 1024
_SOURCES = {
    "pandas.DataFrame": "pandas",
    "pyarrow.Table": "arrow",
    "pyarrow.RecordBatchReader": "stream",
    "polars.DataFrame": "polars",
    "polars.LazyFrame": "polars",
    "dask.dataframe.DataFrame": "dask",
    "pyspark.sql.DataFrame": "spark",
    "ray.data.Dataset": "ray",
}

_SPREAD = ("dask", "ray", "spark")


def save_dataset(store: Store, name: str, data: object) -> ArtifactRecord:
    """Store a table as Parquet and return its record, with schema, statistics and first rows.

    What is spread over workers is written by them, part by part: a Ray dataset's neighbouring
    blocks, and each partition of a Dask or Spark DataFrame. Columns are named by strings in
    Parquet; a DataFrame whose columns had other names gets them back when it is read as pandas. A
    DataFrame's index is kept as pyarrow keeps it.

    Args:
        store: Where the bytes go; nothing is recorded unless all of them got there.
        name: The artifact's name.
        data: A pandas or Polars DataFrame, a Polars LazyFrame, a pyarrow Table, a Ray
            Dataset, or a Dask or Spark DataFrame; or a pyarrow RecordBatchReader, which is read
            to its end and never held whole.

    Raises:
        SpecError: It is no table, has no columns, two columns of one name, or one of mixed types;
            or workers of Dask or Spark have no such store on their machines.
    """
    check_name(name)
    source = source_of(data)
    if source is None:
        raise SpecError(
            f"dataset {name!r} is a {type_name(data)}; "
            "pass a pandas, Polars, Dask or Spark DataFrame, a pyarrow Table or a Ray Dataset"
        )
    if source in _SPREAD:
        module = importlib.import_module(f"rayml.artifacts.{source}_dataset")  # goes on from here
        record: ArtifactRecord = module.save_spread(store, name, data)
        return record
    if source == "stream":
        return save_tables(store, name, "dataset", "arrow", _stream_tables(data))
    return save_tables(store, name, "dataset", source, iter([arrow_table(name, data)]))


def save_tables(
    store: Store, name: str, kind: str, source: str, tables: Iterator[pa.Table]
) -> ArtifactRecord:
    """Store tables, which are consumed once, as the parts of one artifact."""
    return record_of(name, kind, source, *write_parts(store, name, tables))


def write_parts(
    store: Store, name: str, tables: Iterator[pa.Table]
) -> tuple[Description, list[FileRecord]]:
    """Store tables, which are consumed once; return what they hold, and the files that have it."""
    description, files = Description(), []
    with tempfile.TemporaryDirectory(prefix="rayml-") as folder:
        path = Path(folder) / "part"
        for _, part in groupby(tables, _part_number()):
            _write_part(name, path, part, description)
            files.append(add_file(store, path, _DATA))
    return description, files


def record_parts(
    store: Store,
    name: str,
    source: str,
    stored: Iterable[tuple[Description, list[FileRecord]]],
    empty: Callable[[], pa.Table],
) -> ArtifactRecord:
    """Return the record of a dataset that others have stored, part by part in this order.

    Args:
        store: Where they have.
        name: The artifact's name.
        source: The library.
        stored: What `write_parts` has returned for each.
        empty: Returns the table without rows that is stored if there is no part.

    Raises:
        SpecError: Parts disagree on a column's type; or the store that they were written to is
            another one, as a folder of another machine is.
    """
    description, files = Description(), []
    for told, parts in stored:
        description.extend(told)
        files += parts
    if not files:
        description, files = write_parts(store, name, iter([empty()]))
    if store.is_local and any(store.size(blob_key(file.digest)) is None for file in files):
        raise SpecError(
            f"dataset {name!r} was written on machines that do not share the store {store.uri}; "
            "use one on object storage, or log what compute() or toPandas() returns"
        )
    return record_of(name, "dataset", source, description, files)


def record_of(
    name: str, kind: str, source: str, description: Description, files: list[FileRecord]
) -> ArtifactRecord:
    """Return the record of tables that are stored, part by part in this order."""
    if len(files) > 1:
        files = [replace(file, path=f"part-{i:05}.parquet") for i, file in enumerate(files)]
    meta = description.meta(source)
    return ArtifactRecord(name=name, kind=kind, format="parquet", files=files, meta=meta)


def source_of(data: object) -> str | None:
    """Return a table's library: `pandas`, `arrow`, `polars`, `ray`, `dask`, `spark`, or None."""
    return next((source for kind, source in _SOURCES.items() if is_a(data, kind)), None)


def arrow_table(name: str, data: Any) -> pa.Table:  # noqa: ANN401
    """Return a table of any of the libraries as Arrow, without a copy where the library allows it.

    Raises:
        SpecError: Arrow cannot hold a column; the message names it.
    """
    source = source_of(data)
    if source == "pandas":
        return _from_pandas(name, data)
    if source == "ray":
        return joined(ray_tables(data))
    if source in ("dask", "spark"):
        return _from_pandas(name, data.compute() if source == "dask" else data.toPandas())
    if source == "polars":
        return _from_polars(name, data)
    if source == "stream":
        return data.read_all()
    if source is None:
        raise SpecError(f"{name!r} is a {type_name(data)}, which is no table; pass a DataFrame")
    return data


def _stream_tables(reader: Any) -> Iterator[pa.Table]:  # noqa: ANN401
    """Yield the rows of a stream in tables of some 16 MiB; one empty table if it has none."""
    import pyarrow as pa  # noqa: PLC0415

    rows = 0
    for tables in gather(pa.Table.from_batches([batch]) for batch in reader):
        rows += sum(table.num_rows for table in tables)
        yield pa.concat_tables(tables)
    if not rows:
        yield reader.schema.empty_table()


def ray_tables(data: Any) -> Iterator[pa.Table]:  # noqa: ANN401
    """Yield a Ray dataset's rows in tables of some 16 MiB; one empty table if it has none."""
    import pyarrow as pa  # noqa: PLC0415

    rows = 0
    for tables in gather(data.iter_batches(batch_size=None, batch_format="pyarrow")):
        rows += sum(table.num_rows for table in tables)
        yield pa.concat_tables(tables)
    if not rows:
        schema = data.schema()
        fields = zip(schema.names, schema.types, strict=True) if schema else ()
        yield pa.schema(list(fields)).empty_table()


def ray_rows(dataset: Dataset, start: int, stop: int) -> pa.Table:
    """Return some rows of a Ray dataset that is materialized; only blocks with them are fetched.

    Args:
        dataset: The dataset.
        start: The first row.
        stop: The row after the last one.
    """
    import ray  # noqa: PLC0415
    from ray.data.block import BlockAccessor  # noqa: PLC0415

    parts: list[pa.Table] = []
    before = 0
    dataset.context.enable_progress_bars = False
    for bundle in dataset.iter_internal_ref_bundles():
        for block in bundle.blocks:
            rows = block.metadata.num_rows
            first, last = max(start - before, 0), min(stop - before, rows)
            before += rows
            if first < last:
                table = BlockAccessor.for_block(ray.get(block.ref)).to_arrow()
                parts.append(table.slice(first, last - first))
    return joined(parts) if parts else next(ray_tables(dataset)).slice(0, 0)


def read_tables(store: Store, record: ArtifactRecord) -> Iterator[pa.Table]:
    """Yield the parts of a stored dataset, one in memory at a time, each of them checked."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    for file in record.files:
        whole = b"".join(read_blob(store, file.digest))
        yield pq.read_table(pa.BufferReader(whole))


def read_table(store: Store, record: ArtifactRecord) -> pa.Table:
    """Return a stored dataset as one Arrow table."""
    return joined(read_tables(store, record))


def joined(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the tables as one; a column that is null in some takes its type from the others."""
    import pyarrow as pa  # noqa: PLC0415

    return pa.concat_tables(tables, promote_options="permissive")


def ray_dataset(tables: Iterable[pa.Table]) -> Dataset:
    """Return tables as a Ray dataset that every node can read; one at a time is held here."""
    import ray  # noqa: PLC0415
    import ray.data  # noqa: PLC0415

    return ray.data.from_arrow_refs([ray.put(table) for table in tables])  # type: ignore[misc]


def _write_part(
    name: str, path: Path, tables: Iterator[pa.Table], description: Description
) -> None:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    first = next(tables)
    if not first.column_names:
        raise SpecError(f"{name!r} has no columns; log a table that has some")
    _check_unique(name, first.column_names)
    try:
        # Both sides are C++ that lets go of the interpreter: the statistics take no time.
        with pq.ParquetWriter(path, first.schema) as writer, ThreadPoolExecutor(1) as beside:
            for table in chain([first], tables):
                described = beside.submit(description.add, table)
                writer.write_table(table)
                described.result()
    except pa.ArrowNotImplementedError as exc:
        raise SpecError(f"{name!r} does not fit Parquet: {exc}; cast that column first") from exc


def _part_number() -> Callable[[pa.Table], int]:
    """Return the key that puts tables of one schema together, up to a part's size."""
    number, size = 0, 0
    schema: pa.Schema | None = None

    def key(table: pa.Table) -> int:
        nonlocal number, size, schema
        if schema is not None and (size > PART_BYTES or not schema.equals(table.schema)):
            number, size = number + 1, 0
        schema, size = table.schema, size + table.nbytes
        return number

    return key


def gather(tables: Iterable[pa.Table]) -> Iterator[list[pa.Table]]:
    """Yield neighbours of one schema together: row groups of a few rows are slow to read."""
    held: list[pa.Table] = []
    size = 0
    for table in tables:
        if held and (size > _BATCH_BYTES or not held[0].schema.equals(table.schema)):
            yield held
            held, size = [], 0
        held.append(table)
        size += table.nbytes
    if held:
        yield held


def _from_pandas(name: str, data: pd.DataFrame) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    _check_unique(name, map(str, data.columns))
    try:
        return pa.Table.from_pandas(data)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
        column = next((c for c in data.columns if not _fits(data[c])), "its index")
        raise SpecError(
            f"column {column!r} of {name!r} does not fit one Arrow type: {_reason(exc)}; "
            "convert it, for example with .astype(str)"
        ) from exc


def _fits(column: pd.Series[Any]) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    try:
        pa.array(column, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False
    return True


def _from_polars(name: str, data: Any) -> pa.Table:  # noqa: ANN401
    import polars as pl  # noqa: PLC0415

    frame = data.collect() if is_a(data, "polars.LazyFrame") else data
    for column, kind in frame.schema.items():
        if kind == pl.Object:
            raise SpecError(
                f"column {column!r} of {name!r} holds Python objects, which Arrow cannot; "
                "convert it to a Polars type"
            )
    return frame.to_arrow()


def _check_unique(name: str, columns: Iterable[str]) -> None:
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise SpecError(
            f"{name!r} has two columns called {twice[0]!r} as text; rename one of them"
        )


def _reason(exc: Exception) -> str:
    return str(exc.args[0]) if exc.args else type(exc).__name__
