"""Metric points in columns, and what is known of them without looking at each."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Point: TypeAlias = tuple[int, float, float]
"""Step, Unix seconds, value."""

Source: TypeAlias = tuple[int, int]
"""Attempt and rank: who logged."""


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


def supersede(attempts: Sequence[tuple[int, Sequence[Point]]]) -> list[Point]:
    """Return the points of a metric that count, by step.

    A later attempt goes on from where it restarted: its points take the place of the earlier
    attempts' from its own first step on.

    Args:
        attempts: Each attempt's number and points; an attempt may come several times, once for
            each rank.
    """
    kept: list[tuple[int, Point]] = []
    for attempt in sorted({number for number, _ in attempts}):
        points = [p for number, part in attempts if number == attempt for p in part]
        first = min(point[0] for point in points)
        kept = [(n, point) for n, point in kept if point[0] < first]
        kept.extend((attempt, point) for point in points)
    return sorted((point for _, point in kept), key=lambda point: point[0])
