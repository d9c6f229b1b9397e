"""The options and arguments that several commands share."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from rayml.errors import StoreError

if TYPE_CHECKING:
    from rayml.store import Store

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Its id, an unambiguous beginning of it, or 'latest'.")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URI",
        help="A folder, or an s3:// gs:// az:// URI; by default the project's .rayml.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def open_for_reading(location: str | None) -> Store:
    """Return a store in which no run is left open whose process on this machine has gone.

    Raises:
        SpecError: The URI's scheme is not one that rayml can store to.
    """
    from rayml.store import open_store  # noqa: PLC0415 - not for --help
    from rayml.tracker.abandoned import close_abandoned  # noqa: PLC0415

    store = open_store(location)
    if store.is_local:
        # What may only be read is read as it is, and what cannot be read says so when it is.
        with suppress(StoreError):
            close_abandoned(store)
    return store


def is_terminal() -> bool:
    """Tell whether a person sees what is printed."""
    return sys.stdout.isatty()
