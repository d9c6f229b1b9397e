"""The table in parts that workers read by themselves: no more than a batch is in memory.

Ray Data's own readers ask for CPUs, which a job that holds them all does not have to give.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import ray
import ray.data
from pyarrow import csv
from pyarrow.fs import FileSystem, LocalFileSystem, S3FileSystem

import rayml

if TYPE_CHECKING:
    from collections.abc import Iterator

_BUCKETS = ("s3://", "s3a://", "gs://")
_CSV = {".csv": ",", ".tsv": "\t"}
_PACKED = (".gz", ".bz2", ".zst")
_BLOCK_BYTES = 16 * 1024 * 1024  # of text; the first of them says what is a number
_EACH = 4  # parts for each worker, so that the last ones do not wait for one
_AT_ONCE = 16  # files whose ends are read


@dataclass(frozen=True)
class Part:
    """Some rows of one row group.

    Attributes:
        group: A Parquet file's row group, which can be read anywhere.
        start: Its first row.
        rows: How many.
        held: The rows in Ray's object store, where other machines cannot read the file.
    """

    group: Any
    start: int
    rows: int
    held: Any = None


@dataclass(frozen=True)
class Source:
    """The table.

    Attributes:
        parts: All of its rows, in order.
        schema: Its columns.
    """

    parts: list[Part]
    schema: pa.Schema

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(part.rows for part in self.parts)

    def first(self, rows: int) -> pa.Table:
        """Return the first rows."""
        found = chain.from_iterable(self.read(place, rows) for place in range(len(self.parts)))
        return next(found, self.schema.empty_table())

    def read(self, place: int, batch_size: int) -> Iterator[pa.Table]:
        """Yield one part's rows in batches."""
        part = self.parts[place]
        if part.held is not None:
            rows = ray.get(part.held)
            for start in range(0, part.rows, batch_size):
                yield rows.slice(start, batch_size)
            return
        before, stop = 0, part.start + part.rows
        for batch in part.group.to_batches(schema=self.schema, batch_size=batch_size):
            first, last = max(part.start - before, 0), min(stop - before, batch.num_rows)
            before += batch.num_rows
            if first < last:
                yield pa.table(batch.slice(first, last - first))
            if before >= stop:
                return


def open_source(
    table: rayml.Input, takes: dict[str, str] | None, batch_size: int, width: int, folder: Path
) -> Source:
    """Return the table, of which nothing but the ends of Parquet files is read.

    Args:
        table: What the user gave.
        takes: The columns that the model takes and their types, by which text is read.
        batch_size: The fewest rows in a part.
        width: How many workers there are to be parts for.
        folder: Where Parquet is written of what is none.

    Raises:
        SpecError: There are no rows, or the files' columns differ in type.
    """
    filesystem, where, suffix = _place(table)
    if suffix != ".parquet":
        filesystem, where, target = LocalFileSystem(), str(folder), folder / "rows.parquet"
        is_text = suffix in _CSV
        _write(target, _texts(table, takes or {}) if is_text else _tables(table, batch_size))
    dataset = ds.dataset(where, format="parquet", partitioning="hive", filesystem=filesystem)
    fragments = list(dataset.get_fragments())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda fragment: fragment.ensure_complete_metadata(), fragments))
    schema = _joined(where, [dataset.schema, *(one.physical_schema for one in fragments)])
    groups = [group for one in fragments for group in one.split_by_row_group()]
    source = Source(_parts(groups, batch_size, width), schema)
    if not source.rows:
        raise rayml.SpecError(f"table {table.uri} has no rows; give one that has some")
    is_alone = sum(node["Alive"] for node in ray.nodes()) < 2
    is_here = isinstance(filesystem, LocalFileSystem)
    return _held(source, batch_size) if is_here and not is_alone else source


def _parts(groups: list[Any], batch_size: int, width: int) -> list[Part]:
    """Return parts of at least a batch, enough of them for all workers if there are so many."""
    rows = [group.row_groups[0].num_rows for group in groups]
    wanted = max(batch_size, math.ceil(sum(rows) / (_EACH * width)))
    return [
        Part(group, start, min(wanted, count - start))
        for group, count in zip(groups, rows, strict=True)
        for start in range(0, count, wanted)
    ]


