"""Does a warm local submit of a no-op take at most 25 ms longer than a bare Ray task?

`wait()` returns when the run's start and end are durable in the store: both are in the time.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import ray
from timing import compare, percentile, report, scratch, seconds, take_turns

import rayml

if TYPE_CHECKING:
    from pathlib import Path

QUESTION = "What does a warm local submit cost, beside a bare Ray task?"


def noop() -> None:
    """Do nothing."""


def submit_and_wait(store: Path) -> None:
    run = rayml.submit(noop, store=store, cluster="local")
    assert isinstance(run, rayml.Run)
    assert run.wait().result is None


def main() -> None:
    with scratch() as store:
        submit_and_wait(store)  # starts the Ray that both use
        task = ray.remote(noop)
        bare, ours = take_turns(
            lambda: seconds(lambda: ray.get(task.remote())),
            lambda: seconds(lambda: submit_and_wait(store)),
            n=200,
            warm_ups=10,
        )
    report(
        QUESTION,
        [compare("submit → result of a no-op, p50", bare, ours, "difference", limit=0.025)],
        p95={"baseline": percentile(bare, 95), "rayml": percentile(ours, 95)},
        p50_of_first_50=median(ours[:50]),
        p50_of_last_50=median(ours[-50:]),
    )


if __name__ == "__main__":
    main()
