"""The options and arguments that several commands share."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rayml.errors import SpecError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

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
RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Ids, or unambiguous beginnings of them.")
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help='What they meet: "metrics.auc.max > 0.9 and params.depth in (4, 8)".',
    ),
]
RemoveOption = Annotated[
    list[str] | None, typer.Option("--remove", metavar="NAME", help="One to take away.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
WordsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[-- ARGS]", help="The command line of a script.")
]
ParamOption = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="NAME=VALUE", help="A value for a parameter."),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="NAME=URI", help="Data for a parameter."),
]
CpusOption = Annotated[float | None, typer.Option(help="CPU cores of each worker.")]
MemoryOption = Annotated[str | None, typer.Option(help="Memory of each worker: 4Gi.")]
GpusOption = Annotated[float | None, typer.Option(help="GPUs of each worker.")]
WorkersOption = Annotated[int | None, typer.Option(help="Workers of this size.")]
NameOption = Annotated[str | None, typer.Option(help="What people call the run.")]
ExperimentOption = Annotated[str | None, typer.Option(help="What the run belongs to.")]
LabelOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME=TEXT", help="A word to find it by.")
]
RequirementOption = Annotated[
    list[str] | None,
    typer.Option("--requirement", "-r", metavar="PACKAGE", help="A package for this job."),
]
WorkingDirOption = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Where the job runs, and TARGET is looked for."),
]
EnvOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=TEXT", help="An environment variable; it is recorded."),
]
SecretOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="One of this environment that is never written down."),
]
TimeoutOption = Annotated[float | None, typer.Option(help="Seconds an attempt may run.")]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="'local', host:port, http://host:8265, or kuberay://namespace/name.",
    ),
]
DetachOption = Annotated[
    bool, typer.Option("--detach", help="Return when it is recorded; it goes on.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check the job and print it; start nothing.")
]


def read_pairs(option: str, words: Sequence[str] | None) -> dict[str, str]:
    """Return the names and values of an option that was given several times; the last one counts.

    Raises:
        SpecError: A word is not NAME=VALUE.
    """
    pairs = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise SpecError(f"{option} {word!r} has no name or value; write {option} NAME=VALUE")
        pairs[name] = value
    return pairs


def given_of(**options: object) -> dict[str, Any]:
    """Return those options that were given.

    >>> given_of(cpus=2, memory=None)
    {'cpus': 2}
    """
    return {name: value for name, value in options.items() if value is not None}


def read_changes(
    words: Sequence[str] | None, removed: Sequence[str] | None
) -> dict[str, str | None]:
    """Return labels or tags to set by NAME=TEXT, and as None those to take away.

    Raises:
        SpecError: A word is not NAME=TEXT, or there is nothing to change.
    """
    changes = {**dict.fromkeys(removed or ()), **read_pairs("label", words)}
    if not changes:
        raise SpecError("there is nothing to change; write NAME=TEXT, or --remove NAME")
    return changes


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
