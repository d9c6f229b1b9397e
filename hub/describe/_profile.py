"""The first pass: what each column holds, and which rows are there twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

import rayml

from ._sketches import Counts, Different, Spread, runs

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROW_HASHES = 2**20
_EXACT_VALUES = 2**24  # of all columns of a table that is in memory; beyond, quantiles are near
_PART_VALUES = 8192  # of one column of a part
_PREVIEW_ROWS = 10
_MISSING = np.uint64(0x9E3779B97F4A7C15)
_ODD = np.uint64(0xBF58476D1CE4E5B9)
_WIDE = 1e150  # a variance whose square is no number any more
_TO_MS = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6, "day": 86_400_000.0}


@dataclass(frozen=True)
class Moments:
    """Sums of powers of the distances from the mean, of finite numbers; they add up."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    m3: float = 0.0
    m4: float = 0.0

    @classmethod
    def of(cls, numbers: np.ndarray) -> Moments:
        """Take finite numbers."""
        if not len(numbers):
            return cls()
        with np.errstate(over="ignore", invalid="ignore"):  # of numbers beyond 1e77
            mean = float(numbers.mean())
            apart = numbers - mean
            squares = apart * apart
            powers = squares.sum(), np.dot(squares, apart), np.dot(squares, squares)
        return cls(len(numbers), mean, *map(float, powers))

    def __add__(self, other: Moments) -> Moments:
        if not self.count or not other.count:
            return self if self.count else other
        first, second = self.count, other.count
        count = first + second
        apart = other.mean - self.mean
        share = apart / count
        m2 = self.m2 + other.m2 + apart * share * first * second
        m3 = self.m3 + other.m3 + apart * share**2 * first * second * (first - second)
        m3 += 3 * share * (first * other.m2 - second * self.m2)
        m4 = self.m4 + other.m4
        m4 += apart * share**3 * first * second * (first**2 - first * second + second**2)
        m4 += 6 * share**2 * (first**2 * other.m2 + second**2 * self.m2)
        m4 += 4 * share * (first * other.m3 - second * self.m3)
        return Moments(count, self.mean + share * second, m2, m3, m4)

    @property
    def deviation(self) -> float:
        """The standard deviation, of a sample."""
        return float(np.sqrt(self.m2 / (self.count - 1))) if self.count > 1 else 0.0

    @property
    def skewness(self) -> float:
        """The third standardized moment; 0 of what does not vary, or too much to tell."""
        spread = self.m2 / self.count if self.count else 0.0
        return self.m3 / self.count / spread**1.5 if 0 < spread < _WIDE else 0.0

    @property
    def kurtosis(self) -> float:
        """The fourth standardized moment, 0 of a normal distribution."""
        spread = self.m2 / self.count if self.count else 0.0
        return self.m4 / self.count / spread**2 - 3 if 0 < spread < _WIDE else 0.0


@dataclass(frozen=True)
class Text:
    """What text looks like; of several parts it adds up.

    Attributes:
        empty: Values without a character.
        padded: Values with white space at an end.
        shortest: Characters of the shortest.
        longest: Characters of the longest.
        characters: Of all together.
    """

    empty: int
    padded: int
    shortest: int
    longest: int
    characters: int

    def __add__(self, other: Text) -> Text:
        return Text(
            self.empty + other.empty,
            self.padded + other.padded,
            min(self.shortest, other.shortest),
            max(self.longest, other.longest),
            self.characters + other.characters,
        )


