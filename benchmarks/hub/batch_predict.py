"""How much memory does hub://batch_predict take for a table that is much larger?

Forty million rows of eight numbers, 2.6 GB of Parquet, on two cores; their predictions and all of
their columns are written. The peak memory of the largest of its processes, what it shares with
others included, is sampled twenty times a second. Beside it, the rows that one process predicts a
second by the same model where it has them in memory already. With `--small`, four million rows.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from memory import peaks
from sklearn.linear_model import LinearRegression
from timing import alone, compare, report, scratch

import rayml

SMALL = "--small" in sys.argv
GROUPS, GROUP_ROWS = (4, 1_000_000) if SMALL else (40, 1_000_000)
COLUMNS = [f"x{number}" for number in range(8)]
RANDOM = np.random.default_rng(0)


def main() -> None:
    with scratch() as folder:
        table = folder / "table.parquet"
        model = write_table(table)
        with peaks() as memory:
            run: Any = rayml.submit(
                "hub://batch_predict",
                inputs={"model": model, "table": table},
                resources=rayml.Resources(cpus=2),
                store=folder / "store",
            )
            told = run.wait().metrics
        size = GROUPS * GROUP_ROWS * len(COLUMNS) * 8 / 2**30
    report(
        "How much memory does the hub's batch_predict take?",
        [
            compare(
                f"a process's memory / a table of {size:.1f} GiB",
                [size],
                [max(memory.values()) / 2**30],
                limit=0.5,
                unit="GiB",
            ),
            compare(
                "read, predicted and written / predicted in memory by one process",
                [rows_per_s(model)],
                [told["rows_per_s"]],
                "gain",
                limit=None,
                unit="rows/s",
            ),
            alone("rows that failed", [told["failed_rows"]], limit=0, unit="rows"),
        ],
        rows=told["rows"],
        processes=len(memory),
    )


def write_table(path: Path) -> LinearRegression:
    """Write rows, one group at a time; return a model of them."""
    schema = pa.schema([(name, pa.float64()) for name in COLUMNS])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for _ in range(GROUPS):
            writer.write_table(pa.table(drawn(), schema=schema))
    rows = pa.table(drawn(), schema=schema).to_pandas()
    return LinearRegression().fit(rows, rows.sum(axis=1))


def drawn() -> dict[str, np.ndarray]:
    return {name: RANDOM.random(GROUP_ROWS) for name in COLUMNS}


def rows_per_s(model: LinearRegression) -> float:
    rows = pa.table(drawn()).to_pandas()
    started = time.perf_counter()
    model.predict(rows)
    return GROUP_ROWS / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
