"""Metric points in columns, and what is known of them without looking at each."""

from __future__ import annotations

import math
import threading
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from rayml.errors import JournalCorrupt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Point: TypeAlias = tuple[int, float, float]
"""Step, Unix seconds, value."""

Source: TypeAlias = tuple[int, int]
"""Attempt and rank: who logged."""

Part: TypeAlias = msgspec.Raw | tuple[list[int], list[float], list[float | str]]
"""Steps, Unix times and values as the journal has them, encoded or not: see `records.Points`."""

Reduction: TypeAlias = Literal["mean", "sum", "min", "max"]
"""How what several ranks logged at a step becomes one value."""

_FEW, _FEW_BYTES = 16, 1024
_decoder = msgspec.json.Decoder(tuple[list[int], list[float], list[float | str]])
_reading = threading.Lock()


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


_REDUCTIONS: dict[Reduction, Callable[[list[float]], float]] = {
    "mean": _mean,
    "sum": sum,
    "min": min,
    "max": max,
}


@dataclass
class Columns:
    """Metric points in the order they were logged: equally long steps, Unix times, values."""

    step: array[int] = field(default_factory=lambda: array("q"))
    time: array[float] = field(default_factory=lambda: array("d"))
    value: array[float] = field(default_factory=lambda: array("d"))

    def add(self, step: int, time: float, value: float) -> None:
        """Add one point at the end."""
        self.step.append(step)
        self.time.append(time)
        self.value.append(value)

    def extend(
        self, steps: Iterable[int], times: Iterable[float], values: Iterable[float]
    ) -> None:
        """Add points at the end."""
        self.step.extend(steps)
        self.time.extend(times)
        self.value.extend(values)

    def points(self) -> list[Point]:
        """Return the points in the order they were logged."""
        return list(zip(self.step, self.time, self.value, strict=True))


class Summary(msgspec.Struct, frozen=True, gc=False):
    """What a metric's points amount to.

    Attributes:
        count: How many points.
        first_step: The lowest step.
        last_step: The highest step.
        last: The value at the highest step; of several, the one that was logged last.
        min: The lowest value; NaN only if there is no other.
        min_step: The lowest step that has it.
        max: The highest value; NaN only if there is no other.
        max_step: The lowest step that has it.
    """

    count: int
    first_step: int
    last_step: int
    last: float
    min: float
    min_step: int
    max: float
    max_step: int


def summarize(steps: Sequence[int], values: Sequence[float]) -> Summary:
    """Return the summary of at least one point."""
    if len(steps) == 1:  # a short run's metrics: most of what a store of many runs has to read
        (step,), (value,) = steps, values
        return Summary(1, step, step, value, value, step, value, step)
    first, last_step = min(steps), max(steps)
    numbers = values if not math.isnan(sum(values)) else _numbers(values)
    low, high = min(numbers), max(numbers)
    return Summary(
        count=len(steps),
        first_step=first,
        last_step=last_step,
        last=_last_at(steps, values, last_step),
        min=low,
        min_step=_first_with(steps, values, low),
        max=high,
        max_step=_first_with(steps, values, high),
    )


def _last_at(steps: Sequence[int], values: Sequence[float], step: int) -> float:
    # Mostly it is the very last one; else the last of several at that step.
    return next(values[i] for i in range(len(steps) - 1, -1, -1) if steps[i] == step)


def _numbers(values: Sequence[float]) -> Sequence[float]:
    return [value for value in values if not math.isnan(value)] or values


def _first_with(steps: Sequence[int], values: Sequence[float], value: float) -> int:
    if math.isnan(value):  # then all of them are
        return min(steps)
    return min(step for step, found in zip(steps, values, strict=True) if found == value)


class Series(msgspec.Struct, eq=False, gc=False):
    """One metric as one attempt's rank logged it.

    Most of what a store of many runs holds nobody looks at: points stay as they come, if they are
    few, until somebody does. Several threads may look while one adds.
    """

    _summary: Summary | None = None
    _columns: Columns | None = None
    _parts: list[Part] = []
    _summarized: int = 0

    @property
    def summary(self) -> Summary | None:
        """What all its points amount to, those in tables included."""
        if self._summarized < len(self._parts):
            with _reading:
                self._summarize()
        return self._summary

    @property
    def recent(self) -> Columns | None:
        """The points that are in no table yet, if there are any."""
        if self._parts:
            with _reading:
                self._settle()
        return self._columns

    def add(self, part: Part) -> None:
        """Add points at the end."""
        self._parts.append(part)
        if len(self._parts) > _FEW or _is_long(part):
            with _reading:
                self._settle()

    def _summarize(self) -> None:
        for part in self._parts[self._summarized :]:
            steps, _, values = _read(part)
            new = summarize(steps, values)
            self._summary = new if self._summary is None else merge(self._summary, new)
            self._summarized += 1

    def _settle(self) -> None:
        self._summarize()
        count, columns = self._summarized, self._columns or Columns()
        for part in self._parts[:count]:
            columns.extend(*_read(part))
        # In this order: whoever looks in between sees parts that wait, and waits for the lock.
        self._columns, self._summarized = columns, 0
        del self._parts[:count]


