"""MLflow's model registry over rayml's: names, versions, aliases and tags.

A version is an artifact of a run, and stays one: nothing is renamed or deleted here. Stages are
none; aliases say the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from mlflow.entities.model_registry import (
    ModelVersion,
    ModelVersionTag,
    RegisteredModel,
    RegisteredModelAlias,
    RegisteredModelTag,
)
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.utils.search_utils import SearchModelUtils, SearchModelVersionUtils, SearchUtils

from rayml.errors import NotFound, SpecError
from rayml.mlflow_plugin.entities import ms, texts
from rayml.mlflow_plugin.logged_models import find_note, notes_of, run_of
from rayml.mlflow_plugin.model_imports import DESCRIPTION_TAG
from rayml.mlflow_plugin.recorder import flush_writers
from rayml.mlflow_plugin.refusals import translated
from rayml.mlflow_plugin.runs import find_run
from rayml.mlflow_plugin.tracking_store import open_named
from rayml.mlflow_uri import artifact_uri, parse_artifact_uri
from rayml.registered import Model, check_model_name
from rayml.registered import ModelVersion as Registered
from rayml.registry import model, models, register_model
from rayml.tracker.catalog import open_catalog
from rayml.tracker.changes import ModelTagged
from rayml.tracker.reader import artifact_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rayml.artifacts import Artifact
    from rayml.store import Store
    from rayml.tracker.changes import CatalogState, Change

_NEWEST_FIRST = ["last_updated_timestamp DESC", "name ASC", "version_number DESC"]


@translated
class RaymlRegistryStore(AbstractStore):  # type: ignore[misc]
    """The registered models of a store."""

    def __init__(self, store_uri: str = "rayml:", tracking_uri: str | None = None) -> None:
        """Take the URI; see `rayml.mlflow_uri`."""
        super().__init__(store_uri, tracking_uri)
        self._uri = store_uri

    @property
    def _opened(self) -> Store:
        return open_named(self._uri)

    # Models

    def create_registered_model(
        self,
        name: str,
        tags: Sequence[RegisteredModelTag] | None = None,
        description: str | None = None,
        deployment_job_id: str | None = None,  # noqa: ARG002 - MLflow's signature
    ) -> RegisteredModel:
        """Make a model known that has no versions yet."""
        check_model_name("model", name)
        kept = _described(texts(tags or ()), description)

        def decide(state: CatalogState) -> Change:
            if name in state.models:
                raise MlflowException(
                    f"Registered Model (name={name}) already exists", RESOURCE_ALREADY_EXISTS
                )
            return ModelTagged(model=name, tags=dict(kept))

        open_catalog(self._opened).append(decide)
        return self.get_registered_model(name)

    def get_registered_model(self, name: str) -> RegisteredModel:
        """Return a model."""
        return _model_entity(model(name, store=self._opened), self._opened)

    def update_registered_model(
        self,
        name: str,
        description: str | None,
        deployment_job_id: str | None = None,  # noqa: ARG002 - MLflow's signature
    ) -> RegisteredModel:
        """Describe a model anew."""
        model(name, store=self._opened).set_tags({DESCRIPTION_TAG: description})
        return self.get_registered_model(name)

    def rename_registered_model(self, name: str, new_name: str) -> NoReturn:
        """Refuse: URIs name the model."""
        raise SpecError(f"model {name!r} cannot become {new_name!r}; register its versions anew")

    def delete_registered_model(self, name: str) -> NoReturn:
        """Refuse: what was registered stays."""
        raise SpecError(f"model {name!r} stays registered; take its aliases away instead")

    def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int | None = None,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        """Return models that match, by name."""
        opened = self._opened
        found = [_model_entity(each, opened) for each in models(store=opened)]
        found = SearchModelUtils.filter(found, filter_string)
        found = SearchModelUtils.sort(found, order_by)
        return PagedList(*SearchUtils.paginate(found, page_token, max_results or 100))

    def get_latest_versions(
        self, name: str, stages: Sequence[str] | None = None
    ) -> list[ModelVersion]:
        """Return the newest version; none has a stage."""
        is_asked = not stages or any(stage.lower() == "none" for stage in stages)
        versions = model(name, store=self._opened).versions
        return [_version_entity(v, self._opened) for v in versions[-1:] if is_asked]

    def set_registered_model_tag(self, name: str, tag: RegisteredModelTag) -> None:
        """Set a tag of a model."""
        model(name, store=self._opened).set_tags({tag.key: tag.value})

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Take a tag of a model away."""
        model(name, store=self._opened).set_tags({key: None})

    # Versions

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Sequence[ModelVersionTag] | None = None,
        run_link: str | None = None,  # noqa: ARG002 - MLflow's signature
        description: str | None = None,
        local_model_path: str | None = None,  # noqa: ARG002 - MLflow's signature
        model_id: str | None = None,
    ) -> ModelVersion:
        """Make a model that a run has logged the next version; once, however often it is asked."""
        flush_writers(self._opened)
        added = register_model(self._artifact(source, run_id, model_id), name)
        if kept := _described(texts(tags or ()), description):
            model(name, store=self._opened).set_tags(kept, version=added.version)
        return self.get_model_version(name, added.version)

    def _artifact(self, source: str, run_id: str | None, model_id: str | None) -> Artifact:
        """Return the artifact that MLflow names by a URI, and maybe by a run or model as well."""
        opened = self._opened
        if model_id is None and source.startswith("models:/m-"):
            model_id = source.removeprefix("models:/")
        if model_id is not None:
            record = find_run(opened, run_of(model_id))
            return artifact_of(record, find_note(record, model_id).artifact, opened)
        if source.startswith("runs:/"):
            run, _, path = source.removeprefix("runs:/").partition("/")
        else:
            location = parse_artifact_uri(source)
            run, path = location.run, location.path
        record = find_run(opened, run_id or run)
        return artifact_of(record, path, opened)

    def get_model_version(self, name: str, version: int | str) -> ModelVersion:
        """Return a version."""
        return _version_entity(model(name, store=self._opened).version(version), self._opened)

    def update_model_version(
        self, name: str, version: int | str, description: str | None
    ) -> ModelVersion:
        """Describe a version anew."""
        found = model(name, store=self._opened)
        found.set_tags({DESCRIPTION_TAG: description}, version=version)
        return self.get_model_version(name, version)

    def transition_model_version_stage(
        self,
        name: str,
        version: int | str,
        stage: str,
        archive_existing_versions: bool,  # noqa: ARG002, FBT001 - MLflow's signature
    ) -> NoReturn:
        """Refuse: aliases took the place of stages."""
        raise SpecError(
            f"version {version} of {name!r} gets no stage {stage!r}; set an alias of that name"
        )

    def delete_model_version(self, name: str, version: int | str) -> NoReturn:
        """Refuse: what was registered stays."""
        raise SpecError(f"version {version} of {name!r} stays; move its aliases elsewhere")

    def get_model_version_download_uri(self, name: str, version: int | str) -> str:
        """Return where MLflow finds a version's files."""
        return _files_uri(model(name, store=self._opened).version(version), self._opened)

    def search_model_versions(
        self,
        filter_string: str | None = None,
        max_results: int | None = None,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[ModelVersion]:
        """Return versions that match, the newest first."""
        opened = self._opened
        every = [version for each in models(store=opened) for version in each.versions]
        found = [_version_entity(version, opened) for version in every]
        found = SearchModelVersionUtils.filter(found, filter_string)
        found = SearchModelVersionUtils.sort(found, order_by or _NEWEST_FIRST)
        return PagedList(*SearchUtils.paginate(found, page_token, max_results or 10_000))

    def set_model_version_tag(self, name: str, version: int | str, tag: ModelVersionTag) -> None:
        """Set a tag of a version."""
        model(name, store=self._opened).set_tags({tag.key: tag.value}, version=version)

    def delete_model_version_tag(self, name: str, version: int | str, key: str) -> None:
        """Take a tag of a version away."""
        model(name, store=self._opened).set_tags({key: None}, version=version)

    # Aliases

    def set_registered_model_alias(self, name: str, alias: str, version: int | str) -> None:
        """Let an alias name a version."""
        model(name, store=self._opened).set_alias(alias, version)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Let an alias name nothing."""
        model(name, store=self._opened).unset_alias(alias)

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """Return the version that an alias names."""
        return self.get_model_version(name, alias)


def _described(tags: Mapping[str, str], description: str | None) -> dict[str, str]:
    return {**tags, DESCRIPTION_TAG: description} if description else dict(tags)


def _model_entity(found: Model, store: Store) -> RegisteredModel:
    versions, tags = found.versions, found.tags
    times = [ms(version.registered_at.timestamp()) for version in versions] or [0]
    return RegisteredModel(
        found.name,
        times[0],
        times[-1],
        tags.pop(DESCRIPTION_TAG, None),
        [_version_entity(version, store) for version in versions[-1:]],
        [RegisteredModelTag(*tag) for tag in tags.items()],
        [RegisteredModelAlias(alias, str(number)) for alias, number in found.aliases.items()],
    )


def _version_entity(found: Registered, store: Store) -> ModelVersion:
    tags, registered_at = found.tags, ms(found.registered_at.timestamp())
    return ModelVersion(
        found.model,
        str(found.version),
        registered_at,
        registered_at,
        tags.pop(DESCRIPTION_TAG, None),
        found.registered_by,
        "None",
        _files_uri(found, store),
        found.artifact.run_id,
        tags=[ModelVersionTag(*tag) for tag in tags.items()],
        aliases=found.aliases,
        model_id=_model_id(found, store),
    )


def _files_uri(found: Registered, store: Store) -> str:
    return artifact_uri(store.uri, found.artifact.run_id, found.artifact.name)


def _model_id(found: Registered, store: Store) -> str | None:
    try:
        notes = notes_of(find_run(store, found.artifact.run_id))
    except NotFound:  # the model has outlived its run
        return None
    return next((note.model_id for note in notes if note.artifact == found.artifact.name), None)
