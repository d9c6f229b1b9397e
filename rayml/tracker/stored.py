"""How a run is written down in checkpoints and tables: all but its points, in one line of JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rayml.artifacts.record import ArtifactRecord
from rayml.spec import Spec
from rayml.tracker.records import (
    CancelRequested,
    Problem,
    Reserved,
    Result,
    Started,
    plain_values,
)
from rayml.tracker.runs import RunRecord
from rayml.tracker.series import Metrics, Reduction, Series, Summary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rayml.tracker.runs import Stored
    from rayml.tracker.series import Source


class StoredSummary(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one attempt's rank logged of a metric; numbers that JSON lacks are text."""

    attempt: int
    rank: int
    count: int
    first_step: int
    last_step: int
    last: float | str
    min: float | str
    min_step: int
    max: float | str
    max_step: int


_summaries = msgspec.json.Decoder(list[StoredSummary])


class StoredRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A run without its points. `run` comes first, so that it can be read without the rest.

    Attributes:
        metrics: A list of `StoredSummary` for each; most of them nobody looks at.
    """

    run: str
    spec: Spec
    since: int
    state: str
    reason: str = ""
    attempt: int = 1
    params: dict[str, object] = {}
    long_params: dict[str, str] = {}
    labels: dict[str, str] = {}
    artifacts: list[ArtifactRecord] = []
    diff: str = ""
    started: Started | None = None
    others: dict[int, Started] = {}
    started_at: float | None = None
    ended_at: float | None = None
    cancel: CancelRequested | None = None
    problem: Problem | None = None
    result: Result | None = None
    held: Reserved | None = None
    worker_s: float = 0.0
    cpu_s: float = 0.0
    max_memory: int = 0
    metrics: dict[str, msgspec.Raw] = {}
    reductions: dict[str, Reduction] = {}


_SAME = (
    "spec", "since", "state", "reason", "attempt", "params", "long_params", "labels", "diff",
    "started", "others", "started_at", "ended_at", "cancel", "problem", "result", "held",
    "worker_s", "cpu_s", "max_memory", "reductions",
)  # fmt: skip


def store_run(record: RunRecord) -> StoredRun:
    """Return a run as it is written down."""
    return StoredRun(
        run=record.spec.run,
        artifacts=list(record.artifacts.values()),
        metrics={name: _store_metric(sources) for name, sources in record.series.items()},
        **{name: getattr(record, name) for name in _SAME},
    )


def encode_run(record: RunRecord) -> bytes:
    """Return the line of JSON that stands for a run in a table."""
    return msgspec.json.encode(store_run(record))


def load_run(stored: StoredRun, tables: Stored | None) -> RunRecord:
    """Return a run as it was written down, whose points lie in tables."""
    return RunRecord(
        artifacts={artifact.name: artifact for artifact in stored.artifacts},
        series=Metrics(stored.metrics, _load_metric),
        stored=tables,
        **{name: getattr(stored, name) for name in _SAME},
    )


def run_id_of(line: bytes) -> str:
    """Return the run that a line of JSON tells of, without reading the rest.

    >>> run_id_of(b'{"run":"r1","spec":{}}')
    'r1'
    """
    return line[8 : line.index(b'"', 8)].decode()


def _store_metric(sources: Mapping[Source, Series]) -> msgspec.Raw:
    summaries = [
        _store_summary(*source, series.summary)
        for source, series in sources.items()
        if series.summary is not None
    ]
    return msgspec.Raw(msgspec.json.encode(summaries))


def _load_metric(stored: msgspec.Raw) -> dict[Source, Series]:
    return {(s.attempt, s.rank): Series(_load_summary(s)) for s in _summaries.decode(stored)}


def _store_summary(attempt: int, rank: int, summary: Summary) -> StoredSummary:
    last, low, high = plain_values([summary.last, summary.min, summary.max])
    return StoredSummary(
        attempt, rank, summary.count, summary.first_step, summary.last_step,
        last, low, summary.min_step, high, summary.max_step,
    )  # fmt: skip


def _load_summary(stored: StoredSummary) -> Summary:
    return Summary(
        stored.count, stored.first_step, stored.last_step,
        float(stored.last), float(stored.min), stored.min_step, float(stored.max), stored.max_step,
    )  # fmt: skip
