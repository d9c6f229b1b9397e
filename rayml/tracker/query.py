"""The small language of `where` and `order_by`: parsed here, never passed on to a database.

    where    = either
    either   = both { "or" both }
    both     = negation { "and" negation }
    negation = "not" negation | "(" either ")" | comparison
    comparison = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
               | field ["not"] "in" "(" value { "," value } ")"
               | field ["not"] "like" text
               | field "is" ["not"] "null"
    field    = "params." name | "labels." name | "metrics." name ["." ("last" | "min" | "max")]
             | an attribute of runs, such as state or submitted_at
    order_by = field ["asc" | "desc"] { "," field ["asc" | "desc"] }

What a run does not have equals nothing and is neither above nor below anything: every comparison
with it is false, and in an order it comes last.
"""

from __future__ import annotations

import math
import operator
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from rayml.errors import SpecError, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Value: TypeAlias = str | float | bool | None
Field: TypeAlias = "Callable[[Row], object]"
Test: TypeAlias = "Callable[[Row], bool]"

TIMES = frozenset({"submitted_at", "started_at", "ended_at"})
ATTRIBUTES = TIMES | {
    "id", "name", "experiment", "state", "attempt", "duration_s", "parent", "user", "notes",
}  # fmt: skip
_SUMMARIES = ("last", "min", "max")
_KEYWORDS = frozenset({"and", "or", "not", "in", "like", "is", "null", "true", "false"})
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)
      | (?P<age>-\d+(?:\.\d+)?[smhdw]\b)
      | (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])|[+-]?inf\b|nan\b)
      | (?P<word>[^\W\d][\w./@-]*(?:(?:'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)[\w./@-]*)*)
      | (?P<symbol><=|>=|<>|!=|==|[=<>(),])
      | (?P<end>$)
    )""",
    re.VERBOSE,
)
_QUOTED = re.compile(r"""'((?:[^']|'')*)'|"((?:[^"]|"")*)"|`([^`]*)`""")


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


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


def parse_where(text: str, now: float | None = None) -> Test:
    """Return the test that a `where` describes.

    Args:
        text: Such as `metrics.auc > 0.9 and params.depth = 4`.
        now: What `-7d` counts from, in Unix seconds.

    Raises:
        SpecError: It is not in the language; the message says where.
    """
    parser = _Parser("where", text, time.time() if now is None else now)
    test = parser.either()
    parser.expect_end()
    return test


def parse_order(text: str) -> list[tuple[Field, bool]]:
    """Return the fields of an `order_by`, each with whether it is descending.

    Raises:
        SpecError: It is not in the language.
    """
    parser = _Parser("order_by", text, 0.0)
    order = [parser.direction()]
    while parser.take("symbol", ","):
        order.append(parser.direction())
    parser.expect_end()
    return order


def sort_rows(rows: list[Row], order: list[tuple[Field, bool]]) -> list[Row]:
    """Return the rows in this order; equal ones stay as they are, missing values come last."""
    for field, descending in reversed(order):
        present = [(key, row) for row in rows if (key := _sort_key(field(row))) is not None]
        missing = [row for row in rows if _sort_key(field(row)) is None]
        present.sort(key=operator.itemgetter(0), reverse=descending)
        rows = [row for _, row in present] + missing
    return rows


def _sort_key(value: object) -> tuple[bool, object] | None:
    if isinstance(value, bool | int | float):
        return None if math.isnan(value) else (False, value)
    return None if value is None else (True, str(value))


