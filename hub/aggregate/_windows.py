"""What each row's window holds: rows by their places in a table sorted by group and time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pandas.api.indexers import BaseIndexer

import rayml

if TYPE_CHECKING:
    from collections.abc import Iterator

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")
_DAYS = re.compile(r"(?<=\d)\s*d(?![a-z])")
_ROLLED = ("mean", "sum", "min", "max", "std", "median", "count")
_KNOWN = (*_ROLLED, "p95", "lag", "difference")


@dataclass(frozen=True)
class Window:
    """How far back a row looks.

    Attributes:
        text: As it is called in the columns' names.
        rows: So many rows; 0 if it is a time.
        span: So long; None if it is a number of rows.
    """

    text: str
    rows: int = 0
    span: pd.Timedelta | None = None


class Bounds(BaseIndexer):
    """Tells pandas which rows each window has, from `start` to before `end`."""

    start: np.ndarray
    end: np.ndarray

    def get_window_bounds(
        self,
        num_values: int = 0,  # noqa: ARG002 - pandas asks for these
        min_periods: int | None = None,  # noqa: ARG002 - pandas asks for these
        center: bool | None = None,  # noqa: ARG002, FBT001
        closed: str | None = None,  # noqa: ARG002 - pandas asks for these
        step: int | None = None,  # noqa: ARG002 - pandas asks for these
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds as they were given."""
        return self.start, self.end


def parse_window(given: str | int) -> Window:
    """Return the window that a text such as "7d" or a number of rows means.

    Raises:
        SpecError: It is neither, or not longer than nothing.
    """
    if isinstance(given, int) or str(given).isdecimal():
        rows = int(given)
        if isinstance(given, bool) or rows < 1:
            raise rayml.SpecError(f"window {given!r} holds no rows; give 1 or more")
        return Window(f"{rows}rows", rows=rows)
    try:
        has_unit = any(map(str.isalpha, str(given)))
        span = pd.Timedelta(with_days(str(given)) if has_unit else "no time")
    except ValueError as exc:
        raise rayml.SpecError(
            f"window {given!r} is no length of time; give such as '90min', '1h' or '7d', or a "
            "number of rows"
        ) from exc
    if not span > pd.Timedelta(0):
        raise rayml.SpecError(f"window {given!r} is not longer than nothing; give such as '1h'")
    return Window(str(given).replace(" ", ""), span=span)


def with_days(text: str) -> str:
    """Return a length of time with days as pandas wants them: `7D`, where people write `7d`."""
    return _DAYS.sub("D", text)


def check_aggregations(names: list[str]) -> None:
    """Raise SpecError for one that there is not."""
    for name in names:
        if name not in _KNOWN and not _PERCENTILE.fullmatch(name):
            raise rayml.SpecError(
                f"there is no aggregation {name!r}; known: {', '.join(_KNOWN)} and any other "
                "percentile"
            )


class Series:
    """A table sorted by group and time, of which windows are asked for.

    Args:
        groups: A number for each row, which rises.
        times: Rising within a group.
        sees_itself: A row's windows end with it, and not with the last row of an earlier time.
    """

    def __init__(self, groups: np.ndarray, times: np.ndarray, *, sees_itself: bool) -> None:
        self._times = times
        self._sees_itself = sees_itself
        edges = [0, *(np.flatnonzero(np.diff(groups)) + 1), len(groups)]
        self._parts = list(pairwise(edges))
        self._first = np.repeat(edges[:-1], np.diff(edges))
        self._seen = self._search(times, "right" if sees_itself else "left")

    def aggregate(self, values: pd.Series, name: str, window: Window, min_rows: int) -> np.ndarray:
        """Return one aggregation of each row's window; NaN where it holds too few values."""
        if name == "lag":
            return self._taken(values.to_numpy(), self._lagged(window))
        if name == "difference":
            return self._difference(values.to_numpy(), window)
        start, end = self._bounds(window)
        bounds = Bounds(start=start, end=end)
        if name == "count":
            there = values.notna().astype(float)
            return there.rolling(bounds, min_periods=0).sum().to_numpy()
        rolling = values.rolling(bounds, min_periods=min_rows)
        if (percentile := _PERCENTILE.fullmatch(name)) is not None:
            return rolling.quantile(float(percentile[1]) / 100).to_numpy()
        found: np.ndarray = getattr(rolling, name)().to_numpy()
        return found

    def _bounds(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        end = self._ends(window)
        if window.span is None:
            return np.maximum(self._first, end - window.rows), end
        side = "right" if self._sees_itself else "left"
        return self._search(self._before(window.span), side), end

    def _ends(self, window: Window) -> np.ndarray:
        """Return before which place a window ends; rows of one time count one by one."""
        is_counted = window.span is None and self._sees_itself
        return np.arange(1, len(self._times) + 1) if is_counted else self._seen

    def _lagged(self, window: Window) -> np.ndarray:
        """Return the place of the row a window before; -1 if there is none."""
        if window.span is not None:
            places = self._search(self._before(window.span), "right") - 1
        elif self._sees_itself:
            places = np.arange(len(self._times)) - window.rows
        else:
            places = self._seen - window.rows
        return np.where(places >= self._first, places, -1)

    def _difference(self, values: np.ndarray, window: Window) -> np.ndarray:
        """Return how much the newest value that a row sees has changed within the window."""
        if window.span is not None:
            before = self._lagged(window)
        else:
            before = np.arange(len(values)) - window.rows
            before = np.where(before >= self._first, before, -1)
        changed: np.ndarray = values - self._taken(values, before)
        if self._sees_itself:
            return changed
        newest = self._seen - 1
        return self._taken(changed, np.where(newest >= self._first, newest, -1))

    def _before(self, span: pd.Timedelta) -> np.ndarray:
        before: np.ndarray = self._times - span.to_timedelta64().astype("timedelta64[ns]")
        return before

    def _search(self, wanted: np.ndarray, side: str) -> np.ndarray:
        """Return each row's place for a time among those of its own group."""
        found = [
            first + np.searchsorted(self._times[first:end], wanted[first:end], side=side)  # type: ignore[call-overload]
            for first, end in self._parts
        ]
        places: np.ndarray = np.concatenate(found).astype(np.int64)
        return places

    @staticmethod
    def _taken(values: np.ndarray, places: np.ndarray) -> np.ndarray:
        taken: np.ndarray = np.where(places >= 0, values[np.maximum(places, 0)], np.nan)
        return taken


def wanted(
    metrics: list[str], aggregations: list[str], windows: list[Window]
) -> Iterator[tuple[str, str, str, Window]]:
    """Yield each column to make: its name, the metric's, the aggregation's, and the window."""
    for metric in metrics:
        for window in windows:
            for name in aggregations:
                yield f"{metric}_{name}_{window.text}", metric, name, window
