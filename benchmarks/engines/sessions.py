"""What does a Spark session cost, and what does it save to hand its rows to Ray Data in memory?

A job with two executors tells when its first line was run; beside it `raydp.init_spark` with the
same executors in a Ray task, until they have come. And in one session, a cached frame of 1 GB goes
to Ray Data: directly, and by Parquet files on the local disk that Spark writes and Ray Data reads.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from timing import compare, report, scratch, take_turns  # noqa: E402

import rayml  # noqa: E402
from rayml.engines import java  # noqa: E402

QUESTION = "What does a Spark session cost, and its way to Ray Data?"
EXECUTORS, ROUNDS, ROWS = 2, 5, 16_000_000
HEAP = "2Gi"


def begin() -> float:
    return time.time()


def start_ours(store: Path) -> float:
    called = time.time()
    engine = rayml.Spark(executors=EXECUTORS, memory=HEAP)
    run: Any = rayml.submit(begin, engine=engine, store=store)
    began: float = run.wait().result
    return began - called


def start_bare() -> float:
    import ray

    called = time.time()
    began: float = ray.get(ray.remote(num_cpus=0, max_calls=1)(_start_bare).remote())
    return began - called


def _start_bare() -> float:
    import raydp

    spark = raydp.init_spark("bare", EXECUTORS, 1, "1536m")
    while spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() <= EXECUTORS:  # noqa: SLF001
        time.sleep(0.05)
    began = time.time()
    raydp.stop_spark()
    return began


def hand_over(folder: str, *, context: rayml.Context) -> list[list[float]]:
    """Return the seconds of each way, directly and by files."""
    import shutil

    import ray.data
    from raydp.spark.dataset import release_spark_recoverable

    columns = [f"rand({seed}) AS c{seed}" for seed in range(8)]
    frame = context.spark.range(ROWS, numPartitions=16).selectExpr(*columns).cache()
    assert frame.count() == ROWS

    def directly() -> float:
        release_spark_recoverable(frame)  # what executors keep of the round before
        started = time.perf_counter()
        assert ray.data.from_spark(frame).materialize().count() == ROWS
        return time.perf_counter() - started

    def by_files() -> float:
        shutil.rmtree(folder, ignore_errors=True)
        started = time.perf_counter()
        frame.write.parquet(folder)
        assert ray.data.read_parquet(folder).materialize().count() == ROWS
        return time.perf_counter() - started

    return take_turns(directly, by_files, n=ROUNDS)


def main() -> None:
    import ray

    # What RayDP's own way needs before Ray starts; a job of ours does not.
    home, version = java.find_java({})
    os.environ |= {"JAVA_HOME": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}"}
    os.environ["JDK_JAVA_OPTIONS"] = java.options(Path("/tmp"), version)  # noqa: S108 - a word of it
    # Twice as many as executors have: Ray Data's tasks read beside them.
    ray.init(num_cpus=2 * EXECUTORS, include_dashboard=False, object_store_memory=5 * 2**30)
    with scratch() as folder:
        ours, bare = take_turns(
            partial(start_ours, folder / "store"), start_bare, n=ROUNDS, rest_s=3
        )
        engine = rayml.Spark(executors=EXECUTORS, memory="4Gi")
        run: Any = rayml.submit(
            hand_over,
            params={"folder": str(folder / "rows")},
            engine=engine,
            store=folder / "store",
        )
        direct, files = run.wait().result
    report(
        QUESTION,
        [
            compare("submit → first line / `init_spark`", bare, ours, "difference", limit=1.0),
            compare("1 GB to Ray Data / by Parquet", files, direct, "speed", limit=2.0),
        ],
    )


if __name__ == "__main__":
    main()
