"""The language of `where` and `order_by`: what it finds, and how it refuses."""

from __future__ import annotations

import math
import operator
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayml.errors import SpecError
from rayml.tracker import runs
from rayml.tracker.comparison import sort_rows
from rayml.tracker.query import ATTRIBUTES, parse_order, parse_where

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_800_000_000.0
DAY = 86_400


@dataclass
class Row:
    params: dict[str, object] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    attributes: dict[str, object] = field(default_factory=dict)

    def attribute(self, name: str) -> object:
        return self.attributes.get(name)

    def metric(self, name: str, summary: str) -> float | None:
        return self.metrics.get(name, {}).get(summary)


ROW = Row(
    params={
        "depth": 4,
        "rate": 1e-3,
        "words": "4",
        "on": True,
        "none": None,
        "learning rate": 0.1,
        "model": {"kind": "forest", "tree.depth": 7, "deep": {"er": 1}},
        "a.b": "dotted",
        "day": "2026-11-30",
        "quote": "it's",
    },
    labels={"team": "red", "härte": "🎈"},
    metrics={
        "auc": {"last": 0.5, "min": 0.25, "max": 0.75},
        "train/loss": {"last": 0.1, "min": 0.1, "max": 9.0},
        "max": {"last": 3.0, "min": 1.0, "max": 5.0},
        "loss": {"last": math.nan, "min": math.nan, "max": math.inf},
    },
    attributes={
        "id": "r1",
        "state": "succeeded",
        "submitted_at": NOW - 2 * DAY,
        "ended_at": None,
        "archived": True,
        "deleted": False,
        "attempt": 2,
    },
)


def meets(where: str, row: Row = ROW) -> bool:
    return parse_where(where, NOW).test(row)


@pytest.mark.parametrize(
    "where",
    [
        "params.depth = 4",
        "params.depth == 4.0",
        "params.depth != 5 and params.depth <> 6",
        "params.depth > 3 and params.depth >= 4 and params.depth < 5 and params.depth <= 4",
        "params.rate = 0.001 and params.rate = 1e-3 and params.rate = .001",
        "params.words = 4 and params.words = '4' and params.depth = '4'",
        "params.on = true and params.on = 1 and params.on != false",
        "params.'learning rate' = 0.1",
        'params."learning rate" = 0.1 and params.`learning rate` = 0.1',
        "params.model.kind = 'forest' and params.model.tree.depth = 7",
        "params.model.deep.er = 1",
        "params.a.b = 'dotted'",
        "params.quote = 'it''s' and params.quote = \"it's\"",
        "params.day = 2026-11-30 and params.day = '2026-11-30'",
        "params.none is null and params.absent is null and params.depth is not null",
        "params.depth in (1, 4) and params.depth not in (1, 2)",
        "params.model.kind in ('forest', 'linear')",
        "params.model.kind like 'for%' and params.model.kind like '%res%'",
        "params.model.kind like 'f_rest' and params.model.kind not like 'f_st'",
        "params.model.kind like '%f%o%r%e%s%t%' and params.model.kind not like '%t%s%'",
        "labels.team = 'red' and labels.härte = '🎈'",
        "metrics.auc = 0.5 and metrics.auc.last = 0.5",
        "metrics.auc.min = 0.25 and metrics.auc.max > 0.7",
        "metrics.train/loss <= 0.1 and metrics.train/loss.max = 9",
        "metrics.max = 3 and metrics.max.max = 5 and metrics.'max' = 3",
        "metrics.loss = nan and metrics.loss.max = inf and metrics.loss.max > 1e308",
        "state = 'succeeded' and id = 'r1' and attempt = 2",
        "submitted_at > -7d and submitted_at < -1d and submitted_at >= -48h",
        "submitted_at > 2020-01-01 and submitted_at < '2030-01-01'",
        "submitted_at > 2020-01-01 10:00 and submitted_at > 2020-01-01T10:00:00.5+02:00",
        "submitted_at = 1799827200",
        "ended_at is null and not ended_at > -7d",
        "archived and not deleted and archived = true and deleted = false",
        "NOT params.depth = 5 AND (state = 'failed' OR state = 'succeeded')",
        "not not params.depth = 4",
        "params.depth = 5 and params.depth = 6 or params.depth = 4",
    ],
)
def test_a_where_is_met(where: str) -> None:
    assert meets(where)


