"""The report: one page that needs no web; charts are plain HTML, so it is small.

Its size depends on the number of columns alone: at most some MB.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ._description import (
    Description,
    association_matrix,
    column_table,
    correlation_table,
    histogram,
    missing_together,
    top_values,
)
from ._pairs import label
from ._plots import class_shares, target_means
from ._target import CLASSIFICATION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._profile import Column
    from ._target import Target

_SHOWN = 300  # columns with a chart of their own; the table artifact has all
_WARNINGS = 100
_MATRIX = 40
_RANKED = 30
_LABEL = 60
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif }
body { max-width: 72rem; margin: 1rem auto; padding: 0 1rem }
nav { position: sticky; top: 0; background: Canvas; padding: .5rem 0; z-index: 1;
  border-bottom: 1px solid #8884 }
nav a { margin-right: 1rem }
section { scroll-margin-top: 1rem }
h2 { margin-top: 2.5rem }
input, select { font: inherit; padding: .3rem .5rem }
#find { width: 24rem; max-width: 60% }
table { border-collapse: collapse }
td, th { text-align: left; padding: .15rem .8rem .15rem 0; vertical-align: top }
th { font-weight: normal }
th { opacity: .75 }
.sortable th { cursor: pointer }
.wide { overflow-x: auto }
details { border-top: 1px solid #8884; padding: .4rem 0 }
summary { cursor: pointer; display: flex; gap: 1rem; align-items: center }
summary b { flex: 1; overflow-wrap: anywhere }
.both { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 1.5rem; margin: .6rem 0 }
.tag { border-radius: 1rem; padding: 0 .6rem; background: #8883; font-size: .85em }
.flag { background: #e8590c; color: #fff }
.leak { background: #c92a2a; color: #fff }
.hist { display: flex; align-items: flex-end; gap: 1px; width: 22rem; height: 9rem;
  border-bottom: 1px solid #888 }
.hist i { flex: 1; background: #1971c2; min-height: 1px }
.hist i:hover, .bar i:hover { background: #e8590c }
.ends { display: flex; justify-content: space-between; width: 22rem; font-size: .85em }
.small { width: 8rem; height: 1.6rem; pointer-events: none }
.bar { display: grid; grid-template-columns: 14rem 18rem 6rem; gap: .6rem; align-items: center }
.bar span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; text-align: right }
.bar i { display: block; height: .7rem; background: #1971c2; min-width: 1px }
.both .bar { grid-template-columns: 9rem 10rem 4rem }
.stack { display: flex; height: .9rem }
.stack u { display: block }
.heat td { padding: 0; width: 1.5rem; height: 1.4rem; min-width: 1.5rem }
.heat th { font-size: .8em; white-space: nowrap; padding: 0 .4rem 0 0; text-align: right }
.heat .top th { writing-mode: vertical-rl; transform: rotate(180deg); padding: .3rem 0 0 }
small { opacity: .75 }
"""
_SCRIPT = """
const find = document.querySelector("#find"), kind = document.querySelector("#kind");
const filter = () => document.querySelectorAll("#columns details").forEach(one => {
  const text = one.querySelector("summary").textContent.toLowerCase();
  one.hidden = !text.includes(find.value.toLowerCase()) ||
    kind.value && one.dataset.kind !== kind.value;
});
find.oninput = kind.onchange = filter;
document.querySelectorAll(".sortable th").forEach(head => head.onclick = () => {
  const body = head.closest("table").tBodies[0];
  const down = head.dataset.down = head.dataset.down ? "" : 1;
  const at = [...head.parentNode.children].indexOf(head);
  const key = row => row.children[at].dataset.value ?? row.children[at].textContent;
  const order = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
  [...body.rows].sort((a, b) => order(key(a), key(b)) * (down ? -1 : 1))
    .forEach(row => body.append(row));
});
const choose = document.querySelector("#matrix");
if (choose) choose.onchange = () => document.querySelectorAll(".matrix").forEach(one =>
  one.hidden = one.id !== choose.value);
"""
_COLOURS = ("#1971c2", "#e8590c", "#2f9e44", "#c2255c", "#7048e8", "#f08c00", "#868e96")
_FACTS = (
    ("mean", "mean"),
    ("std", "standard deviation"),
    ("min", "least"),
    ("q05", "5 %"),
    ("q25", "25 %"),
    ("median", "median"),
    ("q75", "75 %"),
    ("q95", "95 %"),
    ("max", "greatest"),
    ("skewness", "skewness"),
    ("kurtosis", "kurtosis"),
    ("zeros", "zeros"),
    ("negative", "negative"),
    ("infinite", "infinite"),
    ("outliers", "outliers (1.5 widths)"),
    ("far_outliers", "far outliers (3 widths)"),
    ("first", "first"),
    ("last", "last"),
    ("shortest", "shortest, characters"),
    ("longest", "longest"),
    ("characters", "mean length"),
    ("empty", "without a character"),
    ("padded", "with white space at an end"),
)


