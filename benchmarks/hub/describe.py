"""How long does hub://describe take, beside ydata-profiling, and how much memory past it?

The 336,776 × 19 flights of 2013: from the DataFrame to the written report, each turn in a process
of its own. ydata-profiling (in its minimal mode, which tells no correlations) has an environment
of its own, because it does not install beside rayml's packages; its import does not count, while
that of what describe needs does. Then ten million flights as Parquet, through Dask on two workers:
the peak memory of the process of a worker, what it shares with others included, is sampled twenty
times a second. With `--small`, one turn and two million flights.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2] / "examples")]

from memory import peaks  # noqa: E402
from timing import alone, compare, report, scratch, seconds, take_turns  # noqa: E402

import rayml  # noqa: E402

QUESTION = "How long does hub://describe take, and how much memory?"
SMALL = "--small" in sys.argv
TURNS, WARM_UPS = (1, 0) if SMALL else (3, 1)
COPIES = 6 if SMALL else 30  # of 336,776 flights each
PART_ROWS = 500_000
MINIMAL = """
import json, sys, time
import pandas as pd
from ydata_profiling import ProfileReport
flights = pd.read_parquet(sys.argv[1])
started = time.perf_counter()
ProfileReport(flights, minimal=True, progress_bar=False).to_file(sys.argv[2])
print(json.dumps(time.perf_counter() - started))
"""
OURS = """
import json, sys, time
import pandas as pd
import rayml
flights = pd.read_parquet(sys.argv[1])
started = time.perf_counter()
rayml.hub.get("describe")(table=flights, **json.loads(sys.argv[2]))
print(json.dumps(time.perf_counter() - started))
"""


def write_flights(path: Path) -> None:
    from nyc import read_table

    read_table("flights.csv.zip").to_parquet(path)


def write_copies(flights: Path, path: Path) -> int:
    """Write many flights that differ: each copy's numbers are a little off."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random, rows = np.random.default_rng(0), 0
    table = pq.read_table(flights)
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(COPIES):
            columns = []
            for column in table.columns:
                noise = pa.array(random.normal(size=len(column)))
                is_float = pa.types.is_floating(column.type)
                columns.append(pa.compute.add(column, noise) if is_float else column)
            writer.write_table(pa.table(columns, schema=table.schema), PART_ROWS)
            rows += table.num_rows
    return rows


def make_environment(folder: Path) -> Path:
    """Return the Python of a new environment with ydata-profiling."""
    uv = [sys.executable, "-m", "uv"]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    subprocess.run([*uv, "venv", "-q", "--python", version, folder], check=True)
    python = folder / "bin" / "python"
    packages = ["ydata-profiling", "pyarrow", "setuptools<81"]
    subprocess.run([*uv, "pip", "install", "-q", "--python", python, *packages], check=True)
    return python


def told(command: list[Any], **environment: str) -> float:
    """Return the number that a script prints last."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        env={**os.environ, **environment},
        text=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def describe_by_dask(path: Path, store: Path) -> None:
    run: Any = rayml.submit(
        "hub://describe",
        inputs={"table": path},
        params={"target": "arr_delay"},
        engine=rayml.Dask(workers=2),
        cluster="local",
        store=store,
    )
    run.wait()


def main() -> None:
    with scratch() as folder:
        flights, store = folder / "flights.parquet", {"RAYML_STORE": str(folder / "store")}
        write_flights(flights)
        python = make_environment(folder / "ydata")
        ours = [sys.executable, "-c", OURS, flights]
        theirs, plain, aimed = take_turns(
            partial(told, [python, "-c", MINIMAL, flights, folder / "ydata.html"]),
            partial(told, [*ours, "{}"], **store),
            partial(told, [*ours, json.dumps({"target": "arr_delay"})], **store),
            n=TURNS,
            warm_ups=WARM_UPS,
        )
        rows = write_copies(flights, folder / "copies.parquet")
        with peaks() as memory:
            took = seconds(partial(describe_by_dask, folder / "copies.parquet", folder / "store"))
        peak = max(memory.values()) / 2**30
    table, many = "the 336,776 × 19 flights", f"{rows / 1e6:.1f} M rows by Dask, two workers"
    report(
        QUESTION,
        [
            compare(f"{table} / ydata-profiling, minimal", theirs, plain, limit=0.5),
            alone(table, plain, limit=15, unit="s"),
            alone(f"{table}, with a target", aimed, limit=None, unit="s"),
            alone(f"{many}: a process's memory", [peak], limit=2, unit="GiB"),
            alone(f"{many}: until the run's end", [took], limit=None, unit="s"),
        ],
        rows=rows,
        processes=len(memory),
    )


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.0f} s in all", file=sys.stderr)
