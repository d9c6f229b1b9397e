"""Dask on all workers: its graphs as Ray tasks, or its own scheduler and workers in actors."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rayml.run_context import find_context
from rayml.tracker.records import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

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

        with open_client(workers, _tell):
            yield
        return
    from rayml._ray.dask_tasks import Scheduler  # noqa: PLC0415 - loads Dask

    scheduler = Scheduler(workers.group, workers.share["CPU"], workers.count, _tell)
    with dask.config.set({"scheduler": scheduler.get, **_ACROSS_MACHINES}):
        yield


def _tell(text: str) -> None:
    """Let whoever watches the run see how far a computation is."""
    if (context := find_context()) is not None:
        run, attempt = context.run_id, context.attempt
        context.client.add(Progress(run=run, time=time.time(), attempt=attempt, text=text))
