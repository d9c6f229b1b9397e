"""Live inputs: a table, or what an endpoint has kept, in windows of time."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import pandas as pd

import rayml

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEPT = "requests/"
# What `serve` adds to the rows that it keeps.
TIME = "predicted_at"
ADDED = (TIME, "version")


@dataclass(frozen=True)
class Window:
    """Rows of a window of time.

    Attributes:
        begin: Its first moment, in UTC; None where the rows have no times.
        end: Its last one.
    """

    rows: pd.DataFrame
    begin: pd.Timestamp | None = None
    end: pd.Timestamp | None = None

    def __str__(self) -> str:
        if self.begin is None or self.end is None:
            return f"{len(self.rows):,} rows"
        return f"{self.begin:%Y-%m-%d %H:%M:%S} – {self.end:%Y-%m-%d %H:%M:%S}"


class Kept:
    """What an endpoint keeps while it runs, as far as it has not been read.

    Attributes:
        id: Of its run.
        model: The URI of what it was given to serve.
    """

    def __init__(self, run: rayml.Run) -> None:
        self.id = run.id
        self.model = run.inputs["model"].uri
        self._run = run
        self._read: set[str] = set()

    @property
    def is_over(self) -> bool:
        """Whether nothing will be added any more."""
        return self._run.ended_at is not None

    def new(self) -> pd.DataFrame | None:
        """Return the rows that are new, or None."""
        names = [name for name in self._run.artifacts if name.startswith(_KEPT)]
        new = sorted(set(names) - self._read)
        self._read |= set(new)
        tables = [self._run.artifact(name).to_pandas() for name in new]
        return pd.concat(tables, ignore_index=True) if tables else None


def find_kept(endpoint: str, store: Any) -> Kept:  # noqa: ANN401
    """Return what an endpoint keeps.

    Raises:
        NotFound: There is no such run.
        SpecError: It serves nothing, or keeps nothing.
    """
    run = rayml.get_run(endpoint, store=store)
    if "model" not in run.inputs or "keep_rows" not in run.params:
        raise rayml.SpecError(f"run {run.id} ({run.name}) is none of hub://serve; give one")
    if not run.params["keep_rows"]:
        raise rayml.SpecError(
            f"run {run.id} keeps no requests; serve with keep_rows=1000, or give a table of them"
        )
    return Kept(run)


def windows(rows: pd.DataFrame, time: str | None, window_s: float | None) -> Iterator[Window]:
    """Yield rows in windows of time, the first one first; all in one where no length is given.

    Raises:
        SpecError: There is no such column, or it holds no times.
    """
    if time is None and window_s is None and TIME not in rows.columns:
        yield Window(rows)
        return
    moments = _moments(rows, time or TIME).dt.tz_localize(None)  # UTC
    if window_s is None:
        yield Window(rows, moments.min(), moments.max())
        return
    for _, part in rows.groupby(moments.dt.floor(pd.Timedelta(seconds=window_s))):
        inside = moments[part.index]
        yield Window(part, inside.min(), inside.max())


def _moments(rows: pd.DataFrame, time: str) -> pd.Series[pd.Timestamp]:
    if time not in rows.columns:
        near = get_close_matches(time, map(str, rows.columns), n=1) or [*rows.columns[:5]]
        raise rayml.SpecError(
            f"the table has no column {time!r} with times; is it {', '.join(map(str, near))}?"
        )
    if pd.api.types.is_numeric_dtype(rows[time]):
        raise rayml.SpecError(
            f"column {time!r} holds numbers and no times; name another one by time, or convert it "
            "by pandas.to_datetime"
        )
    try:
        moments = pd.to_datetime(rows[time], utc=True, format="ISO8601")
    except (ValueError, TypeError) as exc:
        raise rayml.SpecError(
            f"column {time!r} holds no times: {exc}; name another one by time"
        ) from exc
    if moments.isna().all():
        raise rayml.SpecError(f"column {time!r} is empty; name another one by time")
    return moments
