"""What the journal says about each run: a pure fold over its records."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Protocol

from rayml.tracker.records import (
    TERMINAL,
    CancelRequested,
    Ended,
    Labels,
    Logged,
    Params,
    Points,
    Problem,
    Record,
    Result,
    Retrying,
    Started,
    Submitted,
    Waiting,
    decode_record,
)
from rayml.tracker.series import Columns, Summary, merge, summarize, supersede

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rayml.artifacts.record import ArtifactRecord
    from rayml.spec import Spec
    from rayml.tracker.changes import Edits
    from rayml.tracker.journal import Batch
    from rayml.tracker.series import Point, Source


class Stored(Protocol):
    """The points that lie in tables, so that nobody holds them in memory."""

    def load(self, run: str, metric: str) -> dict[Source, Columns]:
        """Return a metric's stored points by who logged them."""


@dataclass
class Series:
    """One metric as one attempt's rank logged it.

    Attributes:
        summary: Of all its points, those in tables included.
        recent: The points that are in no table yet.
    """

    summary: Summary | None = None
    recent: Columns = field(default_factory=Columns)

    def add(self, steps: list[int], times: list[float], values: list[float]) -> None:
        """Add points at the end."""
        new = summarize(steps, values)
        self.summary = new if self.summary is None else merge(self.summary, new)
        self.recent.extend(steps, times, values)


@dataclass
class RunRecord:
    """One run as the journal tells it; all times are Unix seconds.

    Attributes:
        edits: What people changed afterwards, where somebody has looked that up.
    """

    spec: Spec
    state: str = "submitted"
    reason: str = ""
    attempt: int = 1
    params: dict[str, object] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, ArtifactRecord] = field(default_factory=dict)
    started: Started | None = None
    started_at: float | None = None
    ended_at: float | None = None
    cancel: CancelRequested | None = None
    problem: Problem | None = None
    result: Result | None = None
    series: dict[str, dict[Source, Series]] = field(default_factory=dict)
    stored: Stored | None = None
    edits: Edits | None = None

    @property
    def is_terminal(self) -> bool:
        """The run has ended and will never change again."""
        return self.state in TERMINAL

    def points(self, metric: str) -> list[Point]:
        """Return a metric's points that count, by step: see `supersede`."""
        stored = self.stored.load(self.spec.run, metric) if self.stored else {}
        parts = [(source[0], columns.points()) for source, columns in stored.items()]
        parts += [(source[0], s.recent.points()) for source, s in self.series[metric].items()]
        return supersede([(attempt, points) for attempt, points in parts if points])

    def summary(self, metric: str) -> Summary:
        """Return what a metric's points that count amount to."""
        sources = sorted(self.series[metric].items())
        summaries = [(source[0], s.summary) for source, s in sources if s.summary]
        if _goes_on(summaries):
            return reduce(merge, (summary for _, summary in summaries))
        points = self.points(metric)
        return summarize([p[0] for p in points], [p[2] for p in points])

    def attribute(self, name: str) -> object:
        """Return what queries call by this name: see `query.ATTRIBUTES`."""
        return _ATTRIBUTES[name](self)

    def metric(self, name: str, summary: str) -> float | None:
        """Return the `last`, `min` or `max` of a metric; None if there is no such metric."""
        sources = self.series.get(name)
        if not sources:
            return None
        (first, *others) = sources.values()
        found = self.summary(name) if others or first.summary is None else first.summary
        value: float = getattr(found, summary)
        return value

    def columns(self, metric: str) -> list[tuple[Source, Columns]]:
        """Return all points of a metric by who logged them, superseded ones included."""
        stored = self.stored.load(self.spec.run, metric) if self.stored else {}
        recent = ((source, series.recent) for source, series in self.series[metric].items())
        return [(source, part) for source, part in (*stored.items(), *recent) if part.step]

    def last_values(self) -> Iterator[tuple[str, float]]:
        """Yield each metric's name and its value at the highest step."""
        for name in self.series:
            yield name, self.summary(name).last


