"""Times as they come: text, dates, with and without a zone."""

from __future__ import annotations

from difflib import get_close_matches
from zoneinfo import available_timezones

import numpy as np
import pandas as pd

import rayml


def check_zone(time_zone: str | None) -> None:
    """Raise SpecError if there is no such time zone."""
    if time_zone is None or time_zone in available_timezones():
        return
    near = get_close_matches(time_zone, available_timezones(), n=1)
    way_out = f"did you mean {near[0]!r}?" if near else "give such as 'Europe/Berlin'"
    raise rayml.SpecError(f"time_zone={time_zone!r} is no time zone; {way_out}")


def read_times(column: pd.Series, time_zone: str | None, warnings: list[str]) -> pd.Series:
    """Return the times of a column, missing where it holds none; in the zone, if one is wanted.

    Text is read as ISO 8601, or as pandas reads it, with a warning. Times of several offsets are
    in UTC.

    Raises:
        SpecError: It holds numbers, or no value that is a time.
    """
    if column.dtype.kind in "biuf":
        raise rayml.SpecError(
            f"time column {column.name!r} holds numbers; make times of them with "
            "pandas.to_datetime(…, unit='s')"
        )
    times = _parsed(column, warnings)
    if times.isna().all():
        seen = f"such as {column.dropna().iloc[0]!r}" if column.notna().any() else "none at all"
        raise rayml.SpecError(
            f"time column {column.name!r} holds no value that is a time, {seen}; give a column "
            "of times"
        )
    return times if time_zone is None else _in_zone(times, time_zone)


def _parsed(column: pd.Series, warnings: list[str]) -> pd.Series:
    if isinstance(column.dtype, pd.PeriodDtype):
        starts: pd.Series = column.dt.to_timestamp()
        return starts
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return column
    times = _read(column, "ISO8601")
    unread = column[times.isna() & column.notna()]
    if len(unread) and (mixed := _read(column, "mixed")).notna().sum() > times.notna().sum():
        warnings.append(
            f"Times such as {unread.iloc[0]!r} in {column.name!r} are not ISO 8601: they are read "
            "month first."
        )
        return mixed
    return times


def _read(column: pd.Series, form: str) -> pd.Series:
    try:
        times = pd.to_datetime(column, errors="coerce", format=form)
    except ValueError:  # of several offsets
        return pd.to_datetime(column, errors="coerce", format=form, utc=True)
    if pd.api.types.is_datetime64_any_dtype(times.dtype):
        return times
    return pd.to_datetime(column, errors="coerce", format=form, utc=True)


def _in_zone(times: pd.Series, time_zone: str) -> pd.Series:
    if times.dt.tz is not None:
        converted: pd.Series = times.dt.tz_convert(time_zone)
        return converted
    # Of an hour that clocks show twice, the first; one that they skip begins after the gap.
    is_first = np.ones(len(times), dtype=bool)
    local: pd.Series = times.dt.tz_localize(
        time_zone, ambiguous=is_first, nonexistent="shift_forward"
    )
    return local
