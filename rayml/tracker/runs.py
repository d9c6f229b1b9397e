"""What the journal says about each run: a pure fold over its records."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Protocol

import msgspec

from rayml.errors import NotFound
from rayml.tracker.records import (
    TERMINAL,
    CancelRequested,
    Ended,
    Labels,
    Logged,
    Params,
    Points,
    Problem,
    Progress,
    ReadPoints,
    ReadRecord,
    Record,
    Released,
    Reserved,
    Result,
    Retrying,
    Started,
    Submitted,
    Used,
    Waiting,
    decode_record,
)
from rayml.tracker.series import Metrics, Reduction, merge, reduce_ranks, summarize, supersede

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping

    from rayml.artifacts.record import ArtifactRecord
    from rayml.spec import Spec
    from rayml.tracker.changes import Edits
    from rayml.tracker.segments import Batch
    from rayml.tracker.series import Columns, Point, Source, Summary


SYSTEM = "system/"
"""What the names of metrics begin with that tell of the machine and not of the job's own work."""


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """How far a producer's batches have come, and for which run."""

    n: int
    run: str


class Stored(Protocol):
    """The points that lie in tables, so that nobody holds them in memory."""

    def load(self, run: str, metric: str, since: int) -> dict[Source, Columns]:
        """Return a metric's stored points by who logged them; none lie before segment `since`.

        Raises:
            NotFound: They have been moved; renew the run.
        """

    def renew(self, run: RunRecord) -> None:
        """Let a run know where its points lie now."""


@dataclass(slots=True)
class RunRecord:
    """One run as the journal tells it; all times are Unix seconds.

    Attributes:
        since: The segment with which it began.
        params: By name; long ones are cut.
        long_params: Digests of the blobs that hold those whole, by name.
        held: The workers that it holds, if it holds any.
        started: The first rank of the newest attempt that began.
        others: The attempt's other ranks.
        worker_s: Seconds for which it held workers, summed over them, up to those it holds now.
        cpu_s: Seconds of CPU that its ended attempts have taken, on all ranks.
        max_memory: The most resident bytes that one of their processes had; 0 if nobody knows.
        reductions: How several ranks' values of a metric become one, where that is not their mean.
        stored: Where its older points lie, if they are not here.
        edits: What people changed afterwards, where somebody has looked that up.
    """

    spec: Spec
    since: int = 0
    state: str = "submitted"
    reason: str = ""
    attempt: int = 1
    params: dict[str, object] = field(default_factory=dict)
    long_params: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, ArtifactRecord] = field(default_factory=dict)
    started: Started | None = None
    others: dict[int, Started] = field(default_factory=dict)
    started_at: float | None = None
    ended_at: float | None = None
    cancel: CancelRequested | None = None
    problem: Problem | None = None
    result: Result | None = None
    held: Reserved | None = None
    worker_s: float = 0.0
    cpu_s: float = 0.0
    max_memory: int = 0
    series: Metrics = field(default_factory=Metrics)
    reductions: dict[str, Reduction] = field(default_factory=dict)
    stored: Stored | None = None
    edits: Edits | None = None

    @property
    def is_terminal(self) -> bool:
        """The run has ended and will never change again."""
        return self.state in TERMINAL

    def held_s(self, now: float) -> float:
        """Return for how long it has held the workers that it holds, summed over them."""
        return max(0.0, now - self.held.time) * len(self.held.workers) if self.held else 0.0

    @property
    def ranks(self) -> list[Started]:
        """What began of the newest attempt that did: a job without an engine has one rank."""
        return [] if self.started is None else [self.started, *self.others.values()]

    def points(self, metric: str, rank: int | None = None) -> list[Point]:
        """Return a metric's points that count, by step: see `supersede` and `reduce_ranks`.

        Args:
            metric: Its name.
            rank: Who logged them; by default all ranks' become one.
        """
        attempts: dict[int, dict[int, list[Point]]] = {}
        for (attempt, found), part in self.columns(metric):
            if rank in (None, found):
                attempts.setdefault(attempt, {}).setdefault(found, []).extend(part.points())
        how = self.reductions.get(metric, "mean")
        return supersede(
            {
                n: reduce_ranks([ranks[r] for r in sorted(ranks)], how)
                for n, ranks in attempts.items()
            }
        )

    def _load(self, metric: str) -> dict[Source, Columns]:
        if self.stored is None:
            return {}
        try:
            return self.stored.load(self.spec.run, metric, self.since)
        except NotFound:
            self.stored.renew(self)
            return self.stored.load(self.spec.run, metric, self.since)

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
        try:
            (first, *others) = self.series[name].values()
        except KeyError:
            return None
        found = self.summary(name) if others or first.summary is None else first.summary
        value: float = getattr(found, summary)
        return value

    def columns(self, metric: str) -> list[tuple[Source, Columns]]:
        """Return all points of a metric by who logged them, superseded ones included."""
        stored = self._load(metric)
        recent = ((source, series.recent) for source, series in self.series[metric].items())
        return [(source, part) for source, part in (*stored.items(), *recent) if part]

    def course(self, metric: str) -> list[Point]:
        """Return the newest attempt's points that are at hand, by step, all ranks' as one."""
        newest = max(attempt for attempt, _ in self.series[metric])
        ranks = [
            series.recent.points()
            for (attempt, _), series in sorted(self.series[metric].items())
            if attempt == newest and series.recent
        ]
        how = self.reductions.get(metric, "mean")
        return sorted(reduce_ranks(ranks, how)) if ranks else []

    @property
    def own_metrics(self) -> list[str]:
        """The names of the metrics that tell of the job's work, not of its machine."""
        return [name for name in self.series if not name.startswith(SYSTEM)]

    def last_values(self) -> Iterator[tuple[str, float]]:
        """Yield each of those metrics' name and its value at the highest step."""
        for name in self.own_metrics:
            yield name, self.summary(name).last

    def system_values(self) -> Iterator[tuple[str, Summary]]:
        """Yield the other metrics' names, without what they begin with, and their summaries."""
        for name in self.series:
            if name.startswith(SYSTEM):
                yield name.removeprefix(SYSTEM), self.summary(name)


