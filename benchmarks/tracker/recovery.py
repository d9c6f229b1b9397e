"""How soon does the tracker serve again after `kill -9`, and open a large store?

A run has logged a million points, a thousand at a time, so that as many segments wait for their
checkpoint as ever do. It goes on to log single events, each until it is durable, while the tracker
is killed: what counts is the time from the kill to the next acknowledgement. Afterwards the store
must hold every point that was acknowledged, once. The baseline is what Ray itself takes to bring
back an actor that does nothing at all.

`--full` also writes 100 million points through the journal and its compaction, and opens them.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import ray

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from timing import Figure, alone, compare, report, scratch, seconds, take_turns  # noqa: E402
from tracker.places import (  # noqa: E402
    Distant,
    bucket,
    fresh,
    own_ray,
    stored_points,
    submit,
    tracker_process,
)
from tracker.whole_runs import encode_run  # noqa: E402

from rayml._ray.trackers import tracker_actor  # noqa: E402
from rayml.processes import identify  # noqa: E402
from rayml.store.folder import Folder  # noqa: E402
from rayml.tracker.compaction import compact  # noqa: E402
from rayml.tracker.journal import Journal  # noqa: E402
from rayml.tracker.lease import lease_shard  # noqa: E402
from rayml.tracker.reader import Reader  # noqa: E402
from rayml.tracker.shards import ShardFold  # noqa: E402

if TYPE_CHECKING:
    import rayml
    from rayml.store import Store

QUESTION = "How soon does the tracker serve again after `kill -9`, and open a large store?"
NAMES = [f"train/metric_{number}" for number in range(10)]
SEGMENTS, STEPS_EACH = 1000, 100
RUNS, STEPS = 1000, 10_000
CHECKPOINT_EVERY = 50
ROUNDS = 3
LIMITS = {"on local disk": 1.0, "on S3": 2.0, "on S3, 30 ms away": 5.0}


def log_through(context: rayml.Context, files: str) -> list[float]:
    """Log a million points, and single events until the tracker is back; return their times."""
    for number in range(SEGMENTS):
        for step in range(number * STEPS_EACH, (number + 1) * STEPS_EACH):
            for name in NAMES:
                context.log_metric(name, 0.37 * step, step)
        context.flush()
    killed, durable, last = Path(files) / "killed", [], 0
    Path(files, "logged").touch()
    while last < 10:
        last += killed.exists()
        context.log_metric("event", 1.0, sync=True)
        durable.append(time.time())
    return durable


def recover(store: str | Store, folder: Path) -> float:
    """Return seconds from the kill of the tracker until it has acknowledged an event again."""
    files = Path(fresh(folder))
    files.mkdir()
    with own_ray(2):
        result = submit(log_through, store, files=str(files))
        while not (files / "logged").exists():
            time.sleep(0.01)
        time.sleep(0.2)
        killed = time.time()
        tracker_process().kill()
        (files / "killed").touch()
        durable: list[float] = result()
    assert stored_points(store) == 10 * SEGMENTS * STEPS_EACH + len(durable)
    # The first answer may still have been on its way: what ends the gap is the one after it.
    return max(after - max(before, killed) for before, after in pairwise(durable))


class Idle:
    """An actor that does nothing."""

    async def pid(self) -> int:
        """Return which process it is."""
        return os.getpid()


def recover_idle() -> float:
    """Return seconds from the kill of an idle actor until it has answered again."""
    with own_ray(2):
        options = ray.remote(Idle).options(num_cpus=0, max_restarts=-1, max_task_retries=-1)
        actor: Any = options.remote()
        process = psutil.Process(ray.get(actor.pid.remote()))
        time.sleep(1)
        process.kill()
        return seconds(lambda: ray.get(actor.pid.remote()))


def fill(store: Store) -> None:
    """Write 100 million points of ended runs into a shard, as trackers do, and compact it."""
    lease = lease_shard(store)
    journal = Journal(store, lease.shard)
    journal.open(identify(psutil.Process()), ShardFold())
    numbers = np.random.default_rng(0)
    for number in range(RUNS):
        journal.append([make_run(f"run-{number:06d}", numbers)])
        if number % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1:
            compact(store, lease.shard)
    lease.release()


def make_run(run: str, numbers: np.random.Generator) -> bytes:
    now = time.time()
    steps, times = list(range(STEPS)), (now + np.arange(STEPS) / 100).tolist()
    series = {name: (steps, times, numbers.random(STEPS).tolist()) for name in NAMES}
    return encode_run(run, series, now)


def open_large(folder: Path) -> list[Figure]:
    """Fill a store, open it by the tracker of a new Ray, and again by a reader."""
    store = Folder(folder / "large")
    filling_s = seconds(partial(fill, store))
    print(f"{RUNS * STEPS * len(NAMES):,} points in {filling_s:.0f} s", file=sys.stderr)
    starts, memory = [], []
    for _ in range(3):
        with own_ray(2):
            starts.append(seconds(partial(tracker_actor, store)))
            memory.append(tracker_process().memory_info().rss / 1e6)
    assert stored_points(store) == RUNS * STEPS * len(NAMES)
    reads = [seconds(Reader(store).refresh) for _ in range(3)]
    return [
        alone("100 million points: until the tracker serves", starts, limit=3, unit="s"),
        alone("100 million points: the tracker's memory", memory, limit=500, unit="MB"),
        alone("100 million points: until a reader knows the runs", reads, limit=3, unit="s"),
    ]


def main() -> None:
    with scratch() as folder:
        with bucket(folder) as s3:
            idle, *times = take_turns(
                recover_idle,
                lambda: recover(fresh(folder), folder),
                lambda: recover(fresh(s3), folder),
                lambda: recover(Distant(fresh(s3)), folder),
                n=ROUNDS,
                warm_ups=0,
            )
        figures = []
        for (where, limit), series in zip(LIMITS.items(), times, strict=True):
            question = f"`kill -9` with a million points {where} / an idle actor"
            figures.append(compare(question, idle, series, "value", limit=limit))
        if "--full" in sys.argv:
            figures += open_large(folder)
    slowest = {where: max(series) for where, series in zip(LIMITS, times, strict=True)}
    report(QUESTION, figures, slowest_s=slowest, load=os.getloadavg()[0])


if __name__ == "__main__":
    main()
