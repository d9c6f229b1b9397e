"""`rayml import mlflow` and `rayml export mlflow`: runs from and to another MLflow."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from rayml.cli.exits import INTERRUPTED, say
from rayml.cli.options import JsonOption, StoreOption, WhereOption
from rayml.cli.output import emit_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rayml.mlflow_plugin.imports import Outcome
    from rayml.mlflow_plugin.model_imports import Version

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="PATH|URL", help="mlflow.db, mlruns, http://host:5000, or a tracking URI."
    ),
]
TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="PATH|URL", help="A database (a new one is made), or http://host:5000."
    ),
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, alone.")]
_FAILED = 3


def import_mlflow(
    source: SourceArgument,
    *,
    experiment: Annotated[
        list[str] | None, typer.Option(help="Only this one; may be given several times.")
    ] = None,
    takes_open: Annotated[
        bool, typer.Option("--open", help="Also runs that have not ended, as lost ones.")
    ] = False,
    is_dry: DryOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Take runs from MLflow, with all they have logged; what is here already stays as it is."""
    from rayml.mlflow_plugin.peer import open_peer  # noqa: PLC0415 - loads MLflow
    from rayml.store import open_store  # noqa: PLC0415

    peer, opened = open_peer(source), open_store(store)
    from rayml.mlflow_plugin.imports import Import  # noqa: PLC0415 - needs MLflow
    from rayml.mlflow_plugin.model_imports import take_models  # noqa: PLC0415

    task = Import(peer, opened, tuple(experiment or ()), is_dry, takes_open)
    models = iter(()) if is_dry else take_models(task)
    words = ("import", source, opened.uri)
    return _exchange(words, len(task.runs), task.take(), models, as_json=as_json, is_dry=is_dry)


def export_mlflow(
    target: TargetArgument,
    *,
    experiment: Annotated[str | None, typer.Option(help="Only the runs of this one.")] = None,
    where: WhereOption = None,
    is_dry: DryOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Give runs to MLflow, with all they have logged; what is there already stays as it is."""
    from rayml.cli.options import open_for_reading  # noqa: PLC0415 - not for --help
    from rayml.mlflow_plugin.peer import open_peer  # noqa: PLC0415 - loads MLflow

    opened = open_for_reading(store)
    peer = open_peer(target, is_new=not is_dry)
    from rayml.mlflow_plugin.exports import Export  # noqa: PLC0415 - needs MLflow
    from rayml.mlflow_plugin.model_exports import give_models  # noqa: PLC0415

    task = Export(peer, opened, experiment, where, is_dry)
    models = iter(()) if is_dry else give_models(task)
    words = ("export", opened.uri, target)
    return _exchange(words, len(task.runs), task.give(), models, as_json=as_json, is_dry=is_dry)


def _exchange(
    words: tuple[str, str, str],
    count: int,
    runs: Iterable[Outcome],
    models: Iterable[Version],
    *,
    as_json: bool,
    is_dry: bool,
) -> int:
    """See an exchange through, and tell what became of it."""
    done: list[Outcome] = []
    try:
        for outcome in _shown(runs, count):
            done.append(outcome)
            if outcome.state == "failed":
                say(f"run {outcome.source} ({outcome.name}) failed: {outcome.problem}")
        versions = list(models)
    except KeyboardInterrupt:
        say(f"interrupted after {len(done)} of {count} runs; the same command goes on from there")
        return INTERRUPTED
    for version in versions:
        if version.problem:
            say(f"model {version.source} failed: {version.problem}")
    if as_json:
        emit_json({
            "runs": [outcome._asdict() for outcome in done],
            "models": [version._asdict() for version in versions],
        })  # fmt: skip
    else:
        _tell(words, done, versions, is_dry=is_dry)
    has_failed = any(outcome.state == "failed" for outcome in done)
    return _FAILED if has_failed or any(version.problem for version in versions) else 0


def _shown(runs: Iterable[Outcome], count: int) -> Iterator[Outcome]:
    """Yield what becomes of each run: a bar on a terminal, a line each in a pipe."""
    if sys.stderr.isatty():
        from rich.console import Console  # noqa: PLC0415 - not for --help
        from rich.progress import track  # noqa: PLC0415

        screen = Console(stderr=True)
        yield from track(runs, "runs", total=count, console=screen, transient=True)
        return
    for number, outcome in enumerate(runs, 1):
        if outcome.state == "done":
            arrow = f"{outcome.source} → {outcome.run}" if outcome.run else outcome.source
            say(f"run {number} of {count}: {arrow} ({outcome.name})")
        yield outcome


def _tell(
    words: tuple[str, str, str], runs: list[Outcome], versions: list[Version], *, is_dry: bool
) -> None:
    verb, source, target = words
    states = Counter(outcome.state for outcome in runs)
    would = "would be " if is_dry else ""
    parts = [f"{states['done']} runs {would}{verb}ed from {source} to {target}"]
    if states["known"]:
        parts.append(f"{states['known']} were there already")
    if states["open"]:
        way_out = "; --open takes them as lost" if verb == "import" else ""
        parts.append(f"{states['open']} have not ended and are left out{way_out}")
    if states["failed"]:
        parts.append(f"{states['failed']} failed")
    if whole := [version for version in versions if not version.problem]:
        parts.append(f"{len(whole)} versions of models are registered")
    say(", ".join(parts))