def render(found: Description) -> str:
    """Return the whole page."""
    sections = {
        "Overview": _overview(found),
        "Warnings": _warnings(found),
        "Target": _target(found, found.target) if found.target else "",
        "Drift": _drift(found.drift) if found.drift else "",
        "Columns": _columns(found),
        "Relations": _relations(found),
        "Missing values": _missing(found),
        "First rows": _preview(found),
    }
    shown = {title: text for title, text in sections.items() if text}
    links = "".join(f'<a href="#{_id(title)}">{title}</a>' for title in shown)
    body = "".join(
        f'<section id="{_id(title)}"><h2>{title}</h2>{text}</section>'
        for title, text in shown.items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Table</title>'
        f"<style>{_STYLE}</style><nav>{links}</nav>{body}<script>{_SCRIPT}</script>"
    )


def _id(title: str) -> str:
    return title.lower().replace(" ", "-")


def _overview(found: Description) -> str:
    profile = found.profile
    kinds: dict[str, int] = {}
    for column in profile.columns.values():
        kinds[column.kind] = kinds.get(column.kind, 0) + 1
    word = "" if profile.different.known is not None else "about "
    facts = {
        "rows": f"{profile.rows:,}",
        "columns": f"{len(profile.columns):,}: "
        + ", ".join(f"{count} {kind}" for kind, count in kinds.items()),
        "missing cells": f"{found.missing_share:.2%}",
        "rows that are there before": f"{word}{profile.repeated:,}",
        "size in memory": f"{profile.bytes / 2**20:,.1f} MiB",
        "how": "every row was read"
        + ("; every figure is exact" if found.is_exact else "; figures with ≈ are estimates"),
    }
    return _facts_table(facts.items())


