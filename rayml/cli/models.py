"""`rayml model list`, `show`, `register`, `alias` and `tag`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rayml.cli.exits import say
from rayml.cli.options import JsonOption, RemoveOption, StoreOption, read_changes
from rayml.cli.output import (
    console,
    emit_json,
    frame_rows,
    pairs_text,
    print_facts,
    print_frame,
    table,
    time_text,
)
from rayml.errors import SpecError

if TYPE_CHECKING:
    from rayml.registered import Model, ModelVersion

_COLUMNS = 20

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
VersionOption = Annotated[
    str | None, typer.Option(metavar="VERSION", help="A number, or an alias.")
]


def list_models(*, store: StoreOption = None, as_json: JsonOption = False) -> int:
    """List the registered models: how many versions, and which of them the aliases name."""
    from rayml.registry import models  # noqa: PLC0415 - not for --help
    from rayml.store import open_store  # noqa: PLC0415

    opened = open_store(store)
    found = models(store=opened)
    if as_json:
        emit_json([_model_data(model) for model in found])
    elif found:
        rows = table("model", "versions", "aliases", "tags")
        for model in found:
            counted = str(len(model.versions))
            rows.add_row(model.name, counted, pairs_text(model.aliases), pairs_text(model.tags))
        console().print(rows)
    else:
        say(f"store {opened.uri} has no models; rayml model register makes one")
    return 0


def show(name: ModelArgument, *, store: StoreOption = None, as_json: JsonOption = False) -> int:
    """Show a model: its versions, what the newest takes and gives, and how its aliases moved."""
    from rayml.registry import model  # noqa: PLC0415 - not for --help

    found = model(name, store=store)
    if as_json:
        versions = [_version_data(version) for version in found.versions]
        moves = frame_rows(found.history())
        emit_json({**_model_data(found), "versions": versions, "history": moves})
        return 0
    print_facts([("model", found.name), ("tags", pairs_text(found.tags))])
    rows = table("version", "aliases", "registered", "by", "tags", "artifact")
    for version in reversed(found.versions):
        rows.add_row(
            str(version.version),
            ", ".join(version.aliases),
            time_text(version.registered_at.timestamp()),
            version.registered_by,
            pairs_text(version.tags),
            version.artifact.uri,
        )
    console().print(rows)
    print_facts(_described(found.latest))
    if not (history := found.history()).empty:
        print("history")
        print_frame(history)
    return 0


def register(
    uri: Annotated[str, typer.Argument(help="rayml://runs/<run>/<name> of a model.")],
    name: ModelArgument,
    *,
    alias: Annotated[str | None, typer.Option(help="What names this version from now on.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Make an artifact the next version of a model, and print the version's URI."""
    from rayml.registry import register_model  # noqa: PLC0415 - not for --help

    version = register_model(uri, name, alias, store=store)
    if as_json:
        emit_json(_version_data(version))
    else:
        print(version.uri)
    return 0


def alias(
    name: ModelArgument,
    word: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as production.")],
    version: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="A number, or another alias.")
    ] = None,
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Let it name nothing.")] = False,
    store: StoreOption = None,
) -> int:
    """Let an alias name a version from now on; who loads by it gets the old one or the new one."""
    from rayml.registry import model  # noqa: PLC0415 - not for --help

    if (version is None) != remove:
        raise SpecError(f"alias {word!r} gets no version or two; give VERSION, or --remove")
    found = model(name, store=store)
    if version is None:
        found.unset_alias(word)
        say(f"{name}@{word} names nothing any more")
    else:
        found.set_alias(word, version)
        say(f"{name}@{word} is {name}@{found.version(word).version}")
    return 0


def tag(
    name: ModelArgument,
    tags: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=TEXT...", help="Tags to set.")
    ] = None,
    *,
    version: VersionOption = None,
    remove: RemoveOption = None,
    store: StoreOption = None,
) -> int:
    """Set tags of a model or of one version of it, or take them away."""
    from rayml.registry import model  # noqa: PLC0415 - not for --help

    changes = read_changes(tags, remove)
    model(name, store=store).set_tags(changes, version)
    say(f"{name}{f'@{version}' if version else ''} is tagged")
    return 0


def _model_data(model: Model) -> dict[str, object]:
    numbers = [version.version for version in model.versions]
    return {
        "name": model.name,
        "versions": numbers,
        "aliases": model.aliases,
        "tags": model.tags,
    }


def _version_data(version: ModelVersion) -> dict[str, object]:
    return {
        "model": version.model,
        "version": version.version,
        "uri": version.uri,
        "aliases": version.aliases,
        "tags": version.tags,
        "registered_at": version.registered_at.isoformat(),
        "registered_by": version.registered_by,
        "artifact": version.artifact.uri,
        "digest": version.artifact.digest,
        "format": version.artifact.format,
        "class": version.artifact.meta.get("class"),
        "needs_trust": version.artifact.needs_trust,
        "signature": version.artifact.meta.get("signature"),
        "requirements": version.artifact.meta.get("requirements"),
    }


def _described(version: ModelVersion) -> list[tuple[str, str]]:
    """Return what the newest version is, takes, gives and needs, as far as it is known."""
    meta = version.artifact.meta
    facts = [(f"version {version.version}", f"{meta['class']}, {version.artifact.format}")]
    if signature := meta.get("signature"):
        facts.append(("inputs", _columns_text(signature["inputs"], signature["left_out"])))
        facts.append(("outputs", _columns_text(signature["outputs"])))
    if needed := meta.get("requirements"):
        facts.append(("requirements", " ".join(needed)))
    return facts


def _columns_text(entries: list[dict[str, Any]], left_out: int = 0) -> str:
    """Return names and types of the first columns; a shape where a row is more than one value."""
    told = [_column_text(**entry) for entry in entries[:_COLUMNS]]
    missing = len(entries) + left_out - len(told)
    return ", ".join(told) + (f" and {missing} more" if missing else "")


def _column_text(name: str | None, dtype: str, shape: list[int | None]) -> str:
    size = " × ".join(map(str, shape[1:]))
    return " ".join(filter(None, (name, dtype, size)))
