"""The small language of `where` and `order_by`: parsed here, never passed on to a database.

    where    = either
    either   = both { "or" both }
    both     = negation { "and" negation }
    negation = "not" negation | "(" either ")" | comparison
    comparison = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
               | field ["not"] "in" "(" value { "," value } ")"
               | field ["not"] "like" text
               | field "is" ["not"] "null"
               | flag
    value    = a number, such as 1e-3 | a 'text' in quotes | "true" | "false"
             | of times: a date, such as 2026-11-30 or '2026-11-30 18:00+01:00', or an age: -7d
    flag     = "archived" | "deleted"
    field    = "params." name | "labels." name | "metrics." name ["." ("last" | "min" | "max")]
             | an attribute of runs, such as state or submitted_at
    order_by = field ["asc" | "desc"] { "," field ["asc" | "desc"] }

What a run does not have equals nothing and is neither above nor below anything: every comparison
with it is false, and in an order it comes last. A name with other characters than letters, digits
and `_ . / @ -` is quoted: params.'learning rate'. Dates without a zone are UTC; ages count back
from now in s, m, h, d or w. In `like`, % stands for any text and _ for one character.
"""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rayml.errors import SpecError, suggestion
from rayml.tracker.comparison import (
    COMPARISONS,
    all_of,
    any_of,
    compares,
    find_part,
    is_in,
    is_like,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.tracker.comparison import Field, Test, Value

TIMES = frozenset({"submitted_at", "started_at", "ended_at"})
FLAGS = frozenset({"archived", "deleted"})
ATTRIBUTES = TIMES | FLAGS | {
    "id", "name", "experiment", "state", "attempt", "duration_s", "worker_s", "cpu_s",
    "max_memory", "parent", "rerun_of", "user", "notes",
}  # fmt: skip
_MAX_DEPTH = 50
_SUMMARIES = ("last", "min", "max")
_KEYWORDS = frozenset({"and", "or", "not", "in", "like", "is", "null", "true", "false"})
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)
      | (?P<age>-\d+(?:\.\d+)?[smhdw]\b)
      | (?P<date>\d{4}-\d\d-\d\d(?:[T\ ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?
          (?![\w.]))
      | (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])|[+-]?inf\b|nan\b)
      | (?P<word>[^\W\d][\w./@-]*(?:(?:'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)[\w./@-]*)*)
      | (?P<symbol><=|>=|<>|!=|==|[=<>(),])
      | (?P<end>$)
    )""",
    re.VERBOSE,
)
_QUOTED = re.compile(r"""'((?:[^']|'')*)'|"((?:[^"]|"")*)"|`([^`]*)`""")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


@dataclass(frozen=True)
class Where:
    """A parsed `where`: whether a run meets it, and which fields it names."""

    test: Test
    fields: frozenset[str]


def parse_where(text: str, now: float | None = None) -> Where:
    """Return what a `where` asks for.

    >>> sorted(parse_where("metrics.auc > 0.9 and not archived").fields)
    ['archived', 'metrics.auc']

    Args:
        text: Such as `metrics.auc > 0.9 and params.depth = 4`.
        now: What `-7d` counts from, in Unix seconds.

    Raises:
        SpecError: It is not in the language; the message says where.
    """
    parser = _Parser("where", text, time.time() if now is None else now)
    test = parser.either()
    parser.expect_end()
    return Where(test, frozenset(parser.fields))


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


class _Parser:
    """Reads one text from left to right; every method takes what it is named after."""

    def __init__(self, what: str, text: str, now: float) -> None:
        if not isinstance(text, str):
            raise SpecError(f"{what}={text!r} is not text; write {what}='metrics.auc > 0.9'")
        self.fields: set[str] = set()
        self._what, self._text, self._now = what, text, now
        self._tokens = self._scan()
        self._index = self._depth = 0

    def _scan(self) -> list[_Token]:
        tokens, position = [], 0
        while True:
            match = _TOKEN.match(self._text, position)
            if match is None:
                rest = self._text[position:].lstrip()
                raise self._error(f"has {rest.strip()[:20]!r}", len(self._text) - len(rest))
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
        return tests[0] if len(tests) == 1 else any_of(tests)

    def _both(self) -> Test:
        tests = [self._negation()]
        while self.take("word", "and"):
            tests.append(self._negation())
        return tests[0] if len(tests) == 1 else all_of(tests)

    def _negation(self) -> Test:
        if self.take("word", "not"):
            with self._deeper():
                test = self._negation()
            return lambda row: not test(row)
        if self.take("symbol", "("):
            with self._deeper():
                inner = self.either()
            self._expect("symbol", ")", wanted="`)`")
            return inner
        return self._comparison()

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            problem = f"is nested more than {_MAX_DEPTH} deep"
            raise self._error(problem, self._next.position)
        yield
        self._depth -= 1

    def _comparison(self) -> Test:
        name, field = self._field()
        if symbol := self.take("symbol", *COMPARISONS):
            return compares(field, COMPARISONS[symbol.text], self._value(name))
        if self.take("word", "is"):
            is_null = self.take("word", "not") is None
            self._expect("word", "null", wanted="`null`")
            return lambda row: (field(row) is None) == is_null
        if name in FLAGS and not self._continues():
            return lambda row: field(row) is True
        is_negated = self.take("word", "not") is not None
        test = self._membership(name, field)
        return (lambda row: field(row) is not None and not test(row)) if is_negated else test

    def _continues(self) -> bool:
        """Tell whether a comparison goes on after its field."""
        return self._next.kind == "word" and self._next.text.lower() in ("not", "in", "like")

    def _membership(self, name: str, field: Field) -> Test:
        if self.take("word", "in"):
            return is_in(field, self._values(name))
        if self.take("word", "like"):
            return is_like(field, _unquote(self._expect("text", wanted="a text").text))
        raise self._unexpected("a comparison (= != < <= > >= in like is)")

    def _values(self, name: str) -> list[Value]:
        self._expect("symbol", "(", wanted="`(`")
        values = [self._value(name)]
        while self.take("symbol", ","):
            values.append(self._value(name))
        self._expect("symbol", ")", wanted="`,` or `)`")
        return values

    def _value(self, name: str) -> Value:
        if name in TIMES and (token := self.take("age")):
            return self._now + float(token.text[:-1]) * _SECONDS[token.text[-1]]
        value = self._literal()
        return self._time(value) if name in TIMES and isinstance(value, str) else value

    def _literal(self) -> Value:
        if token := self.take("text"):
            return _unquote(token.text)
        if token := self.take("number"):
            return float(token.text)
        if token := self.take("date"):
            return token.text
        if token := self.take("word", "true", "false"):
            return token.text.lower() == "true"
        raise self._unexpected(
            "a value (a number, true, false or a 'text' in quotes; for times a date or -7d)"
        )

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
        self.fields.add(token.text)
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
        return lambda row: find_part(row.params, name)
    return lambda row: row.labels.get(name)


def _unquote(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        single, double, back = match.groups()
        if single is not None:
            return single.replace("''", "'")
        return double.replace('""', '"') if double is not None else back

    return _QUOTED.sub(plain, text)
