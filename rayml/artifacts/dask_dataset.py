"""Dask's DataFrames as datasets: whoever computes a partition writes its Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rayml.artifacts.dataset import arrow_table, record_parts, write_parts

if TYPE_CHECKING:
    import pandas as pd

    from rayml.artifacts.describe import Description
    from rayml.artifacts.record import ArtifactRecord, FileRecord
    from rayml.store import Store


def save_spread(store: Store, name: str, frame: Any) -> ArtifactRecord:  # noqa: ANN401
    """Store a Dask DataFrame as Parquet; only the parts' descriptions come to this process.

    It is computed by whatever scheduler Dask has here. A partition becomes a part.

    Raises:
        SpecError: It has no columns, two of one name, or one of mixed types; or the workers' store
            is another one.
    """
    import dask  # noqa: PLC0415 - an extra

    store_part = dask.delayed(_store_partition, pure=False)
    parts = dask.compute(*[store_part(store, name, part) for part in frame.to_delayed()])
    stored = (part for part in parts if part is not None)
    return record_parts(store, name, "dask", stored, lambda: arrow_table(name, frame._meta))  # noqa: SLF001 - the documented way to its types


def _store_partition(
    store: Store, name: str, part: pd.DataFrame
) -> tuple[Description, list[FileRecord]] | None:
    """Store a partition; one without rows, whose types may not be known, is left out."""
    return write_parts(store, name, iter([arrow_table(name, part)])) if len(part) else None
