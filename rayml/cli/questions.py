"""`rayml compare`, `lineage`, `experiments` and `sql`: questions about several runs."""

from __future__ import annotations

from typing import Annotated

import typer

from rayml.cli.exits import say
from rayml.cli.options import JsonOption, StoreOption, WhereOption
from rayml.cli.output import (
    console,
    emit_json,
    frame_rows,
    print_frame,
    table,
    time_text,
)
from rayml.errors import SpecError


def compare(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="Ids, or beginnings of them.")
    ] = None,
    *,
    where: WhereOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show in which params and metrics runs differ, in a column for each."""
    from rayml.listing import get_run, runs  # noqa: PLC0415 - not for --help
    from rayml.run_list import RunList  # noqa: PLC0415

    found = RunList(get_run(name, store=store) for name in names or ())
    if where is not None:
        found += runs(where=where, store=store)
    if len(found) < 2:
        raise SpecError(f"{len(found)} run(s) cannot be compared; name two, or use --where")
    frame = found.compare().reset_index()
    if as_json:
        emit_json(frame_rows(frame))
    elif frame.empty:
        say(f"{len(found)} runs have the same params and metrics")
    else:
        print_frame(frame)
    return 0


def lineage(
    name: Annotated[
        str, typer.Argument(metavar="RUN|URI", help="A run, a rayml:// URI, or an input's URI.")
    ],
    *,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show what a run, artifact or model came from, and what came from it."""
    from rayml.ancestry import lineage  # noqa: PLC0415 - not for --help

    found = lineage(name, store=store)
    if as_json:
        emit_json(frame_rows(found.to_pandas()))
    else:
        print(found)
    return 0


def experiments(*, store: StoreOption = None, as_json: JsonOption = False) -> int:
    """List experiments: how many runs, and when the newest was submitted."""
    from rayml.listing import experiments  # noqa: PLC0415 - not for --help
    from rayml.store import open_store  # noqa: PLC0415

    opened = open_store(store)
    found = experiments(store=opened)
    if as_json:
        emit_json([{"name": e.name, "runs": e.runs, "last": e.last.isoformat()} for e in found])
    elif found:
        rows = table("experiment", "runs", "last")
        for one in found:
            rows.add_row(one.name, str(one.runs), time_text(one.last.timestamp()))
        console().print(rows)
    else:
        say(f"store {opened.uri} has no runs")
    return 0


def sql(
    query: Annotated[
        str, typer.Argument(help="One select over runs, params, metrics and artifacts.")
    ],
    *,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Ask in SQL; a table on a terminal, CSV in a pipe. Needs rayml[sql]."""
    import pandas as pd  # noqa: PLC0415 - not for --help

    from rayml.database import ask  # noqa: PLC0415

    table = ask(query, store)
    rows = table.to_pylist(maps_as_pydicts="strict")
    frame = pd.DataFrame(rows, columns=table.column_names, dtype=object)
    if as_json:
        emit_json(frame_rows(frame))
    else:
        print_frame(frame)
    return 0
