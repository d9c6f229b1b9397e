"""Does the memory that hub://batch_predict takes grow with the table?

Four and forty million rows of eight numbers, 2.4 GiB of Parquet, on two cores; the predictions and
all columns are written. The peak memory of the largest of its processes, without Ray's object
store, whose size Ray limits, is sampled twenty times a second. `--small`: a tenth of the rows.
"""

from __future__ import annotations

import sys
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
FEW, MANY = (4, 40)  # row groups
GROUP_ROWS = 100_000 if SMALL else 1_000_000
SCHEMA = pa.schema([(f"x{number}", pa.float64()) for number in range(8)])
RANDOM = np.random.default_rng(0)


def main() -> None:
    with scratch() as folder:
        few, _ = predicted(FEW, folder)
        many, told = predicted(MANY, folder)
    rows = f"{MANY * GROUP_ROWS / 1e6:.0f} M rows"
    report(
        "Does the memory that the hub's batch_predict takes grow with the table?",
        [
            compare(
                f"a process's memory: {rows} / a tenth", [few], [many], limit=1.25, unit="GiB"
            ),
            alone(f"{rows}, predicted", [told["rows_per_s"]], limit=None, unit="rows/s"),
            alone(f"{rows}, failed", [told["failed_rows"]], limit=0, unit="rows"),
        ],
        rows=told["rows"],
    )


def predicted(groups: int, folder: Path) -> tuple[float, dict[str, float]]:
    """Return the peak memory of a process in GiB, and the run's metrics."""
    table = folder / f"{groups}.parquet"
    with pq.ParquetWriter(table, SCHEMA, compression="none", use_dictionary=False) as writer:
        for _ in range(groups):
            writer.write_table(drawn())
    rows = drawn().to_pandas()
    with peaks(own=True) as memory:
        run: Any = rayml.submit(
            "hub://batch_predict",
            inputs={"model": LinearRegression().fit(rows, rows.sum(axis=1)), "table": table},
            resources=rayml.Resources(cpus=2),
            store=folder / "store",
        )
        told = run.wait().metrics
    return max(memory.values()) / 2**30, told


def drawn() -> pa.Table:
    return pa.table({name: RANDOM.random(GROUP_ROWS) for name in SCHEMA.names}, schema=SCHEMA)


if __name__ == "__main__":
    main()
