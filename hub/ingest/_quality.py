"""What is in the typed table, and what is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from ._read import quoted, text

if TYPE_CHECKING:
    from ._read import Staged
    from ._types import Column, Plan

_MOST_BAD_VALUES = 10_000  # of a column, in the table; all are counted
_MUCH = 0.5


@dataclass
class Quality:
    """What was found.

    Attributes:
        columns: A row for each column.
        bad_values: Those that became missing: row, column and text.
        metrics: Counts over the whole table.
        warnings: In words.
    """

    columns: pd.DataFrame
    bad_values: pd.DataFrame
    metrics: dict[str, float]
    warnings: list[str]


def look_at(staged: Staged, plan: Plan) -> Quality:
    """Return what is in the table, counted in the database."""
    ((rows,),) = staged.ask("SELECT count(*) FROM staged")
    columns = pd.DataFrame([_told(staged, column, rows) for column in plan.columns])
    cells = max(1, rows * len(columns))
    metrics = {
        "rows": rows,
        "columns": len(columns),
        "files": staged.files,
        "bad_rows": staged.bad_count,
        "bad_values": int(columns["bad"].sum()),
        "duplicate_rows": _duplicates(staged, rows),
        "missing_share": float(columns["missing"].sum() / cells),
    }
    return Quality(columns, _bad_values(staged, plan, columns), metrics, _warn(columns, metrics))


def _told(staged: Staged, column: Column, rows: int) -> dict[str, object]:
    """Return one column's row."""
    values, known = column.sql, column.known if column.is_cast else column.sql
    measured = ["count(v)", "count(*) FILTER (k IS NOT NULL AND v IS NULL)"]
    if not column.is_nested:
        measured += [
            "approx_count_distinct(v)",
            "CAST(min(v) AS VARCHAR)",
            "CAST(max(v) AS VARCHAR)",
        ]
    ((there, bad, *rest),) = staged.ask(
        f"SELECT {', '.join(measured)} FROM (SELECT {values} AS v, {known} AS k FROM staged)"
    )
    distinct, low, high = rest or (None, None, None)
    return {
        "column": column.name,
        "type": column.type,
        "why": column.why,
        "missing": rows - there,
        "missing_share": (rows - there) / rows if rows else 0.0,
        "bad": bad,
        "distinct": distinct,
        "min": _short(low),
        "max": _short(high),
        "doubt": column.doubt,
    }


def _short(value: str | None) -> str | None:
    return value if value is None or len(value) <= 60 else value[:59] + "…"


def _duplicates(staged: Staged, rows: int) -> int:
    """Return how many rows there are that were there before, told by their hashes."""
    names = ", ".join(map(quoted, staged.columns))
    ((different,),) = staged.ask(f"SELECT count(DISTINCT hash({names})) FROM staged")
    return rows - int(different)


def _bad_values(staged: Staged, plan: Plan, columns: pd.DataFrame) -> pd.DataFrame:
    """Return rows, counted from 1, of values that do not fit; some thousands of each column."""
    kinds = {"row": "int64", "column": "str", "value": "str"}
    bad = set(columns.loc[columns["bad"] > 0, "column"])
    found = [
        row
        for column in plan.columns
        if column.name in bad
        for row in staged.ask(
            f"SELECT rowid + 1, {text(column.name)}, {column.known} FROM staged "
            f"WHERE {column.known} IS NOT NULL AND {column.sql} IS NULL "
            f"ORDER BY rowid LIMIT {_MOST_BAD_VALUES}"
        )
    ]
    return pd.DataFrame(found, columns=list(kinds)).astype(kinds)


def _warn(columns: pd.DataFrame, metrics: dict[str, float]) -> list[str]:
    warnings = [
        f"{bad:,} values of {name!r} do not fit {kind} and became missing; see `bad_values`."
        for name, kind, bad in columns[["column", "type", "bad"]].itertuples(index=False)
        if bad
    ]
    if not metrics["rows"]:
        return ["The table has 0 rows."]
    empty = columns.loc[columns["missing"] == metrics["rows"], "column"]
    if len(empty):
        warnings.append(f"No row has a value of {', '.join(map(repr, empty[:10]))}.")
    partly = (columns["missing_share"] > _MUCH) & (columns["missing"] < metrics["rows"])
    warnings += [
        f"{share:.0%} of {name!r} are missing."
        for name, share in columns.loc[partly, ["column", "missing_share"]].itertuples(index=False)
    ]
    if metrics["duplicate_rows"]:
        warnings.append(f"{metrics['duplicate_rows']:,} rows are there twice, and are kept.")
    return warnings
