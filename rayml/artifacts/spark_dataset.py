"""Spark's DataFrames as datasets: each executor writes the Parquet of its own partitions."""

from __future__ import annotations

import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

from rayml.artifacts.dataset import gather, record_parts, write_parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from rayml.artifacts.record import ArtifactRecord
    from rayml.store import Store


def save_spread(store: Store, name: str, frame: Any) -> ArtifactRecord:  # noqa: ANN401
    """Store a Spark DataFrame as Parquet; only the parts' descriptions come to this process.

    A partition becomes a part, or several if it is large.

    Raises:
        SpecError: It has no columns, two of one name, or one that has no Parquet type; or the
            executors' store is another one.
    """
    from pyspark.sql.pandas.types import to_arrow_schema  # noqa: PLC0415

    stored = frame.mapInArrow(partial(_store_partition, store, name), "number int, told binary")
    rows = sorted(stored.collect(), key=lambda row: row.number)
    parts = (pickle.loads(row.told) for row in rows)  # noqa: S301 - from a process of this job's
    return record_parts(
        store, name, "spark", parts, lambda: to_arrow_schema(frame.schema).empty_table()
    )


def _store_partition(
    store: Store, name: str, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa  # noqa: PLC0415
    from pyspark import TaskContext  # noqa: PLC0415

    task: Any = TaskContext.get()
    tables = (pa.concat_tables(some) for some in gather(map(_table, batches)))
    if not (stored := write_parts(store, name, tables))[1]:
        return
    number = pa.array([task.partitionId()], pa.int32())
    told = pa.array([pickle.dumps(stored)], pa.binary())
    yield pa.RecordBatch.from_arrays([number, told], ["number", "told"])


def _table(batch: pa.RecordBatch) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    return pa.Table.from_batches([batch])
