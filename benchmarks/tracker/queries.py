"""What does it cost to find runs among 10,000, with 10 metrics and 10 params each?

The reader is warm: it has read the store before, as in a notebook or a user interface. If mlflow
is installed (in an environment of its own), `search_runs` is asked the same of the same runs in
SQLite, which are put there directly; both answer with the 100 best.
"""

from __future__ import annotations

import importlib.util
import random
import sqlite3
import sys
import uuid
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

import pandas as pd  # noqa: E402
from timing import Figure, compare, report, scratch, seconds, take_turns  # noqa: E402
from tracker.whole_runs import encode_run  # noqa: E402

import rayml  # noqa: E402
from rayml.store.folder import Folder  # noqa: E402
from rayml.tracker.journal import Journal  # noqa: E402
from rayml.tracker.segments import Owner  # noqa: E402
from rayml.tracker.shards import ShardFold  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION = "What does it cost to find runs among 10,000?"
RUNS, NAMES, BEST = 10_000, 10, 100
TIME = 1.8e9
WHERE = "metrics.metric_3 > 0.5 and params.param_4 = {}"
ORDER = "metrics.metric_7 {}"


def make_runs() -> list[tuple[str, dict[str, int], dict[str, float]]]:
    """Return each run's id, params and metrics."""
    numbers = random.Random(0)
    return [
        (
            f"{number:05d}-{uuid.UUID(int=numbers.getrandbits(128)).hex[:8]}",
            {f"param_{n}": numbers.randrange(4) for n in range(NAMES)},
            {f"metric_{n}": numbers.random() for n in range(NAMES)},
        )
        for number in range(RUNS)
    ]


def fill_store(folder: Path, made: list[Any]) -> Folder:
    """Write the runs as a tracker does, a hundred at a time."""
    store = Folder(folder)
    journal = Journal(store, "0" * 16)
    journal.open(Owner(host="benchmark", boot="1", pid=1, started_at=0.0), ShardFold())
    batches = []
    for now, (run, params, metrics) in enumerate(made, int(TIME)):
        series = {name: ([0], [now], [value]) for name, value in metrics.items()}
        batches.append(encode_run(run, series, now, params=dict(params)))
    for start in range(0, RUNS, 100):
        journal.append(batches[start : start + 100])
    return store


def fill_mlflow(file: Path, made: list[Any]) -> Any:
    """Put the same runs into MLflow's tables, and return its client."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{file}")
    experiment = client.create_experiment("default runs")
    ids = {run: uuid.uuid5(uuid.NAMESPACE_OID, run).hex for run, _, _ in made}
    when = {run: int((TIME + n) * 1000) for n, (run, _, _) in enumerate(made)}
    with sqlite3.connect(file) as database:
        database.executemany(
            "insert into runs (run_uuid, name, source_type, user_id, status, start_time, end_time,"
            " lifecycle_stage, artifact_uri, experiment_id)"
            " values (?, 'train', 'LOCAL', 'ada', 'FINISHED', ?, ?, 'active', '', ?)",
            [(ids[run], when[run], when[run] + 1000, experiment) for run, _, _ in made],
        )
        database.executemany(
            "insert into params values (?, ?, ?)",
            [(k, str(v), ids[run]) for run, params, _ in made for k, v in params.items()],
        )
        points = [(k, v, when[run], ids[run]) for run, _, ms in made for k, v in ms.items()]
        database.executemany("insert into metrics values (?, ?, ?, ?, 0, 0)", points)
        columns = "(key, value, timestamp, run_uuid, step, is_nan)"
        database.executemany(
            f"insert into latest_metrics {columns} values (?, ?, ?, ?, 0, 0)",  # noqa: S608
            points,
        )
    return partial(client.search_runs, [experiment], max_results=BEST)


def asks(store: Folder) -> dict[str, Callable[[], Any]]:
    """Return what is asked of rayml."""
    runs = partial(rayml.runs, store=store)
    return {
        "where": lambda: runs(where=WHERE.format(2), limit=BEST),
        "order_by": lambda: runs(order_by=ORDER.format("desc"), limit=BEST),
        "both": lambda: runs(where=WHERE.format(2), order_by=ORDER.format("desc"), limit=BEST),
    }


def asks_of_mlflow(search: Any) -> dict[str, Callable[[], Any]]:
    """Return the same, asked of MLflow, whose params are text."""
    where, order = WHERE.format("'2'"), [ORDER.format("DESC")]
    return {
        "where": lambda: search(filter_string=where),
        "order_by": lambda: search(order_by=order),
        "both": lambda: search(filter_string=where, order_by=order),
    }


def check_same(ours: Any, theirs: Any) -> None:
    """Compare the metric by which both have sorted: the ids differ."""
    mine = [run.metrics["metric_7"] for run in ours]
    assert mine == [run.data.metrics["metric_7"] for run in theirs]
    assert len(mine) == BEST


def figures(store: Folder, search: Any) -> list[Figure]:
    theirs = asks_of_mlflow(search) if search is not None else {}
    found = []
    for name, ask in asks(store).items():
        question = f"`runs({name})` over {RUNS:,} runs"
        if name not in theirs:
            (own,) = take_turns(partial(seconds, ask), n=15)
            found.append(value(question, own))
            continue
        if name != "where":
            check_same(ask(), theirs[name]())
        other, own = take_turns(partial(seconds, theirs[name]), partial(seconds, ask), n=15)
        found += [
            value(question, own),
            compare(f"{question} / MLflow's, SQLite", other, own, limit=None),
        ]
    return found


def value(question: str, own: list[float]) -> Figure:
    return Figure(
        question=question, baseline=None, rayml=median(own), unit="s", compare="value",
        limit=0.05, n=len(own),
    )  # fmt: skip


def main() -> None:
    with scratch() as folder:
        made = make_runs()
        store = fill_store(folder / "store", made)
        first_s = seconds(lambda: rayml.runs(store=store))
        has_mlflow = importlib.util.find_spec("mlflow") is not None
        search = fill_mlflow(folder / "mlflow.db", made) if has_mlflow else None
        found = figures(store, search)
        assert not pd.DataFrame([1]).empty  # loaded before anything is timed
        table_s = seconds(lambda: rayml.runs(store=store).to_pandas())
        some = rayml.runs(store=store, limit=100)
        report(
            QUESTION,
            found,
            first_read_s=first_s,
            all_as_a_table_s=table_s,
            hundred_compared_s=seconds(some.compare),
        )


if __name__ == "__main__":
    main()
