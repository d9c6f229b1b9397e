"""Dask on all workers: its graphs as Ray tasks, or its own scheduler and workers in actors."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rayml.engines.led import own_secrets
from rayml.run_context import find_context
from rayml.tracker.records import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from ray.data import Dataset

    from rayml.engine import Dask
    from rayml.engines.led import Workers

MODULES = {"dask": "dask[dataframe]", "distributed": "distributed"}
REMEDY = (
    "install 'rayml[dask]' there, or give requirements=['dask[dataframe]', 'distributed'], or an "
    "image that has it"
)
# Whoever shuffles through files finds those of this machine only.
_ACROSS_MACHINES = {"dataframe.shuffle.method": "tasks"}


@contextmanager
def open_session(settings: Dask, workers: Workers) -> Iterator[None]:
    """Let what this process computes with Dask be computed by the workers."""
    import dask  # noqa: PLC0415 - loads with the job that needs it

    if settings.client:
        from rayml._ray.dask_cluster import open_client  # noqa: PLC0415 - loads distributed

        with open_client(workers, own_secrets(), _tell):
            yield
        return
    from rayml._ray.dask_tasks import Scheduler  # noqa: PLC0415 - loads Dask

    cpus = workers.share["CPU"]
    scheduler = Scheduler(workers.group, cpus, workers.count, own_secrets(), _tell)
    with dask.config.set({"scheduler": scheduler.get, **_ACROSS_MACHINES}):
        yield


def to_ray(frame: Any) -> Dataset:  # noqa: ANN401 - a Dask DataFrame
    """Compute a frame and leave it where it was computed, as a Ray dataset of Arrow tables."""
    import dask  # noqa: PLC0415 - the caller has a frame of it
    import ray  # noqa: PLC0415 - loaded already

    from rayml._ray.blocks import dataset_of  # noqa: PLC0415 - loads Ray Data
    from rayml._ray.dask_tasks import Scheduler  # noqa: PLC0415 - loads Dask

    parts = frame.to_delayed()
    scheduler = getattr(dask.config.get("scheduler", None), "__self__", None)
    if isinstance(scheduler, Scheduler):
        return dataset_of(scheduler.leave([dask.delayed(_as_arrow)(part) for part in parts]))
    packed = dask.compute(*[dask.delayed(_store)(part) for part in parts])
    return dataset_of([ray.cloudpickle.loads(one) for one in packed])


def _as_arrow(part: Any) -> pa.Table:  # noqa: ANN401 - a pandas DataFrame
    import pyarrow as pa  # noqa: PLC0415 - on the worker

    return pa.Table.from_pandas(part)


def _store(part: Any) -> bytes:  # noqa: ANN401 - a pandas DataFrame
    """Put a part into the object store, of which Dask's own workers know nothing."""
    import ray  # noqa: PLC0415 - on the worker

    # Ray's own pickle alone keeps who has the object.
    return bytes(ray.cloudpickle.dumps(ray.put(_as_arrow(part))))


def _tell(text: str) -> None:
    """Let whoever watches the run see how far a computation is."""
    if (context := find_context()) is not None:
        run, attempt = context.run_id, context.attempt
        context.client.add(Progress(run=run, time=time.time(), attempt=attempt, text=text))
