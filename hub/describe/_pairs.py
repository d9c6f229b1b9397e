"""The second pass: counts and sums of pairs of columns, from which all associations follow.

Each column's values become at most 32 levels: quantiles of numbers and times, the most frequent
ones of text, and one for what is missing or infinite. What is counted is exact; parts add up.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ._profile import plain_numbers, plain_values, to_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._profile import Column

_LEVELS = 32
_PLACES = _LEVELS + 1  # the first one is of missing values
_BLOCK = 2**16  # rows whose levels stay in the CPU's cache
_RANGE = 2**20
_TINY = 1e-300
OTHER = "(other)"


@dataclass(frozen=True)
class Scale:
    """How a column's values become levels and numbers.

    Attributes:
        column: What the first pass has found.
        edges: Of numbers and times: the upper ends of all levels but the last.
        places: Of text: the level of each value that has one; of others it is the last.
        labels: Of the levels.
    """

    column: Column
    edges: np.ndarray
    places: dict[str, int]
    labels: list[str]

    @property
    def is_numeric(self) -> bool:
        """It has numbers to correlate."""
        return self.column.spread is not None

    @property
    def first(self) -> float:
        """The least number."""
        return float(self.column.spread.numbers[0]) if self.column.spread else 0.0


@dataclass(frozen=True)
class Plan:
    """Which pairs are looked at.

    Attributes:
        scales: Of the columns that are in some pair.
        levels: The columns of whose levels all pairs are counted.
        numbers: Those that are correlated.
        groups: Pairs of a column whose levels are groups, and one whose mean they may change.
    """

    scales: dict[str, Scale]
    levels: list[str]
    numbers: list[str]
    groups: list[tuple[str, str]]


@dataclass(frozen=True)
class Pairs:
    """What was counted; the order is that of the plan.

    Attributes:
        joint: Rows by the levels of two columns, of each pair.
        numbers: Sums of pairs of standardized numbers: products, the first ones, their squares,
            and how often both are there.
        ranks: The same of their ranks.
        groups: Of each group's levels: how many numbers, their sum, and that of their squares.
    """

    joint: np.ndarray
    numbers: np.ndarray
    ranks: np.ndarray
    groups: np.ndarray

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(
            self.joint + other.joint,
            self.numbers + other.numbers,
            self.ranks + other.ranks,
            self.groups + other.groups,
        )


def scale_of(column: Column) -> Scale | None:
    """Return the levels of a column; None of one that has no values to compare."""
    if column.spread is not None:
        edges, labels = _number_levels(column)
        return Scale(column, edges, {}, labels)
    if column.counts is None:
        return None
    top = [str(value) for value in column.counts.counts.index[:_LEVELS]]
    if column.distinct > _LEVELS:
        top = top[:-1]
    labels = [*top, OTHER] if column.distinct > len(top) else top
    return Scale(column, np.empty(0), {value: i + 1 for i, value in enumerate(top)}, labels)


def _number_levels(column: Column) -> tuple[np.ndarray, list[str]]:
    spread = column.spread
    if spread is None:
        return np.empty(0), []
    if spread.is_exact and len(spread.numbers) <= _LEVELS:
        return spread.numbers[:-1], [label(value, column.kind) for value in spread.numbers]
    shares = np.arange(1, _LEVELS) / _LEVELS
    found, counts = np.unique(spread.quantiles(shares), return_counts=True)
    # A value that fills a level has it alone.
    edges = np.union1d(found, np.nextafter(found[counts > 1], -np.inf))
    texts = [label(edge, column.kind) for edge in edges]
    inner = [high if high == low else f"{low} … {high}" for low, high in pairwise(texts)]
    first = f"< {texts[0]}" if texts[:1] == texts[1:2] else f"≤ {texts[0]}"
    return edges, [first, *inner, f"> {texts[-1]}"]


def label(value: float, kind: str) -> str:
    """Return a number, or a time in milliseconds, as people read it.

    >>> label(1e12, "time"), label(0.1234567, "number")
    ('2001-09-09 01:46', '0.1235')
    """
    if kind == "time":
        text = str(np.datetime64(round(value), "ms"))  # has no bounds, as pandas' times have
        return text[:16].replace("T", " ").removesuffix(" 00:00")
    if abs(value) < _TINY:
        return "0"  # the number before it is a tiny one
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def relate(tables: Iterable[pa.Table], plan: Plan) -> Pairs:
    """Count all pairs of a plan in all rows."""
    width, numbers = len(plan.levels), len(plan.numbers)
    joint = np.zeros((width * (width - 1) // 2, _PLACES, _PLACES), np.int64)
    sums = np.zeros((2, 4, numbers, numbers))
    groups = np.zeros((len(plan.groups), 3, _PLACES))
    finders = {name: _finder(scale) for name, scale in plan.scales.items()}
    with ThreadPoolExecutor(pa.cpu_count()) as threads:
        for table in tables:
            for start in range(0, table.num_rows, _BLOCK):
                block = table.slice(start, _BLOCK).select(list(plan.scales))
                levels = threads.map(_code, block.columns, plan.scales.values(), finders.values())
                coded = dict(zip(plan.scales, levels, strict=True))
                _count(coded, plan, joint)
                _sum_numbers(coded, plan, sums)
                _sum_groups(coded, plan, groups)
    return Pairs(joint, sums[0], sums[1], groups)


def _finder(scale: Scale) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None:
    """Return what finds the levels and standardized ranks of a column's finite numbers."""
    spread = scale.column.spread
    if spread is None:
        return None

    def search(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ranks = (spread.ranks(numbers) - 0.5) * np.sqrt(12)
        return np.searchsorted(scale.edges, numbers) + 1, ranks

    if not spread.is_exact:
        return search
    known = spread.numbers
    levels, ranks = search(known)
    low = float(known[0])
    if not (float(known[-1]) - low < _RANGE and (known % 1 == 0).all()):
        return lambda numbers: _take(np.searchsorted(known, numbers), levels, ranks)
    # Of whole numbers in a small range, a table says where each one is.
    places = np.zeros(int(known[-1] - low) + 1, np.int64)
    places[(known - low).astype(np.int64)] = np.arange(len(known))
    return lambda numbers: _take(places[(numbers - low).astype(np.int64)], levels, ranks)


def _take(
    places: np.ndarray, levels: np.ndarray, ranks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return levels[places], ranks[places]


@dataclass(frozen=True)
class _Coded:
    """One column of a block.

    Attributes:
        levels: Of each row.
        is_there: 1.0 where there is a finite number.
        numbers: Standardized; 0 where there is none.
        ranks: The same of its share of all.
    """

    levels: np.ndarray
    is_there: np.ndarray
    numbers: np.ndarray
    ranks: np.ndarray


def _code(array: pa.ChunkedArray, scale: Scale, find: Any) -> _Coded:  # noqa: ANN401 - of _finder
    if find is None:
        return _Coded(_text_levels(array, scale), *[np.empty(0)] * 3)
    values, is_missing = plain_numbers(array)
    numbers = values * to_ms(array)
    is_there = np.isfinite(numbers)
    if is_missing is not None:
        is_there &= ~is_missing
    mean, deviation = _center(scale)
    if is_there.all():
        levels, ranks = find(numbers)
        return _Coded(levels, np.ones(len(numbers)), (numbers - mean) / deviation, ranks)
    numbers = np.where(is_there, numbers, scale.first)
    levels, ranks = find(numbers)
    apart = np.where(is_there, (numbers - mean) / deviation, 0.0)
    ranks = np.where(is_there, ranks, 0.0)
    return _Coded(np.where(is_there, levels, 0), is_there.astype(float), apart, ranks)


def _text_levels(array: pa.ChunkedArray, scale: Scale) -> np.ndarray:
    codes, values = plain_values(array)
    other = len(scale.labels)
    levels = [scale.places.get(str(value), other) for value in values]
    found: np.ndarray = np.array([*levels, 0])[codes]
    return found


def _center(scale: Scale) -> tuple[float, float]:
    moments, spread = scale.column.moments, scale.column.spread
    if moments.count or spread is None:
        is_finite = np.isfinite(moments.mean) and np.isfinite(moments.deviation)
        return (moments.mean, moments.deviation or 1.0) if is_finite else (0.0, np.inf)
    mean = float(np.average(spread.numbers, weights=spread.weights))
    return mean, float(spread.numbers[-1] - spread.numbers[0]) or 1.0


def _count(coded: dict[str, _Coded], plan: Plan, joint: np.ndarray) -> None:
    firsts = {name: coded[name].levels * _PLACES for name in plan.levels}
    for place, (one, other) in enumerate(combinations(plan.levels, 2)):
        cells = np.bincount(firsts[one] + coded[other].levels, minlength=_PLACES**2)
        joint[place] += cells.reshape(_PLACES, _PLACES)


def _sum_numbers(coded: dict[str, _Coded], plan: Plan, sums: np.ndarray) -> None:
    if not plan.numbers:
        return
    is_there = np.stack([coded[name].is_there for name in plan.numbers])
    both = is_there @ is_there.T
    for total, values in zip(sums, ("numbers", "ranks"), strict=True):
        found = np.stack([getattr(coded[name], values) for name in plan.numbers])
        total += [found @ found.T, found @ is_there.T, found**2 @ is_there.T, both]


def _sum_groups(coded: dict[str, _Coded], plan: Plan, groups: np.ndarray) -> None:
    rows = {by: np.bincount(coded[by].levels, minlength=_PLACES) for by, _ in plan.groups}
    for place, (by, name) in enumerate(plan.groups):
        levels, column = coded[by].levels, coded[name]
        weights = column.numbers, column.numbers * column.numbers
        groups[place, 1:] += [np.bincount(levels, one, _PLACES) for one in weights]
        is_whole = column.is_there.all()
        there = rows[by] if is_whole else np.bincount(levels, column.is_there, _PLACES)
        groups[place, 0] += there
