"""Runs that have ended, as a tracker would have written them."""

from __future__ import annotations

from typing import Any

from rayml.tracker.records import Ended, Points, Started, Submitted
from rayml.tracker.segments import encode_batch
from tests.unit.journals import make_spec


def encode_run(run: str, series: dict[str, Any], now: float, **fields: object) -> bytes:
    """Return the batch of a run that was submitted at a moment; `fields` are those of its spec.

    Its series are steps, times and values, by name of the metric.
    """
    spec = make_spec(run, submitted_at=now, **fields)
    return encode_batch(
        run,
        1,
        Submitted(run=run, time=now, spec=spec),
        Started(run=run, time=now, attempt=1, node="", host="here", pid=1),
        Points(run=run, time=now, attempt=1, rank=0, series=series),
        Ended(run=run, time=now + 1, attempt=1, state="succeeded"),
    )