@pytest.mark.parametrize(
    "where",
    [
        "params.absent = 1",
        "params.absent != 1",
        "params.absent in (1)",
        "params.absent not in (1)",
        "params.absent not like '%'",
        "params.none = 0",
        "params.model = 'forest'",
        "params.model.kind > 4",
        "params.depth.deeper = 4",
        "labels.absent != 'x'",
        "metrics.absent > 0",
        "metrics.loss > 0",
        "metrics.loss < 0",
        "ended_at < -1s",
        "deleted",
        "params.depth = 4 and not archived",
        "params.depth = 5 and (params.depth = 6 or params.depth = 4)",
    ],
)
def test_a_where_is_not_met(where: str) -> None:
    assert not meets(where)


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("1=1; drop table runs", "has '; drop table runs', at character 4;"),
        ("1=1", "has '1' where a field .* should be, at character 1;"),
        ("", "ends where a field .* should be, at character 1;"),
        ("params.depth", "ends where a comparison .* should be, at character 13;"),
        ("params.depth =", "ends where a value .* should be"),
        ("params.depth = four", "has 'four' where a value .*'text' in quotes.* should be"),
        ("params.depth = 4 params.x = 1", "where the end, `and` or `or` should be"),
        ("state = 'x", 'has "\'x", at character 9;'),
        ("(state = 'x'", r"ends where `\)` should be"),
        ("state in 'x'", r"has \"'x'\" where `\(` should be"),
        ("state in ()", "where a value"),
        ("state like 4", "has '4' where a text should be"),
        ("state is 4", "has '4' where `null` should be"),
        ("metric.auc > 1", "names 'metric.auc', which runs do not have"),
        ("stat = 'x'", "names 'stat', which runs do not have .did you mean 'state'"),
        ("metrics. > 1", "names 'metrics.'"),
        ("and", "has 'and' where a field"),
        ("submitted_at > 'soon'", "has \"?'soon'\"?, which is not a date"),
        ("submitted_at > 2026-13-01", "has '2026-13-01', which is not a date"),
        ("metrics.auc > -7d", "has '-7d' where a value"),
        ("params.x = 0x10", "has '0x10'"),
        ("not " * 200 + "archived", "is nested more than 50 deep"),
        ("(" * 200, "is nested more than 50 deep"),
        ("select * from runs", r"has '\* from runs', at character 8;"),
    ],
)
def test_what_is_not_in_the_language_is_named_with_its_place(where: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem) as caught:
        parse_where(where)
    assert str(caught.value).startswith(f"where={where!r}")


@pytest.mark.parametrize("where", [None, 4, b"x", ["x"]])
def test_what_is_no_text_is_an_error(where: object) -> None:
    with pytest.raises(SpecError, match=r"where=.* is not text"):
        parse_where(where)  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ["", "state,", "state down", "nothing", "state asc desc", "-id"])
def test_a_wrong_order_is_an_error(order: str) -> None:
    with pytest.raises(SpecError, match="order_by="):
        parse_order(order)


def test_a_where_tells_which_fields_it_names() -> None:
    fields = parse_where("archived or params.x = 1 and not (deleted or state = 'x')").fields
    assert fields == {"archived", "params.x", "deleted", "state"}


def test_a_pattern_with_many_wildcards_takes_no_time() -> None:
    row = Row(params={"text": "a" * 5000})
    started = time.perf_counter()
    assert not meets(f"params.text like '{'%a' * 30}b'", row)
    assert time.perf_counter() - started < 1


def test_rows_are_sorted_with_missing_ones_last_either_way() -> None:
    values = [3, None, math.nan, 1, 2.5, "b", "a", True]
    rows = [Row(params={"x": value}) for value in values]

    up = [row.params["x"] for row in sort_rows(rows, parse_order("params.x"))]
    down = [row.params["x"] for row in sort_rows(rows, parse_order("params.x desc"))]
    assert up[:6] == [1, True, 2.5, 3, "a", "b"]
    assert down[:6] == ["b", "a", 3, 2.5, 1, True]
    assert up[6] is down[6] is None


def test_rows_are_sorted_by_several_fields_and_equal_ones_stay() -> None:
    rows = [Row(params={"x": x, "y": y}) for x, y in ((1, 1), (2, 1), (1, 2), (2, 2), (1, 1))]
    found = sort_rows(rows, parse_order("params.x desc, params.y ASC"))
    assert [(row.params["x"], row.params["y"]) for row in found] == [
        (2, 1), (2, 2), (1, 1), (1, 1), (1, 2),
    ]  # fmt: skip
    assert found[2] is rows[0]
    assert found[3] is rows[4]


def test_records_know_every_attribute_that_queries_name() -> None:
    assert set(runs._ATTRIBUTES) == ATTRIBUTES  # noqa: SLF001


