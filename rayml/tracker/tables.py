"""What will never change, in tables that any tool reads: metric points, and runs that have ended.

A checkpoint lists spans of segments. Each has up to two tables:

    tables/<shard>/<first>-<last>-<nonce>/points.parquet   run, metric, attempt, rank, step, time,
                                                           value; by run and metric, then as logged
    tables/<shard>/<first>-<last>-<nonce>/runs.jsonl.gz    the runs that ended in it, one a line

Times are Unix seconds. The row groups' statistics find one metric of one run without reading the
rest; what the points of a run amount to stands in its line.
"""

from __future__ import annotations

import gzip
import io
import zlib
from array import array
from typing import TYPE_CHECKING, Any

from rayml.tracker.segments import corrupt
from rayml.tracker.series import Columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import BinaryIO

    import pyarrow as pa
    import pyarrow.parquet as pq

    from rayml.store import Store
    from rayml.tracker.checkpoints import Span
    from rayml.tracker.runs import RunRecord
    from rayml.tracker.series import Source

POINTS, RUNS = "points.parquet", "runs.jsonl.gz"
_ROW_GROUP = 131_072
_COLUMNS = ("attempt", "rank", "step", "time", "value")


def table_key(shard: str, span: Span, table: str) -> str:
    """Return the key of one of a span's tables."""
    return f"tables/{shard}/{span.first:012d}-{span.last:012d}-{span.nonce}/{table}"


class StoredPoints:
    """The points of a shard that lie in tables, read when they are asked for."""

    def __init__(
        self,
        store: Store,
        shard: str,
        spans: list[Span],
        renew: Callable[[RunRecord], None],
    ) -> None:
        self.renew = renew
        self._store = store
        self._shard = shard
        self._spans = [span for span in spans if span.points]

    def load(self, run: str, metric: str, since: int) -> dict[Source, Columns]:
        """Return a metric's stored points by who logged them, in the order they were logged.

        Args:
            run: The run's id.
            metric: The metric's name.
            since: The segment with which the run began; tables before it are not looked at.

        Raises:
            NotFound: They have been moved to another table.
            StoreError: They cannot be read.
        """
        found: dict[Source, Columns] = {}
        for span in self._spans:
            if span.last >= since:
                self._add(found, table_key(self._shard, span, POINTS), run, metric)
        return found

    def _add(self, found: dict[Source, Columns], key: str, run: str, metric: str) -> None:
        with self._store.open(key) as file:
            table = _select(key, file, run, metric)
        attempts, ranks, *columns = (table[name].to_pylist() for name in _COLUMNS)
        for attempt, rank, *point in zip(attempts, ranks, *columns, strict=True):
            found.setdefault((attempt, rank), Columns()).add(*point)


def points_schema() -> pa.Schema:
    """Return the columns of `points.parquet`."""
    import pyarrow as pa  # noqa: PLC0415 - runs are read without it

    word = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([
        ("run", word), ("metric", word), ("attempt", pa.int32()), ("rank", pa.int32()),
        ("step", pa.int64()), ("time", pa.float64()), ("value", pa.float64()),
    ])  # fmt: skip


def points_table(parts: Iterable[tuple[str, str, Source, Columns]]) -> pa.Table:
    """Return points, each part of one (run, metric, (attempt, rank)), as one sorted table.

    There is at least one part.
    """
    import pyarrow as pa  # noqa: PLC0415

    runs, metrics, sources, columns = zip(*sorted(parts, key=lambda part: part[:3]), strict=True)
    counts, whole = [len(part.step) for part in columns], Columns()
    for part in columns:
        whole.extend(part.step, part.time, part.value)
    arrays = [
        _repeat_words(runs, counts),
        _repeat_words(metrics, counts),
        _repeat([attempt for attempt, _ in sources], counts),
        _repeat([rank for _, rank in sources], counts),
        _as_arrow(pa.int64(), whole.step),
        _as_arrow(pa.float64(), whole.time),
        _as_arrow(pa.float64(), whole.value),
    ]
    return pa.Table.from_arrays(arrays, schema=points_schema())


def _repeat_words(words: Sequence[str], counts: Sequence[int]) -> pa.Array:
    import pyarrow as pa  # noqa: PLC0415

    places: dict[str, int] = {}
    indices = [places.setdefault(word, len(places)) for word in words]
    return pa.DictionaryArray.from_arrays(_repeat(indices, counts), pa.array([*places]))


