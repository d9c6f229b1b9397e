"""Where the tracker's benchmarks take place: a Ray of their own, a folder, a bucket."""

from __future__ import annotations

import logging
import os
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import ray

import rayml
from rayml.store import open_store
from rayml.store.bucket import Bucket, Patience
from rayml.tracker.reader import Reader
from tests.s3 import BUCKET, s3_server

HERE = Path(__file__).resolve()
GET_S = 0.030

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rayml.store import Store


class Distant(Bucket):
    """A bucket as far away as another region: reading takes 30 ms more."""

    def __reduce__(self) -> tuple[type[Bucket], tuple[str, dict[str, str], Patience]]:
        return Distant, (self.uri, self.config, self.patience)

    def get(self, key: str) -> bytes:  # noqa: D102 - as in Store
        time.sleep(GET_S)
        return super().get(key)

    def list(self, prefix: str, after: str = "") -> list[str]:  # noqa: D102 - as in Store
        time.sleep(GET_S)
        return super().list(prefix, after)


@contextmanager
def own_ray(cpus: int) -> Iterator[None]:
    """Run a Ray that ends with the block, and with it its tracker and all its workers."""
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, HERE.parents[1:3]))  # for `Distant`
    ray.init(
        "local",  # not one that happens to run on this machine
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def bucket(folder: Path) -> Iterator[str]:
    """Run an S3 server that keeps its files below `folder`; give the URI of its bucket."""
    with s3_server(folder) as variables:
        os.environ.update(variables)
        yield f"s3://{BUCKET}"


def submit(
    function: Callable[..., Any], store: str | Store, **params: object
) -> Callable[[], Any]:
    """Submit a function to this Ray; return what waits for its result."""
    run = rayml.submit(function, params=params, store=store)
    assert isinstance(run, rayml.Run)
    return lambda: run.wait().result


def fresh(root: str | Path) -> str:
    """Return the URI of a store below `root` that nobody has used."""
    return f"{root}/{uuid.uuid4().hex[:8]}"


def stored_points(store: str | Store) -> int:
    """Return how many metric points a store holds, for somebody who opens it anew."""
    reader = Reader(open_store(store))
    reader.refresh()
    return sum(
        series.summary.count
        for run in reader.runs.values()
        for sources in run.series.values()
        for series in sources.values()
        if series.summary is not None
    )


def tracker_process() -> psutil.Process:
    """Return the process of this Ray's tracker."""
    # Among our own descendants: other Rays may run on this machine.
    descendants = psutil.Process().children(recursive=True)
    (tracker,) = (p for p in descendants if "".join(p.cmdline()).startswith("ray::TrackerActor"))
    return tracker