def _facts_table(facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><th>{escape(key)}<td>{escape(value)}" for key, value in facts)
    return f"<table>{rows}</table>"


def _warnings(found: Description) -> str:
    items = "".join(
        f"<tr><td>{_flag(one.flag)}<td><b>{escape(one.column)}</b><td>{escape(one.text)}"
        for one in found.findings[:_WARNINGS]
    )
    more = len(found.findings) - _WARNINGS
    note = f"<p>{more:,} more are in the table <code>warnings</code>.</p>" if more > 0 else ""
    return f"<table>{items}</table>{note}" if items else "<p>Nothing is odd.</p>"


def _flag(flag: str) -> str:
    kind = "leak" if flag == "leak" else "flag"
    return f'<span class="tag {kind}">{escape(flag)}</span>'


def _target(found: Description, target: Target) -> str:
    parts = [f"<p><b>{escape(target.name)}</b>, {target.task}</p>", _chart(target.column)]
    if target.relations:
        parts.append("<h3>What each column explains of it alone</h3>")
        best = target.relations[:_RANKED]
        parts.append(_ranked([(one["column"], one["explained"]) for one in best], "{:.1%}"))
        parts += [_by_levels(found, target, one["column"]) for one in best]
    return "".join(parts)


def _by_levels(found: Description, target: Target, name: str) -> str:
    draw = _shares if target.task == CLASSIFICATION else _means
    return (
        f"<details><summary><b>{escape(target.name)} by {escape(name)}</b></summary>"
        f"{draw(found, target, name)}</details>"
    )


def _shares(found: Description, target: Target, name: str) -> str:
    shares = class_shares(found, target, name)
    legend = " ".join(
        f'<span style="color:{_COLOURS[i % len(_COLOURS)]}">■</span> {escape(str(word)[:_LABEL])}'
        for i, word in enumerate(shares.columns)
    )
    rows = "".join(
        f'<div class="bar"><span title="{escape(level)}">{escape(level[:_LABEL])}</span>'
        f'<div class="stack">{_stack(row)}</div><small>{row.iloc[0]:.1%}</small></div>'
        for level, (_, row) in zip(map(str, shares.index), shares.iterrows(), strict=True)
    )
    return f"<p>{legend}</p>{rows}"


def _stack(row: Any) -> str:  # noqa: ANN401 - a row of pandas
    return "".join(
        f'<u title="{escape(str(word))}: {share:.1%}" '
        f'style="width:{share:.2%};background:{_COLOURS[place % len(_COLOURS)]}"></u>'
        for place, (word, share) in enumerate(row.items())
    )


def _means(found: Description, target: Target, name: str) -> str:
    table = target_means(found, target, name)
    low, high = float(table["mean"].min()), float(table["mean"].max())
    width = (high - low) or 1.0
    return "".join(
        f'<div class="bar"><span title="{escape(level)}">{escape(level[:_LABEL])}</span>'
        f'<div><i title="{row["rows"]:,.0f} rows, {row["mean"]:.4g} ± {row["std"]:.4g}" '
        f'style="width:{5 + 95 * (row["mean"] - low) / width:.1f}%"></i></div>'
        f"<small>{row['mean']:.4g}</small></div>"
        for level, (_, row) in zip(map(str, table.index), table.iterrows(), strict=True)
    )


def _drift(drift: dict[str, Any]) -> str:
    measured = [
        (name, told["measure"]) for name, told in drift["columns"].items() if told["measure"]
    ]
    measured.sort(key=lambda pair: -pair[1])
    return (
        f"<p>{drift['drifted_columns']} of {drift['compared_columns']} columns have drifted from "
        f"the reference; <code>drift.html</code> shows how. The measure of each:</p>"
        + _ranked(measured[:_RANKED], "{:.3f}")
    )


def _ranked(values: Sequence[tuple[str, float]], form: str) -> str:
    most = max((value for _, value in values), default=0.0) or 1.0
    return "".join(
        f'<div class="bar"><span title="{escape(name)}">{escape(name[:_LABEL])}</span>'
        f'<div><i style="width:{value / most:.1%}"></i></div>'
        f"<small>{form.format(value)}</small></div>"
        for name, value in values
    )


def _columns(found: Description) -> str:
    table: Any = column_table(found)
    facts = {row["column"]: row for row in table.to_dict("records")}
    kinds = dict.fromkeys(column.kind for column in found.profile.columns.values())
    options = "".join(f"<option>{kind}</option>" for kind in kinds)
    shown = list(found.profile.columns.items())[:_SHOWN]
    more = len(found.profile.columns) - len(shown)
    note = f"<p>{more:,} more columns are in the table <code>columns</code>.</p>"
    return (
        '<p><input id="find" placeholder="Find a column or a warning"> '
        f'<select id="kind"><option value="">all kinds</option>{options}</select></p>'
        + "".join(_column(found, name, column, facts[name]) for name, column in shown)
        + (note if more > 0 else "")
    )


def _column(found: Description, name: str, column: Column, facts: dict[str, Any]) -> str:
    flags = found.flags(name)
    told = "".join(f"<p>{_flag(one.flag)} {escape(one.text)}</p>" for one in flags)
    about = "" if column.is_exact else "≈ "
    return (
        f'<details data-kind="{column.kind}"><summary><b>{escape(name)}</b>'
        f"{''.join(_flag(one.flag) for one in flags)}"
        f"<small>{about}{column.distinct:,} different, {column.missing / column.rows:.1%} missing"
        f'</small><span class="tag">{escape(column.type)}</span>{_small(column)}</summary>'
        f'{told}<div class="both"><div>{_chart(column)}</div>{_figures(facts, about)}'
        f"<div>{_top(column)}</div></div></details>"
    )


def _figures(facts: dict[str, Any], about: str) -> str:
    told = {word: facts[key] for key, word in _FACTS if pd.notna(facts.get(key))}
    return _facts_table((word, _number(value, about)) for word, value in told.items())


def _number(value: Any, about: str) -> str:  # noqa: ANN401 - a figure or a time as text
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{about}{value:,.6g}"


def _small(column: Column) -> str:
    if column.spread is None:
        return '<span class="small"></span>'
    _, counts = histogram(column)
    return f'<div class="hist small">{_steps(counts, [])}</div>'


def _steps(counts: list[int], titles: list[str]) -> str:
    most = max(counts, default=0) or 1
    named = [f' title="{escape(title)}"' for title in titles] or [""] * len(counts)
    return "".join(
        f'<i{title} style="height:{100 * count / most:.1f}%"></i>'
        for count, title in zip(counts, named, strict=True)
    )


def _chart(column: Column) -> str:
    if column.spread is None:
        return ""
    edges, counts = histogram(column)
    texts = [label(edge, column.kind) for edge in edges]
    below = "≤ " if column.spread.numbers[0] < edges[0] else ""
    above = "≥ " if column.spread.numbers[-1] > edges[-1] else ""
    titles = [
        f"{texts[place]} … {texts[place + 1]}: {count:,} rows"
        for place, count in enumerate(counts)
    ]
    return (
        f'<div class="hist">{_steps(counts, titles)}</div>'
        f'<div class="ends"><span>{below}{texts[0]}</span><span>{above}{texts[-1]}</span></div>'
    )


def _top(column: Column) -> str:
    top = top_values(column)[:10]
    if not top:
        return ""
    return "<p><small>most frequent</small></p>" + _ranked(
        [(value, rows / column.present) for value, rows in top], "{:.2%}"
    )


def _relations(found: Description) -> str:
    relations = found.relations
    numbers = list(relations.plan.numbers)
    matrices = {
        "associations": association_matrix(found),
        "Pearson's correlation": (numbers, relations.pearson),
        "Spearman's correlation": (numbers, relations.spearman),
    }
    shown = {title: one for title, one in matrices.items() if len(one[0]) > 1}
    if not shown:
        return ""
    options = "".join(f'<option value="{_id(title)}">{title}</option>' for title in shown)
    drawn = "".join(
        f'<div class="matrix wide" id="{_id(title)}"{" hidden" if place else ""}>'
        f"{_matrix(names, matrix)}</div>"
        for place, (title, (names, matrix)) in enumerate(shown.items())
    )
    return (
        f'<p><select id="matrix">{options}</select> <small>Associations are |Spearman| of two '
        "numbers, the correlation ratio of a number and groups, and Cramér's V of groups.</small>"
        f"</p>{drawn}{_strongest(found)}"
    )


def _matrix(names: list[str], matrix: np.ndarray) -> str:
    """Return a table of coloured cells, of the columns with the strongest relations."""
    strength = np.nan_to_num(np.abs(matrix - np.eye(len(names)))).max(axis=0, initial=0.0)
    order = np.sort(np.argsort(-strength, kind="stable")[:_MATRIX])
    top = "".join(f"<th>{escape(names[i][:_LABEL])}" for i in order)
    rows = "".join(
        f"<tr><th>{escape(names[i][:_LABEL])}"
        + "".join(_cell(names[i], names[j], matrix[i, j]) for j in order)
        for i in order
    )
    note = f"<p>The {_MATRIX} of {len(names)} columns with the strongest ones.</p>"
    table = f'<table class="heat"><tr class="top"><th>{top}</tr>{rows}</table>'
    return table + (note if len(names) > len(order) else "")


def _cell(one: str, other: str, value: float) -> str:
    title = f'title="{escape(one)} – {escape(other)}: '
    if np.isnan(value):
        return f'<td {title}not defined">'
    colour = "25,113,194" if value >= 0 else "224,49,49"
    return f'<td {title}{value:.2f}" style="background:rgba({colour},{abs(value):.2f})">'


def _strongest(found: Description) -> str:
    rows = correlation_table(found)[:_RANKED]
    if not rows:
        return ""
    names = ("column", "other", "pearson", "spearman", "rows")
    head = "".join(f"<th>{name}" for name in names)
    body = "".join("<tr>" + "".join(_value_cell(row[name]) for name in names) for row in rows)
    return (
        "<h3>Strongest correlations</h3>"
        f'<table class="sortable"><thead><tr>{head}</thead><tbody>{body}</tbody></table>'
    )


def _value_cell(value: Any) -> str:  # noqa: ANN401 - a name or a figure
    if isinstance(value, str):
        return f"<td>{escape(value)}"
    if value is None:
        return "<td>"
    return f'<td data-value="{value}">' + (
        f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    )


def _missing(found: Description) -> str:
    shares = [(n, c.missing / c.rows) for n, c in found.profile.columns.items() if c.missing]
    if not shares:
        return "<p>No value is missing.</p>"
    shares.sort(key=lambda pair: -pair[1])
    names, matrix = missing_together(found)
    together = (
        f'<h3>Missing together (phi)</h3><div class="wide">{_matrix(names, matrix)}</div>'
        if len(names) > 1
        else ""
    )
    return _ranked(shares[:_RANKED], "{:.2%}") + together


def _preview(found: Description) -> str:
    preview = found.profile.preview
    names = preview.column_names[:_MATRIX]
    head = "".join(f"<th>{escape(name[:_LABEL])}" for name in names)
    rows = zip(*(_cells(preview.column(name)) for name in names), strict=True)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _cells(column: pa.ChunkedArray) -> list[str]:
    try:
        values = column.to_pylist()
    except (OverflowError, ValueError):  # Python's times end in the year 9999
        values = column.cast(pa.string()).to_pylist()
    return ["" if value is None else str(value)[:_LABEL] for value in values]
