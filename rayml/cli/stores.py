"""`rayml store verify`, `copy`, `gc` and `retain`."""

from __future__ import annotations

from typing import Annotated

import typer

from rayml.cli.exits import say
from rayml.cli.options import JsonOption, StoreOption
from rayml.cli.output import emit_json
from rayml.cli.progress import progress


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


def _damaged(count: int) -> str:
    return f"damaged in {count} place{'s' if count > 1 else ''}"
