"""What the journal says about each run: a pure fold over its records."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.artifacts.record import ArtifactRecord
    from rayml.spec import Spec
    from rayml.tracker.journal import Batch


@dataclass
class Columns:
    """Metric points in the order they were logged: equally long steps, Unix times, values."""

    step: array[int] = field(default_factory=lambda: array("q"))
    time: array[float] = field(default_factory=lambda: array("d"))
    value: array[float] = field(default_factory=lambda: array("d"))

    def extend(self, steps: list[int], times: list[float], values: list[float | str]) -> None:
        """Add points at the end."""
        self.step.extend(steps)
        self.time.extend(times)
        self.value.extend(map(float, values))


@dataclass
class RunRecord:
    """One run as the journal tells it; all times are Unix seconds."""

    spec: Spec
    state: str = "submitted"
    reason: str = ""
    attempt: int = 1
    params: dict[str, object] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, ArtifactRecord] = field(default_factory=dict)
    attempts: dict[str, dict[int, Columns]] = field(default_factory=dict)
    started: Started | None = None
    started_at: float | None = None
    ended_at: float | None = None
    cancel: CancelRequested | None = None
    problem: Problem | None = None
    result: Result | None = None

    @property
    def is_terminal(self) -> bool:
        """The run has ended and will never change again."""
        return self.state in TERMINAL

    def points(self, metric: str) -> list[tuple[int, float, float]]:
        """Return a metric's (step, time, value), by step.

        A later attempt goes on from where it restarted: its points take the place of the earlier
        attempts' from its own first step on.
        """
        kept: list[tuple[int, float, float]] = []
        for _, columns in sorted(self.attempts[metric].items()):
            first = min(columns.step)
            kept = [point for point in kept if point[0] < first]
            kept.extend(zip(columns.step, columns.time, columns.value, strict=True))
        return sorted(kept, key=lambda point: point[0])

    def last_values(self) -> Iterator[tuple[str, float]]:
        """Yield each metric's name and its value at the highest step."""
        for name, attempts in self.attempts.items():
            columns = attempts[max(attempts)]
            # The last of several points at the highest step, without sorting all of them.
            best = max(range(len(columns.step)), key=lambda i: (columns.step[i], i))
            yield name, columns.value[best]


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
    for name, columns in record.series.items():
        attempts = run.attempts.setdefault(name, {})
        attempts.setdefault(record.attempt, Columns()).extend(*columns)
