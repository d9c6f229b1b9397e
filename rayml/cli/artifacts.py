"""`rayml artifact list`, `show` and `get`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rayml.cli.options import JsonOption, RunArgument, StoreOption
from rayml.cli.output import (
    artifact_data,
    emit_json,
    print_artifacts,
    print_facts,
    print_frame,
)
from rayml.errors import SpecError

if TYPE_CHECKING:
    from rayml.artifacts import Artifact


def list_artifacts(
    name: RunArgument, *, store: StoreOption = None, as_json: JsonOption = False
) -> int:
    """List what a run has left: name, kind, size and URI of each artifact."""
    from rayml.listing import get_run  # noqa: PLC0415 - not for --help

    artifacts = list(get_run(name, store=store).artifacts.values())
    if as_json:
        emit_json([artifact_data(artifact) for artifact in artifacts])
    elif artifacts:
        print_artifacts(artifacts, indent="")
    return 0


def show(
    run: Annotated[str, typer.Argument(metavar="RUN|URI", help="A run, or a rayml:// URI alone.")],
    name: Annotated[str | None, typer.Argument(help="The artifact's name.")] = None,
    *,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Look at an artifact: a table's first rows, a plot's curves, what is told of others."""
    artifact = _find(run, name, store)
    if as_json:
        emit_json({**artifact_data(artifact), "meta": artifact.meta})
    elif artifact.kind in ("dataset", "table"):
        import pandas as pd  # noqa: PLC0415 - not for --help

        preview = artifact.meta["preview"]
        print_frame(pd.DataFrame(preview["rows"], columns=preview["columns"], dtype=object))
    elif artifact.kind == "plot":
        print("\n".join(artifact.to_text() or [repr(artifact)]))
    else:
        print_facts((name, json.dumps(value)) for name, value in artifact.meta.items())
    return 0


def get(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN|URI", help="A run, or a rayml:// URI alone."),
    ],
    name: Annotated[str | None, typer.Argument(help="The artifact's name.")] = None,
    *,
    to: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="A path that does not exist; its name by default."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Copy an artifact to a new file or folder, checked by its digest; nothing is overwritten."""
    artifact = _find(run, name, store)
    try:
        path = artifact.download(to or _default_path(artifact))
    except OSError as exc:
        raise SpecError(
            f"{exc.filename or to} cannot be written: {exc.strerror}; choose another path by --to"
        ) from exc
    if as_json:
        emit_json({**artifact_data(artifact), "path": str(path)})
    else:
        print(path)
    return 0


def _find(run: str, name: str | None, store: str | None) -> Artifact:
    from rayml.listing import get_run  # noqa: PLC0415 - not for --help
    from rayml.registry import artifact  # noqa: PLC0415

    if run.startswith("rayml://") and name is None:
        return artifact(run, store=store)
    if name is None:
        raise SpecError(f"{run!r} names no artifact; give RUN and NAME, or a rayml:// URI alone")
    return get_run(run, store=store).artifact(name)


def _default_path(artifact: Artifact) -> Path:
    """Return the artifact's name in the current folder, with its stored file's suffix."""
    path = Path(artifact.name.rpartition("/")[2])
    files = artifact.record.files
    is_file = len(files) == 1 and artifact.format != "folder"
    return path.with_suffix(Path(files[0].path).suffix) if is_file and not path.suffix else path