def _held(source: Source, batch_size: int) -> Source:
    """Return the same source in Ray's object store, for workers on other machines."""
    parts = [
        Part(None, 0, part.rows, ray.put(pa.concat_tables(source.read(place, batch_size))))
        for place, part in enumerate(source.parts)
    ]
    return Source(parts, source.schema)


def _joined(where: str, schemas: list[pa.Schema]) -> pa.Schema:
    """Return the columns of all files: one without a value in a file has no type there."""
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").remove_metadata()
    except pa.ArrowTypeError as exc:
        raise rayml.SpecError(f"the files of {where!r} disagree: {exc}; convert some") from exc


def _place(table: rayml.Input) -> tuple[FileSystem, str, str]:
    """Return where the table's files are, and the suffix that says what they are."""
    if table.uri.startswith("memory://"):
        return LocalFileSystem(), "", ""
    if table.uri.startswith(_BUCKETS):
        filesystem, where = _bucket(table.uri)
        return filesystem, where, _suffix(Path(where)) or ".parquet"
    path = table.path()
    if not path.is_dir():
        return LocalFileSystem(), str(path), _suffix(path)
    kinds = {_suffix(file) for file in path.rglob("*") if file.is_file()}
    known = [kind for kind in (".parquet", *_CSV) if kind in kinds]
    if not known:
        raise rayml.SpecError(
            f"table {str(path)!r} is a folder without Parquet or CSV files; give one with some"
        )
    return LocalFileSystem(), str(path), known[0]


def _suffix(path: Path) -> str:
    """Return the suffix, without that of a packer that Arrow reads through."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if len(suffixes) > 1 and suffixes[-1] in _PACKED:
        return suffixes[-2]
    return suffixes[-1] if suffixes else ""


def _bucket(uri: str) -> tuple[FileSystem, str]:
    """Return a bucket's file system with this process's credentials: workers may have none."""
    if uri.startswith("gs://"):
        found: tuple[FileSystem, str] = FileSystem.from_uri(uri.rstrip("/"))
        return found
    where = uri.partition("://")[2].rstrip("/")
    options = {
        "access_key": os.environ.get("AWS_ACCESS_KEY_ID"),
        "secret_key": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": os.environ.get("AWS_SESSION_TOKEN"),
        "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        "endpoint_override": os.environ.get("AWS_ENDPOINT_URL"),
    }
    return S3FileSystem(**{name: text for name, text in options.items() if text}), where


def _write(target: Path, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with pq.ParquetWriter(target, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)


def _tables(table: rayml.Input, batch_size: int) -> Iterator[pa.Table]:
    """Yield a table that is in memory, or has to be."""
    if isinstance(table.value, ray.data.Dataset):
        yield from table.value.iter_batches(batch_size=batch_size, batch_format="pyarrow")
        return
    rows = table.to_arrow()
    for start in range(0, max(1, rows.num_rows), batch_size):
        yield rows.slice(start, batch_size)


def _texts(table: rayml.Input, takes: dict[str, str]) -> Iterator[pa.Table]:
    """Yield CSV's rows: columns as the model knows them, and the others as they look."""
    filesystem, where, suffix = _place(table)
    types = {name: kind for name, dtype in takes.items() if (kind := _arrow_type(dtype))}
    for file in _files(where, suffix):
        with filesystem.open_input_stream(file, compression="detect") as stream:
            try:
                reader = csv.open_csv(
                    stream,
                    read_options=csv.ReadOptions(block_size=_BLOCK_BYTES),
                    parse_options=csv.ParseOptions(
                        delimiter=_CSV[suffix], newlines_in_values=True
                    ),
                    convert_options=csv.ConvertOptions(
                        column_types=types, strings_can_be_null=True
                    ),
                )
                yield pa.table(reader.schema.empty_table())
                yield from map(pa.table, reader)
            except pa.ArrowInvalid as exc:
                raise rayml.SpecError(f"{file!r} cannot be read as CSV: {exc}; mend it") from exc


def _files(where: str, suffix: str) -> list[str]:
    path = Path(where)
    if path.is_absolute() and path.is_dir():
        return [str(file) for file in sorted(path.rglob("*")) if _suffix(file) == suffix]
    return [where]


def _arrow_type(dtype: str) -> pa.DataType | None:
    if dtype.startswith("float"):
        return pa.float64()
    return pa.string() if dtype in {"object", "str", "string", "category"} else None
