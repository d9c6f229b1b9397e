"""The report: one page that needs no web, bars of plain HTML, columns that can be searched."""

from __future__ import annotations

from html import escape
from typing import Any

_SHOWN = 300  # columns with their bins; the table artifact has all
_LABEL = 40
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
input { font: inherit; width: 100%; padding: .4rem; margin: 1rem 0; box-sizing: border-box }
details { border-top: 1px solid #8884; padding: .4rem 0 }
summary { cursor: pointer; display: flex; gap: 1rem }
summary b { flex: 1; overflow-wrap: anywhere }
.tag { border-radius: 1rem; padding: 0 .6rem; background: #8883 }
.drifted .tag, .retyped .tag, .gone .tag { background: #d9480f; color: #fff }
.new .tag { background: #1971c2; color: #fff }
.bin { display: grid; grid-template-columns: 14rem 1fr 4rem; gap: .6rem; align-items: center }
.bin span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; text-align: right }
i { display: block; height: .5rem; min-width: 1px; background: #9aa5b1 }
i + i { background: #d9480f }
td, th { text-align: left; padding: .1rem 1rem .1rem 0; font-weight: normal }
small { opacity: .7 }
"""
_SCRIPT = """
const search = document.querySelector("input");
search.oninput = () => document.querySelectorAll("details").forEach(one =>
  one.hidden = !one.querySelector("summary").textContent.toLowerCase()
    .includes(search.value.toLowerCase()));
"""
_MEASURES = ("psi", "js", "tv", "ks", "ks_p", "chi2", "chi2_p")


def render(result: dict[str, Any], measure: str, threshold: float) -> str:
    """Return the whole page; its size depends on the number of columns alone."""
    columns, rows = result["columns"], result["rows"]
    order = sorted(columns, key=lambda name: _rank(columns[name]))
    left_out = len(order) - _SHOWN
    more = f"<p>{left_out:,} more columns are in the table <code>drift</code>.</p>"
    return "".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Drift</title>',
            f"<style>{_STYLE}</style><h1>Drift</h1>",
            f"<p>{result['drifted_columns']} of {result['compared_columns']} columns drifted ",
            f"({result['drifted_share']:.0%}); {rows['table']:,} rows against the reference's ",
            f"{rows['reference']:,}. A column has drifted where {measure} reaches {threshold:g} ",
            "and the difference is not chance (p ≤ 0.01).</p>",
            _items(result["warnings"]),
            '<input placeholder="Find a column, a kind or a verdict" autofocus>',
            *(_column(name, columns[name]) for name in order[:_SHOWN]),
            more if left_out > 0 else "",
            "<p><small>Grey is the reference, orange the table.</small></p>",
            f"<script>{_SCRIPT}</script>",
        ]
    )


def _rank(found: dict[str, Any]) -> tuple[bool, float]:
    is_stable = found["verdict"] in ("stable", "skipped")
    return is_stable, -(found["measure"] or 0.0)


def _items(texts: list[str]) -> str:
    items = "".join(f"<li>{escape(text)}" for text in texts[:_SHOWN])
    return f"<ul>{items}</ul>"


def _column(name: str, found: dict[str, Any]) -> str:
    verdict = found["verdict"]
    is_open = " open" if verdict == "drifted" else ""
    return "".join(
        [
            f'<details class="{verdict}"{is_open}><summary><b>{escape(name)}</b>',
            f"<small>{escape(found['reason'])}</small> {found['kind']} ",
            f'<span class="tag">{verdict}</span></summary>',
            _facts(found),
            _bins(found["bins"]) if "bins" in found else "",
            _categories(found),
            "</details>",
        ]
    )


def _facts(found: dict[str, Any]) -> str:
    told = [
        (word, f"{found[f'{key}_reference']}", f"{found[f'{key}_table']}")
        for word, key in (("type", "type"), ("missing", "missing"), ("mean", "mean"))
        if found.get(f"{key}_reference") is not None and found.get(f"{key}_table") is not None
    ]
    lines = "".join(
        f"<tr><th>{word}<td>{_short(first)}<td>{_short(second)}" for word, first, second in told
    )
    measures = ", ".join(
        f"{key} {found[key]:.4g}" for key in _MEASURES if found.get(key) is not None
    )
    head = "<tr><th><th>reference<th>table"
    return f"<table>{head}{lines}</table><p>{measures}</p>"


def _short(text: str) -> str:
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return escape(text)


def _bins(bins: dict[str, Any]) -> str:
    shares = list(zip(bins["labels"], bins["reference"], bins["table"], strict=True))
    most = max(max(first, second) for _, first, second in shares)
    return "".join(
        f'<div class="bin"><span title="{escape(label)}">{escape(label[:_LABEL])}</span>'
        f'<div title="{first:.2%} of the reference, {second:.2%} of the table">'
        f'<i style="width:{first / most:.1%}"></i><i style="width:{second / most:.1%}"></i></div>'
        f"<small>{second - first:+.1%}</small></div>"
        for label, first, second in shares
    )


def _categories(found: dict[str, Any]) -> str:
    return "".join(
        f"<p>{found[f'{change}_count']:,} {change} categories: "
        f"{escape(', '.join(name[:_LABEL] for name in found[f'{change}_categories']))}</p>"
        for change in ("new", "lost")
        if found.get(f"{change}_count")
    )
