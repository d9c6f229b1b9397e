"""Rows to learn from and rows to test with, and a look for what leaks from one to the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pandas as pd

import rayml

from ._leaks import find_leaks
from ._parts import Parts, split_rows
from ._table import check, plain, times_of
from ._target import target_metrics, target_table

if TYPE_CHECKING:
    from collections.abc import Mapping

_WAYS = ("random", "stratified", "time", "group")


def split(  # noqa: PLR0913, PLR0917 - what can be asked of a split
    context: rayml.Context,
    table: pd.DataFrame,
    by: Literal["random", "stratified", "time", "group"] = "random",
    target: str | None = None,
    time: str | None = None,
    group: str | None = None,
    test_size: float = 0.2,
    validation_size: float = 0.0,
    seed: int = 0,
) -> dict[str, int]:
    """Split a table into train, validation and test, and look for leaks between them.

    Logs the datasets `train`, `test` and, if asked for, `validation`, each with its rows in the
    table's order; the tables `sizes`, with a target `target` (its shares or spread in each part),
    and `warnings`; and metrics: `rows/<part>`, `target/<part>/<class>` or `target/<part>/mean`,
    and counts of what leaks: `leaks/same_rows`, `leaks/same_groups`, `leaks/future_rows`,
    `leaks/disguised_columns`. A table's named index becomes a column, any other is left out.
    Returns the number of rows in each part.

    The leaks that are looked for: rows of the test that are in train too, groups on both sides,
    rows of train that are later than the first of the test, and columns that tell the target all
    by themselves, so that they are probably made from it.

    Args:
        context: What the run logs to.
        table: The rows.
        by: "random"; "stratified" gives each class of the target its share of each part (numbers
            are cut into ten classes); "time" tests with the latest rows; "group" keeps the rows
            of a group together.
        target: The column that is to be predicted; needed to stratify.
        time: The column with dates, times or numbers that grow with time; needed to split by
            time, otherwise only for the look at leaks. Rows without one are left out then.
        group: The column that says whose a row is, such as a customer; needed to split by group,
            otherwise only for the look at leaks. A row without one is a group of its own.
        test_size: The share of the rows to test with, between 0 and 1.
        validation_size: The share of the rows for `validation`; 0 for none.
        seed: Of the draw; the same table and seed give the same parts.

    Raises:
        SpecError: There is no such column, or a way to split lacks its column; the shares leave a
            part without rows; or there are too few rows, groups or points in time.
    """
    named = {"target": target, "time": time, "group": group}
    table = check(table, {what: name for what, name in named.items() if name is not None})
    _check_way(by, {"stratified": target, "time": time, "group": group})
    warnings: list[str] = []
    table = plain(table, warnings)
    moments = times_of(table[time], warnings) if time is not None else None
    column = {"stratified": target, "group": group}.get(by)
    values = moments if by == "time" else table[column] if column is not None else None
    parts = split_rows(by, values, len(table), test_size, validation_size, seed, warnings)
    _log_parts(context, table, parts)
    if target is not None:
        context.log_table("target", target_table(table[target], parts, warnings))
        context.log_metrics(target_metrics(table[target], parts))
    counts = find_leaks(table, parts, target, moments, group, warnings)
    context.log_metrics({f"leaks/{name}": count for name, count in counts.items()})
    context.log_table("warnings", pd.DataFrame({"warning": pd.Series(warnings, dtype="str")}))
    print("\n".join(warnings or ["Nothing leaks, as far as can be seen."]))
    return {name: len(rows) for name, rows in parts.items()}


def _check_way(by: str, needed: Mapping[str, str | None]) -> None:
    if by not in _WAYS:
        raise rayml.SpecError(f"by={by!r} is no way to split; known: {', '.join(_WAYS)}")
    if by in needed and needed[by] is None:
        what = {"stratified": "target"}.get(by, by)
        raise rayml.SpecError(f"by={by!r} needs a column; name it in {what}=")


def _log_parts(context: rayml.Context, table: pd.DataFrame, parts: Parts) -> None:
    sizes = {"part": [], "rows": [], "share": []}  # type: dict[str, list[object]]
    for name, rows in parts.items():
        context.log_dataset(name, table.iloc[rows].reset_index(drop=True))
        context.log_metric(f"rows/{name}", len(rows))
        sizes["part"].append(name)
        sizes["rows"].append(len(rows))
        sizes["share"].append(len(rows) / len(table))
    context.log_table("sizes", sizes)
    print(", ".join(f"{name} {len(rows):,}" for name, rows in parts.items()), "rows")
