"""The registry of models: names for those artifacts that others are to use.

A model has versions from 1, each of which is an artifact of a run for ever, and aliases such as
`production`, each of which names one version at a time. `rayml://models/churn@production` is a
URI wherever an artifact's is: also as an input, where it is resolved when the job is submitted.

All of it is in the store's catalog, in which a change is there whole or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rayml.artifacts import Artifact
from rayml.errors import NotFound, SpecError
from rayml.inputs import Input
from rayml.registered import (
    MODELS,
    NAME,
    Model,
    ModelVersion,
    check_alias,
    check_model_name,
    find_model,
)
from rayml.store import open_store
from rayml.tracker.catalog import open_catalog
from rayml.tracker.changes import NO_EDITS, AliasMoved, ModelState, VersionAdded
from rayml.tracker.reader import find_artifact, read_runs

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.artifacts.record import ArtifactRecord
    from rayml.store import Store
    from rayml.tracker.changes import CatalogState, Change


def register_model(
    artifact: Artifact | str,
    name: str,
    alias: str | None = None,
    *,
    store: str | Path | Store | None = None,
) -> ModelVersion:
    """Make an artifact the next version of a model, and return it once that is durable.

    An artifact that is a version of this model already stays that version.

    Args:
        artifact: A model that a run has logged, or its URI.
        name: Letters in any language, digits and `_ . -`; at most 100.
        alias: What is to name this version from now on, such as `"production"`.
        store: Where, if `artifact` is a URI; the project's own by default.

    Raises:
        SpecError: The artifact is no model, or it is not a name.
        NotFound: The store has no such artifact, or its run was deleted.
        StoreError: The store cannot be written.
    """
    check_model_name("model", name)
    if alias is not None:
        check_alias(alias)
    found = artifact if isinstance(artifact, Artifact) else _artifact(open_store(store), artifact)
    record = found.record
    _check_model(record, found.store)

    def decide(state: CatalogState) -> Change | None:
        if state.runs.get(record.run, NO_EDITS).deleted_at is not None:
            raise NotFound(
                f"run {record.run} was deleted; `rayml undelete {record.run}` before you register "
                f"its model {record.name!r}"
            )
        return _registered(state.models.get(name, ModelState()), name, record, alias)

    open_catalog(found.store).append(decide)
    model = Model(name, found.store)
    return next(v for v in model.versions if v.artifact.record == record)


def model(name: str, *, store: str | Path | Store | None = None) -> Model:
    """Return a registered model.

    Raises:
        NotFound: Nothing is registered by this name.
    """
    opened = open_store(store)
    find_model(open_catalog(opened).refresh(), name, opened)
    return Model(name, opened)


def models(*, store: str | Path | Store | None = None) -> list[Model]:
    """Return all registered models by name.

    Raises:
        StoreError: The store cannot be read.
    """
    opened = open_store(store)
    return [Model(name, opened) for name in sorted(open_catalog(opened).refresh().models)]


def artifact(uri: str, *, store: str | Path | Store | None = None) -> Artifact:
    """Return the artifact that a URI names.

    Args:
        uri: `rayml://runs/<run>/<name>`, or `rayml://models/<model>@<version or alias>`, of which
            the newest version without `@`.
        store: Where; the project's own by default.

    Raises:
        SpecError: It is not such a URI.
        NotFound: The store has no such run, artifact, model, version or alias.
    """
    return _artifact(open_store(store), uri)


def load_model(uri: str, *, trusted: bool = False, store: str | Path | Store | None = None) -> Any:  # noqa: ANN401
    """Return the model that a URI names, such as `rayml://models/churn@production`.

    Args:
        uri: See `artifact`.
        trusted: Run the code that a pickled model brings along, or a model's own types.
        store: Where; the project's own by default.

    Raises:
        SpecError: It is not the URI of a model, or loading it would run code that nobody said to
            trust.
        NotFound: The store has no such run, artifact, model, version or alias.
        ArtifactCorrupt: The stored bytes are not those that were logged.
    """
    found = artifact(uri, store=store)
    _check_kind(found.record)
    return found.load(trusted=trusted)


def pin(value: object, store: Store) -> object:
    """Return what is to be recorded as an input.

    A model's URI becomes the artifact that it names now, a version its artifact, and an input that
    a run was given what that one stands for.

    Raises:
        NotFound: There is no such model, version or alias.
    """
    if isinstance(value, Input):
        is_object = value.record.kind == "memory" or isinstance(value.value, Artifact)
        value = value.value if is_object else value.uri
    if isinstance(value, ModelVersion):
        return value.artifact
    is_model = isinstance(value, str) and value.startswith(MODELS)
    return _artifact(store, str(value)) if is_model else value


def parse_model_uri(uri: str) -> tuple[str, str | None]:
    """Return the model of a `rayml://models/…` URI, and its version or alias.

    >>> parse_model_uri("rayml://models/churn@3"), parse_model_uri("rayml://models/churn")
    (('churn', '3'), ('churn', None))

    Raises:
        SpecError: It is not such a URI.
    """
    name, at, which = uri.removeprefix(MODELS).partition("@")
    if not uri.startswith(MODELS) or not NAME.fullmatch(name) or (at and not which):
        raise SpecError(f"{uri!r} is not the URI of a model; write {MODELS}<model>@<version>")
    return name, which or None


def _artifact(store: Store, uri: str) -> Artifact:
    if not isinstance(uri, str) or not uri.startswith("rayml://"):
        raise SpecError(
            f"{uri!r} is not the URI of an artifact; write rayml://runs/<run>/<name> or "
            f"{MODELS}<model>@<version>"
        )
    if not uri.startswith(MODELS):
        return find_artifact(store, uri)
    name, which = parse_model_uri(uri)
    return model(name, store=store).version(which).artifact


def _registered(
    model: ModelState, name: str, record: ArtifactRecord, alias: str | None
) -> Change | None:
    known = (n for n, version in model.versions.items() if version.artifact == record)
    if (number := next(known, None)) is None:
        new = max(model.versions, default=0) + 1
        return VersionAdded(model=name, version=new, artifact=record, alias=alias)
    if alias is None or model.aliases.get(alias) == number:
        return None
    return AliasMoved(model=name, alias=alias, version=number)


def _check_model(record: ArtifactRecord, store: Store) -> None:
    _check_kind(record)
    if record.run not in read_runs(store).runs:
        raise NotFound(
            f"store {store.uri} has no run {record.run!r}, which logged model {record.name!r}; "
            "register an artifact of a run that is there"
        )


def _check_kind(record: ArtifactRecord) -> None:
    if record.kind != "model":
        raise SpecError(
            f"artifact {record.uri} is a {record.kind} and not a model; log it by log_model"
        )