def _duration_s(run: RunRecord) -> float | None:
    if run.started_at is None:
        return None
    end = run.ended_at if run.ended_at is not None else time.time()
    return max(0.0, end - run.started_at)


_ATTRIBUTES: dict[str, Callable[[RunRecord], object]] = {
    "id": lambda run: run.spec.run,
    "name": lambda run: run.spec.name,
    "experiment": lambda run: run.spec.experiment,
    "state": lambda run: run.state,
    "attempt": lambda run: run.attempt,
    "parent": lambda run: run.spec.parent,
    "user": lambda run: run.spec.origin.user,
    "notes": lambda run: run.edits.notes if run.edits else "",
    "archived": lambda run: run.edits is not None and run.edits.is_archived,
    "deleted": lambda run: run.edits is not None and run.edits.deleted_at is not None,
    "submitted_at": lambda run: run.spec.submitted_at,
    "started_at": lambda run: run.started_at,
    "ended_at": lambda run: run.ended_at,
    "duration_s": _duration_s,
}


def _goes_on(summaries: list[tuple[int, Summary]]) -> bool:
    """Tell whether no attempt went back behind where an earlier one had been."""
    reached: dict[int, int] = {}
    for attempt, summary in summaries:
        earlier = [step for other, step in reached.items() if other < attempt]
        if earlier and summary.first_step <= max(earlier):
            return False
        reached[attempt] = max(reached.get(attempt, summary.last_step), summary.last_step)
    return True


def apply(runs: dict[str, RunRecord], record: Record, *, keep_points: bool = True) -> None:
    """Fold one record into the runs it is about.

    Records about an unknown run, and all that follows a run's end, change nothing: replaying a
    journal twice, or one that was cut off, gives a valid state.
    """
    if isinstance(record, Submitted):
        runs.setdefault(record.run, _submitted(record))
        return
    run = runs.get(record.run)
    if run is None or run.is_terminal:
        return
    if isinstance(record, Points):
        if keep_points:
            _add_points(run, record)
    else:
        _change(run, record)


class Fold:
    """The runs that a sequence of batches tells of; a batch that comes twice counts once."""

    def __init__(self) -> None:
        self.runs: dict[str, RunRecord] = {}
        self._producers: dict[str, int] = {}

    def add(self, batch: Batch) -> None:
        """Fold one batch."""
        if batch.n <= self._producers.get(batch.producer, 0):
            return
        self._producers[batch.producer] = batch.n
        for raw in batch.records:
            if (record := decode_record(raw)) is not None:
                apply(self.runs, record)


def _submitted(record: Submitted) -> RunRecord:
    spec = record.spec
    return RunRecord(spec, params=dict(spec.params), labels=dict(spec.labels))


def _change(run: RunRecord, record: Record) -> None:  # noqa: C901 - one case per record
    match record:
        case Waiting() if run.started is not None and run.started.attempt >= record.attempt:
            pass  # whoever said so had not heard yet that the attempt began
        case Waiting():
            run.state, run.reason, run.attempt = "waiting", record.reason, record.attempt
        case Started():
            run.state, run.reason, run.attempt = "running", "", record.attempt
            run.started, run.started_at = record, run.started_at or record.time
        case Retrying():
            run.state, run.reason, run.attempt = "retrying", record.reason, record.attempt + 1
            run.problem = record.problem
        case Ended():
            run.state, run.reason, run.attempt = record.state, "", record.attempt
            run.problem, run.result, run.ended_at = record.problem, record.result, record.time
        case CancelRequested():
            run.cancel = record
        case Params():
            run.params |= record.params
        case Labels():
            run.labels |= record.labels
        case Logged():
            run.artifacts[record.artifact.name] = record.artifact


def _add_points(run: RunRecord, record: Points) -> None:
    for name, (steps, times, values) in record.series.items():
        sources = run.series.setdefault(name, {})
        series = sources.setdefault((record.attempt, record.rank), Series())
        series.add(steps, times, list(map(float, values)))
