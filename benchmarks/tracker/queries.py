"""What does it cost to find runs among many, with 10 metrics and 10 params each?

A warm reader has read the store before, as in a notebook or a user interface. A cold one is a new
process, from its start to its end; it finds the runs in segments as the tracker wrote them, or in
tables as its compaction leaves them. If mlflow is installed, `search_runs` is asked the same of
the same runs in SQLite, which are put there directly; both answer with the 100 best.
"""

from __future__ import annotations

import importlib.util
import random
import sqlite3
import subprocess
import sys
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

import pandas as pd  # noqa: E402
from timing import Figure, alone, compare, report, scratch, seconds, take_turns  # noqa: E402
from tracker.whole_runs import encode_run  # noqa: E402

import rayml  # noqa: E402
from rayml.store.folder import Folder  # noqa: E402
from rayml.tracker.compaction import compact  # noqa: E402
from rayml.tracker.journal import Journal  # noqa: E402
from rayml.tracker.segments import Owner  # noqa: E402
from rayml.tracker.shards import ShardFold  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION = "What does it cost to find runs among many?"
RUNS, MANY_RUNS, NAMES, BEST = 10_000, 100_000, 10, 100
SHARD = "0" * 16
TIME = 1.8e9
WHERE = "metrics.metric_3 > 0.5 and params.param_4 = {}"
ORDER = "metrics.metric_7 {}"
COLD = f"""
import rayml
assert len(rayml.runs(
    where={WHERE.format(2)!r}, order_by={ORDER.format("desc")!r}, limit={BEST}, store=%r
)) == {BEST}
"""
COLD_MLFLOW = f"""
import mlflow
assert len(mlflow.MlflowClient(%r).search_runs(
    ["1"], {WHERE.format("'2'")!r}, order_by=[{ORDER.format("DESC")!r}], max_results={BEST}
)) == {BEST}
"""


def make_runs(count: int) -> list[tuple[str, dict[str, int], dict[str, float]]]:
    """Return each run's id, params and metrics."""
    numbers = random.Random(0)
    return [
        (
            f"{number:06d}-{uuid.UUID(int=numbers.getrandbits(128)).hex[:8]}",
            {f"param_{n}": numbers.randrange(4) for n in range(NAMES)},
            {f"metric_{n}": numbers.random() for n in range(NAMES)},
        )
        for number in range(count)
    ]


def fill_store(folder: Path, made: list[Any]) -> Folder:
    """Write the runs as a tracker does, a hundred at a time."""
    store = Folder(folder)
    journal = Journal(store, SHARD)
    journal.open(Owner(host="benchmark", boot="1", pid=1, started_at=0.0), ShardFold())
    batches = []
    for now, (run, params, metrics) in enumerate(made, int(TIME)):
        series = {name: ([0], [now], [value]) for name, value in metrics.items()}
        batches.append(encode_run(run, series, now, params=dict(params)))
    for start in range(0, len(made), 100):
        journal.append(batches[start : start + 100])
    return store


def fill_mlflow(file: Path, made: list[Any]) -> Callable[..., Any] | None:
    """Put the same runs into MLflow's tables, and return how to search there, if it is here."""
    if importlib.util.find_spec("mlflow") is None:
        return None
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
            found.append(alone(question, own, limit=0.05, unit="s"))
            continue
        if name != "where":
            check_same(ask(), theirs[name]())
        other, own = take_turns(partial(seconds, theirs[name]), partial(seconds, ask), n=15)
        found += [
            alone(question, own, limit=0.05, unit="s"),
            compare(f"{question} / MLflow's, SQLite", other, own, limit=None),
        ]
    return found


def cold(script: str, place: Path) -> float:
    """Return the seconds of a new process that finds runs in a folder or a file."""
    at = str(place) if place.is_dir() else f"sqlite:///{place}"
    command = [sys.executable, "-c", script % at]
    return seconds(lambda: subprocess.run(command, check=True, cwd=place.parent))


def cold_figures(count: int, folder: Path, *, limit: float, n: int) -> list[Figure]:
    """Return what a new process takes to find runs among so many that lie in a folder."""
    measures = [partial(cold, COLD, folder / "segments"), partial(cold, COLD, folder / "tables")]
    has_mlflow = (folder / "mlflow.db").exists()
    if has_mlflow:
        measures.append(partial(cold, COLD_MLFLOW, folder / "mlflow.db"))
    segments, tables, *theirs = take_turns(*measures, n=n)
    question = f"a new process finds runs among {count:,}"
    found = [
        alone(f"{question}, in segments", segments, limit=limit, unit="s"),
        alone(f"{question}, in tables", tables, limit=limit, unit="s"),
    ]
    if has_mlflow:
        found.append(compare(f"{question}, in tables / MLflow's", theirs[0], tables, limit=None))
    return found


def fill(folder: Path, count: int) -> tuple[Folder, Callable[..., Any] | None]:
    """Put so many runs into a store in segments, one in tables, and a database of MLflow's."""
    made = make_runs(count)
    folder.mkdir()
    store = fill_store(folder / "segments", made)
    compact(fill_store(folder / "tables", made), SHARD)
    return store, fill_mlflow(folder / "mlflow.db", made)


def main() -> None:
    with scratch() as folder:
        store, search = fill(folder / "some", RUNS)
        found = figures(store, search)
        assert not pd.DataFrame([1]).empty  # loaded before anything is timed
        table_s = seconds(lambda: rayml.runs(store=store).to_pandas())
        some = rayml.runs(store=store, limit=100)
        compared_s = seconds(some.compare)
        found += cold_figures(RUNS, folder / "some", limit=1, n=5)
        fill(folder / "many", MANY_RUNS)
        found += cold_figures(MANY_RUNS, folder / "many", limit=10, n=2)
        report(QUESTION, found, all_as_a_table_s=table_s, hundred_compared_s=compared_s)


if __name__ == "__main__":
    main()
