"""How many short runs a second do four processes record, each begun, logged to, and ended?

A run is a `start_run` with ten metrics, as a search over parameters makes thousands of. Each is
durable when its block ends; whoever opens the store afterwards must find all of them succeeded.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from timing import alone, report, scratch, take_turns  # noqa: E402
from tracker.places import fresh  # noqa: E402

import rayml  # noqa: E402
from rayml.store.folder import Folder  # noqa: E402
from rayml.tracker.reader import Reader  # noqa: E402

QUESTION = "How many short runs a second do four processes record?"
PROCESSES, RUNS, METRICS = 4, 1000, 10
ROUNDS = 5


def record(store: str, runs: int) -> None:
    """Record runs in this process, once it is told to; print when it began and ended."""
    metrics = {f"metric_{number}": 0.37 * number for number in range(METRICS)}
    with rayml.start_run(store=store):
        pass  # loads what has to be loaded
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.time()
    for number in range(runs):
        with rayml.start_run("trial", params={"number": number}, store=store) as context:
            context.log_metrics(metrics, 0)
    print(began, time.time(), flush=True)


def rate(folder: Path) -> float:
    """Return runs a second, into a fresh store."""
    store = Folder(Path(fresh(folder)))
    command = [sys.executable, str(HERE), store.uri, str(RUNS // PROCESSES)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    spans = [tuple(map(float, process.communicate()[0].split())) for process in processes]
    check(store)
    return RUNS / (max(ended for _, ended in spans) - min(began for began, _ in spans))


def check(store: Folder) -> None:
    reader = Reader(store)
    reader.refresh()
    assert Counter(run.state for run in reader.runs.values()) == {"succeeded": RUNS + PROCESSES}
    trials = [run for run in reader.runs.values() if run.spec.name == "trial"]
    assert all(len(run.series) == METRICS for run in trials)


def main() -> None:
    if len(sys.argv) > 1:
        record(sys.argv[1], int(sys.argv[2]))
        return
    with scratch() as folder:
        (rates,) = take_turns(partial(rate, folder), n=ROUNDS)
    question = f"{RUNS:,} runs with {METRICS} metrics, by {PROCESSES} processes, to local disk"
    report(
        QUESTION,
        [alone(question, rates, "rate", limit=500, unit="runs/s")],
        slowest=min(rates),
        load=os.getloadavg()[0],
    )


if __name__ == "__main__":
    main()
