"""Writes a store with all that this rayml can record, to be read by every later one.

    python -m tests.formats.write FOLDER

For each release: once, into `tests/formats/stores/<version>`; a folder that is there is never
written again. Beside the store comes `expected.json`: what this rayml reads from it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from io import BytesIO
from pathlib import Path

import pandas as pd

import rayml
from rayml.run_context import Context
from rayml.store import open_store
from rayml.tracker.client import Client, LoopTransport, Producer
from rayml.tracker.compaction import compact
from rayml.tracker.live import LiveMark, live_shards
from rayml.tracker.records import (
    CancelRequested,
    Ended,
    Labels,
    Points,
    Problem,
    Result,
    Retrying,
    Started,
    Submission,
    Submitted,
    Waiting,
)
from rayml.tracker.submissions import create_submission
from rayml.tracker.tracker import Tracker
from tests.formats.read import read_store
from tests.unit.journals import OWNER, encode, ended, logged, make_spec, points, started, submitted

ODD: list[float | str] = [0.5, "nan", "inf", "-inf", 1e308, -0.0]


def write_store(folder: Path) -> None:
    """Write a store and what is to be read from it."""
    folder.mkdir(parents=True)
    uri = folder / "store"
    _write_shard(uri)
    _log(uri)
    _edit(uri)
    for shard in live_shards(open_store(uri)):  # else whoever opens it ends what is open
        LiveMark(open_store(uri), shard).clear()
    expected = json.dumps(read_store(uri), indent=1, sort_keys=True)
    (folder / "expected.json").write_text(expected + "\n")


def _write_shard(uri: Path) -> None:
    """Write every kind of record: in tables, in a checkpoint, and in segments after it."""
    store = open_store(uri)
    tracker = Tracker(store, "0123456789abcdef", OWNER)

    def append(*batches: bytes) -> None:
        for batch in batches:
            asyncio.run(tracker.append(batch))

    append(*_retried("retried"), *_cancelled("cancelled"))
    append(encode(submitted("open"), started(run="open"), producer="open"))
    append(encode(points("loss", [0, 1], [2.0, 1.0], run="open"), producer="open", n=2))
    compact(store, tracker.shard)
    append(encode(points("loss", [2], [0.5], run="open"), producer="open", n=3))
    append(encode(ended("failed", run="open"), producer="open", n=4))
    append(encode(submitted("unended"), logged([1, {"a": None}], run="unended"), producer="u"))
    unstarted = Submission(
        spec=make_spec("unstarted"), payload=store.add(BytesIO(b"payload")).digest
    )
    create_submission(store, unstarted)


def _retried(run: str) -> list[bytes]:
    problem = Problem(kind="oom", message="it was killed", traceback="Traceback: …", rank=1)
    retry = Retrying(run=run, time=3, attempt=1, delay_s=1, reason="1 of 2", problem=problem)
    spec = make_spec(run, params={"deep": {"rate": "nan"}}, labels={"team": "a"}, parent="open")
    series = {"odd 🚀": ([5, 3, 4, 0, 9, 9], [1.5] * 6, ODD)}
    odd = Points(run=run, time=4, attempt=2, rank=1, series=series)
    result = Result(format="json", inline=b'{"auc": 0.5}')
    end = Ended(run=run, time=9, attempt=2, state="succeeded", result=result)
    return [
        encode(Submitted(run=run, time=1, spec=spec), producer=run),
        encode(Waiting(run=run, time=1, attempt=1, reason="no CPUs"), producer=run, n=2),
        encode(started(run=run), points("loss", [0, 1, 2], [3, 2, 1], run=run), producer=run, n=3),
        encode(retry, producer=run, n=4),
        encode(Started(run=run, time=5, attempt=2, node="n", host="h", pid=1), producer=run, n=5),
        encode(points("loss", [1, 2], [1.5, 0.5], 2, run), odd, producer=run, n=6),
        encode(Labels(run=run, time=6, attempt=2, labels={"by": "ünï"}), producer=run, n=7),
        encode(end, producer=run, n=8),
    ]


def _cancelled(run: str) -> list[bytes]:
    request = CancelRequested(run=run, time=2, grace_s=10, by="ada")
    return [
        encode(submitted(run), producer=run),
        encode(request, producer=run, n=2),
        encode(ended("cancelled", run=run), producer=run, n=3),
    ]


def _log(uri: Path) -> None:
    """Log each kind of artifact that needs no further package, and a long parameter."""
    store = open_store(uri)
    transport = LoopTransport(Tracker(store, "fedcba9876543210", OWNER))
    transport.append(encode(submitted("logged"), started(run="logged"), producer="submitter"))
    producer = Producer(transport, "logged", 1)
    run = Context(Client(producer), producer, store, {}, {})
    run.log_params({"long": "x" * 5_000, "nested": {"rate": 0.1, "on": [True, None]}})
    run.log_metrics({"auc": 0.75, "epoch": 1.0}, step=10)
    run.log_dataset("table", pd.DataFrame({"a": [1, 2], "b": ["x", None]}))
    run.log_artifact("notes.txt", "żółw".encode())
    run.log_model("model", {"weights": [0.5]}, format="pickle")
    run.log_label("team", "b")
    run.close(10)
    producer.record(ended(run="logged"))
    transport.close()


def _edit(uri: Path) -> None:
    """Change afterwards what people can change."""
    run = rayml.get_run("logged", store=uri)
    model = rayml.register_model(run.artifact("model"), "churn", alias="production", store=uri)
    assert model.version == 1
    run.set_notes("two\nlines")
    run.set_labels({"team": None, "reviewed": "yes"})
    rayml.get_run("cancelled", store=uri).archive()
    rayml.get_run("open", store=uri).delete()


if __name__ == "__main__":
    write_store(Path(sys.argv[1]))
