"""How fast does one process log, and how soon does it know that a single event is durable?

All of it happens in submitted runs, through the tracker actor. `log_metric(…, sync=True)` takes
turns with the plain thing that it cannot do without: a new file with fsync, or a PUT by obstore.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.store import from_url

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from timing import Figure, alone, percentile, report, scratch, take_turns  # noqa: E402
from tracker.places import bucket, fresh, own_ray, stored_points, submit  # noqa: E402

if TYPE_CHECKING:
    import rayml

QUESTION = "How fast does one process log, and how soon is one event durable?"
NAMES = [f"train/metric_{number}" for number in range(10)]
CALLS = 1_000_000
EVENTS = 1000
PLAIN_BYTES = 600  # as a segment with one point has
ROUNDS = 5


def time_calls(context: rayml.Context, calls: int) -> tuple[float, float]:
    """Return calls a second, until the last one has returned and until all are durable."""
    began = time.perf_counter()
    for step in range(calls // len(NAMES)):
        for name in NAMES:
            context.log_metric(name, 0.37 * step, step)
    returned = time.perf_counter()
    context.flush(300)
    return calls / (returned - began), calls / (time.perf_counter() - began)


def time_events(context: rayml.Context, plain: str, events: int) -> list[list[float]]:
    """Return seconds of each plain write, and of each acknowledged event."""
    data = os.urandom(PLAIN_BYTES)
    target = None if Path(plain).is_dir() else from_url(plain, client_options={"allow_http": True})

    def write() -> float:
        name = uuid.uuid4().hex
        began = time.perf_counter()
        if target is not None:
            obstore.put(target, name, data)
        else:
            with (Path(plain) / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        return time.perf_counter() - began

    def log() -> float:
        began = time.perf_counter()
        context.log_metric("loss", 0.37, sync=True)
        return time.perf_counter() - began

    return take_turns(write, log, n=events, warm_ups=20)


def rates(store: str) -> tuple[float, float]:
    before = stored_points(store)
    found: tuple[float, float] = submit(time_calls, store, calls=CALLS)()
    assert stored_points(store) == before + CALLS
    return found


def describe_rates(name: str, rates: list[tuple[float, float]]) -> list[Figure]:
    called, durable = ([pair[index] for pair in rates] for index in (0, 1))
    question = f"{CALLS:,} calls of `log_metric` in a row, {name}"
    return [
        alone(f"{question}: returned", called, "rate", limit=200_000, unit="calls/s"),
        alone(f"{question}: durable", durable, "rate", limit=100_000, unit="calls/s"),
    ]


def beside(
    question: str, plain: list[float], own: list[float], percent: int, how: str, limit: float
) -> Figure:
    """Return an event's percentile beside the plain write's."""
    theirs, ours = percentile(plain, percent), percentile(own, percent)
    return Figure(
        question=f"{question}, p{percent}", baseline=theirs, rayml=ours, ratio=ours / theirs,
        unit="s", compare=how, limit=limit, n=len(own),
    )  # fmt: skip


def main() -> None:
    with scratch() as folder, bucket(folder) as s3, own_ray(2):
        stores = {"disk": fresh(folder), "S3": fresh(s3)}
        for store in stores.values():
            submit(time_calls, store, calls=1000)()
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in stores}
        for _ in range(ROUNDS):
            for name, store in stores.items():
                seen[name].append(rates(store))
        file, on_disk = submit(time_events, stores["disk"], plain=str(folder), events=EVENTS)()
        put, on_s3 = submit(time_events, stores["S3"], plain=fresh(s3), events=EVENTS)()
    to_file = "`log_metric(…, sync=True)` on disk / a file with fsync"
    to_put = "`log_metric(…, sync=True)` on S3 / a PUT"
    report(
        QUESTION,
        [
            *(figure for name in stores for figure in describe_rates(name, seen[name])),
            beside(to_file, file, on_disk, 50, "value", 0.003),
            beside(to_file, file, on_disk, 99, "value", 0.015),
            beside(to_put, put, on_s3, 99, "difference", 0.020),
        ],
        load=os.getloadavg()[0],
    )


if __name__ == "__main__":
    main()
