"""`rayml archive`, `unarchive`, `delete`, `undelete`, `label`, `note`: changes after the fact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rayml.cli.exits import say
from rayml.cli.options import (
    RemoveOption,
    RunArgument,
    RunsArgument,
    StoreOption,
    open_for_reading,
    read_changes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rayml.run import Run


def archive(names: RunsArgument, *, store: StoreOption = None) -> int:
    """Leave runs out of lists; all else about them stays."""
    return _each(names, store, lambda run: run.archive(), "archived")


def unarchive(names: RunsArgument, *, store: StoreOption = None) -> int:
    """Have archived runs in lists again."""
    return _each(names, store, lambda run: run.unarchive(), "in lists again")


def delete(names: RunsArgument, *, store: StoreOption = None) -> int:
    """Mark runs as deleted; `rayml undelete` brings them back until their data is collected."""
    way_out = "deleted; `rayml undelete` brings it back until its data is collected"
    return _each(names, store, lambda run: run.delete(), way_out)


def undelete(names: RunsArgument, *, store: StoreOption = None) -> int:
    """Bring deleted runs back."""
    from rayml.run import Run  # noqa: PLC0415 - not for --help
    from rayml.tracker.reader import read_runs  # noqa: PLC0415

    opened = open_for_reading(store)
    reader = read_runs(opened)
    for run in [Run(reader.find(name).spec, opened) for name in names]:
        run.undelete()
        say(f"run {run.id} is back")
    return 0


def label(
    name: RunArgument,
    labels: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=TEXT...", help="Labels to set.")
    ] = None,
    *,
    remove: RemoveOption = None,
    store: StoreOption = None,
) -> int:
    """Set labels of a run, or take them away; it may have ended."""
    changes = read_changes(labels, remove)
    return _each([name], store, lambda run: run.set_labels(changes), "labelled")


def note(
    name: RunArgument,
    text: Annotated[str, typer.Argument(help="In place of what was written before.")],
    *,
    store: StoreOption = None,
) -> int:
    """Write about a run."""
    return _each([name], store, lambda run: run.set_notes(text), "noted")


def _each(names: list[str], store: str | None, change: Callable[[Run], None], done: str) -> int:
    """Change runs, after all of them were found."""
    from rayml.listing import get_run  # noqa: PLC0415 - not for --help

    opened = open_for_reading(store)
    for run in [get_run(name, store=opened) for name in names]:
        change(run)
        say(f"run {run.id} is {done}")
    return 0
