"""Files and databases as a typed table, and what is wrong with them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

import rayml

from ._database import check_database, read_database
from ._quality import look_at
from ._read import Staged, open_staged, read_file
from ._report import missing_plot, page
from ._sources import files_of
from ._types import Plan, check_types, plan_types

_BATCH_ROWS = 100_000


def ingest(
    context: rayml.Context,
    source: rayml.Input | None = None,
    database: str | None = None,
    query: str | None = None,
    types: dict[str, str] | None = None,
    missing: list[str] | None = None,
    header: bool = True,  # noqa: FBT001, FBT002 - a parameter of a job
) -> dict[str, object]:
    """Read files or a database into a typed Parquet dataset, with a report on its quality.

    Reads CSV, TSV, JSON, JSON lines, Parquet, Feather, Excel, SQLite and DuckDB: a file, a folder
    or pattern of them, on this machine, in a bucket or on the web, also in .gz, .bz2, .xz, .zip
    and .tar; or what a query gives of a database that SQLAlchemy has a driver for. Tables larger
    than memory are read through a file on disk.

    Logs the dataset `table`; the tables `columns` (of each column its type, why, missing values,
    distinct ones, range and what could not be read), `bad_values` (row, column and text of values
    that do not fit their column's type and became missing), `bad_rows` (file, row and text of
    rows that fit no table and were left out) and `warnings`; the plot `missing`, the page
    `report.html`, and metrics: `rows`, `columns`, `files`, `bad_rows`, `bad_values`,
    `duplicate_rows`, `missing_share`. Returns the dataset's URI and these numbers.

    Text becomes whole numbers, numbers (also `1,234.50`, `1.234,50`, `$5` and `12%`), true and
    false, or times where at least 95 of 100 values are such; 007 stays text. Dates are times at
    midnight, and times with an offset are kept in UTC.

    Args:
        context: What the run logs to.
        source: The files: a path, a URI, or one with `*`, `**` or `?`.
        database: Instead of files, a URL such as "postgresql+psycopg://user:${PASSWORD}@host/db".
            `${NAME}` is taken from the environment, where `secrets=` of the job puts it: the URL
            is recorded, so that a password in it is refused.
        query: What to read of a database or of a SQLite or DuckDB file, as SQL; a file with one
            table needs none.
        types: Of columns whose type is known: int8 … int64, uint8 … uint64, float32, float64,
            bool, string, date, timestamp, decimal(10,2), or a format of dates such as "%d/%m/%Y".
        missing: Texts that stand for a missing value, instead of the usual ones (NA, null, …).
        header: Whether files of text begin with the names of their columns.

    Raises:
        SpecError: There is nothing to read, a file is none of these, a type or column of `types`
            is unknown, or the database refuses.
    """
    if (source is None) == (database is None):
        raise rayml.SpecError("ingest reads files or a database; give source= or database=")
    check_types(types or {})
    warnings: list[str] = []
    with tempfile.TemporaryDirectory(prefix="rayml-") as folder:
        staged = open_staged(Path(folder), warnings)
        if database is not None:
            read_database(staged, check_database(database), query)
        elif source is not None:
            for file in files_of(source, Path(folder), warnings):
                read_file(staged, file, query, header=header)
        staged.check()
        plan = plan_types(staged, types or {}, missing)
        return _log(context, staged, plan)


def _log(context: rayml.Context, staged: Staged, plan: Plan) -> dict[str, object]:
    quality = look_at(staged, plan)
    table = context.log_dataset("table", plan.stream(staged, _BATCH_ROWS))
    context.log_table("columns", quality.columns)
    context.log_table("bad_values", quality.bad_values)
    context.log_table("bad_rows", staged.bad_rows())
    context.log_metrics(quality.metrics)
    warnings = [*staged.warnings, *plan.warnings, *quality.warnings]
    context.log_table("warnings", pd.DataFrame({"warning": pd.Series(warnings, dtype="str")}))
    context.log_plot("missing", missing_plot(quality.columns))
    context.log_artifact("report.html", page(quality, staged.bad_rows(), warnings).encode())
    rows, columns = (int(quality.metrics[name]) for name in ("rows", "columns"))
    print(f"{rows:,} rows × {columns} columns", *warnings, sep="\n")
    return {"table": table.uri, **quality.metrics}