class Metrics(Mapping[str, dict[Source, Series]]):
    """A run's series by the metric's name, then by who logged them.

    What comes first stays as it is, which is all that short runs have, until somebody looks; see
    `Series`.
    """

    __slots__ = ("_first", "_found", "_read")

    def __init__(
        self,
        found: dict[str, msgspec.Raw] | None = None,
        read: Callable[[msgspec.Raw], dict[Source, Series]] | None = None,
    ) -> None:
        """Begin with what was found in tables, and how to read it."""
        self._found: dict[str, dict[Source, Series] | Part] = dict(found or {})
        self._read = read
        self._first: Source = (0, 0)

    def add(self, source: Source, parts: dict[str, Part]) -> None:
        """Add points by the metric's name; nobody else changes the dict afterwards."""
        if not self._found:
            self._first, self._found = source, parts  # type: ignore[assignment]
            self._read = None
            return
        for name, part in parts.items():
            sources = self[name] if name in self._found else {}
            series = sources.setdefault(source, Series())
            series.add(part)
            self._found[name] = sources

    def __getitem__(self, name: str) -> dict[Source, Series]:
        found = self._found[name]
        return found if isinstance(found, dict) else self._open(name)

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return repr(
            {
                name: {
                    source: (series.summary, series.recent) for source, series in sources.items()
                }
                for name, sources in self.items()
            }
        )

    def _open(self, name: str) -> dict[Source, Series]:
        with _reading:
            found = self._found[name]
            if not isinstance(found, dict):  # no other thread was faster
                found = self._read_first(found)
                self._found[name] = found
            return found

    def _read_first(self, found: Part) -> dict[Source, Series]:
        if self._read is not None and isinstance(found, msgspec.Raw):
            return self._read(found)
        return {self._first: Series(_parts=[found])}


def _is_long(part: Part) -> bool:
    if isinstance(part, msgspec.Raw):
        return memoryview(part).nbytes > _FEW_BYTES
    return len(part[0]) > _FEW


def _read(part: Part) -> tuple[list[int], list[float], list[float]]:
    try:
        steps, times, values = _decoder.decode(part) if isinstance(part, msgspec.Raw) else part
        return steps, times, list(map(float, values))
    except (msgspec.DecodeError, ValueError) as exc:
        raise JournalCorrupt(
            f"points of a metric in the journal are not numbers ({exc}); restore it from a copy "
            "of the store"
        ) from exc


def merge(older: Summary, newer: Summary) -> Summary:
    """Return the summary of two sets of points, of which the newer was logged later."""
    low = min(older, newer, key=lambda s: (_above_nan(s.min), s.min_step))
    high = min(older, newer, key=lambda s: (_above_nan(-s.max), s.max_step))
    last = newer if newer.last_step >= older.last_step else older
    return Summary(
        count=older.count + newer.count,
        first_step=min(older.first_step, newer.first_step),
        last_step=last.last_step,
        last=last.last,
        min=low.min,
        min_step=low.min_step,
        max=high.max,
        max_step=high.max_step,
    )


def _above_nan(value: float) -> tuple[bool, float]:
    """Return a key that sorts NaN behind all numbers."""
    return (True, 0.0) if math.isnan(value) else (False, value)


def supersede(attempts: Mapping[int, Sequence[Point]]) -> list[Point]:
    """Return the points of a metric that count, by step.

    A later attempt goes on from where it restarted: its points take the place of the earlier
    attempts' from its own first step on.

    Args:
        attempts: The points of each attempt, by its number.
    """
    kept: list[Point] = []
    for _, points in sorted(attempts.items()):
        first = min((point[0] for point in points), default=math.inf)
        kept = [point for point in kept if point[0] < first] + list(points)
    return sorted(kept, key=lambda point: point[0])


def reduce_ranks(ranks: Sequence[Sequence[Point]], how: Reduction) -> Sequence[Point]:
    """Return what several ranks logged of a metric as one point for each step.

    Of a rank's points at a step the last one counts; one rank's points stay as they are.

    >>> reduce_ranks([[(0, 1.0, 2.0), (1, 2.0, 4.0)], [(0, 1.5, 6.0)]], "mean")
    [(0, 1.5, 4.0), (1, 2.0, 4.0)]
    """
    if len(ranks) == 1:
        return ranks[0]
    steps: dict[int, dict[int, Point]] = {}
    for rank, points in enumerate(ranks):
        for point in points:
            steps.setdefault(point[0], {})[rank] = point
    function = _REDUCTIONS[how]
    return [
        (step, max(p[1] for p in found.values()), function([p[2] for p in found.values()]))
        for step, found in steps.items()
    ]
