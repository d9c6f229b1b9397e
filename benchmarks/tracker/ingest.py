"""How many metric points a second become durable, from four workers at once?

Each turn has a Ray and a store of its own. Four runs wait for one moment, log 500,000 points each
as a training loop would, and flush; the rate is all points by the time until the last flush came
back. They count only if whoever opens the store afterwards finds every one of them.

Other trackers do the same with four processes, each as its documentation recommends (`peer.py`),
in turns with rayml on disk. Each has an environment of its own, which this script makes with uv;
one that cannot be installed is left out, and named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from timing import Figure, alone, compare, report, scratch, take_turns  # noqa: E402
from tracker.places import bucket, fresh, own_ray, stored_points, submit  # noqa: E402

if TYPE_CHECKING:
    import rayml

QUESTION = "How many points a second become durable, from four workers?"
WORKERS, POINTS = 4, 500_000
METRICS = 10
STARTING_S, LATE_S = 8.0, 0.5
ROUNDS, PEER_ROUNDS = 3, 2
ENVIRONMENTS = HERE.parents[1] / ".bench" / "peers"


class Peer(NamedTuple):
    """Another tracker.

    Attributes:
        title: How people call it.
        package: What is to be installed for it.
        name: What `peer.py` calls it.
        points: How many each worker logs, so that it takes some seconds.
        limit: How many times as fast rayml has to be.
    """

    title: str
    package: str
    name: str
    points: int
    limit: float


PEERS = (
    Peer("MLflow's server", "mlflow", "mlflow-server", 10_000, 20),
    Peer("MLflow, SQLite", "mlflow", "mlflow", 10_000, 1),
    Peer("Trackio", "trackio", "trackio", 50_000, 1),
    Peer("W&B, offline", "wandb", "wandb", 20_000, 1),
    Peer("Aim", "aim", "aim", 5_000, 1),
)


def log(context: rayml.Context, start: float, points: int) -> tuple[float, float]:
    """Log the points from a given moment on; return when that began and when all were durable."""
    names = [f"train/metric_{number}" for number in range(METRICS)]
    time.sleep(max(0.0, start - time.time()))
    began = time.time()
    for step in range(points // METRICS):
        for name in names:
            context.log_metric(name, 0.37 * step, step)
    context.flush(300)
    return began, time.time()


def rate(root: str | Path) -> float:
    """Return durable points a second, into a fresh store."""
    store = fresh(root)
    with own_ray(WORKERS):
        submit(log, store, start=0.0, points=METRICS)()
        start = time.time() + STARTING_S
        results = [submit(log, store, start=start, points=POINTS) for _ in range(WORKERS)]
        spans = [result() for result in results]
    assert max(began for began, _ in spans) < start + LATE_S, "a worker came too late"
    assert stored_points(store) == METRICS + WORKERS * POINTS
    seconds: float = max(ended for _, ended in spans) - min(began for began, _ in spans)
    return WORKERS * POINTS / seconds


def rate_of(peer: Peer, python: Path) -> float:
    """Return the points a second of four processes that log to another tracker."""
    with tempfile.TemporaryDirectory(dir=ENVIRONMENTS) as folder:
        done = subprocess.run(
            [python, HERE.with_name("peer.py"), peer.name, folder, str(WORKERS), str(peer.points)],
            stdout=subprocess.PIPE, check=True, text=True,
        )  # fmt: skip
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["points"] == WORKERS * peer.points, f"{peer.title} has {answer['points']}"
    return float(answer["points"] / answer["seconds"])


def python_with(package: str) -> Path | None:
    """Return the Python of an environment with this package, made if need be; None if it fails."""
    folder = ENVIRONMENTS / package
    python = folder / "bin" / "python"
    make = ["uv", "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)]
    install = ["uv", "pip", "install", "--quiet", "--python", str(python), package]
    failed = any(subprocess.run(step, check=False).returncode for step in (make, install))
    return None if failed else python


def compare_with(peer: Peer, folder: Path) -> Figure | None:
    """Return rayml's rate to disk by another tracker's; None where that cannot be installed."""
    python = python_with(peer.package)
    if python is None:
        print(f"{peer.title} cannot be installed here and is left out", file=sys.stderr)
        return None
    theirs, ours = take_turns(
        partial(rate_of, peer, python), partial(rate, folder), n=PEER_ROUNDS, warm_ups=0
    )
    question = f"to local disk / {peer.title}"
    return compare(question, theirs, ours, "gain", limit=peer.limit, unit="points/s")


def main() -> None:
    with scratch() as folder, bucket(folder) as s3:
        disk_rates, s3_rates = take_turns(
            partial(rate, folder / "disk"), partial(rate, s3), n=ROUNDS, warm_ups=0
        )
        others = {peer.title: compare_with(peer, folder / "disk") for peer in PEERS}
    report(
        QUESTION,
        [
            alone("to local disk", disk_rates, "rate", limit=500_000, unit="points/s"),
            alone("to S3", s3_rates, "rate", limit=300_000, unit="points/s"),
            *(figure for figure in others.values() if figure is not None),
        ],
        slowest_to_disk=min(disk_rates),
        slowest_to_s3=min(s3_rates),
        left_out=[title for title, figure in others.items() if figure is None],
        load=os.getloadavg()[0],
    )


if __name__ == "__main__":
    main()
