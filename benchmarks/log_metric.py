"""What does logging cost: a call, 100,000 points, a training loop, and the tracker's memory?

All of it happens in submitted jobs, through the tracker actor, into a store on disk.
"""

from __future__ import annotations

import json
import os
import random
import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import ray
from timing import Figure, compare, percentile, report, scratch, seconds, take_turns

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUESTION = "What does logging metrics cost?"
NAMES = [f"train/metric_{number}" for number in range(10)]
STEP_S = 0.010
# Longer than the client waits between two sends, so that a timed block sees its own sends only.
SETTLING_STEPS = 120
TIMED_STEPS = 200


def make_step() -> Callable[[], None]:
    """Return a training step: as many matrix products as take 10 ms when nothing else happens."""
    matrix = np.random.default_rng(0).random((128, 128))

    def multiply(times: int) -> None:
        for _ in range(times):
            matrix @ matrix

    once = min(seconds(partial(multiply, 200)) for _ in range(50)) / 200
    return partial(multiply, round(STEP_S / once))


def time_calls(context: rayml.Context, steps: int) -> dict[str, list[float]]:
    """Return microseconds of each call in a training loop, and of a call among 1,000 in a row."""
    step, single = make_step(), []
    for number in range(steps):
        step()
        for name in NAMES:
            started = time.perf_counter_ns()
            context.log_metric(name, 0.5, number)
            single.append((time.perf_counter_ns() - started) / 1000)
    rows = [seconds(partial(log_steps, context, 100)) * 1000 for _ in range(50)]
    return {"single": single, "in a row": rows}


def log_steps(context: rayml.Context, steps: int) -> None:
    values = random.Random(0)
    for number in range(steps):
        for name in NAMES:
            context.log_metric(name, values.random(), number)


def time_flush(context: rayml.Context, steps: int) -> float:
    """Return seconds from the last of `10 × steps` calls until all of them are durable."""
    log_steps(context, steps)
    return seconds(lambda: context.flush(300))


def time_plain_write(file: Path, steps: int) -> float:
    """Return seconds to write as many points as lines of JSON to a file, with fsync."""
    values = random.Random(0)
    points = [
        {"name": name, "step": number, "time": time.time(), "value": values.random()}
        for number in range(steps)
        for name in NAMES
    ]
    started = time.perf_counter()
    with file.open("w") as lines:
        lines.writelines(json.dumps(point) + "\n" for point in points)
        lines.flush()
        os.fsync(lines.fileno())
    return time.perf_counter() - started


def time_flushes(context: rayml.Context, file: Path, steps: int, n: int) -> list[list[float]]:
    return take_turns(
        lambda: time_plain_write(file, steps), lambda: time_flush(context, steps), n=n, warm_ups=0
    )


def time_loops(context: rayml.Context, n: int) -> dict[str, list[list[float]]]:
    """Return milliseconds a step, by the clock and of CPU; first without, then with logging."""
    step = make_step()
    used: dict[bool, list[float]] = {False: [], True: []}

    def train(steps: int, *, logs: bool) -> None:
        for number in range(steps):
            step()
            if logs:
                for name in NAMES:
                    context.log_metric(name, 0.5, number)

    def block(*, logs: bool) -> float:
        train(SETTLING_STEPS, logs=logs)
        before = time.process_time()
        taken = seconds(partial(train, TIMED_STEPS, logs=logs))
        used[logs].append((time.process_time() - before) / TIMED_STEPS * 1000)
        return taken / TIMED_STEPS * 1000

    clock = take_turns(lambda: block(logs=False), lambda: block(logs=True), n=n)
    return {"clock": clock, "cpu": [used[False][1:], used[True][1:]]}


class Empty:
    """An asynchronous actor that does nothing: what Ray itself needs."""

    async def pid(self) -> int:
        """Return its process."""
        return os.getpid()


def empty_actor_mb() -> float:
    actor: Any = ray.remote(Empty).options(num_cpus=0, max_concurrency=1000).remote()
    return memory_mb(psutil.Process(ray.get(actor.pid.remote())))


def tracker_mb() -> float:
    # Among our own descendants: other Rays may run on this machine.
    descendants = psutil.Process().children(recursive=True)
    (tracker,) = (p for p in descendants if "".join(p.cmdline()).startswith("ray::TrackerActor"))
    return memory_mb(tracker)


def memory_mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


def main() -> None:
    with scratch() as folder:

        def submit(function: Callable[..., object], **params: object) -> Any:
            run = rayml.submit(function, params=params, store=folder / "store", cluster="local")
            assert isinstance(run, rayml.Run)
            return run.wait().result

        submit(time_flush, steps=10_000)
        empty_mb, mb = empty_actor_mb(), tracker_mb()
        lines = folder / "points.jsonl"
        plain, ours = submit(time_flushes, file=lines, steps=10_000, n=7)
        plain_million, ours_million = submit(time_flushes, file=lines, steps=100_000, n=1)
        calls = submit(time_calls, steps=300)
        loops = submit(time_loops, n=45)
        last_mb = tracker_mb()
    report(
        QUESTION,
        [
            value("`log_metric` in a training loop, p50 of its calls", calls["single"], limit=10),
            value("`log_metric` in a row, a call", calls["in a row"], limit=None),
            compare(
                "from the last call until 100,000 points are durable / JSON lines with fsync",
                plain, ours, "value", limit=2,
            ),
            compare(
                "the same, 1,000,000 points", plain_million, ours_million, "value", limit=None
            ),
            compare(
                "a 10 ms step with ten `log_metric` calls / without",
                *loops["clock"], limit=1.01, unit="ms",
            ),
            compare(
                "the same, CPU time of the job's process", *loops["cpu"], limit=None, unit="ms"
            ),
            compare(
                "tracker's memory after 100,000 points / an empty actor's",
                [empty_mb], [mb], "value", limit=200, unit="MB",
            ),
        ],
        p99_single_us=percentile(calls["single"], 99),
        slowest_flush_s=max(ours),
        tracker_mb_after_all=last_mb,
    )  # fmt: skip


def value(question: str, ours: list[float], *, limit: float | None) -> Figure:
    return Figure(
        question=question,
        baseline=None,
        rayml=median(ours),
        unit="µs",
        compare="value",
        limit=limit,
        n=len(ours),
    )


if __name__ == "__main__":
    main()
