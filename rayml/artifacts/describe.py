"""What a table holds, told in one pass: its schema, statistics of each column and its first rows.

Statistics are kept as counts, means, sums of squares and sketches, so that those of batches add up
to those of the whole: a stream of any length is described in constant memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from rayml.artifacts.record import json_safe
from rayml.artifacts.sketch import Distinct, Spread
from rayml.errors import SpecError

if TYPE_CHECKING:
    import pyarrow as pa

_PREVIEW_ROWS = 20
_PREVIEW_COLUMNS = 50
# The description lives in the journal, which must stay quick to read whatever was logged.
_DESCRIBED_COLUMNS = 1000
_SKETCHED_COLUMNS = 100
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BINS = 20
_S = TypeVar("_S", Distinct, Spread)


@dataclass
class Column:
    """Statistics of one column; those of two batches add up.

    Attributes:
        nulls: Values that are absent.
        nans: Values that are present and not a number; they count for none of the others.
        count: Values that the others are of.
        low: The least, in Python's type, or None if the type has no order or there is none.
        high: The greatest.
        mean: Of numbers, and the share of True of booleans.
        squares: Sum of the squared distances from the mean.
        distinct: How many different ones there are; None if nobody looked, or there is none.
        spread: Of numbers and times, how they are spread; None without a finite one.
    """

    nulls: int = 0
    nans: int = 0
    count: int = 0
    low: Any = None
    high: Any = None
    mean: float = 0.0
    squares: float = 0.0
    distinct: Distinct | None = None
    spread: Spread | None = None

    def __add__(self, other: Column) -> Column:
        if not self.count or not other.count:
            told = self if self.count else other
            return replace(told, nulls=self.nulls + other.nulls, nans=self.nans + other.nans)
        count, apart = self.count + other.count, other.mean - self.mean
        return Column(
            nulls=self.nulls + other.nulls,
            nans=self.nans + other.nans,
            count=count,
            low=None if self.low is None else min(self.low, other.low),
            high=None if self.high is None else max(self.high, other.high),
            mean=self.mean + apart * other.count / count,
            squares=self.squares + other.squares + apart**2 * self.count * other.count / count,
            distinct=_sum(self.distinct, other.distinct),
            spread=_sum(self.spread, other.spread),
        )


@dataclass
class Description:
    """A table described batch by batch."""

    rows: int = 0
    schema: pa.Schema | None = None
    columns: dict[str, Column] = field(default_factory=dict)
    preview: list[list[object]] = field(default_factory=list)

    def add(self, table: pa.Table) -> None:
        """Take the next rows.

        Raises:
            SpecError: A column has another type than in the rows before, and no type holds both.
        """
        self._add_schema(table.schema)
        if missing := _PREVIEW_ROWS - len(self.preview):
            self.preview += _rows(table.slice(0, missing))
        described = table.select(range(min(table.num_columns, _DESCRIBED_COLUMNS)))
        for place, name in enumerate(described.column_names):
            found = measure(described.column(place), is_sketched=place < _SKETCHED_COLUMNS)
            self.columns[name] = self.columns.get(name, Column()) + found
        self.rows += table.num_rows

    def extend(self, other: Description) -> None:
        """Take the rows that another one has described, after these.

        Raises:
            SpecError: As for `add`.
        """
        if other.schema is not None:
            self._add_schema(other.schema)
        self.preview += other.preview[: _PREVIEW_ROWS - len(self.preview)]
        for name, column in other.columns.items():
            self.columns[name] = self.columns.get(name, Column()) + column
        self.rows += other.rows

    def meta(self, source: str) -> dict[str, Any]:
        """Return the description as strict JSON.

        `rows` and `columns` are counts, `schema` lists names and Arrow types, `statistics` goes
        by column, `preview` has the first 20 rows of the first 50 columns, `source` is the
        library that the table came from. Of a table with more than 1,000 columns, the first
        1,000 are described, and of the first 100 also `distinct` (exact up to 2,047, else within
        some percent), `quantiles`, and `histogram`: counts in equal steps of what is finite.
        """
        import pyarrow as pa  # noqa: PLC0415

        schema = list(self.schema or pa.schema([]))
        told = schema[:_DESCRIBED_COLUMNS]
        return {
            "source": source,
            "rows": self.rows,
            "columns": len(schema),
            "schema": [{"name": entry.name, "type": str(entry.type)} for entry in told],
            "statistics": {entry.name: self._told(entry) for entry in told},
            "preview": {
                "columns": [entry.name for entry in schema[:_PREVIEW_COLUMNS]],
                "rows": self.preview,
            },
        }

    def _told(self, entry: pa.Field) -> dict[str, object]:
        column = self.columns.get(entry.name, Column())
        count = self.rows - column.nulls - column.nans
        return {"count": count, **_told(column, entry.type), **_sketched(column, entry.type)}

    def _add_schema(self, schema: pa.Schema) -> None:
        import pyarrow as pa  # noqa: PLC0415

        if self.schema is None or self.schema.equals(schema):
            self.schema = schema
            return
        try:
            self.schema = pa.unify_schemas([self.schema, schema], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as exc:
            raise SpecError(
                f"the batches of this dataset disagree on a column's type: {exc}; "
                "cast it to one type before logging"
            ) from exc


def measure(column: pa.ChunkedArray, *, is_sketched: bool = False) -> Column:
    """Return the statistics of one column; of types without an order, only the count of nulls."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    found, values = Column(nulls=column.null_count), _comparable(column)
    if values is None or len(column) == column.null_count:
        return found
    found.count = len(column) - column.null_count
    if _has_mean(values.type):
        found.mean = float(pc.mean(values).as_py())
        # A mean that is a number proves that no value is NaN, so that most columns need no search.
        if math.isnan(found.mean):
            is_nan = pc.is_nan(values)
            found.nans = pc.sum(is_nan).as_py() or 0
            if found.nans:
                numbers = pc.if_else(is_nan, pa.scalar(None, values.type), values)
                only = replace(measure(numbers, is_sketched=is_sketched), nulls=0)
                return Column(nans=found.nans, nulls=found.nulls) + only
    if _has_deviation(values.type):
        found.squares = float(pc.variance(values).as_py()) * found.count
    extremes = pc.min_max(values)
    found.low, found.high = (_python(extremes[end], column.type) for end in ("min", "max"))
    if is_sketched:
        _sketch(found, values.drop_null())
    return found


