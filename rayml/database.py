"""`sql()`: questions in SQL about all that a store's runs have recorded.

The database lives in memory, for one question. It holds copies of the records and can reach
neither files nor the network, so that a question can neither change nor carry away anything.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from rayml.artifacts import digest_of
from rayml.errors import SpecError
from rayml.run_list import flatten
from rayml.store import open_store
from rayml.tracker.edits import read_edited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

    from rayml.store import Store
    from rayml.tracker.runs import RunRecord
    from rayml.tracker.series import Columns, Source

_SETTINGS = (
    "set python_enable_replacements=false",
    "set autoload_known_extensions=false",
    "set timezone='UTC'",
    "set enable_external_access=false",
    "set lock_configuration=true",
)


def sql(query: str, *, store: str | Path | Store | None = None) -> pd.DataFrame:
    """Return the answer to a question in DuckDB's SQL; deleted runs are not asked.

    The tables, in which times are UTC:

        runs       id, name, experiment, state, attempt, submitted_at, started_at, ended_at,
                   duration_s, worker_s, cpu_s, max_memory, parent, rerun_of,
                   "user", notes, archived, labels (a map)
        params     run, name (nested ones with dots), value (text), number (null if it is none)
        metrics    run, metric, attempt, rank, step, time, value: the points that count
        artifacts  run, name, kind, format, size (bytes), digest, uri, created_at

    Args:
        query: One `select`.
        store: Where; the project's own by default.

    Raises:
        SpecError: The SQL is wrong or would change something, or duckdb is not installed.
        StoreError: The store cannot be read.
    """
    frame: pd.DataFrame = ask(query, store).to_pandas(maps_as_pydicts="strict")
    return frame


def ask(query: str, store: str | Path | Store | None = None) -> pa.Table:
    """As `sql`, but as a table that tells what is missing from what is no number."""
    duckdb = _load()
    with duckdb.connect(":memory:") as connection:
        try:
            _check_statement(connection, query, duckdb)
            records = read_edited(open_store(store)).values()
            kept = [record for record in records if not record.attribute("deleted")]
            for name, make in _TABLES.items():
                # Points may be many, so that what is not named is left empty.
                is_named = re.search(rf"\b{name}\b", query, re.IGNORECASE) is not None
                connection.register(name, make(kept if is_named else []))
            for setting in _SETTINGS:
                connection.execute(setting)
            return _checked(connection.sql(query).to_arrow_table())
        except duckdb.Error as exc:
            raise SpecError(f"the SQL is wrong: {_in_words(exc)}; mend the query") from exc


def _load() -> Any:  # noqa: ANN401
    try:
        import duckdb  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise SpecError(
            "rayml.sql needs duckdb, which is not installed; pip install 'rayml[sql]'"
        ) from exc
    return duckdb


def _check_statement(connection: Any, query: str, duckdb: Any) -> None:  # noqa: ANN401
    if not isinstance(query, str):
        raise SpecError(f"query={query!r} is not text; write one select")
    statements = connection.extract_statements(query)
    kinds = [statement.type for statement in statements]
    if kinds != [duckdb.StatementType.SELECT]:
        named = ", ".join(kind.name for kind in kinds) or "none"
        raise SpecError(f"the SQL has the statements {named} and may have one SELECT; write that")


def _checked(table: pa.Table) -> pa.Table:
    if len(set(table.column_names)) < table.num_columns:
        named = ", ".join(table.column_names)
        raise SpecError(f"the SQL gives two columns of one name ({named}); rename one by `as`")
    return table


def _in_words(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".;")


def _runs(records: list[RunRecord]) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 - not needed to say that duckdb is missing

    text, number, time = pa.string(), pa.float64(), _time_type()
    types = {
        "id": text, "name": text, "experiment": text, "state": text, "attempt": pa.int64(),
        "submitted_at": time, "started_at": time, "ended_at": time, "duration_s": number,
        "worker_s": number, "cpu_s": number, "max_memory": pa.int64(), "parent": text,
        "rerun_of": text, "user": text, "notes": text, "archived": pa.bool_(),
    }  # fmt: skip
    columns = {
        name: _array([record.attribute(name) for record in records], kind)
        for name, kind in types.items()
    }
    labels = [list(record.labels.items()) for record in records]
    columns["labels"] = pa.array(labels, pa.map_(text, text))
    return pa.table(columns)


def _params(records: list[RunRecord]) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    rows = [
        (record.spec.run, name, *_text_and_number(value))
        for record in records
        for given, whole in record.params.items()
        for name, value in flatten(given, whole)
    ]
    names = ("run", "name", "value", "number")
    return _table(rows, names, (pa.string(), pa.string(), pa.string(), pa.float64()))


def _artifacts(records: list[RunRecord]) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    rows = [
        (a.run, a.name, a.kind, a.format, a.size, digest_of(a), a.uri, a.created_at)
        for record in records
        for a in record.artifacts.values()
    ]
    names = ("run", "name", "kind", "format", "size", "digest", "uri", "created_at")
    text = pa.string()
    return _table(rows, names, (text, text, text, text, pa.int64(), text, text, _time_type()))


def _metrics(records: list[RunRecord]) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    text, short = pa.dictionary(pa.int32(), pa.string()), pa.int64()
    schema = pa.schema(
        {
            "run": text, "metric": text, "attempt": short, "rank": short,
            "step": pa.int64(), "time": _time_type(), "value": pa.float64(),
        }
    )  # fmt: skip
    parts = [
        _points(record.spec.run, metric, source, columns, first, schema)
        for record in records
        for metric in record.series
        for source, columns, first in _counting(record.columns(metric))
    ]
    return pa.concat_tables([schema.empty_table(), *parts]).unify_dictionaries()


def _counting(
    parts: list[tuple[Source, Columns]],
) -> Iterator[tuple[Source, Columns, float]]:
    """Yield each part with the step from which on a later attempt's points take its place."""
    for (attempt, rank), columns in parts:
        later = (min(other.step) for (number, _), other in parts if number > attempt)
        yield (attempt, rank), columns, min(later, default=float("inf"))