# Properties: the parser beside a naive evaluator of the same tree

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}  # fmt: skip
numbers = st.integers(-3, 3) | st.sampled_from([0.5, -1.5])
comparisons = st.tuples(
    st.just("compare"), st.sampled_from("abc"), st.sampled_from([*OPERATORS]), numbers
)
memberships = st.tuples(
    st.just("in"), st.sampled_from("abc"), st.lists(numbers, min_size=1, max_size=3)
)
nulls = st.tuples(st.just("null"), st.sampled_from("abc"))
trees = st.recursive(
    comparisons | memberships | nulls,
    lambda inner: (
        st.tuples(st.sampled_from(["and", "or"]), inner, inner) | st.tuples(st.just("not"), inner)
    ),
    max_leaves=12,
)
rows_of_params = st.dictionaries(st.sampled_from("abc"), numbers)


def written(tree: tuple) -> str:  # type: ignore[type-arg]
    match tree:
        case ("compare", name, sign, number):
            return f"params.{name} {sign} {number}"
        case ("in", name, values):
            return f"params.{name} in ({', '.join(map(str, values))})"
        case ("null", name):
            return f"params.{name} is null"
        case ("not", inner):
            return f"not ({written(inner)})"
        case (word, left, right):
            return f"({written(left)}) {word} ({written(right)})"
    raise AssertionError(tree)


def naive(tree: tuple, params: dict[str, float]) -> bool:  # type: ignore[type-arg]
    match tree:
        case ("compare", name, sign, number):
            return name in params and OPERATORS[sign](params[name], number)
        case ("in", name, values):
            return name in params and params[name] in values
        case ("null", name):
            return name not in params
        case ("not", inner):
            return not naive(inner, params)
        case ("and", left, right):
            return naive(left, params) and naive(right, params)
        case ("or", left, right):
            return naive(left, params) or naive(right, params)
    raise AssertionError(tree)


@given(trees, rows_of_params)
def test_a_where_means_what_it_says(tree: tuple, params: dict[str, float]) -> None:  # type: ignore[type-arg]
    assert meets(written(tree), Row(params=dict(params))) == naive(tree, params)


@given(st.lists(comparisons, min_size=3, max_size=3), rows_of_params)
def test_and_binds_closer_than_or_and_not_closer_than_both(
    three: list[tuple],  # type: ignore[type-arg]
    params: dict[str, float],
) -> None:
    a, b, c = map(written, three)
    is_a, is_b, is_c = (naive(tree, params) for tree in three)
    row = Row(params=dict(params))
    assert meets(f"{a} or {b} and {c}", row) == (is_a or (is_b and is_c))
    assert meets(f"not {a} and {b} or {c}", row) == ((not is_a and is_b) or is_c)


@given(st.lists(rows_of_params, max_size=20), st.booleans())
def test_sorting_agrees_with_python_s(params: list[dict[str, float]], descending: bool) -> None:
    order = parse_order(f"params.a {'desc' if descending else 'asc'}")
    found = [
        row.params.get("a") for row in sort_rows([Row(params=dict(p)) for p in params], order)
    ]
    present = sorted((p["a"] for p in params if "a" in p), reverse=descending)
    assert found == present + [None] * (len(params) - len(present))


words = st.sampled_from(
    [
        "params.x", "metrics.auc.max", "labels.team", "state", "archived", "submitted_at", "and",
        "or", "not", "in", "like", "is", "null", "(", ")", ",", "=", "<", "!=", "4", "-7d", "'x'",
        "2026-11-30", "true", "nan", ";", "%", "params.'a b'", "--", "select", "desc",
    ]
)  # fmt: skip


@given(st.text(max_size=40) | st.lists(words, max_size=12).map(" ".join))
def test_any_text_is_a_query_or_a_spec_error(text: str) -> None:
    with suppress(SpecError):
        meets(text)
    with suppress(SpecError):
        sort_rows([ROW, Row()], parse_order(text))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
)


@given(
    json_values,
    st.sampled_from(
        [
            "= 1",
            "> 'x'",
            "in (1, true, 'x')",
            "like '%'",
            "= true",
            "= nan",
            "< inf",
            "!= 'x'",
            "is null",
        ]
    ),
)
def test_any_value_can_be_compared_and_sorted(value: object, comparison: str) -> None:
    row = Row(params={"x": value})
    assert meets(f"params.x {comparison}", row) in (True, False)
    sort_rows([row, ROW, row], parse_order("params.x, params.depth desc"))
