"""What does the hub's endpoint cost beside a bare deployment of Ray Serve, and what does a roll?

Both serve the same LightGBM classifier of the flights on the same Ray, with one replica each, and
get the same rows from one client that keeps its connection; they take turns, so many requests at a
time. The bare one is what Ray's documentation shows: a class that reads JSON and calls the model,
behind Serve's own proxy. Then clients ask the hub's without a pause, while the alias moves to
another version and back: each answer that is not a prediction counts. `--small` is for trying.
"""

from __future__ import annotations

import http.client
import json
import logging
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import pandas as pd  # noqa: E402
import ray  # noqa: E402
from artifacts import read_flights  # noqa: E402
from lightgbm import LGBMClassifier  # noqa: E402
from ray import serve  # noqa: E402
from timing import Figure, alone, compare, report, scratch, take_turns  # noqa: E402

import rayml  # noqa: E402

QUESTION = "What does the hub's endpoint cost beside a bare deployment of Ray Serve?"
SMALL = "--small" in sys.argv
REQUESTS, TURNS = (20, 3) if SMALL else (200, 11)
CLIENTS, MOVES = (2, 2) if SMALL else (8, 6)
SIZES = (1, 100)
COLUMNS = ["month", "day", "sched_dep_time", "sched_arr_time", "distance", "flight"]
MODEL, ALIAS = "late", "production"
WAIT_S = 120.0


class Bare:
    """The shortest deployment that predicts."""

    def __init__(self, artifact: rayml.Artifact) -> None:
        """Load the model."""
        self.model = artifact.load()

    async def __call__(self, request: Any) -> dict[str, object]:
        """Return predictions of the rows in a request."""
        rows = pd.DataFrame(await request.json())[COLUMNS]
        return {"predictions": self.model.predict(rows).tolist()}


class Client:
    """One client with a connection that it keeps."""

    def __init__(self, url: str) -> None:
        """Take where to post."""
        parts = urlsplit(url)
        self._path = parts.path
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, body: bytes) -> list[object]:
        """Return the predictions; anything else is an error."""
        headers = {"content-type": "application/json"}
        self._connection.request("POST", self._path, body, headers)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise ValueError(f"{response.status}: {answer}")
        predictions: list[object] = answer["predictions"]
        return predictions

    def median_s(self, body: bytes) -> float:
        """Return the median time of an answer."""
        times = []
        for _ in range(REQUESTS):
            began = time.perf_counter()
            self.ask(body)
            times.append(time.perf_counter() - began)
        return median(times)


def train(folder: Path) -> list[dict[Any, Any]]:
    """Register two versions of the model, and return some rows."""
    flights = read_flights().dropna(subset="arr_delay")
    rows, late = flights[COLUMNS].astype("float64"), flights["arr_delay"] > 15
    for trees in (100, 50):
        with rayml.start_run("train", store=folder) as context:
            fitted = LGBMClassifier(n_estimators=trees, verbose=-1, n_jobs=1).fit(rows, late)
            artifact = context.log_model("model", fitted, input_example=rows[:3])
        rayml.register_model(artifact, MODEL)
    rayml.model(MODEL, store=folder).set_alias(ALIAS, 1)
    return rows[: max(SIZES)].to_dict("records")


def serve_bare(folder: Path) -> str:
    """Return the URL of the bare deployment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    serve.start(http_options={"port": port}, logging_config={"enable_access_log": False})
    artifact = rayml.model(MODEL, store=folder).version(1).artifact
    made: Any = serve.deployment(Bare, ray_actor_options={"num_cpus": 0})
    serve.run(made.bind(artifact), name="bare", route_prefix="/bare")
    return f"http://127.0.0.1:{port}/bare"


def serve_hub(folder: Path) -> tuple[rayml.Run, str]:
    """Return the run that serves, and its URL."""
    run: Any = rayml.submit(
        "hub://serve",
        inputs={"model": f"rayml://models/{MODEL}@{ALIAS}"},
        params={"follow": ALIAS, "poll_s": 0.5},
        store=folder,
    )
    deadline = time.monotonic() + WAIT_S
    while "url" not in run.labels:
        if run.error is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it does not serve: {run.error or run.logs()}")
        time.sleep(0.2)
    return run, f"{run.labels['url']}/predict"


def latency(bare: str, hub: str, rows: list[dict[Any, Any]]) -> list[Figure]:
    """Compare the two for one row, and for more."""
    figures = []
    clients = Client(bare), Client(hub)
    for size in SIZES:
        body = json.dumps(rows[:size]).encode()
        assert clients[0].ask(body) == clients[1].ask(body)
        turns = [partial(client.median_s, body) for client in clients]
        theirs, ours = take_turns(*turns, n=TURNS, warm_ups=2)
        name = "one row" if size == 1 else f"{size} rows"
        limit = 1.3 if size == 1 else None
        figures.append(compare(f"p50 of {name} / a bare deployment", theirs, ours, limit=limit))
    return figures


class Load:
    """Clients that ask without a pause, until they are told to stop."""

    def __init__(self, url: str, body: bytes) -> None:
        """Start them."""
        self._url, self._body = url, body
        self._stop = threading.Event()
        self.answers, self.failures = 0, list[str]()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        client = Client(self._url)
        while not self._stop.is_set():
            try:
                client.ask(self._body)
                self.answers += 1
            except (OSError, ValueError, http.client.HTTPException) as exc:
                self.failures.append(str(exc))
                client = Client(self._url)

    def stop(self) -> None:
        """Wait until each has its last answer."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def rolls(run: rayml.Run, url: str, folder: Path, body: bytes) -> tuple[Load, list[float]]:
    """Return the load under which the alias moved, and the seconds until each move was served."""
    load, times = Load(url, body), []
    model = rayml.model(MODEL, store=folder)
    for move in range(MOVES):
        version = 2 - move % 2
        began = time.perf_counter()
        model.set_alias(ALIAS, version)
        while run.labels["version"] != f"{MODEL}@{version}":
            time.sleep(0.1)
        times.append(time.perf_counter() - began)
        time.sleep(2)  # what answers nobody any more goes in that time
    load.stop()
    return load, times


def main() -> None:
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace="rayml",
    )
    with scratch() as folder:
        rows = train(folder)
        bare = serve_bare(folder)
        run, hub = serve_hub(folder)
        try:
            figures = latency(bare, hub, rows)
            load, times = rolls(run, hub, folder, json.dumps(rows[:1]).encode())
        finally:
            run.cancel()
            with suppress(rayml.JobCancelled):
                run.wait(60)
            serve.shutdown()
            ray.shutdown()
    failed = f"failed of {load.answers:,} requests of {CLIENTS} clients, {MOVES} moves"
    figures += [
        alone(failed, [len(load.failures)], limit=0, unit="requests"),
        alone("from the alias's move to its version's answers", times, limit=None, unit="s"),
    ]
    report(QUESTION, figures, failures=load.failures[:3], requests=REQUESTS)


if __name__ == "__main__":
    main()