@dataclass(frozen=True)
class Column:
    """What one column holds.

    Attributes:
        kind: `"number"`, `"time"`, `"text"`, `"boolean"`, `"empty"` or `"other"`.
        type: Arrow's name of its type.
        rows: All of them.
        missing: Rows without a value, NaN included.
        mark: The same for columns with the same values in the same rows.
        infinite: Numbers that are.
        zeros: Numbers that are 0.
        negative: Numbers below 0.
        moments: Of finite numbers.
        spread: Of finite numbers, and of times in milliseconds since 1970.
        different: How many different values there are.
        counts: Of text, and of booleans as `"true"` and `"false"`.
        text: How text looks.
    """

    kind: str
    type: str
    rows: int
    missing: int
    mark: int = 0
    infinite: int = 0
    zeros: int = 0
    negative: int = 0
    moments: Moments = field(default_factory=Moments)
    spread: Spread | None = None
    different: Different | None = None
    counts: Counts | None = None
    text: Text | None = None

    def __add__(self, other: Column) -> Column:
        kinds = {self.kind, other.kind} - {"empty"}
        if len(kinds) > 1:
            raise rayml.SpecError(
                f"a column is {self.type} in one part of the table and {other.type} in another; "
                "write it with one type"
            )
        told = self if self.kind != "empty" else other
        return Column(
            kind=told.kind,
            type=told.type,
            rows=self.rows + other.rows,
            missing=self.missing + other.missing,
            mark=(self.mark + other.mark) % 2**64,
            infinite=self.infinite + other.infinite,
            zeros=self.zeros + other.zeros,
            negative=self.negative + other.negative,
            moments=self.moments + other.moments,
            spread=_both(self.spread, other.spread),
            different=_both(self.different, other.different),
            counts=_both(self.counts, other.counts),
            text=_both(self.text, other.text),
        )

    @property
    def present(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing

    @property
    def distinct(self) -> int:
        """How many different values there are."""
        return self.different.count if self.different else 0

    @property
    def is_exact(self) -> bool:
        """Nothing that is told of it is estimated."""
        is_known = self.different is None or self.different.known is not None
        is_whole = self.spread is None or self.spread.is_exact
        return is_known and is_whole and (self.counts is None or self.counts.short == 0)


def _both(one: Any, other: Any) -> Any:  # noqa: ANN401
    return one + other if one is not None and other is not None else one or other


@dataclass(frozen=True)
class Profile:
    """What a table holds; those of parts add up to the whole's.

    Attributes:
        rows: How many.
        bytes: Of their values in Arrow's memory.
        columns: By name.
        different: How many different rows there are.
        preview: The first rows.
    """

    rows: int
    bytes: int
    columns: dict[str, Column]
    different: Different
    preview: pa.Table

    def __add__(self, other: Profile) -> Profile:
        names = dict.fromkeys([*self.columns, *other.columns])
        if len(names) > min(len(self.columns), len(other.columns)):
            raise rayml.SpecError(
                "the parts of the table have different columns; write them with the same ones"
            )
        return Profile(
            rows=self.rows + other.rows,
            bytes=self.bytes + other.bytes,
            columns={name: self.columns[name] + other.columns[name] for name in names},
            different=self.different + other.different,
            preview=self.preview if self.preview.num_rows else other.preview,
        )

    @property
    def repeated(self) -> int:
        """How many rows are there before."""
        return self.rows - self.different.count


def profile(tables: Iterable[pa.Table], *, is_whole: bool) -> Profile:
    """Describe all columns of all rows.

    Args:
        tables: The rows.
        is_whole: There is one table, which is the whole: keep what is exact.
    """
    return reduce(add, (_profile(table, is_whole=is_whole) for table in tables))


def _profile(table: pa.Table, *, is_whole: bool) -> Profile:
    limit = max(_PART_VALUES, _EXACT_VALUES // max(table.num_columns, 1))
    kept = limit if is_whole else _PART_VALUES
    places = np.random.default_rng(0).integers(1, 2**63, table.num_rows, np.uint64)
    # Arrow and numpy let go of the interpreter; Arrow knows how many CPUs a job was given.
    with ThreadPoolExecutor(pa.cpu_count()) as threads:
        measured = threads.map(lambda column: _measure(column, kept), table.columns)
        columns: dict[str, Column] = {}
        rows = np.zeros(table.num_rows, np.uint64)
        for name, (column, hashes) in zip(table.column_names, measured, strict=True):
            columns[name] = replace(column, mark=int((hashes * places).sum()))
            rows = rows * _ODD + hashes
    hashes, counts = np.unique(rows, return_counts=True)
    return Profile(
        rows=table.num_rows,
        bytes=table.nbytes,
        columns=columns,
        different=Different.of(hashes, counts, _ROW_HASHES),
        preview=table.slice(0, _PREVIEW_ROWS).combine_chunks(),
    )


def kind_of(kind: pa.DataType) -> str:
    """Return what a type's values are described as.

    >>> kind_of(pa.int8()), kind_of(pa.date32()), kind_of(pa.list_(pa.int8()))
    ('number', 'time', 'other')
    """
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_duration(kind):
        return "number"
    if types.is_temporal(kind) and kind != pa.month_day_nano_interval():
        return "time"
    if types.is_boolean(kind):
        return "boolean"
    if types.is_dictionary(kind) or kind in (pa.string(), pa.large_string(), pa.string_view()):
        return "text"
    return "empty" if types.is_null(kind) else "other"


def type_name(kind: pa.DataType) -> str:
    """Return Arrow's name of a type, the same of all that hold text."""
    return str(kind).replace("large_string", "string").replace("string_view", "string")


def _measure(array: pa.ChunkedArray, limit: int) -> tuple[Column, np.ndarray]:
    """Return what a column holds, and a hash of the value in each row."""
    kind = kind_of(array.type)
    if kind in ("number", "time"):
        return _measure_numbers(array, kind, limit)
    return _measure_values(array, kind)


def _measure_numbers(array: pa.ChunkedArray, kind: str, limit: int) -> tuple[Column, np.ndarray]:
    numbers, is_missing = plain_numbers(array)
    hashes = pd.util.hash_array(numbers, categorize=False)
    present = numbers
    if is_missing is not None:
        hashes[is_missing] = _MISSING
        present = numbers[~is_missing]
    column = Column(kind, type_name(array.type), len(array), len(array) - len(present))
    if not len(present):
        return replace(column, kind="empty"), hashes
    is_finite = np.isfinite(present)
    finite = present if is_finite.all() else present[is_finite]
    values, counts = runs(finite)
    scaled = values * _TO_MS[unit_of(array.type)] if kind == "time" else values.astype(float)
    kept = Different.of(pd.util.hash_array(values, categorize=False), counts)
    column = replace(
        column,
        infinite=len(present) - len(finite),
        zeros=int(counts[values == 0].sum()),
        negative=int(counts[values < 0].sum()),
        spread=Spread(scaled, counts).thinned(limit) if len(values) else None,
        different=kept,
    )
    is_number = kind == "number"
    return replace(column, moments=Moments.of(finite)) if is_number else column, hashes


def plain_numbers(array: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return numbers or times as integers or floats, and where none is; None if all are there."""
    kind = array.type
    if pa.types.is_temporal(kind):
        array = array.cast(pa.int64() if kind.bit_width == 64 else pa.int32())
    if not pa.types.is_integer(array.type):
        numbers: np.ndarray = array.cast(pa.float64(), safe=False).to_numpy()
        is_missing = np.isnan(numbers)
        return numbers, is_missing if is_missing.any() else None
    absent = array.is_null().to_numpy() if array.null_count else None
    whole = array.fill_null(0) if array.null_count else array
    found: np.ndarray = whole.to_numpy()
    return found if found.dtype == np.uint64 else found.astype(np.int64), absent


def unit_of(kind: pa.DataType) -> str:
    """Return in what a type counts time."""
    return "day" if kind == pa.date32() else getattr(kind, "unit", "ms")


def to_ms(array: pa.ChunkedArray) -> float:
    """Return how many milliseconds one of a column's units is; 1 of numbers."""
    return _TO_MS[unit_of(array.type)] if kind_of(array.type) == "time" else 1.0


def _measure_values(array: pa.ChunkedArray, kind: str) -> tuple[Column, np.ndarray]:
    codes, values = plain_values(array)
    counts = np.bincount(codes + 1, minlength=len(values) + 1)
    missing, counts = int(counts[0]), counts[1:]
    of_values = pd.util.hash_array(values, categorize=False)
    hashes = np.append(of_values, _MISSING)[codes]
    column = Column(kind, type_name(array.type), len(array), missing)
    if missing == len(array):
        return replace(column, kind="empty"), hashes
    is_there = counts > 0  # a dictionary may name values that no row has
    if not is_there.all():
        values, counts, of_values = values[is_there], counts[is_there], of_values[is_there]
    if kind == "other":
        return column, hashes
    return replace(
        column,
        different=Different.of(of_values, counts),
        counts=Counts.of(values, counts),
        text=_text(values, counts) if kind == "text" else None,
    ), hashes


def plain_values(array: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for each row's value, -1 where there is none, and the values as text."""
    kind = array.type
    if not pa.types.is_dictionary(kind):
        if kind_of(kind) == "other":
            texts = [None if value is None else repr(value) for value in array.to_pylist()]
            array = pa.chunked_array([pa.array(texts, pa.large_string())])
        elif kind_of(kind) != "text" or kind == pa.string_view():
            array = array.cast(pa.large_string())
        array = array.dictionary_encode()
    if not array.num_chunks:
        return np.empty(0, np.int64), np.empty(0, object)
    whole = array.unify_dictionaries().combine_chunks()
    codes = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    values = whole.dictionary.cast(pa.large_string()).to_numpy(zero_copy_only=False)
    return codes, values


def _text(values: np.ndarray, counts: np.ndarray) -> Text:
    texts = pa.array(values, pa.large_string())
    lengths = pc.utf8_length(texts).to_numpy()
    is_padded = pc.not_equal(texts, pc.utf8_trim_whitespace(texts)).to_numpy(zero_copy_only=False)
    return Text(
        empty=int(counts[lengths == 0].sum()),
        padded=int(counts[is_padded].sum()),
        shortest=int(lengths.min()),
        longest=int(lengths.max()),
        characters=int(np.dot(lengths, counts)),
    )
