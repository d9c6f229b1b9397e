"""How many metric points a second become durable, from four workers at once?

Each turn has a Ray and a store of its own. Four runs wait for one moment, log 500,000 points each
as a training loop would, and flush; the rate is all points by the time until the last flush came
back. They count only if whoever opens the store afterwards finds every one of them.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from timing import alone, report, scratch, take_turns  # noqa: E402
from tracker.places import bucket, fresh, own_ray, stored_points, submit  # noqa: E402

if TYPE_CHECKING:
    import rayml

QUESTION = "How many points a second become durable, from four workers?"
WORKERS, POINTS = 4, 500_000
METRICS = 10
STARTING_S, LATE_S = 8.0, 0.5
ROUNDS = 3


def log(context: rayml.Context, start: float, points: int) -> tuple[float, float]:
    """Log the points from a given moment on; return when that began and when all were durable."""
    names = [f"train/metric_{number}" for number in range(METRICS)]
    time.sleep(max(0.0, start - time.time()))
    began = time.time()
    for step in range(points // METRICS):
        for name in names:
            context.log_metric(name, 0.37 * step, step)
    context.flush(300)
    return began, time.time()


def rate(root: str | Path) -> float:
    """Return durable points a second, into a fresh store."""
    store = fresh(root)
    with own_ray(WORKERS):
        submit(log, store, start=0.0, points=METRICS)()
        start = time.time() + STARTING_S
        results = [submit(log, store, start=start, points=POINTS) for _ in range(WORKERS)]
        spans = [result() for result in results]
    assert max(began for began, _ in spans) < start + LATE_S, "a worker came too late"
    assert stored_points(store) == METRICS + WORKERS * POINTS
    seconds: float = max(ended for _, ended in spans) - min(began for began, _ in spans)
    return WORKERS * POINTS / seconds


def main() -> None:
    with scratch() as folder, bucket(folder) as s3:
        disk_rates, s3_rates = take_turns(
            partial(rate, folder / "disk"), partial(rate, s3), n=ROUNDS, warm_ups=0
        )
    report(
        QUESTION,
        [
            alone("to local disk", disk_rates, "rate", limit=500_000, unit="points/s"),
            alone("to S3", s3_rates, "rate", limit=300_000, unit="points/s"),
        ],
        slowest_to_disk=min(disk_rates),
        slowest_to_s3=min(s3_rates),
        load=os.getloadavg()[0],
    )


if __name__ == "__main__":
    main()
