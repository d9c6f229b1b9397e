"""How well do twenty jobs of three shapes, submitted at once, fill six workers?

A job asks for 1, 2 or 3 workers of its shape and keeps them for half a minute to a minute and a
half. The best packing is the best order that a search finds in which they could have been started
by somebody who knows how long each takes, and for whom workers come, start and go in no time. No
order takes less than all their work divided among the workers, which is printed too.
"""

from __future__ import annotations

import heapq
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from kube.places import job_cluster, reservations  # noqa: E402
from timing import Figure, alone, report, scratch  # noqa: E402

import rayml  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.kube.clusters import JobCluster

QUESTION = "How well do 20 jobs of 3 shapes, submitted at once, fill 6 workers?"
LIMIT, BEGINNINGS, SWAPS = 6, 5, 50_000
COUNTS = {1: 8, 2: 7, 3: 5}
PATIENCE_S = 1_500.0


@dataclass(frozen=True)
class Job:
    """One of them."""

    workers: int
    duration_s: float

    @property
    def resources(self) -> rayml.Resources:
        """What it asks for: each number of workers is of a shape of its own."""
        return rayml.Resources(
            cpus=1, memory=f"{512 + 128 * self.workers}Mi", workers=self.workers
        )


def make_jobs() -> list[Job]:
    numbers = random.Random(1)
    jobs = [
        Job(workers, numbers.uniform(30, 90))
        for workers, count in COUNTS.items()
        for _ in range(count)
    ]
    numbers.shuffle(jobs)
    return jobs


def makespan(jobs: Sequence[Job]) -> float:
    """Return when the last job ends if each starts as early as the order allows.

    >>> makespan([Job(3, 10), Job(3, 20), Job(6, 5)])
    25
    """
    free, now = LIMIT, 0.0
    running: list[tuple[float, int]] = []
    for job in jobs:
        while free < job.workers:
            now, workers = heapq.heappop(running)
            free += workers
        free -= job.workers
        heapq.heappush(running, (now + job.duration_s, job.workers))
    return max(end for end, _ in running)


def best_packing(jobs: Sequence[Job]) -> float:
    numbers = random.Random(2)
    return min(improve(numbers.sample(jobs, len(jobs)), numbers) for _ in range(BEGINNINGS))


def improve(order: list[Job], numbers: random.Random) -> float:
    """Return the makespan that is left of an order's after many swaps, none of which was worse."""
    best = makespan(order)
    for _ in range(SWAPS):
        one, other = numbers.sample(range(len(order)), 2)
        order[one], order[other] = order[other], order[one]
        if (length := makespan(order)) <= best:
            best = length
        else:
            order[one], order[other] = order[other], order[one]
    return best


def sleep(seconds: float) -> None:
    time.sleep(seconds)


class Watch:
    """Sees how many workers there are, until it is told to stop."""

    def __init__(self, cluster: JobCluster) -> None:
        self.most = 0
        self._cluster = cluster
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.5):
            self.most = max(self.most, len(self._cluster.pods()))


def run_all(cluster: JobCluster, jobs: Sequence[Job]) -> tuple[float, list[rayml.Run]]:
    """Return the seconds from the first submit to the last end, and the runs."""

    def submit(job: Job) -> rayml.Run:
        return cluster.submit(sleep, params={"seconds": job.duration_s}, resources=job.resources)

    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(submit, jobs))
    for run in runs:
        run.wait(PATIENCE_S)
    return time.monotonic() - started, runs


def main() -> None:
    jobs = make_jobs()
    best = best_packing(jobs)
    # The head takes one CPU of these: there is room for six workers.
    nodes = {"node-1": 4.0, "node-2": 3.0}
    with (
        scratch() as folder,
        job_cluster(folder / "s3", nodes, grace_s=60, max_workers=LIMIT) as cluster,
        Watch(cluster) as watch,
    ):
        took, runs = run_all(cluster, jobs)
        left = len(reservations(cluster))
    figures: list[Figure] = [
        Figure(
            question="makespan / the best packing's",
            baseline=best,
            rayml=took,
            ratio=took / best,
            unit="s",
            compare="ratio",
            limit=1.2,
            n=1,
        ),
        alone("most workers at a time", [watch.most], limit=LIMIT, unit="workers"),
    ]
    report(
        QUESTION,
        figures,
        finished=sum(run.state == "succeeded" for run in runs),
        work_over_workers_s=sum(job.workers * job.duration_s for job in jobs) / LIMIT,
        reservations_left=left,
    )


if __name__ == "__main__":
    main()
