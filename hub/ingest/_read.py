"""Files as rows of one table in a database on disk, text as text."""

from __future__ import annotations

import csv
import io
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from python_calamine import CalamineError

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ._sources import File

_MOST_CORES = 8
_MIB_PER_CORE = 256  # of the database, and as much for all of them; the rest goes to disk
_START_BYTES = 1024 * 1024
_LINE_BYTES = 16 * 1024 * 1024
_ROWS = 20_000
_MOST_BAD_ROWS = 10_000
_ERRORS = (
    duckdb.Error, sqlite3.Error, csv.Error, pa.ArrowException, CalamineError, OSError, ValueError,
)  # fmt: skip
_DELIMITERS = ",;\t|"
_WHOLE = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
)
_REAL = (*_WHOLE, "HUGEINT", "FLOAT", "DOUBLE")


@dataclass
class Staged:
    """What was read, as it was written: the table `staged` of a database on disk.

    Attributes:
        connection: To the database.
        warnings: What should be known.
        columns: The types of the table's columns in the database.
        files: How many were read.
        bad: Rows that fit no table, at most 10,000: file, row, reason and text. The header is
            row 1 of a file that has one.
        bad_count: How many there are.
        partition: What the names of the folders say, as `day=2024-01-01` does, of all rows of the
            file that is read now.
    """

    connection: duckdb.DuckDBPyConnection
    warnings: list[str]
    columns: dict[str, str] = field(default_factory=dict)
    files: int = 0
    bad: list[dict[str, object]] = field(default_factory=list)
    bad_count: int = 0
    partition: dict[str, str] = field(default_factory=dict)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement to its end, and return all that it gives."""
        return self.connection.execute(sql).fetchall()

    def add(self, rows: str) -> None:
        """Add the rows that a query gives; columns that it lacks are missing in them."""
        described = [(name, kind) for name, kind, *_ in self.ask(f"DESCRIBE {rows}")]
        there = {name.lower() for name, _ in described}
        told = {name: value for name, value in self.partition.items() if name.lower() not in there}
        if told:
            constants = ", ".join(
                f"{text(value)} AS {quoted(name)}" for name, value in told.items()
            )
            rows = f"SELECT *, {constants} FROM ({rows})"
        for name, kind in [*described, *dict.fromkeys(told, "VARCHAR").items()]:
            self._add_column(name, kind)
        self.ask(f"INSERT INTO staged BY NAME {rows}")

    def add_table(self, table: pa.Table) -> None:
        """Add the rows of a table in memory."""
        self.connection.register("given", table)
        self.add("SELECT * FROM given")
        self.connection.unregister("given")

    def reject(self, rows: Iterable[dict[str, object]]) -> None:
        """Keep rows that fit no table."""
        for row in rows:
            self.bad_count += 1
            if len(self.bad) < _MOST_BAD_ROWS:
                self.bad.append(row)

    def bad_rows(self) -> pd.DataFrame:
        """Return the rows that fit no table."""
        kinds = {"file": "str", "row": "int64", "reason": "str", "text": "str"}
        return pd.DataFrame(self.bad, columns=list(kinds)).astype(kinds)

    def check(self) -> None:
        """Raise SpecError if there is no column; say how many rows were left out."""
        if not self.columns:
            seen = f" ({self.bad_count:,} lines fit none)" if self.bad_count else ""
            raise rayml.SpecError(
                f"there is no table in what was read{seen}; give files with rows"
            )
        if self.bad_count:
            self.warnings.append(f"{self.bad_count:,} rows fit no table and are in `bad_rows`.")

    def _add_column(self, name: str, kind: str) -> None:
        known = next((column for column in self.columns if column.lower() == name.lower()), None)
        if known is None and not self.columns:
            self.ask(f"CREATE TABLE staged ({quoted(name)} {kind})")
        elif known is None:
            self.ask(f"ALTER TABLE staged ADD COLUMN {quoted(name)} {kind}")
        elif self.columns[known] != kind:
            name, kind = known, _common(self.columns[known], kind)
            self.ask(f"ALTER TABLE staged ALTER {quoted(name)} TYPE {kind}")
        else:
            return
        self.columns[name] = kind


def _common(one: str, other: str) -> str:
    """Return a type that holds both."""
    if one in _WHOLE and other in _WHOLE:
        return "HUGEINT" if "UBIGINT" in (one, other) else "BIGINT"
    return "DOUBLE" if one in _REAL and other in _REAL else "VARCHAR"


def quoted(name: str) -> str:
    """Return a name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def text(value: object) -> str:
    """Return text as SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def open_staged(folder: Path, warnings: list[str]) -> Staged:
    """Return an empty table in a database below a folder."""
    staged = Staged(duckdb.connect(str(folder / "staged.duckdb")), warnings)
    # Ray tells a task by this how many cores it has.
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    cores = min(_MOST_CORES, int(given) if given.isdigit() else len(os.sched_getaffinity(0)))
    staged.ask(f"SET threads = {max(1, cores)}")
    staged.ask(f"SET memory_limit = '{_MIB_PER_CORE * (cores + 1)}MiB'")
    staged.ask(f"SET temp_directory = {text(folder / 'spilled')}")
    staged.ask("SET enable_progress_bar = false")
    return staged


def read_file(staged: Staged, file: File, query: str | None, *, header: bool) -> None:
    """Add a file's rows to the table.

    Raises:
        SpecError: It is not what its name says, or asks for a query.
    """
    readers: dict[str, Callable[[], None]] = {
        "csv": lambda: _read_csv(staged, file, header=header),
        "json": lambda: _read_json(staged, file),
        "parquet": lambda: staged.add(
            f"SELECT * FROM read_parquet({text(file.path)}, hive_partitioning = false)"
        ),
        "arrow": lambda: _read_arrow(staged, file),
        "excel": lambda: staged.add_table(as_table(pd.read_excel(file.path, engine="calamine"))),
        "sqlite": lambda: _read_sqlite(staged, file, query),
        "duckdb": lambda: _read_duckdb(staged, file, query),
        "memory": lambda: staged.add_table(as_table(file.table)),
    }
    if query is not None and file.format not in ("sqlite", "duckdb"):
        raise rayml.SpecError(f"{file.name!r} takes no query, only databases do; leave it out")
    folders = file.name.split("/")[:-1]
    staged.partition = dict(part.split("=", 1) for part in folders if "=" in part)
    try:
        readers[file.format]()
    except _ERRORS as exc:
        if isinstance(exc, rayml.RaymlError):
            raise
        said = str(exc).strip().partition("\n")[0].replace(str(file.path), file.name)
        raise rayml.SpecError(f"{file.name!r} cannot be read: {said}; mend it") from exc
    staged.files += 1


def _read_csv(staged: Staged, file: File, *, header: bool) -> None:
    encoding = _encoding(file, staged.warnings)
    names, delimiter, blank = _header(file, encoding, header=header)
    if not names:
        staged.warnings.append(f"{file.name!r} is empty.")
        return
    columns = ", ".join(f"{text(name)}: 'VARCHAR'" for name in names)
    kind = {"utf-8-sig": "utf-8", "latin-1": "latin-1", "utf-16": "utf-16"}[encoding]
    staged.ask("DROP TABLE IF EXISTS reject_errors")
    staged.ask("DROP TABLE IF EXISTS reject_scans")
    staged.add(
        f"SELECT * FROM read_csv({text(file.path)}, columns = {{{columns}}}, auto_detect = false, "
        f"header = {str(header).lower()}, delim = {text(delimiter)}, quote = '\"', escape = '\"', "
        f"encoding = '{kind}', max_line_size = {_LINE_BYTES}, buffer_size = {2 * _LINE_BYTES}, "
        "ignore_errors = true, store_rejects = true, rejects_limit = 0, compression = 'none', "
        f"hive_partitioning = false, skip = {blank})"
    )
    rejected = staged.connection.execute(
        "SELECT line, any_value(error_type), any_value(csv_line) FROM reject_errors "
        "GROUP BY file_id, scan_id, line ORDER BY line"
    )
    while rows := rejected.fetchmany(_ROWS):
        staged.reject(
            {"file": file.name, "row": line, "reason": why.lower(), "text": said}
            for line, why, said in rows
        )


def _encoding(file: File, warnings: list[str]) -> str:
    with file.path.open("rb") as opened:
        start = opened.read(_START_BYTES)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as exc:
        if exc.reason != "unexpected end of data":  # which is a character that was cut off
            warnings.append(f"{file.name!r} is no UTF-8; it is read as Latin-1.")
            return "latin-1"
    return "utf-8-sig"


def _header(file: File, encoding: str, *, header: bool) -> tuple[list[str], str, int]:
    """Return the names of a file's columns, what is between them, and how many lines are before.

    The names are of their own each; without any, the file is empty.
    """
    with file.path.open(encoding=encoding, errors="replace", newline="") as opened:
        start = opened.read(_START_BYTES)
    lines = start.splitlines(keepends=True)
    blank = next((place for place, line in enumerate(lines) if line.strip()), len(lines))
    if blank == len(lines):
        return [], ",", blank
    unquoted = "".join(lines[blank].split('"')[::2])
    is_tabbed = file.name.lower().endswith((".tsv", ".tab"))
    delimiter = "\t" if is_tabbed else max(_DELIMITERS, key=unquoted.count)
    cells = next(csv.reader(io.StringIO("".join(lines[blank:])), delimiter=delimiter))
    given = cells if header else [f"column{place}" for place in range(len(cells))]
    return _unique(given), delimiter, blank


def _unique(names: list[str]) -> list[str]:
    """Return names of which no two are equal, whatever their case, and none is empty."""
    taken: dict[str, str] = {}
    for place, given in enumerate(names):
        name = given.strip() or f"column{place}"
        others = (f"{name}_{number}" for number in count(1))
        taken_one = (
            name
            if name.lower() not in taken
            else next(other for other in others if other.lower() not in taken)
        )
        taken[taken_one.lower()] = taken_one
    return list(taken.values())


def _read_json(staged: Staged, file: File) -> None:
    """Read objects, one a line or in a list; of lines, those that are none are kept apart."""
    with file.path.open("rb") as opened:
        start = opened.read(_START_BYTES).lstrip(b"\xef\xbb\xbf").lstrip()
    if not start:
        staged.warnings.append(f"{file.name!r} is empty.")
        return
    if start.startswith(b"[") or not _has_lines(start):
        objects = (
            f"read_json_objects({text(file.path)}, maximum_object_size = {_LINE_BYTES}, "
            "hive_partitioning = false)"
        )
        _add_objects(staged, f"SELECT json AS line FROM {objects}")
        return
    lines = (
        f"read_csv({text(file.path)}, columns = {{'line': 'VARCHAR'}}, auto_detect = false, "
        f"header = false, delim = '\x01', quote = '', escape = '', max_line_size = {_LINE_BYTES}, "
        f"buffer_size = {2 * _LINE_BYTES}, compression = 'none', hive_partitioning = false)"
    )
    staged.ask(
        f"CREATE OR REPLACE TEMP TABLE lines AS SELECT line FROM {lines} WHERE trim(line) != ''"
    )
    is_row = "CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' ELSE false END"
    bad = staged.connection.execute(
        f"SELECT rowid + 1, line FROM lines WHERE NOT {is_row} ORDER BY rowid"
    )
    while rows := bad.fetchmany(_ROWS):
        staged.reject(
            {"file": file.name, "row": line, "reason": "no JSON object", "text": said}
            for line, said in rows
        )
    staged.ask(f"DELETE FROM lines WHERE NOT {is_row}")
    _add_objects(staged, "SELECT line::JSON AS line FROM lines")
    staged.ask("DROP TABLE lines")


def _has_lines(start: bytes) -> bool:
    """Tell whether the first line is an object: else objects go over several lines."""
    first = start.split(b"\n", 1)[0].strip()
    return first.endswith(b"}") or not first.startswith(b"{")


def _add_objects(staged: Staged, objects: str) -> None:
    """Add JSON objects, each field as a column; what is of mixed types is text."""
    ((found,),) = staged.ask(f"SELECT json_group_structure(line)::VARCHAR FROM ({objects})")
    if found is None:
        return
    if not found.startswith("{") or found == "{}":
        raise rayml.SpecError("its JSON holds no objects with fields; give a list of objects")
    fields = found.replace('"NULL"', '"VARCHAR"')
    rows = f"SELECT unnest(json_transform(line, {text(fields)})) FROM ({objects})"
    described = staged.ask(f"DESCRIBE {rows}")
    columns = [
        f"{quoted(name)} ->> '$' AS {quoted(name)}" if kind == "JSON" else quoted(name)
        for name, kind, *_ in described
    ]
    staged.add(f"SELECT {', '.join(columns)} FROM ({rows})")


def _read_arrow(staged: Staged, file: File) -> None:
    staged.connection.register("given", ds.dataset(file.path, format="ipc"))
    staged.add("SELECT * FROM given")
    staged.connection.unregister("given")


def _read_sqlite(staged: Staged, file: File, query: str | None) -> None:
    with closing(sqlite3.connect(f"file:{file.path}?mode=ro", uri=True)) as connection:
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        listed = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name"
        names = [name for (name,) in connection.execute(listed)]
        cursor = connection.execute(query or _only_table(file, names))
        add_batches(staged, [column[0] for column in cursor.description or ()], _batches(cursor))


def _batches(cursor: Any) -> Iterator[list[tuple[object, ...]]]:  # noqa: ANN401 - any database's
    while rows := cursor.fetchmany(_ROWS):
        yield rows


def _only_table(file: File, names: list[str]) -> str:
    if len(names) != 1:
        raise rayml.SpecError(
            f"{file.name!r} has {len(names)} tables ({', '.join(names[:10])}); say in query= what "
            "to read"
        )
    return f"SELECT * FROM {quoted(names[0])}"


def _read_duckdb(staged: Staged, file: File, query: str | None) -> None:
    with duckdb.connect(str(file.path), read_only=True) as source:
        source.execute("SET threads = 1")  # several give their rows as they end
        names = [
            name for (name,) in source.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        ]
        reader = source.sql(query or _only_table(file, names)).to_arrow_reader(_ROWS)
        for batch in reader:
            staged.add_table(pa.Table.from_batches([batch]))
        if reader.schema.names and not staged.columns:
            staged.add_table(reader.schema.empty_table())


def add_batches(
    staged: Staged, names: list[str], batches: Iterable[list[tuple[object, ...]]]
) -> None:
    """Add rows of a database; values of one column that have several types become text."""
    columns, rows = _unique(names), 0
    for batch in batches:
        rows += len(batch)
        values = [list(column) for column in zip(*batch, strict=True)]
        staged.add_table(pa.table(list(map(_array, values)), names=columns))
    if not rows:
        staged.add_table(pa.table([pa.array([], pa.string())] * len(columns), names=columns))


def _array(values: list[Any]) -> pa.Array:
    try:
        found = pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    return found.cast(pa.string()) if pa.types.is_null(found.type) else found


def as_table(frame: pd.DataFrame) -> pa.Table:
    """Return a frame as Arrow, columns of mixed types as text."""
    frame = frame.set_axis(_unique([str(name) for name in frame.columns]), axis="columns")
    values = [
        column.astype(object).where(column.notna(), None).tolist() for _, column in frame.items()
    ]
    return pa.table(list(map(_array, values)), names=list(frame.columns))