def _duration_s(run: RunRecord) -> float | None:
    if run.started_at is None:
        return None
    end = run.ended_at if run.ended_at is not None else time.time()
    return max(0.0, end - run.started_at)


def _worker_s(run: RunRecord) -> float:
    return run.worker_s + run.held_s(time.time())


_ATTRIBUTES: dict[str, Callable[[RunRecord], object]] = {
    "id": lambda run: run.spec.run,
    "name": lambda run: run.spec.name,
    "experiment": lambda run: run.spec.experiment,
    "state": lambda run: run.state,
    "attempt": lambda run: run.attempt,
    "parent": lambda run: run.spec.parent,
    "rerun_of": lambda run: run.spec.rerun_of,
    "user": lambda run: run.spec.origin.user,
    "notes": lambda run: run.edits.notes if run.edits else "",
    "archived": lambda run: run.edits is not None and run.edits.is_archived,
    "deleted": lambda run: run.edits is not None and run.edits.deleted_at is not None,
    "submitted_at": lambda run: run.spec.submitted_at,
    "started_at": lambda run: run.started_at,
    "ended_at": lambda run: run.ended_at,
    "duration_s": _duration_s,
    "worker_s": _worker_s,
    "cpu_s": lambda run: run.cpu_s,
    "max_memory": lambda run: run.max_memory,
}


def _goes_on(summaries: list[tuple[int, Summary]]) -> bool:
    """Tell whether each attempt has one rank and begins behind all that earlier ones reached."""
    before, reached = 0, -math.inf
    for attempt, summary in summaries:
        if attempt == before or summary.first_step <= reached:
            return False
        before, reached = attempt, max(reached, summary.last_step)
    return True


