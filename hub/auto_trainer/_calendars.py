"""Dates and times as numbers, by scikit-learn's own classes: a model of others needs trust."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import MinMaxScaler, OrdinalEncoder, SplineTransformer, StandardScaler

_DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%b %d, %Y")
_CLOCKS = ("", " %H:%M:%S", "T%H:%M:%S", "T%H:%M:%SZ", " %H:%M", "T%H:%M")
_FORMATS = tuple(day + clock for day, clock in product(_DAYS, _CLOCKS))
_SAMPLE = 2000
_READABLE = 0.98
# So far into the future a calendar of days or hours goes.
_YEARS_ON = 5
_HOURS_ON = 365 * 24
_MOST = 200_000
# What a missing time is when it is made a number.
_NO_TIME = float(np.iinfo(np.int64).min)
_DAY_S = 86_400
_PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True)
class Calendar:
    """How a column's values become numbers that grow with time.

    Attributes:
        day: How much the number grows in a day; 0 where it only tells the order.
        has_hours: It tells hours apart.
        texts: The texts of all days or hours, in order; None of a column of timestamps.
        format: Of the texts.
    """

    day: float
    has_hours: bool
    texts: np.ndarray | None = None
    format: str = ""

    @classmethod
    def of_type(cls, dtype: Any) -> Calendar:  # noqa: ANN401 - pandas has two kinds of types
        """Return that of a column of timestamps, which are numbers in the type's unit."""
        unit = dtype.unit if isinstance(dtype, pd.DatetimeTZDtype) else np.datetime_data(dtype)[0]
        return cls(float(_DAY_S * _PER_S[unit]), has_hours=True)

    def encoder(self) -> Pipeline:
        """Return what makes of the column its place in time, in the day, the week and the year."""
        parts: list[tuple[str, Any]] = [("time", MinMaxScaler())]
        if self.day:
            rounds = {"week": (7, 7), "year": (365.2425, 6)} | (
                {"day": (1, 8)} if self.has_hours else {}
            )
            parts += [(name, self._round(*length)) for name, length in rounds.items()]
        return Pipeline([*self._number(), ("parts", FeatureUnion(parts))])

    def _number(self) -> list[tuple[str, Any]]:
        if self.texts is None:
            number: Any = StandardScaler(with_mean=False, with_std=False)
            missing = _NO_TIME
        else:
            number = OrdinalEncoder(
                categories=[self.texts],
                handle_unknown="use_encoded_value",
                unknown_value=np.nan,
                encoded_missing_value=np.nan,
            )
            missing = np.nan
        return [
            ("number", number),
            ("missing", SimpleImputer(missing_values=missing, strategy="median")),
        ]

    def _round(self, days: float, knots: int) -> SplineTransformer:
        """Return what tells how near a time is to so many places on a clock of that length."""
        places = np.linspace(0, days * self.day, knots + 1).reshape(-1, 1)
        return SplineTransformer(knots=places, degree=1, extrapolation="periodic")


def read_calendar(texts: pd.Series) -> Calendar | None:
    """Return the calendar of a column of dates as text; None if they are none."""
    sample = texts.head(_SAMPLE)
    if not sample.str.contains(r"\d").all() or not sample.str.len().between(8, 25).all():
        return None
    for form in _FORMATS:
        read = pd.to_datetime(sample, format=form, errors="coerce")
        same = read.dt.strftime(form) == sample
        if same.mean() >= _READABLE:
            return _calendar(pd.to_datetime(texts, format=form, errors="coerce").dropna(), form)
    return None


def _calendar(times: pd.Series, form: str) -> Calendar:
    first, last = times.min().normalize(), times.max().normalize()
    step = 24.0 if "%H" in form else 1.0
    end = (
        last + pd.Timedelta(hours=_HOURS_ON) if step > 1 else last + pd.DateOffset(years=_YEARS_ON)
    )
    is_regular = bool((times == times.dt.floor("h")).all())
    moments = pd.DatetimeIndex([])
    if is_regular and (end - first).days * step <= _MOST:
        moments = pd.date_range(first, end, freq="h" if step > 1 else "D")
    else:
        step, moments = 0.0, pd.DatetimeIndex(times.sort_values().unique())
    return Calendar(step, step > 1, moments.strftime(form).to_numpy(dtype=str), form)
