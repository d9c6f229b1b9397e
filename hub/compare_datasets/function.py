"""Drift between two tables: which columns changed, how much, and whether that is chance."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Literal

import pandas as pd

import rayml

from ._columns import Column, Table, open_table, read_column
from ._measures import MEASURES, bins_of, categories, distances, is_unique, tests
from ._plots import plot_distributions, plot_drift
from ._report import render

_CHANCE = 0.01  # a difference that chance makes as often as this is no drift
_DRIFTED = ("drifted", "retyped", "gone")
_TABLED = [
    *("verdict", "measure", "threshold", "psi", "js", "tv", "ks", "ks_p", "chi2", "chi2_p"),
    *("missing_reference", "missing_table", "mean_reference", "mean_table"),
    *("type_reference", "type_table", "new_count", "lost_count", "reason"),
]


def compare_datasets(
    context: rayml.Context,
    table: rayml.Input,
    reference: rayml.Input,
    measure: Literal["psi", "js", "tv"] = "psi",
    threshold: float | None = None,
    ignore: list[str] | None = None,
) -> dict[str, Any]:
    """Report how a table's columns have drifted from those of a reference.

    Each column that both tables have is compared by the population stability index (PSI), the
    Jensen–Shannon distance (base 2) and the total variation of its bins: the reference's deciles
    of numbers and times, the most frequent categories, and missing values as a bin of their own;
    by Kolmogorov–Smirnov's test of numbers and the chi² test of the bins. It has drifted if the
    chosen measure reaches the threshold and a test says that less than 1 % of such differences
    are chance, so that small tables raise no false alarm. New and lost categories, new and
    missing columns and changed types are told as well. Text that is different in nearly every row
    (names, ids) is not compared. All rows count. Parquet is read column by column, so that files
    larger than memory can be compared.

    Logs the metrics `drifted_share` (of the reference's columns that were compared, those that
    drifted, changed type or are missing), `drifted_columns`, `compared_columns`,
    `missing_columns` and `new_columns`; the tables `drift`, `drift_categories` and `warnings`;
    the plots `drift_by_column` and `drift_distributions`; and the report `drift.html`.

    It returns these metrics with `rows`, the `drifted` columns, the furthest first, `warnings` in
    words, and by column under `columns`: `verdict` (`drifted`, `retyped`, `gone`, `new`, `stable`
    or `skipped`), `reason`, `kind`, each measure, test, mean and missing share, categories, and
    `bins` with `labels`, and shares of the `reference` and the `table`.

    Args:
        context: What the run logs to.
        table: The rows to judge, such as those of last week.
        reference: What they should be like, such as the training data.
        measure: The one that decides: `psi`, `js` or `tv`.
        threshold: From where on a column has drifted; by default 0.2 of `psi`, 0.1 of `js` and
            `tv`.
        ignore: Columns that are not looked at, such as times that always move on.

    Raises:
        rayml.SpecError: A table has no rows, they have no column in common, or a column to be
            ignored is in neither.
    """
    limit = _threshold(measure, threshold)
    current, base = open_table("table", table), open_table("reference", reference)
    found = _compare(current, base, _common(current, base, ignore or []), measure, limit)
    result = _summary(found, base, current)
    _log(context, result, measure, limit)
    return result


def _threshold(measure: str, threshold: float | None) -> float:
    if measure not in MEASURES:
        raise rayml.SpecError(f"measure={measure!r} is none; give one of {', '.join(MEASURES)}")
    limit = MEASURES[measure] if threshold is None else float(threshold)
    if not limit > 0:
        raise rayml.SpecError(f"threshold={threshold!r} is not above 0; give such a number")
    return limit


def _common(table: Table, reference: Table, ignore: list[str]) -> list[str]:
    """Return the names of all columns that are looked at, in order."""
    known = list(dict.fromkeys([*reference.names, *table.names]))
    for name in ignore:
        if name not in known:
            near = get_close_matches(name, known, 1) or known[:5]
            raise rayml.SpecError(
                f"ignore names {name!r}, which neither table has; is it {', '.join(near)}?"
            )
    looked_at = [name for name in known if name not in ignore]
    if not set(looked_at) & set(table.names) & set(reference.names):
        raise rayml.SpecError(
            f"the tables have no column in common: {', '.join(table.names[:5])} and "
            f"{', '.join(reference.names[:5])}; give two tables of one kind"
        )
    return looked_at


def _compare(
    table: Table, reference: Table, names: list[str], measure: str, threshold: float
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        if name not in table.names:
            found[name] = _alone("gone", "the table has no such column")
        elif name not in reference.names:
            found[name] = _alone("new", "the reference has no such column")
        else:
            columns = read_column(reference, name), read_column(table, name)
            found[name] = _compare_column(*columns, measure, threshold)
    return found


def _alone(verdict: str, reason: str) -> dict[str, Any]:
    return {"verdict": verdict, "reason": reason, "kind": "", "measure": None}


def _compare_column(
    reference: Column, table: Column, measure: str, threshold: float
) -> dict[str, Any]:
    kinds = {reference.kind, table.kind} - {"empty"}
    told = {"kind": min(kinds, default="empty"), "measure": None, **_told(reference, table)}
    if not kinds:
        return told | {"verdict": "skipped", "reason": "neither table has a value"}
    if len(kinds) > 1:
        reason = f"{reference.kind} ({reference.type}) became {table.kind} ({table.type})"
        return told | {"verdict": "retyped", "reason": reason}
    if kinds == {"other"}:
        return told | {"verdict": "skipped", "reason": f"{reference.type} is not compared"}
    if is_unique(reference) and is_unique(table):
        return told | {"verdict": "skipped", "reason": "text that differs in nearly every row"}
    return told | _measured(reference, table, measure, threshold)


def _told(reference: Column, table: Column) -> dict[str, Any]:
    means = [float(one.numbers.mean()) if len(one.numbers) else None for one in (reference, table)]
    return {
        "type_reference": reference.type,
        "type_table": table.type,
        "missing_reference": reference.missing,
        "missing_table": table.missing,
        "mean_reference": means[0],
        "mean_table": means[1],
    }


def _measured(reference: Column, table: Column, measure: str, threshold: float) -> dict[str, Any]:
    bins = bins_of(reference, table)
    found: dict[str, Any] = {**distances(bins), **tests(reference, table, bins)}
    if "category" in (reference.kind, table.kind):
        found |= categories(reference, table)
    found["measure"], found["threshold"] = found[measure], threshold
    first, second = bins.shares
    found["bins"] = {
        "labels": bins.labels,
        "reference": first.tolist(),
        "table": second.tolist(),
    }
    chance = min(p for p in (found["chi2_p"], found["ks_p"]) if p is not None)
    is_far, is_chance = found[measure] >= threshold, chance > _CHANCE
    reason = f"{measure} {found[measure]:.3f}"
    if is_far and is_chance:
        reason += f", which is chance once in {1 / chance:.0f} times" if chance < 1 else ""
    return found | {
        "verdict": "drifted" if is_far and not is_chance else "stable",
        "reason": reason,
    }


def _summary(columns: dict[str, dict[str, Any]], reference: Table, table: Table) -> dict[str, Any]:
    verdicts = [found["verdict"] for found in columns.values()]
    drifted = [name for name, found in columns.items() if found["verdict"] in _DRIFTED]
    drifted.sort(key=lambda name: -(columns[name]["measure"] or float("inf")))
    compared = len(verdicts) - verdicts.count("new") - verdicts.count("skipped")
    return {
        "drifted_share": len(drifted) / compared if compared else 0.0,
        "drifted_columns": len(drifted),
        "compared_columns": compared,
        "missing_columns": verdicts.count("gone"),
        "new_columns": verdicts.count("new"),
        "rows": {"reference": reference.rows, "table": table.rows},
        "drifted": drifted,
        "warnings": [text for name, found in columns.items() if (text := _warning(name, found))],
        "columns": columns,
    }


def _warning(name: str, found: dict[str, Any]) -> str:
    """Return what is to be known of a column, in words; nothing of one that is as it was."""
    if found["verdict"] in ("retyped", "gone", "new"):
        return f"{name}: {found['reason']}"
    parts = [found["reason"]] if found["verdict"] == "drifted" else []
    if found.get("new_count"):
        newest = ", ".join(found["new_categories"][:3])
        parts.append(
            f"{found['new_count']:,} new categories in {found['new_share']:.1%} of the rows, "
            f"such as {newest}"
        )
    if abs(more := found.get("missing_table", 0) - found.get("missing_reference", 0)) >= _CHANCE:
        word = "more" if more > 0 else "fewer"
        parts.append(f"{abs(more):.1%} {word} of the rows have no value")
    return f"{name}: {'; '.join(parts)}" if parts else ""


def _log(context: rayml.Context, result: dict[str, Any], measure: str, threshold: float) -> None:
    columns = result["columns"]
    names = [name for name in result if name.endswith(("_share", "_columns"))]
    context.log_metrics({name: result[name] for name in names})
    context.log_table("drift", _drift_table(columns))
    listed = _category_rows(columns)
    if listed:
        context.log_table("drift_categories", listed)
    if result["warnings"]:
        context.log_table("warnings", {"warning": result["warnings"]})
    print(*result["warnings"], sep="\n")
    context.log_plot("drift_by_column", plot_drift(columns, measure, threshold))
    if (figure := plot_distributions(columns)) is not None:
        context.log_plot("drift_distributions", figure)
    context.log_artifact("drift.html", render(result, measure, threshold).encode())


def _drift_table(columns: dict[str, dict[str, Any]]) -> pd.DataFrame:
    rows = [
        {"column": name} | {key: found.get(key) for key in _TABLED}
        for name, found in columns.items()
    ]
    return pd.DataFrame(rows).convert_dtypes()


def _category_rows(columns: dict[str, dict[str, Any]]) -> list[dict[str, object]]:
    return [
        {"column": name, "category": category, "change": change}
        for name, found in columns.items()
        for change in ("new", "lost")
        for category in found.get(f"{change}_categories", ())
    ]
