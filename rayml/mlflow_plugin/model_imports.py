"""Registered models of another MLflow, for those runs that were taken: versions, aliases, tags."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from mlflow.exceptions import MlflowException

from rayml.errors import NotFound, RaymlError
from rayml.mlflow_plugin.imports import model_id_here
from rayml.mlflow_plugin.logged_models import find_note
from rayml.mlflow_plugin.peer import pages
from rayml.mlflow_plugin.runs import find_run
from rayml.registry import model, register_model
from rayml.tracker.reader import artifact_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

    from rayml.artifacts import Artifact
    from rayml.mlflow_plugin.imports import Import

_NOT_PLAIN = re.compile(r"[^\w.-]+")
VERSION_TAG = "mlflow.version"
DESCRIPTION_TAG = "mlflow.description"


class Version(NamedTuple):
    """What became of one version of a registered model; without a problem, it is here."""

    source: str
    uri: str = ""
    problem: str = ""


def take_models(import_: Import) -> Iterator[Version]:
    """Register the models of runs that were taken, and tell what became of each version."""
    client = import_.peer.client
    try:
        found = list(pages(client.search_registered_models, max_results=100))
    except MlflowException:
        return  # it has no registry
    for registered in found:
        versions = pages(client.search_model_versions, filter_string=f"name = '{registered.name}'")
        ours = [v for v in versions if v.run_id in import_.ids]
        for version in sorted(ours, key=lambda one: int(one.version)):
            yield _take(import_, registered, version)
        if ours:
            _take_names(import_, registered)


def _take(import_: Import, registered: RegisteredModel, version: ModelVersion) -> Version:
    source = f"{registered.name}@{version.version}"
    try:
        artifact = _artifact(import_, version)
        added = register_model(artifact, plain_name(registered.name))
        tags = {**version.tags, VERSION_TAG: str(version.version)}
        if version.description:
            tags[DESCRIPTION_TAG] = version.description
        if not tags.items() <= added.tags.items():
            model(added.model, store=import_.store).set_tags(tags, version=added.version)
    except RaymlError as exc:
        return Version(source, problem=str(exc))
    return Version(source, added.uri)


def _take_names(import_: Import, registered: RegisteredModel) -> None:
    """Let aliases name the versions that they named, as far as those are here."""
    try:
        here = model(plain_name(registered.name), store=import_.store)
    except NotFound:
        return
    numbers = {version.tags.get(VERSION_TAG): version.version for version in here.versions}
    for alias, number in registered.aliases.items():
        if (ours := numbers.get(str(number))) is not None and here.aliases.get(alias) != ours:
            here.set_alias(alias, ours)
    tags = dict(registered.tags)
    if registered.description:
        tags[DESCRIPTION_TAG] = registered.description
    if not tags.items() <= here.tags.items():
        here.set_tags(tags)


def _artifact(import_: Import, version: ModelVersion) -> Artifact:
    run = import_.ids[version.run_id]
    record = find_run(import_.store, run)
    model_id = getattr(version, "model_id", None)
    if not model_id and version.source.startswith("models:/"):
        model_id = version.source.removeprefix("models:/")
    if model_id:
        name = find_note(record, model_id_here(run, model_id)).artifact
    else:
        name = version.source.rstrip("/").rpartition("/artifacts/")[2]
        if version.source.startswith("runs:/"):
            name = version.source.removeprefix("runs:/").partition("/")[2]
    return artifact_of(record, name, import_.store)


def plain_name(name: str) -> str:
    """Return a model's name as rayml can have it.

    >>> plain_name("churn"), plain_name("Our churn/v2")
    ('churn', 'Our-churn-v2')
    """
    return _NOT_PLAIN.sub("-", name).strip(".-")[:100] or "model"