def _points(
    run: str, metric: str, source: Source, columns: Columns, end: float, schema: pa.Schema
) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    count = len(columns.step)
    steps = pa.array(columns.step)
    times = pc.cast(pc.multiply(pa.array(columns.time), 1e6), pa.int64(), safe=False)
    made = [
        _repeated(run, count),
        _repeated(metric, count),
        *(pa.repeat(pa.scalar(number, pa.int64()), count) for number in source),
        steps,
        times.cast(_time_type()),
        pa.array(columns.value),
    ]
    table = pa.table(made, schema=schema)
    return table if end == float("inf") else table.filter(pc.less(steps, end))


def _repeated(text: str, count: int) -> pa.DictionaryArray:
    import pyarrow as pa  # noqa: PLC0415

    zeros = pa.repeat(pa.scalar(0, pa.int32()), count)
    return pa.DictionaryArray.from_arrays(zeros, [text])


def _table(
    rows: list[tuple[Any, ...]], names: tuple[str, ...], types: tuple[Any, ...]
) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    arrays = [_array(list(column), kind) for column, kind in zip(columns, types, strict=True)]
    return pa.table(dict(zip(names, arrays, strict=True)))


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa  # noqa: PLC0415

    if kind == _time_type():
        values = [None if value is None else round(value * 1e6) for value in values]
    return pa.array(values, kind)


def _time_type() -> pa.DataType:
    import pyarrow as pa  # noqa: PLC0415

    return pa.timestamp("us", tz="UTC")


def _text_and_number(value: object) -> tuple[str | None, float | None]:
    if value is None or isinstance(value, str):
        return value, None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return msgspec.json.encode(value).decode(), float(value) if is_number else None  # type: ignore[arg-type]


_TABLES: dict[str, Callable[[list[RunRecord]], pa.Table]] = {
    "runs": _runs,
    "params": _params,
    "metrics": _metrics,
    "artifacts": _artifacts,
}
