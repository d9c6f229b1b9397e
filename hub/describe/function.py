"""What a table holds: every column, how they hang together, and what to be warned of."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np

import rayml

from ._description import (
    Description,
    association_table,
    category_table,
    column_table,
    correlation_table,
    warning_table,
)
from ._findings import Finding, find_odd
from ._fold import fold
from ._pairs import Plan, relate, scale_of
from ._plots import plots_of
from ._profile import Profile, profile
from ._read import open_source
from ._relations import Relations
from ._report import render
from ._target import CLASSIFICATION, REGRESSION, Target, find_target, relate_target

_PAIRED = 60  # columns whose pairs are counted: their number grows with the square
_CORRELATED = 200  # columns of numbers that are correlated
_UNIQUE = 0.9  # text with more different values than that has no levels worth to compare


def describe(
    context: rayml.Context,
    table: rayml.Input,
    target: str | None = None,
    reference: rayml.Input | None = None,
    task: Literal["classification", "regression"] | None = None,
) -> dict[str, Any]:
    """Describe a table: its columns, how they hang together, and what to be warned of.

    Each column gets its type, missing values, different values, distribution, quantiles, moments,
    outliers and most frequent values; each pair Pearson's and Spearman's correlation of numbers,
    the correlation ratio of numbers and groups, or Cramér's V of groups. With a target, it tells
    which share of it each column explains alone, which ones may be the target in disguise, and how
    balanced its classes are. With a reference, how the table has drifted from it. It warns of
    constant, empty, duplicate, mixed and unique columns, of dates and numbers that are text, of
    rows that are there twice, and more.

    All rows count; none are sampled. A table in memory, or a file of up to 256 MiB of values, is
    described exactly. Parquet beyond that, a file or a folder, is read row group by row group in
    two passes and bounded memory: here, or by all workers of a job with `engine=rayml.Dask()`;
    so are Dask and Ray datasets. Other files are read at once: `hub://ingest` makes Parquet of
    large ones. Then counts, means and correlations stay exact, while quantiles
    (within 0.2 % of the rows) and large numbers of different values (within 3 %) are estimates,
    which the column `exact` tells. Pairs are told of the first 60 columns, and correlations of
    the first 200 with numbers.

    Logs the report `report.html`, one page that needs no web; the tables
    `columns`, `categories`, `correlations`, `associations`, `target`, `classes`, `preview` and
    `warnings`; a plot of each kind: `distributions`, `missing`, `missing_together`,
    `correlations_pearson`, `correlations_spearman`, `association_matrix`, `outliers`,
    `target_distribution`, `target_explained` and `target_by_column`; the metrics `rows`,
    `columns`, `missing_share`, `duplicate_rows` and `warnings`; and with a reference what
    compare_datasets logs. It returns these metrics, `flags` (by column; those of the table under
    an empty name), `warnings` in words, `leaks`, and `drift` as compare_datasets returns it.

    Args:
        context: What the run logs to.
        table: The rows to describe.
        target: The column that is to be predicted.
        reference: Rows that the table should be like, such as those of last month.
        task: What is predicted; by default a number with more than 20 different values, or with
            fractions, is `regression`, all else `classification`.

    Raises:
        rayml.SpecError: The table has no rows or columns, or parts that disagree, or no such
            target; or the target does not fit the task.
    """
    source = open_source("table", table)
    found = fold(source, partial(profile, is_whole=source.kind == "whole"))
    if not found.rows or not found.columns:
        missing = "rows" if found.columns else "columns"
        raise rayml.SpecError(f"the table has 0 {missing}; give one that has some")
    aim = find_target(found, target, task) if target is not None else None
    plan = _plan(found, aim)
    classes = frozenset([aim.name]) if aim and aim.task == CLASSIFICATION else frozenset[str]()
    relations = Relations(plan, fold(source, partial(relate, plan=plan)), classes)
    aim = relate_target(aim, relations) if aim else None
    drift = _drift(table, reference)
    with np.errstate(over="ignore", invalid="ignore"):  # of numbers near the largest there are
        odd = find_odd(found, relations, aim, source.notes)
        odd += [*_left_out(found, plan), *_moved(drift)]
        told = Description(found, relations, aim, odd, drift)
        result = _result(told)
        _log(context, told, result)
    return result


def _plan(found: Profile, target: Target | None) -> Plan:
    """Return which pairs of columns are looked at; the target's always are."""
    named = [target.name] if target else []
    columns = {name: found.columns[name] for name in dict.fromkeys([*named, *found.columns])}
    scales = {
        name: scale
        for name, column in columns.items()
        if column.distinct > 1 and (scale := scale_of(column)) is not None
    }
    levels = [
        name
        for name, scale in scales.items()
        if scale.is_numeric or name in named or _has_levels(found, name)
    ][:_PAIRED]
    numbers = [name for name, scale in scales.items() if scale.is_numeric][:_CORRELATED]
    groups = [
        (by, name)
        for by in levels
        for name in levels
        if by != name and scales[name].is_numeric and _are_groups(by, name, scales, target)
    ]
    used = {name: scales[name] for name in found.columns if name in {*levels, *numbers}}
    return Plan(used, _in_order(found, levels), _in_order(found, numbers), groups)


