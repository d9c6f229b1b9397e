"""`rayml store verify`, `copy`, `gc` and `retain`."""

from __future__ import annotations

from typing import Annotated

import typer

from rayml.cli.exits import say
from rayml.cli.options import JsonOption, StoreOption
from rayml.cli.output import emit_json
from rayml.cli.progress import progress
from rayml.errors import SpecError


def verify(*, store: StoreOption = None, as_json: JsonOption = False) -> int:
    """Read all that the store holds and name what is damaged; exit code 1 if anything is."""
    from dataclasses import asdict  # noqa: PLC0415 - not for --help

    from rayml.store import open_store  # noqa: PLC0415
    from rayml.upkeep.verification import verify  # noqa: PLC0415

    opened, damages = open_store(store), []
    with progress(f"verifying {opened.uri}") as shown:
        for damage in verify(opened, shown.tick):
            damages.append(damage)
            if not as_json:
                print(f"note: {damage}" if damage.is_expected else damage, flush=True)
    count = sum(not damage.is_expected for damage in damages)
    if as_json:
        emit_json([asdict(damage) for damage in damages])
    else:
        say(f"store {opened.uri} is {_damaged(count) if count else 'whole'}")
    return 1 if count else 0


def copy(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A folder or URI of a store.")],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="An empty place, or an earlier copy.")
    ],
    *,
    as_json: JsonOption = False,
) -> int:
    """Copy a whole store, also one in use; the same call again goes on, or adds what is new."""
    from dataclasses import asdict  # noqa: PLC0415 - not for --help

    from rayml.artifacts import human_bytes  # noqa: PLC0415
    from rayml.store import open_store  # noqa: PLC0415
    from rayml.upkeep.transfer import copy_store  # noqa: PLC0415

    old, new = open_store(source), open_store(target)
    with progress(f"copying {old.uri} to {new.uri}") as shown:
        copied = copy_store(old, new, shown.tick)
    if as_json:
        emit_json(asdict(copied))
    else:
        what = f"{copied.objects:,} objects, {human_bytes(copied.size)}"
        say(f"store {new.uri} is a copy of {old.uri}: {what}; {copied.skipped:,} were there")
        for key in copied.damaged:
            say(f"{key} is damaged and was left out; rayml store verify tells who loses what")
    return 1 if copied.damaged else 0


def gc(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would be freed.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Free what nothing needs: runs deleted a week ago or more, bytes that nobody names."""
    from rayml.artifacts import human_bytes  # noqa: PLC0415 - not for --help
    from rayml.store import open_store  # noqa: PLC0415
    from rayml.upkeep.collection import collect, read_undo_s  # noqa: PLC0415

    opened = open_store(store)
    with progress(f"looking what {opened.uri} needs") as shown:
        done = collect(opened, undo_s=read_undo_s(), is_dry=dry_run, tick=shown.tick)
    if as_json:
        freed = {kind: part._asdict() for kind, part in done.freed.items()}
        emit_json({"expired": done.expired, "forgotten": done.forgotten, "freed": freed})
        return 0
    would = "would be " if dry_run else ""
    for run in done.expired:
        print(f"run {run} {would}deleted: its retention is over")
    for run in done.forgotten:
        print(f"run {run} {would}forgotten: it was deleted, and the time to undo that is over")
    for kind, part in done.freed.items():
        print(f"{kind} {would}freed: {part.objects:,} objects, {human_bytes(part.size)}")
    return 0


def retain(
    experiment: Annotated[str | None, typer.Argument(metavar="EXPERIMENT")] = None,
    *,
    days: Annotated[
        float | None, typer.Option(help="Delete runs so many days after their end.")
    ] = None,
    forever: Annotated[bool, typer.Option("--forever", help="Delete none by itself.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Say how long an experiment's runs are kept, or list what was said; `store gc` does it."""
    from rayml.store import open_store  # noqa: PLC0415 - not for --help
    from rayml.upkeep.retention import read_retention, set_retention  # noqa: PLC0415

    opened = open_store(store)
    if experiment is not None:
        if (days is None) != forever:
            raise SpecError(
                f"experiment {experiment!r} gets no time or two; give --days N, or --forever"
            )
        set_retention(opened, experiment, days)
    elif days is not None or forever:
        raise SpecError("no experiment is named; write rayml store retain EXPERIMENT --days N")
    found = read_retention(opened)
    if as_json:
        emit_json(found)
    else:
        for name, limit in sorted(found.items()):
            print(f"{name}: deleted {limit:g} days after the end")
    return 0


def _damaged(count: int) -> str:
    return f"damaged in {count} place{'s' if count > 1 else ''}"