def end_of(run: RunRecord, problem: Problem) -> Ended:
    """Return the end of a run that somebody else has to record, for this reason."""
    return Ended(
        run=run.spec.run,
        time=time.time(),
        attempt=run.attempt,
        state="cancelled" if run.cancel is not None else "failed",
        problem=problem,
    )


def apply(runs: MutableMapping[str, RunRecord], record: Record | ReadRecord, seq: int = 0) -> None:
    """Fold one record, of this segment, into the run it is about.

    Records about an unknown run, and all that follows a run's end, change nothing: replaying a
    journal twice, or one that was cut off, gives a valid state.
    """
    if isinstance(record, Submitted):
        if record.run not in runs:
            runs[record.run] = new_run(record.spec, seq)
        return
    run = runs.get(record.run)
    if run is None or run.is_terminal:
        return
    if isinstance(record, Points | ReadPoints):
        run.series.add((record.attempt, record.rank), dict(record.series))
        if record.reductions:
            run.reductions = run.reductions | record.reductions
    else:
        _change(run, record)


class Fold:
    """The runs that a sequence of batches tells of; a batch that comes twice counts once.

    Attributes:
        runs: By id; also those that others fold.
        producers: How far each producer has come, and for which run.
    """

    def __init__(self, runs: MutableMapping[str, RunRecord] | None = None) -> None:
        self.runs: MutableMapping[str, RunRecord] = {} if runs is None else runs
        self.producers: dict[str, Sent] = {}

    def add(self, batch: Batch, seq: int = 0) -> None:
        """Fold one batch, of this segment."""
        if is_repeated(self.producers, batch):
            return
        self.producers[batch.producer] = Sent(batch.n, batch.run)
        for raw in batch.records:
            if (record := decode_record(raw)) is not None:
                apply(self.runs, record, seq)


def is_repeated(producers: Mapping[str, Sent], batch: Batch) -> bool:
    """Tell whether a batch has been folded before."""
    sent = producers.get(batch.producer)
    return sent is not None and batch.n <= sent.n


def new_run(spec: Spec, since: int = 0) -> RunRecord:
    """Return a run of which nothing is known but what was submitted."""
    return RunRecord(
        spec,
        since=since,
        params=dict(spec.params),
        long_params=dict(spec.long_params),
        labels=dict(spec.labels),
    )


def _change(run: RunRecord, record: Record | ReadRecord) -> None:  # noqa: C901, PLR0912 - one case per record
    match record:
        case Waiting() if run.started is not None and run.started.attempt >= record.attempt:
            pass  # whoever said so had not heard yet that the attempt began
        case Waiting():
            run.state, run.reason, run.attempt = "waiting", record.reason, record.attempt
        case Started() if run.started is not None and run.started.attempt == record.attempt:
            run.others = run.others | {record.rank: record}
        case Started():
            run.others = {}
            run.state, run.reason, run.attempt = "running", "", record.attempt
            run.started, run.started_at = record, run.started_at or record.time
        case Progress():
            run.reason = record.text if run.state == "running" else run.reason
        case Reserved():
            _give_back(run, record.time)
            run.held = record
        case Released():
            _give_back(run, record.time)
        case Retrying():
            run.state, run.reason, run.attempt = "retrying", record.reason, record.attempt + 1
            run.problem = record.problem
        case Used():
            run.cpu_s += record.cpu_s
            run.max_memory = max(run.max_memory, record.max_memory)
        case Ended():
            _give_back(run, record.time)
            run.state, run.reason, run.attempt = record.state, "", record.attempt
            run.problem, run.result, run.ended_at = record.problem, record.result, record.time
        case CancelRequested():
            run.cancel = record
        case Params():
            run.params |= record.params
            known = {n: d for n, d in run.long_params.items() if n not in record.params}
            run.long_params = known | record.long
        case Labels():
            run.labels |= record.labels
        case Logged():
            run.artifacts[record.artifact.name] = record.artifact


def _give_back(run: RunRecord, now: float) -> None:
    """Count what the workers that a run holds have cost; it holds none then."""
    run.worker_s += run.held_s(now)
    run.held = None
