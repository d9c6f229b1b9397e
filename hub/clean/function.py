"""A table of numbers that models take, and the transformer that makes it of other tables too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pandas as pd

import rayml  # noqa: TC001 - whoever calls the function reads its annotations

from ._columns import look_at
from ._steps import fit, made_of
from ._table import aligned, check, check_words, rows_to_learn_from
from ._target import Target

if TYPE_CHECKING:
    from ._columns import Column


def clean(  # noqa: PLR0913, PLR0917 - what can be asked of it
    context: rayml.Context,
    table: pd.DataFrame,
    validation: pd.DataFrame | None = None,
    test: pd.DataFrame | None = None,
    target: str | None = None,
    drop: str | list[str] | None = None,
    outliers: Literal["clip", "keep"] = "clip",
    encoding: Literal["auto", "onehot", "ordinal", "target", "keep"] = "auto",
    max_categories: int = 20,
    dates: Literal["number", "keep"] = "number",
    seed: int = 0,
) -> dict[str, object]:
    """Clean a table: types, missing values, duplicates, outliers and categories.

    All is learnt from `table` alone, the rows to train with, and kept as a transformer of
    scikit-learn, which is loaded without trust and turns any table with these columns into the
    same columns: `rayml.load_model(uri).transform(rows)`. It takes the columns as they were, text
    included; categories that it has not seen and values that are no numbers or dates are no error.
    Where text or times are kept, `.infer_objects()` gives what it returns the right types.

    Logs the datasets `train`, `validation` and `test` with the target as their last column, the
    model `transformer`, the table `columns`, which says of each column what it was, what was done
    and why, the table `warnings`, and metrics: `rows/<dataset>`, `rows/duplicates`,
    `rows/without_target`, `columns/before`, `columns/after`. Returns the transformer's URI, and
    how many rows and columns there are.

    What is done: columns without a value, with one value alone or with lists are dropped, and so
    are identifiers in text. Numbers and dates that are kept as text are read as such where at
    least 95 of 100 values are; those that are not count as missing. Missing numbers become the
    median, with a column `missingindicator_<name>` that tells where; missing categories are one
    of their own. Rows that are there twice, and rows without a target, are dropped from `train`.

    Args:
        context: What the run logs to.
        table: The rows to learn from: those of the training.
        validation: More rows, to be cleaned in the same way.
        test: The same.
        target: The column to be predicted; it stays as it is, numbers in text apart.
        drop: A column, or several, to leave out.
        outliers: "clip" brings numbers that are more than 3 interquartile ranges outside of the
            middle half back to there, if at most 1 of 100 are: more are no outliers; "keep".
        encoding: Of categories: "onehot", a column for each; "ordinal", a number; "target", the
            target's mean where they are, made in folds so that no row sees its own; "keep" as
            text; "auto" is a column for each of a few, else the target, and without one a number.
        max_categories: How many are a few, and how many columns there are with "onehot". Rarer
            categories are as those that were never seen, as are those beyond the 1,000 most
            frequent with "ordinal", and beyond 5,000 with "target".
        dates: "number" is seconds since 1970; "keep" leaves them times.
        seed: Of the folds.

    Raises:
        SpecError: There is no such column, no rows, nothing left to learn from, or another table
            lacks a column.
    """
    check_words({"outliers": outliers, "encoding": encoding, "dates": dates}, max_categories)
    warnings: list[str] = []
    table, dropped = check(table, target, [drop] if isinstance(drop, str) else drop or [])
    goal = Target.of(table, target, warnings)
    rows = rows_to_learn_from(table, target, warnings)
    columns = look_at(rows.drop(columns=[*dropped, *goal.names]), outliers=outliers, dates=dates)
    warnings += [f"The dates of {c.name!r}: {c.doubt}." for c in columns if c.doubt]
    transformer, cleaned = fit(columns, rows, goal, encoding, max_categories, seed)
    context.log_metrics(_counts(table, rows, cleaned, goal))
    _log_rows(context, "train", cleaned, rows, goal)
    for name, other in {"validation": validation, "test": test}.items():
        if other is not None:
            others = aligned(other, name, columns, goal.names, warnings)
            made = transformer.transform(others).infer_objects()
            _log_rows(context, name, made, others, goal)
    model = context.log_model("transformer", transformer)
    context.log_table(
        "columns", _told(columns, made_of(transformer, list(cleaned.columns)), goal, dropped)
    )
    context.log_table("warnings", pd.DataFrame({"warning": pd.Series(warnings, dtype="str")}))
    print(
        f"{len(columns)} columns became {cleaned.shape[1]}, of {len(rows):,} rows",
        *warnings,
        sep="\n",
    )
    return {"transformer": model.uri, "rows": len(rows), "columns": cleaned.shape[1]}


def _counts(
    table: pd.DataFrame, rows: pd.DataFrame, cleaned: pd.DataFrame, goal: Target
) -> dict[str, int]:
    without = int(table[goal.name].isna().sum()) if goal.name is not None else 0
    return {
        "rows/without_target": without,
        "rows/duplicates": len(table) - without - len(rows),
        "columns/before": table.shape[1] - len(goal.names),
        "columns/after": cleaned.shape[1],
    }


def _log_rows(
    context: rayml.Context, name: str, cleaned: pd.DataFrame, rows: pd.DataFrame, goal: Target
) -> None:
    context.log_metric(f"rows/{name}", len(rows))
    whole = pd.concat([cleaned, goal.values(rows)], axis=1) if goal.is_in(rows) else cleaned
    context.log_dataset(name, whole.reset_index(drop=True))


def _told(
    columns: list[Column], made: dict[str, list[str]], goal: Target, dropped: list[str]
) -> pd.DataFrame:
    """Return what was done with each column, and why."""
    told = [column.told(made.get(column.name, [])) for column in columns]
    rest = dict.fromkeys(dropped, "left out, as asked for")
    rest |= dict.fromkeys(goal.names, goal.done)
    return pd.DataFrame(told + [{"column": name, "done": done} for name, done in rest.items()])
