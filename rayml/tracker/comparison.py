"""What a query does with one run: its fields' values compared, tests combined, runs in order.

A missing value, and one of another kind that cannot be converted, meets no comparison.
"""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SomeRow = TypeVar("SomeRow", bound="Row")
Value: TypeAlias = str | float | bool | None
Field: TypeAlias = "Callable[[Row], object]"
Test: TypeAlias = "Callable[[Row], bool]"


class Row(Protocol):
    """A run as queries see it."""

    @property
    def params(self) -> Mapping[str, object]:
        """By name."""

    @property
    def labels(self) -> Mapping[str, str]:
        """By name."""

    def attribute(self, name: str) -> object:
        """Return one of `ATTRIBUTES`; times as Unix seconds, None for what is not."""

    def metric(self, name: str, summary: str) -> float | None:
        """Return the `last`, `min` or `max` of a metric, or None."""


def _equal(found: object, wanted: object) -> bool:
    """Compare as people do, to whom NaN is NaN."""
    return found == wanted or (found != found and wanted != wanted)  # noqa: PLR0124


COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": _equal,
    "==": _equal,
    "!=": lambda found, wanted: not _equal(found, wanted),
    "<>": lambda found, wanted: not _equal(found, wanted),
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def sort_rows(rows: Iterable[SomeRow], order: list[tuple[Field, bool]]) -> list[SomeRow]:
    """Return the rows in this order; equal ones stay as they are, missing values come last."""
    ordered = list(rows)
    for field, descending in reversed(order):
        keyed = [(_sort_key(field(row)), row) for row in ordered]
        present = [pair for pair in keyed if pair[0] is not None]
        present.sort(key=operator.itemgetter(0), reverse=descending)
        ordered = [row for _, row in present] + [row for key, row in keyed if key is None]
    return ordered


def _sort_key(value: object) -> tuple[bool, object] | None:
    """Return a key by which numbers come before texts; None for what has no place in an order."""
    if isinstance(value, int | float):  # a whole number may be too large for a float
        return None if value != value else (False, value)  # noqa: PLR0124
    return None if value is None else (True, str(value))


def find_part(params: Mapping[str, object], name: str) -> object:
    """Return a parameter; of a nested one, the part that a dotted name leads to."""
    if name in params:
        return params[name]
    head, dot, rest = name.partition(".")
    while dot:
        if isinstance(inner := params.get(head), dict):
            return find_part(inner, rest)
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def any_of(tests: list[Test]) -> Test:
    """Return the test that one of these is met."""
    return lambda row: any(test(row) for test in tests)


def all_of(tests: list[Test]) -> Test:
    """Return the test that each of these is met."""

    def both(row: Row) -> bool:
        for test in tests:  # noqa: SIM110 - a generator would take as long as the tests
            if not test(row):
                return False
        return True

    return both


def compares(field: Field, compare: Callable[[Any, Any], Any], wanted: Value) -> Test:
    """Return the test that a field's value and the wanted one compare so."""
    kind = type(wanted)

    def test(row: Row) -> bool:
        found = field(row)
        if type(found) is not kind:  # a run may be one of ten thousand
            pair = _comparable(found, wanted)
            return pair is not None and bool(compare(*pair))
        return bool(compare(found, wanted))

    return test


def is_in(field: Field, wanted: list[Value]) -> Test:
    """Return the test that a field's value equals one of these."""
    return any_of([compares(field, _equal, value) for value in wanted])


def is_like(field: Field, pattern: str) -> Test:
    """Return the test that a field's text is like a pattern: % is any text, _ any character."""
    first, *parts = ("".join(map(_like_letter, part)) for part in pattern.split("%"))
    # Atomic groups keep what they have found: the time grows with the text, never beyond.
    middle = "".join(f"(?>.*?{part})" for part in parts[:-1])
    ending = f".*{parts[-1]}" if parts else ""
    matches = re.compile(first + middle + ending, re.DOTALL).fullmatch
    return lambda row: (value := field(row)) is not None and bool(matches(str(value)))


def _like_letter(letter: str) -> str:
    return "." if letter == "_" else re.escape(letter)


def _comparable(found: object, wanted: Value) -> tuple[object, object] | None:
    """Return both as one type, or None: numbers with numbers (also if written as text), else text.

    Parameters that were imported, or given to a script, are text though they mean numbers.
    """
    if found is None or wanted is None:
        return None
    if isinstance(wanted, bool) or isinstance(found, bool):
        return _as_flags(found, wanted)
    if isinstance(wanted, int | float):
        number = _number(found)
        return None if number is None else (number, wanted)
    return str(found), wanted


def _as_flags(found: object, wanted: Value) -> tuple[object, object] | None:
    flags = [_flag(value) for value in (found, wanted)]
    return None if None in flags else (flags[0], flags[1])


def _flag(value: object) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