def _has_levels(found: Profile, name: str) -> bool:
    column = found.columns[name]
    return column.distinct <= _UNIQUE * column.present


def _are_groups(by: str, name: str, scales: dict[str, Any], target: Target | None) -> bool:
    """Tell whether a mean by the levels of a column is asked for."""
    if not scales[by].is_numeric:
        return True
    if target is None:
        return False
    is_by_class = target.task == CLASSIFICATION and by == target.name
    return is_by_class or (target.task == REGRESSION and name == target.name)


def _in_order(found: Profile, names: list[str]) -> list[str]:
    return [name for name in found.columns if name in names]


def _drift(table: rayml.Input, reference: rayml.Input | None) -> dict[str, Any] | None:
    if reference is None:
        return None
    compare: Any = rayml.hub.get("compare_datasets")
    found: dict[str, Any] = compare(table=table, reference=reference)
    return found


def _left_out(found: Profile, plan: Plan) -> list[Finding]:
    """Return that not all pairs were looked at, if so."""
    scaled = [name for name, column in found.columns.items() if column.distinct > 1]
    if len(plan.levels) < _PAIRED or len(scaled) <= _PAIRED:
        return []
    text = (
        f"associations are told of {_PAIRED} of {len(scaled):,} columns, correlations of "
        f"{len(plan.numbers):,}"
    )
    return [Finding("", "not all pairs", text)]


def _moved(drift: dict[str, Any] | None) -> list[Finding]:
    if drift is None:
        return []
    columns = drift["columns"]
    return [Finding(name, "drift", columns[name]["reason"]) for name in drift["drifted"]]


def _result(told: Description) -> dict[str, Any]:
    found = told.profile
    flags: dict[str, list[str]] = {}
    for finding in told.findings:
        flags.setdefault(finding.column, []).append(finding.flag)
    return {
        "rows": found.rows,
        "columns": len(found.columns),
        "missing_share": told.missing_share,
        "duplicate_rows": found.repeated,
        "exact": told.is_exact,
        "flags": flags,
        "warnings": [f"{one.column or 'table'}: {one.text}" for one in told.findings],
        "leaks": [one["column"] for one in told.target.leaks] if told.target else [],
        "drift": told.drift,
    }


def _log(context: rayml.Context, told: Description, result: dict[str, Any]) -> None:
    names = ("rows", "columns", "missing_share", "duplicate_rows")
    context.log_metrics({name: result[name] for name in names})
    context.log_metric("warnings", len(told.findings))
    for name, rows in _tables(told).items():
        if len(rows):
            context.log_table(name, rows)
    for name, figure in plots_of(told).items():
        context.log_plot(name, figure)
    context.log_artifact("report.html", render(told).encode())
    print(*result["warnings"], sep="\n")


def _tables(told: Description) -> dict[str, Any]:
    return {
        "columns": column_table(told),
        "categories": category_table(told),
        "correlations": correlation_table(told),
        "associations": association_table(told),
        "target": told.target.relations if told.target else [],
        "classes": told.target.classes if told.target else [],
        "preview": told.profile.preview,
        "warnings": warning_table(told),
    }