class _Parser:
    """Reads one text from left to right; every method takes what it is named after."""

    def __init__(self, what: str, text: str, now: float) -> None:
        if not isinstance(text, str):
            raise SpecError(f"{what}={text!r} is not text; write {what}='metrics.auc > 0.9'")
        self._what, self._text, self._now = what, text, now
        self._tokens = list(self._scan())
        self._index = 0

    def _scan(self) -> list[_Token]:
        tokens, position = [], 0
        while True:
            match = _TOKEN.match(self._text, position)
            if match is None:
                raise self._error(f"has {self._text[position:].strip()[:20]!r}", position)
            kind = match.lastgroup or "end"
            tokens.append(_Token(kind, match[kind], match.start(kind)))
            if kind == "end":
                return tokens
            position = match.end()

    # --- tokens ---

    @property
    def _next(self) -> _Token:
        return self._tokens[self._index]

    def take(self, kind: str, *texts: str) -> _Token | None:
        """Return the next token and go on, if it is such a one."""
        token = self._next
        if token.kind != kind or (texts and token.text.lower() not in texts):
            return None
        self._index += 1
        return token

    def _expect(self, kind: str, *texts: str, wanted: str) -> _Token:
        token = self.take(kind, *texts)
        if token is None:
            raise self._unexpected(wanted)
        return token

    def expect_end(self) -> None:
        """Raise if anything is left."""
        self._expect("end", wanted="the end, `and` or `or`")

    def _unexpected(self, wanted: str) -> SpecError:
        token = self._next
        found = f"has {token.text!r}" if token.text else "ends"
        return self._error(f"{found} where {wanted} should be", token.position)

    def _error(self, problem: str, position: int) -> SpecError:
        return SpecError(
            f"{self._what}={self._text!r} {problem}, at character {position + 1}; "
            "write for example `metrics.auc.max > 0.9 and params.model = 'forest'`"
        )

    # --- the grammar ---

    def either(self) -> Test:
        tests = [self._both()]
        while self.take("word", "or"):
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else lambda row: any(test(row) for test in tests)

    def _both(self) -> Test:
        tests = [self._negation()]
        while self.take("word", "and"):
            tests.append(self._negation())
        return tests[0] if len(tests) == 1 else lambda row: all(test(row) for test in tests)

    def _negation(self) -> Test:
        if self.take("word", "not"):
            test = self._negation()
            return lambda row: not test(row)
        if self.take("symbol", "("):
            inner = self.either()
            self._expect("symbol", ")", wanted="`)`")
            return inner
        return self._comparison()

    def _comparison(self) -> Test:
        name, field = self._field()
        if symbol := self.take("symbol", *_COMPARISONS):
            return _compares(field, _COMPARISONS[symbol.text], self._value(name))
        if self.take("word", "is"):
            is_null = self.take("word", "not") is None
            self._expect("word", "null", wanted="`null`")
            return lambda row: (field(row) is None) == is_null
        is_negated = self.take("word", "not") is not None
        test = self._membership(name, field)
        return (lambda row: field(row) is not None and not test(row)) if is_negated else test

    def _membership(self, name: str, field: Field) -> Test:
        if self.take("word", "in"):
            return _is_in(field, self._values(name))
        if self.take("word", "like"):
            return _is_like(field, _unquote(self._expect("text", wanted="a text").text))
        raise self._unexpected("a comparison (= != < <= > >= in like is)")

    def _values(self, name: str) -> list[Value]:
        self._expect("symbol", "(", wanted="`(`")
        values = [self._value(name)]
        while self.take("symbol", ","):
            values.append(self._value(name))
        self._expect("symbol", ")", wanted="`,` or `)`")
        return values

    def _value(self, name: str) -> Value:
        value = self._literal()
        if name in TIMES and isinstance(value, str):
            return self._time(value)
        return value

    def _literal(self) -> Value:
        if token := self.take("text"):
            return _unquote(token.text)
        if token := self.take("number"):
            return float(token.text)
        if token := self.take("age"):
            return self._now + float(token.text[:-1]) * _SECONDS[token.text[-1]]
        if token := self.take("word", "true", "false"):
            return token.text.lower() == "true"
        raise self._unexpected("a value (a number, true, false, -7d or a 'text' in quotes)")

    def _time(self, text: str) -> float:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            position = self._tokens[self._index - 1].position
            raise self._error(f"has {text!r}, which is not a date", position) from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

    def direction(self) -> tuple[Field, bool]:
        _, field = self._field()
        word = self.take("word", "asc", "desc")
        return field, word is not None and word.text.lower() == "desc"

    def _field(self) -> tuple[str, Field]:
        token = self._next
        if token.kind != "word" or token.text.lower() in _KEYWORDS:
            raise self._unexpected("a field (params.x, metrics.x, labels.x or an attribute)")
        self._index += 1
        kind, dot, rest = token.text.partition(".")
        if dot and kind in ("params", "labels", "metrics") and rest:
            return token.text, _named_field(kind, rest)
        if token.text not in ATTRIBUTES:
            known = suggestion(token.text, [*ATTRIBUTES, "params.…", "metrics.…", "labels.…"])
            problem = f"names {token.text!r}, which runs do not have ({known})"
            raise self._error(problem, token.position)
        return token.text, lambda row: row.attribute(token.text)


def _named_field(kind: str, rest: str) -> Field:
    if kind == "metrics":
        stem, dot, last = rest.rpartition(".")
        name, summary = (stem, last) if dot and last in _SUMMARIES else (rest, "last")
        metric = _unquote(name)
        return lambda row: row.metric(metric, summary)
    name = _unquote(rest)
    if kind == "params":
        return lambda row: _find(row.params, name)
    return lambda row: row.labels.get(name)


def _find(params: Mapping[str, object], name: str) -> object:
    """Return a parameter; of a nested one, the part that a dotted name leads to."""
    if name in params:
        return params[name]
    head, dot, rest = name.partition(".")
    while dot:
        if isinstance(inner := params.get(head), dict):
            return _find(inner, rest)
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def _unquote(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        single, double, back = match.groups()
        if single is not None:
            return single.replace("''", "'")
        return double.replace('""', '"') if double is not None else back

    return _QUOTED.sub(plain, text)


def _compares(field: Field, compare: Callable[[Any, Any], Any], wanted: Value) -> Test:
    def test(row: Row) -> bool:
        pair = _comparable(field(row), wanted)
        return pair is not None and bool(compare(*pair))

    return test


def _is_in(field: Field, wanted: list[Value]) -> Test:
    tests = [_compares(field, operator.eq, value) for value in wanted]
    return lambda row: any(test(row) for test in tests)


def _is_like(field: Field, pattern: str) -> Test:
    parts = {"%": ".*", "_": "."}
    expression = "".join(parts.get(letter) or re.escape(letter) for letter in pattern)
    matches = re.compile(expression, re.DOTALL).fullmatch
    return lambda row: (value := field(row)) is not None and bool(matches(str(value)))


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
    except (TypeError, ValueError):
        return None