def _repeat(numbers: Sequence[int], counts: Sequence[int]) -> pa.Array:
    import pyarrow as pa  # noqa: PLC0415

    column = array("i")
    for number, count in zip(numbers, counts, strict=True):
        column += array("i", [number]) * count
    return _as_arrow(pa.int32(), column)


def _as_arrow(kind: pa.DataType, column: array[Any]) -> pa.Array:
    import pyarrow as pa  # noqa: PLC0415

    return pa.Array.from_buffers(kind, len(column), [None, pa.py_buffer(column)])


def encode_points(table: pa.Table) -> bytes:
    """Return a points table as Parquet, whose pages carry checksums."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    out = io.BytesIO()
    pq.write_table(
        table, out, row_group_size=_ROW_GROUP, compression="zstd", write_page_checksum=True
    )
    return out.getvalue()


def merge_points(tables: list[pa.Table]) -> pa.Table:
    """Return tables, oldest first, as one that is sorted like each of them."""
    import pyarrow as pa  # noqa: PLC0415

    whole = pa.concat_tables(tables).unify_dictionaries()
    order = [(name, "ascending") for name in ("run", "metric", "attempt", "rank")]
    plain = whole.append_column("row", pa.array(range(whole.num_rows), pa.int64()))
    for index, name in enumerate(("run", "metric")):
        plain = plain.set_column(index, name, whole[name].cast(pa.string()))
    ordered = plain.sort_by([*order, ("row", "ascending")]).drop_columns(["row"])
    return ordered.cast(points_schema())


def read_points(store: Store, key: str) -> pa.Table:
    """Return a whole points table.

    Raises:
        JournalCorrupt: It is not as it was written.
        StoreError: The store cannot be read.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        table = pq.read_table(pa.BufferReader(store.get(key)), page_checksum_verification=True)
        return table.cast(points_schema())
    except pa.ArrowException as exc:
        raise corrupt(key, "is not as it was written") from exc


def _select(key: str, file: BinaryIO, run: str, metric: str) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        # In this thread alone: one of Arrow's that lets a Python file go while the interpreter
        # ends takes the process down.
        with pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True) as table:
            groups = _groups_with(table, (run, metric))
            rows = table.read_row_groups(
                groups, columns=["run", "metric", *_COLUMNS], use_threads=False
            )
        return rows.filter((pc.field("run") == run) & (pc.field("metric") == metric))
    except (pa.ArrowException, OSError) as exc:
        raise corrupt(key, "is not as it was written") from exc


def _groups_with(table: pq.ParquetFile, wanted: tuple[str, str]) -> list[int]:
    """Return the row groups that may hold rows of a run and metric; rows are sorted by these."""
    found = []
    for number in range(table.num_row_groups):
        group = table.metadata.row_group(number)
        ranges = [group.column(place).statistics for place in range(len(wanted))]
        if all(_may_hold(*pair) for pair in zip(ranges, wanted, strict=True)):
            found.append(number)
    return found


def _may_hold(known: pq.Statistics | None, word: str) -> bool:
    if known is None or not known.has_min_max:
        return True
    return bool(known.min <= word <= known.max)


def encode_runs(lines: Iterable[bytes]) -> bytes:
    """Return runs as compressed lines; equal runs give equal bytes."""
    return gzip.compress(b"".join(line + b"\n" for line in lines), 5, mtime=0)


def read_runs_table(store: Store, key: str) -> list[bytes]:
    """Return the lines of a table of runs.

    Raises:
        JournalCorrupt: It is not as it was written.
        StoreError: The store cannot be read.
    """
    try:
        return gzip.decompress(store.get(key)).splitlines()
    except (OSError, EOFError, zlib.error) as exc:
        raise corrupt(key, "is not as it was written") from exc


def ended_lines(store: Store, shard: str, spans: Iterable[Span]) -> Iterator[bytes]:
    """Yield the line of every run that ended in these spans.

    Raises:
        JournalCorrupt: A table is not as it was written.
        StoreError: The store cannot be read.
    """
    for span in spans:
        if span.runs:
            yield from read_runs_table(store, table_key(shard, span, RUNS))
