"""Registered models of a store, given to another MLflow for those runs that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from rayml.errors import RaymlError
from rayml.mlflow_plugin.exports import MODEL_TAG
from rayml.mlflow_plugin.imports import one_line
from rayml.mlflow_plugin.logged_models import notes_of
from rayml.mlflow_plugin.model_imports import DESCRIPTION_TAG, Version
from rayml.mlflow_plugin.peer import pages
from rayml.mlflow_plugin.runs import find_run
from rayml.registry import models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.mlflow_plugin.exports import Export
    from rayml.registered import Model, ModelVersion

VERSION_TAG = "rayml.version"


def give_models(export: Export) -> Iterator[Version]:
    """Register models for runs that are there, and tell what became of each version."""
    for model in models(store=export.store):
        ours = [v for v in model.versions if v.artifact.run_id in export.there]
        if not ours:
            continue
        known = _known_versions(export, model)
        for version in ours:
            if version.uri not in known:
                yield _give(export, version, known)
        for alias, number in model.aliases.items():
            uri = model.version(number).uri
            if uri in known:
                export.peer.client.set_registered_model_alias(model.name, alias, known[uri])


def _known_versions(export: Export, model: Model) -> dict[str, str]:
    """Make the model known there; return the versions that are there, by their URIs here."""
    client = export.peer.client
    tags = {name: text for name, text in model.tags.items() if name != DESCRIPTION_TAG}
    try:
        client.create_registered_model(model.name, tags, model.tags.get(DESCRIPTION_TAG))
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = pages(client.search_model_versions, filter_string=f"name = '{model.name}'")
    return {v.tags[VERSION_TAG]: v.version for v in found if VERSION_TAG in v.tags}


def _give(export: Export, version: ModelVersion, known: dict[str, str]) -> Version:
    tags = {name: text for name, text in version.tags.items() if name != DESCRIPTION_TAG}
    try:
        created = export.peer.client.create_model_version(
            version.model,
            _source(export, version),
            export.there[version.artifact.run_id],
            tags={**tags, VERSION_TAG: version.uri},
            description=version.tags.get(DESCRIPTION_TAG),
        )
    except (RaymlError, MlflowException) as exc:
        return Version(version.uri, problem=one_line(exc))
    known[version.uri] = created.version
    return Version(version.uri, f"models:/{created.name}/{created.version}")


def _source(export: Export, version: ModelVersion) -> str:
    """Return where the other MLflow finds a version's files."""
    artifact, client = version.artifact, export.peer.client
    run = client.get_run(export.there[artifact.run_id])
    notes = notes_of(find_run(export.store, artifact.run_id))
    wanted = {note.model_id for note in notes if note.artifact == artifact.name}
    for output in run.outputs.model_outputs if run.outputs is not None else ():
        if client.get_logged_model(output.model_id).tags.get(MODEL_TAG) in wanted:
            return f"models:/{output.model_id}"
    return f"{run.info.artifact_uri}/{artifact.name}"
