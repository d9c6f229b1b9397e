"""`rayml list`, `show`, `history`, `logs` and `cancel`: what is there to say about runs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from rayml.cli.exits import say
from rayml.cli.options import (
    JsonOption,
    RunArgument,
    StoreOption,
    WhereOption,
    is_terminal,
    open_for_reading,
)
from rayml.cli.output import (
    console,
    duration_s,
    duration_text,
    emit_json,
    number_text,
    pairs_text,
    print_artifacts,
    print_facts,
    print_values,
    run_data,
    run_facts,
    state_text,
    table,
    time_text,
)

if TYPE_CHECKING:
    from rayml.run import Run
    from rayml.store import Store
    from rayml.tracker.runs import RunRecord

_SHOWN_RUNS = 20
_SHOWN_METRICS = 3
_EITHER = "(archived or not archived)"
_CANCEL_MARGIN_S = 20.0
_POLL_S = 0.2


def list_runs(
    *,
    experiment: Annotated[str | None, typer.Option(help="Only the runs of this one.")] = None,
    where: WhereOption = None,
    order_by: Annotated[
        str | None, typer.Option(metavar="FIELDS", help='Such as "metrics.auc desc, name".')
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; 20.")] = None,
    shows_all: Annotated[
        bool,
        typer.Option("--all", help="Archived runs and parts of others too; no limit but yours."),
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """List runs, the newest first; without --where, parts of others (trials) are left out."""
    from rayml.listing import select  # noqa: PLC0415 - not for --help
    from rayml.tracker.edits import read_edited  # noqa: PLC0415

    opened = open_for_reading(store)
    _warn(opened)
    if shows_all:
        where = _EITHER if where is None else f"({where}) and {_EITHER}"
    listed = select(read_edited(opened).values(), experiment, where, order_by)
    found = listed if where is not None else _without_parts(listed)
    shown = found[: limit or (None if shows_all else _SHOWN_RUNS)]
    if as_json:
        emit_json([run_data(record, opened) for record in shown])
    elif found:
        _print_runs(shown)
        if len(found) > len(shown):
            say(f"{len(shown)} of {len(found)} runs; --limit {len(found)} lists all")
        if parts := len(listed) - len(found):
            say(f"{parts} more are parts of others; --all lists them, run.children() those of one")
    else:
        asked = f" of {experiment!r}" if experiment else ""
        say(f"store {opened.uri} has no runs{asked}" + (" that meet --where" if where else ""))
    return 0


def _without_parts(records: list[RunRecord]) -> list[RunRecord]:
    """Return the runs that are no part of another one that is listed."""
    ids = {record.spec.run for record in records}
    return [record for record in records if record.spec.parent not in ids]


def _warn(store: Store) -> None:
    """Read a store, and warn in one line of what cannot be read."""
    from rayml.tracker.reader import read_runs  # noqa: PLC0415 - not for --help

    if problems := "; ".join(map(str, read_runs(store).problems.values())):
        say(f"warning: some runs may be missing or cut off: {problems}")


def _print_runs(records: list[RunRecord]) -> None:
    rows = table("id", "name", "experiment", "state", "started", "duration", "metrics")
    rows.columns[0].no_wrap = True
    for record in records:
        spec = record.spec
        metrics = {name: number_text(value) for name, value in record.last_values()}
        rows.add_row(
            spec.run,
            spec.name,
            spec.experiment,
            state_text(record),
            time_text(record.started_at),
            duration_text(duration_s(record)),
            pairs_text(dict(list(metrics.items())[:_SHOWN_METRICS])),
        )
    console().print(rows)


def show(
    name: RunArgument,
    *,
    packages: Annotated[
        bool, typer.Option("--packages", help="Only what was installed, for a requirements.txt.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Only what differed from the commit, for git apply.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show all that is known about a run."""
    from rayml.listing import get_run  # noqa: PLC0415 - not for --help
    from rayml.tracker.edits import find_edited  # noqa: PLC0415

    opened = open_for_reading(store)
    _warn(opened)
    record = find_edited(opened, name)
    if packages:
        print(get_run(record.spec.run, store=opened).packages, end="")
        return 0
    if diff:
        patch = get_run(record.spec.run, store=opened).diff
        sys.stdout.buffer.write(patch.encode("utf-8", "surrogateescape"))
        return 0
    if as_json:
        emit_json(run_data(record, opened))
        return 0
    if record.is_terminal and record.problem is not None and record.problem.traceback:
        print(record.problem.traceback.rstrip() + "\n")
    print_facts([*run_facts(record), *_times(record), *_job(record)])
    print_values(record)
    if artifacts := list(get_run(record.spec.run, store=opened).artifacts.values()):
        print("artifacts")
        print_artifacts(artifacts)
    return 0


