"""Tables that an engine has computed, on their way to other processes of the same workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayml.artifacts.dataset import source_of
from rayml.artifacts.record import is_a

if TYPE_CHECKING:
    from collections.abc import Callable


class _Carried:
    """A Ray dataset on its way: only Ray's own pickle keeps who has its blocks."""

    def __init__(self, dataset: object) -> None:
        self._dataset = dataset

    def __reduce__(self) -> tuple[Callable[[bytes], object], tuple[bytes]]:
        import ray  # noqa: PLC0415 - whoever has a dataset has loaded it

        return ray.cloudpickle.loads, (ray.cloudpickle.dumps(self._dataset),)


def carry(value: object) -> object:
    """Return what another process unpickles as this value, whatever pickles it."""
    return _Carried(value) if source_of(value) == "ray" else value


def settle(value: object) -> object:
    """Compute a Dask, Spark or Ray table, and leave it on the workers; return all else as it is.

    The first two become Ray datasets: what they have still to compute, their session can alone.
    """
    if is_a(value, "dask.dataframe.DataFrame"):
        from rayml.engines.dask import to_ray  # noqa: PLC0415 - loads Ray Data

        return to_ray(value)
    if is_a(value, "pyspark.sql.DataFrame"):
        import ray.data  # noqa: PLC0415 - the session has loaded it

        value = ray.data.from_spark(value)  # type: ignore[arg-type]
    return value.materialize() if source_of(value) == "ray" else value  # type: ignore[attr-defined]
