"""One peer's ingest, for `ingest.py`: executed by the Python of an environment that has that peer.

    python peer.py NAME FOLDER WORKERS POINTS      prints {"points": …, "seconds": …} as JSON

Each worker logs POINTS of ten metrics to a run of its own, in the way that the peer's
documentation recommends for many values. The clock runs from the first worker's first call until
the last one says that all is stored; a process that reads what is on disk then counts the points.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.synchronize import Barrier

NAMES = [f"train/metric_{number}" for number in range(10)]
BATCH = 1000  # the most that MLflow takes in one call
START_S = 300.0  # a server of many processes, on a busy machine
_barrier: Barrier


class Peer:
    """How one tracker is used; pickled, it goes to the workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self, stack: ExitStack) -> None:
        """Make what the workers share; the stack ends it."""

    def start(self, number: int) -> Any:
        """Begin a worker's run."""
        raise NotImplementedError

    def log(self, run: Any, steps: range) -> None:
        """Log ten metrics at each step and return when they are stored."""
        raise NotImplementedError

    def count(self) -> int:
        """Return how many points are on disk."""
        raise NotImplementedError


class Mlflow(Peer):
    """`log_batch` into SQLite."""

    uri = ""

    def prepare(self, _stack: ExitStack) -> None:
        self.uri = f"sqlite:///{self.folder}/mlflow.db"
        self._client().create_experiment("benchmark")

    def _client(self) -> Any:
        import mlflow

        return mlflow.MlflowClient(self.uri)

    def start(self, _number: int) -> Any:
        client = self._client()
        experiment = client.get_experiment_by_name("benchmark").experiment_id
        return client, client.create_run(experiment).info.run_id

    def log(self, run: Any, steps: range) -> None:
        from mlflow.entities import Metric

        client, run_id = run
        now, size = int(time.time() * 1000), BATCH // len(NAMES)
        for first in range(0, len(steps), size):
            part = steps[first : first + size]
            rows = [Metric(name, 0.5 * step, now, step) for step in part for name in NAMES]
            client.log_batch(run_id, metrics=rows)

    def count(self) -> int:
        with sqlite3.connect(self.folder / "mlflow.db") as database:
            return int(database.execute("select count(*) from metrics").fetchone()[0])


class MlflowServer(Mlflow):
    """`log_batch` over HTTP to a server with SQLite."""

    def prepare(self, stack: ExitStack) -> None:
        super().prepare(stack)
        port = free_port()
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.uri,
             "--port", str(port), "--artifacts-destination", str(self.folder)],
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        stack.callback(server.wait)
        stack.callback(os.killpg, server.pid, signal.SIGKILL)  # its workers as well
        self.uri = f"http://127.0.0.1:{port}"
        wait_for(f"{self.uri}/health")


class Trackio(Peer):
    """`log` into its local database."""

    def start(self, number: int) -> Any:
        import trackio

        trackio.init(project="benchmark", name=f"run-{number}", embed=False)
        return trackio

    def log(self, run: Any, steps: range) -> None:
        for step in steps:
            run.log(dict.fromkeys(NAMES, 0.5 * step), step=step)
        run.finish()

    def count(self) -> int:
        (file,) = self.folder.rglob("benchmark*.db")
        with sqlite3.connect(file) as database:
            rows = database.execute("select metrics from metrics").fetchall()
        return sum(len(set(NAMES) & set(json.loads(row))) for (row,) in rows)


class Wandb(Peer):
    """`log` into its files, offline."""

    def start(self, _number: int) -> Any:
        import wandb

        return wandb.init(mode="offline", dir=str(self.folder), project="benchmark")

    def log(self, run: Any, steps: range) -> None:
        for step in steps:
            run.log(dict.fromkeys(NAMES, 0.5 * step), step=step)
        run.finish()

    def count(self) -> int:
        from wandb.proto.wandb_internal_pb2 import Record

        total = 0
        for file in self.folder.rglob("*.wandb"):
            for data in leveldb_records(file.read_bytes()):
                record = Record()
                record.ParseFromString(data)
                keys = {item.key or item.nested_key[0] for item in record.history.item}
                total += len(keys & set(NAMES))
        return total


class Aim(Peer):
    """`track` into its repository."""

    def prepare(self, _stack: ExitStack) -> None:
        import aim

        aim.Repo(str(self.folder), init=True)

    def start(self, _number: int) -> Any:
        import aim

        return aim.Run(
            repo=str(self.folder), system_tracking_interval=None, capture_terminal_logs=False
        )

    def log(self, run: Any, steps: range) -> None:
        for step in steps:
            for name in NAMES:
                run.track(0.5 * step, name=name, step=step)
        run.close()

    def count(self) -> int:
        # Its index is made when its server next starts; without it there is nothing to read.
        command = Path(sys.executable).with_name("aim")
        reindex = [str(command), "storage", "--repo", str(self.folder), "reindex", "-y"]
        subprocess.run(reindex, check=True, capture_output=True)
        import aim

        repo = aim.Repo(str(self.folder))
        runs = [repo.get_run(name) for name in repo.list_all_runs()]
        return sum(len(metric.values.sparse_list()[0]) for run in runs for metric in run.metrics())


PEERS: dict[str, type[Peer]] = {
    "mlflow": Mlflow,
    "mlflow-server": MlflowServer,
    "trackio": Trackio,
    "wandb": Wandb,
    "aim": Aim,
}


def join(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603 - how a pool's processes get what cannot be pickled later
    _barrier = barrier


def work(peer: Peer, number: int, points: int) -> tuple[float, float]:
    """Log one worker's points; return when it began and ended."""
    run = peer.start(number)
    _barrier.wait(START_S)
    started = time.time()
    peer.log(run, range(points // len(NAMES)))
    return started, time.time()


def measure(name: str, folder: Path, workers: int, points: int) -> dict[str, float]:
    peer, spawn = PEERS[name](folder), get_context("spawn")
    barrier = spawn.Barrier(workers)
    with ExitStack() as stack:
        peer.prepare(stack)
        pool: Any = ProcessPoolExecutor(workers, spawn, join, (barrier,))
        with pool:
            done = [pool.submit(work, peer, number, points) for number in range(workers)]
            times = [each.result() for each in done]
    seconds = max(end for _, end in times) - min(start for start, _ in times)
    with ProcessPoolExecutor(1, spawn) as another:  # which has nothing in its memory
        return {"points": another.submit(peer.count).result(), "seconds": seconds}


def leveldb_records(data: bytes, block: int = 32768) -> Iterator[bytes]:
    """Yield the records of a log as LevelDB writes it: in blocks, pieces with a header each."""
    whole, at = b"", 7  # W&B's own header comes first
    while at + 7 <= len(data):
        if block - at % block < 7:  # what is left of a block is filled with zeros
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole one, or the last of its pieces
            yield whole
            whole = b""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(url: str) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - it is our own
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server stays behind
    name, folder, workers, points = sys.argv[1:]
    os.environ |= {"TRACKIO_DIR": folder, "WANDB_SILENT": "true"}
    print(json.dumps(measure(name, Path(folder), int(workers), int(points))), flush=True)
