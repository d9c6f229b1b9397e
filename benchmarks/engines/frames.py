"""What does Dask cost on a job's workers, beside bare Dask-on-Ray and Dask's own LocalCluster?

Twenty copies of the flights of 2013 (6.5 million rows, as Parquet on disk) are grouped by route
and joined with their aircraft; and a set three times as large as Ray's object store is persisted
and read twice. All with two CPUs, in turns: a Dask job; `ray_dask_get` in the same Ray; two
processes of a LocalCluster, which has no such store and may use all of the machine's memory. What
each needs to start, and a first computation, do not count.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2] / "examples")]

from timing import compare, report, scratch, take_turns  # noqa: E402

import rayml  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    import dask.dataframe as dd

QUESTION = "What does Dask cost on a job's workers, beside Dask-on-Ray and a LocalCluster?"
ROUNDS, COPIES, STORE_MIB = 5, 20, 300


def write_flights(folder: Path) -> None:
    from nyc import read_table

    flights = read_table("flights.csv.zip")
    flights = flights[["month", "origin", "dest", "carrier", "tailnum", "arr_delay"]].dropna()
    for copy in range(COPIES):
        flights.to_parquet(folder / f"{copy:02}.parquet")
    read_table("planes.csv")[["tailnum", "seats"]].to_parquet(folder / "planes.pq")


def read(folder: str) -> dd.DataFrame:
    import dask.dataframe as dd

    return dd.read_parquet(f"{folder}/*.parquet")


def group(folder: str) -> float:
    table = read(folder).groupby(["origin", "dest"]).arr_delay.agg(["count", "mean"]).compute()
    return float(table["count"].sum())


def join(folder: str) -> float:
    import dask.dataframe as dd
    import pandas as pd

    planes = dd.from_pandas(pd.read_parquet(f"{folder}/planes.pq"), npartitions=1)
    joined = read(folder).merge(planes, on="tailnum", how="inner")
    return float(joined.groupby("carrier").seats.mean().sum().compute())


def spill(_: str, **options: Any) -> float:
    import dask.array as da

    side = 10_000  # 8 bytes each, in 40 chunks
    numbers = da.random.default_rng(0).random(
        (STORE_MIB * 3 * 2**20 // 8 // side, side), chunks=(100, side)
    )
    held = numbers.persist(**options)
    return float((held - held.mean()).std().compute())


SHORT: dict[str, Callable[..., float]] = {
    "groupby of 6.5 M rows": group,
    "join of 6.5 M rows": join,
}
LONG = "3 × the object store"
BASELINES = (("bare", "Dask-on-Ray", 1.15), ("local", "LocalCluster", None))


def measure(folder: str, **options: Any) -> dict[str, float]:
    """Return the seconds of each query: the median of three, once the workers know it."""
    import dask

    dask.compute(*[dask.delayed(time.sleep)(1) for _ in range(4)])
    group(folder)
    join(folder)
    took = {
        name: median(seconds(query, folder) for _ in range(3)) for name, query in SHORT.items()
    }
    return took | {LONG: seconds(spill, folder, **options)}


def seconds(query: Callable[..., float], *args: Any, **options: Any) -> float:
    started = time.perf_counter()
    query(*args, **options)
    return time.perf_counter() - started


def measure_ours(folder: str, store: Path) -> dict[str, float]:
    run: Any = rayml.submit(
        measure, params={"folder": folder}, engine=rayml.Dask(workers=2), store=store
    )
    found: dict[str, float] = run.wait().result
    return found


def measure_bare(folder: str) -> dict[str, float]:
    import dask
    from ray.util.dask import ray_dask_get

    with dask.config.set({"scheduler": ray_dask_get, "dataframe.shuffle.method": "tasks"}):
        return measure(folder, ray_persist=True)  # else it fetches what is persisted


def measure_local(folder: str) -> dict[str, float]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        return measure(folder)


def main() -> None:
    import ray

    found: dict[str, list[dict[str, float]]] = {"rayml": [], "bare": [], "local": []}

    def play(name: str, run: Callable[[], dict[str, float]]) -> float:
        found[name].append(run())
        return 0.0

    with scratch() as folder:
        data = folder / "flights"
        data.mkdir()
        write_flights(data)
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=STORE_MIB * 2**20)
        take_turns(
            partial(play, "rayml", partial(measure_ours, str(data), folder / "store")),
            partial(play, "bare", partial(measure_bare, str(data))),
            partial(play, "local", partial(measure_local, str(data))),
            n=ROUNDS,
            warm_ups=0,
            rest_s=2,
        )
    series = {
        (who, query): [took[query] for took in rounds]
        for who, rounds in found.items()
        for query in (*SHORT, LONG)
    }
    report(
        QUESTION,
        [
            compare(f"{query} / {them}", series[who, query], series["rayml", query], limit=limit)
            for who, them, limit in BASELINES
            for query in (*SHORT, LONG)
        ],
    )


if __name__ == "__main__":
    main()
