"""The part of MLflow's tracking store that is about logged models."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from mlflow.entities import LoggedModelStatus
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_MODELS
from mlflow.utils.name_utils import _generate_random_name
from mlflow.utils.search_utils import SearchLoggedModelsUtils, SearchUtils

from rayml.errors import NotFound
from rayml.mlflow_plugin import experiments, logged_models, runs
from rayml.mlflow_plugin.entities import OUTPUT_LABEL, kept_experiment, texts
from rayml.mlflow_plugin.recorder import end_run, flush_writers, own_context, recorder
from rayml.mlflow_plugin.refusals import translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities import (
        LoggedModel,
        LoggedModelOutput,
        LoggedModelParameter,
        LoggedModelTag,
        Metric,
    )

    from rayml.mlflow_plugin.logged_models import ModelNote
    from rayml.store import Store
    from rayml.tracker.runs import RunRecord


@translated
class ModelStore:
    """Logged models: created, filled with files by the artifact repository, made ready, found."""

    @property
    def store(self) -> Store:
        """The store."""
        raise NotImplementedError

    def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: Sequence[LoggedModelTag] | None = None,
        params: Sequence[LoggedModelParameter] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        """Make a model known before it has files; without a run, it gets one of its own."""
        title = name or _generate_random_name()
        context = own_context(self.store)
        run = source_run_id or (context.run_id if context is not None else None)
        is_alone = run is None
        if run is None:
            run = self._start_run_for(experiment_id, title)
        record = self._find_run(run)
        artifact = logged_models.free_name(record, title)
        note = logged_models.changed(
            logged_models.new_note(
                logged_models.new_model_id(run), title, artifact, kind=model_type
            ),
            tags=texts(tags or ()),
            params=texts(params or ()),
            is_alone=is_alone,
        )
        return self._keep(record, note)

    def _start_run_for(self, experiment_id: str, name: str) -> str:
        experiment = experiments.find_experiment(self.store, experiment_id)
        spec = runs.new_spec(
            self.store, name, kept_experiment(experiment.name), submitted_at=time.time()
        )
        recorder(self.store).begin(spec, spec.submitted_at)
        return spec.run

    def get_logged_model(self, model_id: str, allow_deleted: bool = False) -> LoggedModel:  # noqa: FBT001, FBT002 - MLflow's signature
        """Return a model."""
        record, note = self._find_model(model_id)
        if note.is_deleted and not allow_deleted:
            raise NotFound(f"Logged model with ID '{model_id}' not found.")
        return logged_models.model_entity(record, note, self.store.uri)

    def finalize_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """Say that a model has all its files, or never will."""
        record, note = self._find_model(model_id)
        model = self._keep(record, logged_models.changed(note, status=str(status)))
        if note.is_alone and not record.is_terminal:
            state = "succeeded" if status == LoggedModelStatus.READY else "failed"
            end_run(self.store, record.spec.run, state, time.time())
        return model

    def set_logged_model_tags(self, model_id: str, tags: Sequence[LoggedModelTag]) -> None:
        """Set tags of a model."""
        record, note = self._find_model(model_id)
        self._keep(record, logged_models.changed(note, tags=note.tags | texts(tags)))

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Take a tag of a model away."""
        record, note = self._find_model(model_id)
        if key not in note.tags:
            raise NotFound(f"No tag with key {key!r} found for model with ID {model_id!r}.")
        left = {name: text for name, text in note.tags.items() if name != key}
        self._keep(record, logged_models.changed(note, tags=left))

    def log_logged_model_params(
        self, model_id: str, params: Sequence[LoggedModelParameter]
    ) -> None:
        """Log params of a model."""
        record, note = self._find_model(model_id)
        self._keep(record, logged_models.changed(note, params=note.params | texts(params)))

    def delete_logged_model(self, model_id: str) -> None:
        """Mark a model as deleted; its files stay with the run."""
        record, note = self._find_model(model_id)
        self._keep(record, logged_models.changed(note, is_deleted=True))

    def set_model_versions_tags(self, name: str, version: str, model_id: str) -> None:
        """Note which versions a model was registered as, as MLflow does: in a tag."""
        record, note = self._find_model(model_id)
        known = json.loads(note.tags.get("mlflow.modelVersions", "[]"))
        listed = json.dumps([*known, {"name": name, "version": version}])
        tags = note.tags | {"mlflow.modelVersions": listed}
        self._keep(record, logged_models.changed(note, tags=tags))

    def search_logged_models(
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None = None,
        datasets: list[dict[str, Any]] | None = None,
        max_results: int | None = None,
        order_by: list[dict[str, Any]] | None = None,
        page_token: str | None = None,
    ) -> PagedList[LoggedModel]:
        """Return models that match, the newest first."""
        flush_writers(self.store)
        wanted = set(map(str, experiment_ids))
        names = [
            kept_experiment(experiment.name)
            for experiment in experiments.read_experiments(self.store)
            if experiment.experiment_id in wanted
        ]
        found = [
            logged_models.model_entity(record, note, self.store.uri)
            for record in experiments.runs_of(self.store, names)
            for note in logged_models.notes_of(record)
            if not note.is_deleted and not record.attribute("deleted")
        ]
        found = SearchLoggedModelsUtils.filter_logged_models(found, filter_string, datasets)
        found = SearchLoggedModelsUtils.sort(found, order_by)
        limit = max_results or SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT
        return PagedList(*SearchUtils.paginate(found, page_token, limit))

    def log_outputs(self, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
        """Log which models a run has made, and at which step."""
        labels = {OUTPUT_LABEL + model.model_id: str(model.step) for model in models}
        if labels:
            runs.set_labels(self.store, self._find_run(run_id), labels)

    def record_logged_model(self, run_id: str, mlflow_model: Any) -> None:  # noqa: ANN401 - MLflow's
        """Note a model in the way of older MLflow clients: in a tag."""
        known = self._find_run(run_id).labels.get(MLFLOW_LOGGED_MODELS, "[]")
        listed = json.dumps([*json.loads(known), mlflow_model.get_tags_dict()])
        runs.set_tags(self.store, run_id, {MLFLOW_LOGGED_MODELS: listed})

    def note_metrics(self, metrics: Sequence[Metric]) -> None:
        """Note the newest values of metrics with the models that they belong to."""
        by_model: dict[str, list[Metric]] = defaultdict(list)
        for metric in metrics:
            if metric.model_id:
                by_model[metric.model_id].append(metric)
        for model_id, part in by_model.items():
            record, note = self._find_model(model_id)
            self._keep(record, logged_models.measured(note, part))

    def _find_model(self, model_id: str) -> tuple[RunRecord, ModelNote]:
        record = self._find_run(logged_models.run_of(model_id))
        return record, logged_models.find_note(record, model_id)

    def _find_run(self, run: str) -> RunRecord:
        flush_writers(self.store)
        return runs.find_run(self.store, run)

    def _keep(self, record: RunRecord, note: ModelNote) -> LoggedModel:
        runs.set_labels(self.store, record, logged_models.label_of(note))
        return logged_models.model_entity(record, note, self.store.uri)