def _sketch(found: Column, values: pa.ChunkedArray) -> None:
    """Add what is told of values that are all there."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    kind = values.type
    if pa.types.is_temporal(kind):
        numbers = values.cast(_storage(kind)).to_numpy()
    elif pa.types.is_decimal(kind):
        numbers = values.cast(pa.float64()).to_numpy()
    elif _has_mean(kind):
        numbers = values.to_numpy()
    else:
        found.distinct = Distinct.of(pc.unique(values).to_numpy(zero_copy_only=False))
        return
    found.distinct = Distinct.of(numbers)
    if not pa.types.is_boolean(kind):
        found.spread = Spread.of(numbers.astype(float))


def _storage(kind: pa.DataType) -> pa.DataType:
    """Return the integers that times are."""
    import pyarrow as pa  # noqa: PLC0415

    return pa.int32() if kind.bit_width == 32 else pa.int64()


def _sum(one: _S | None, other: _S | None) -> _S | None:
    if one is None or other is None:
        return one or other
    return one + other


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return the column in a type that Arrow can compare, or None."""
    import pyarrow as pa  # noqa: PLC0415

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _comparable(column.cast(kind.value_type))
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    if kind == pa.string_view():
        return column.cast(pa.large_string())
    if pa.types.is_duration(kind):
        return column.cast(pa.int64())
    return column if _has_range(kind) else None


def _has_range(kind: pa.DataType) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    if pa.types.is_dictionary(kind):
        return _has_range(kind.value_type)
    is_text = kind in (pa.string(), pa.large_string(), pa.string_view())
    return _has_mean(kind) or is_text or bool(pa.types.is_temporal(kind))


def _has_mean(kind: pa.DataType) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    return _has_deviation(kind) or bool(pa.types.is_boolean(kind))


def _has_deviation(kind: pa.DataType) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(holds(kind) for holds in numbers)


def _python(scalar: pa.Scalar, kind: pa.DataType) -> object:
    import pyarrow as pa  # noqa: PLC0415

    try:
        return scalar.cast(kind).as_py() if pa.types.is_duration(kind) else scalar.as_py()
    except (ValueError, OverflowError):  # a time before year 1 or after 9999
        return None


def _told(column: Column, kind: pa.DataType) -> dict[str, object]:
    import pyarrow as pa  # noqa: PLC0415

    told: dict[str, object] = {"nulls": column.nulls}
    if pa.types.is_floating(kind):
        told["nan"] = column.nans
    if _has_range(kind):
        told |= {"min": json_safe(column.low), "max": json_safe(column.high)}
    if _has_mean(kind):
        told["mean"] = json_safe(column.mean) if column.count else None
    if _has_deviation(kind):
        told["std"] = _deviation(column)
    return told


def _sketched(column: Column, kind: pa.DataType) -> dict[str, object]:
    """Return what sketches tell; of types without an order, and beyond the first columns, nothing.

    A column of nothing but nulls has none either.
    """
    told: dict[str, object] = {}
    if column.distinct is not None:
        told["distinct"] = column.distinct.count
    if (spread := column.spread) is not None:
        values = spread.quantiles(_QUANTILES)
        shares = zip(map(str, _QUANTILES), values, strict=True)
        told["quantiles"] = {share: json_safe(_value(value, kind)) for share, value in shares}
        told["histogram"] = {
            "from": json_safe(_value(spread.low, kind)),
            "to": json_safe(_value(spread.high, kind)),
            "counts": spread.histogram(_BINS),
        }
    return told


def _value(number: float, kind: pa.DataType) -> object:
    """Return a number of a column, or the time that it stands for."""
    import pyarrow as pa  # noqa: PLC0415

    if not pa.types.is_temporal(kind):
        return number
    return _python(pa.scalar(round(number), _storage(kind)).cast(kind), kind)


def _deviation(column: Column) -> object:
    """Return the sample's standard deviation, as pandas does, or None of fewer than two."""
    if column.count < 2:
        return None
    return json_safe(math.sqrt(column.squares / (column.count - 1)))


def _rows(table: pa.Table) -> list[list[object]]:
    columns = [_cells(column) for column in table.columns[:_PREVIEW_COLUMNS]]
    return [list(row) for row in zip(*columns, strict=True)]


def _cells(column: pa.ChunkedArray) -> list[object]:
    import pyarrow as pa  # noqa: PLC0415

    try:
        return [json_safe(value) for value in column.to_pylist()]
    except (ValueError, OverflowError):  # a time before year 1 or after 9999
        return [json_safe(value) for value in column.cast(pa.string()).to_pylist()]