def _times(record: RunRecord) -> list[tuple[str, str]]:
    return [
        ("submitted", time_text(record.spec.submitted_at)),
        ("started", time_text(record.started_at)),
        ("ended", time_text(record.ended_at)),
    ]


def _engine_text(record: RunRecord) -> str:
    """Return how a job spreads over its workers, and where its ranks run."""
    from rayml.engine import engine_name, has_ranks  # noqa: PLC0415 - not for --help

    if (engine := record.spec.engine) is None:
        return ""
    if has_ranks(engine):
        places = [f"rank {rank.rank} on {rank.host}" for rank in record.ranks]
    else:
        places = [f"led from {rank.host}" for rank in record.ranks]
    return ", ".join([engine_name(engine), *places])


def _packages_text(record: RunRecord) -> str:
    """Return what tells one environment from another, and how to see it."""
    digest = record.started.packages if record.started else ""
    return f"{digest[:10]}, listed by --packages" if digest else ""


def _job(record: RunRecord) -> list[tuple[str, str]]:
    from rayml.installed import requirements_text  # noqa: PLC0415 - not for --help

    spec, origin = record.spec, record.spec.origin
    asked = {
        name: value
        for name in ("cpus", "memory", "gpus", "gpu_type", "workers")
        if (value := getattr(spec.resources, name))
    }
    changes = " + changes, printed by --diff" if record.diff else ""
    commit = f", commit {origin.commit[:10]}{changes}" if origin.commit else ""
    where = f" on {record.started.host}" if record.started else ""
    return [
        ("inputs", pairs_text({name: given.uri for name, given in spec.inputs.items()})),
        ("target", " ".join([spec.target.text, *spec.args])),
        ("resources", pairs_text(asked) + where),
        ("engine", _engine_text(record)),
        ("requirements", requirements_text(spec.requirements)),
        ("packages", _packages_text(record)),
        ("env", pairs_text(spec.env)),
        ("secrets", ", ".join(spec.secrets)),
        ("folder", spec.working_dir),
        ("store", spec.store),
        ("cluster", spec.cluster),
        ("submitter", f"{origin.user}@{origin.host}, Python {origin.python}{commit}"),
        ("command", origin.command),
    ]


def history(
    name: RunArgument,
    metric: Annotated[str, typer.Argument(help="The metric's name.")],
    *,
    axis: Annotated[
        str | None,
        typer.Option(help="Another metric to see it along, such as the epoch: a first column."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=0, help="Of the worker that logged it; all by default.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Print a metric's points by step: a table on a terminal, CSV in a pipe."""
    from rayml.listing import get_run  # noqa: PLC0415 - not for --help

    frame = get_run(name, store=store).history(metric, axis, rank)
    frame["time"] = [at.isoformat() for at in frame["time"]]
    rows = frame.to_dict("records")
    if as_json:
        emit_json(rows)
    elif is_terminal():
        shown = table(*frame)
        for row in rows:
            shown.add_row(*map(str, row.values()))
        console().print(shown)
    else:
        print(*frame, sep=",")
        for row in rows:
            print(*row.values(), sep=",")
    return 0


def logs(
    name: RunArgument,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")
    ] = False,
    rank: Annotated[
        int | None, typer.Option(min=0, help="Of the worker to hear alone; all by default.")
    ] = None,
    store: StoreOption = None,
) -> int:
    """Print what a run has printed."""
    from rayml.listing import get_run  # noqa: PLC0415 - not for --help

    run = get_run(name, store=open_for_reading(store))
    for text in run.logs(follow=True, rank=rank) if follow else [run.logs(rank=rank)]:
        print(text, end="", flush=True)
    if follow:
        say(f"run {run.id} {run.state}")
    return 0


def cancel(
    name: RunArgument,
    *,
    grace_s: Annotated[
        float, typer.Option(min=0, help="Seconds that its code gets to end by itself.")
    ] = 10,
    store: StoreOption = None,
) -> int:
    """End a run: its code gets KeyboardInterrupt, and after the grace all its processes end."""
    from rayml.listing import get_run  # noqa: PLC0415 - not for --help
    from rayml.tracker.records import TERMINAL  # noqa: PLC0415

    run = get_run(name, store=open_for_reading(store))
    if (state := run.state) in TERMINAL:
        say(f"run {run.id} has ended already: {state}")
        return 0
    run.cancel(grace_s)
    state = _await_end(run, grace_s + _CANCEL_MARGIN_S)
    say(f"run {run.id} {'is still ' if state not in TERMINAL else ''}{state}")
    return 0 if state in TERMINAL else 1


def _await_end(run: Run, timeout_s: float) -> str:
    """Return a run's state when it has ended, or `timeout_s` seconds later."""
    from rayml.tracker.records import TERMINAL  # noqa: PLC0415 - not for --help

    deadline = time.monotonic() + timeout_s
    while (state := run.state) not in TERMINAL and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return state
