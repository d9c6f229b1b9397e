"""`rayml store verify`, `copy`, `gc` and `retain`."""

from __future__ import annotations

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


def _damaged(count: int) -> str:
    return f"damaged in {count} place{'s' if count > 1 else ''}"
