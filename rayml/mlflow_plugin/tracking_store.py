"""MLflow's tracking store over a store of rayml.

**Inside a run** (of a job, or of `with rayml.start_run()`) the first run that MLflow starts in a
process is that run, whatever experiment the script has set: MLflow shows it in that one, and rayml
in its own. Later ones, and nested ones, are its children. The run ends when the job does, not when
MLflow says so.

**Elsewhere** MLflow's runs are runs of their own, as those of `rayml.start_run()`.

Params may be logged again; the last value counts. What has ended is final: metrics, params and
artifacts are refused, tags are not.
"""

from __future__ import annotations

import logging
import os
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mlflow.entities import LifecycleStage, RunStatus, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_CONFLICT,
    RESOURCE_DOES_NOT_EXIST,
)
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import (
    SEARCH_MAX_RESULTS_DEFAULT,
    SEARCH_MAX_RESULTS_THRESHOLD,
)
from mlflow.store.tracking.abstract_store import AbstractStore
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from mlflow.utils.name_utils import _generate_random_name
from mlflow.utils.search_utils import SearchExperimentsUtils, SearchUtils

from rayml.errors import SpecError
from rayml.mlflow_plugin import experiments, runs
from rayml.mlflow_plugin.entities import (
    DEFAULT_ID,
    EXPERIMENT_LABEL,
    STATES,
    experiment_of,
    history,
    kept_experiment,
    run_entity,
    run_info,
    texts,
)
from rayml.mlflow_plugin.model_store import ModelStore
from rayml.mlflow_plugin.recorder import end_run, flush_writers, own_context, recorder
from rayml.mlflow_plugin.refusals import refused, translated
from rayml.mlflow_uri import parse_tracking_uri, tracking_uri
from rayml.run_context import find_context
from rayml.store import open_store
from rayml.tracker.changes import RunsDeleted
from rayml.tracker.edits import change_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities import (
        DatasetInput,
        Experiment,
        ExperimentTag,
        LoggedModelInput,
        Metric,
        Param,
        Run,
        RunInfo,
        RunTag,
    )

    from rayml.run_context import Context
    from rayml.store import Store
    from rayml.tracker.runs import RunRecord

_logger = logging.getLogger(__name__)
_NEWEST_FIRST = ["creation_time DESC", "experiment_id ASC"]
# The runs that MLflow was given in this process as its own, by process: a fork begins anew.
_given: set[tuple[int, str]] = set()


@translated
class RaymlTrackingStore(ModelStore, AbstractStore):  # type: ignore[misc]
    """Experiments, runs, metrics, params, tags, dataset inputs and logged models of a store."""

    def __init__(self, store_uri: str = "rayml:", artifact_uri: str | None = None) -> None:
        """Open the store.

        Args:
            store_uri: See `rayml.mlflow_uri`.
            artifact_uri: Where MLflow would put artifacts; they lie in the store.
        """
        super().__init__()
        self._uri = store_uri
        parse_tracking_uri(store_uri)
        self._shown: dict[str, tuple[object, object, Run]] = {}
        self.artifact_root_uri = artifact_uri

    @property
    def store(self) -> Store:
        """The store."""
        return open_named(self._uri)

    # Experiments

    def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        filter_string: str | None = None,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """Return experiments that match, the newest first."""
        _check_max_results(max_results)
        stages = LifecycleStage.view_type_to_stages(view_type)
        flush_writers(self.store)
        found = [
            experiment
            for experiment in experiments.read_experiments(self.store)
            if experiment.lifecycle_stage in stages
        ]
        found = SearchExperimentsUtils.filter(found, filter_string)
        found = SearchExperimentsUtils.sort(found, order_by or _NEWEST_FIRST)
        return PagedList(*SearchUtils.paginate(found, page_token, max_results))

    def create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: Sequence[ExperimentTag] | None = None,
    ) -> str:
        """Make an experiment known, and return its id."""
        if not isinstance(name, str) or not name:
            raise SpecError(f"{name!r} is not an experiment's name; give text")
        if artifact_location and artifact_location != tracking_uri(self.store.uri):
            _logger.warning(
                "rayml keeps artifacts in its store, %s, not in %s",
                self.store.uri,
                artifact_location,
            )
        return experiments.create_experiment(self.store, name, texts(tags or ()))

    def get_experiment(self, experiment_id: str) -> Experiment:
        """Return an experiment, also a deleted one."""
        return experiments.find_experiment(self.store, str(experiment_id))

    def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """Return an experiment, also a deleted one, or None."""
        wanted = {experiment_name, "Default" if experiment_name == "default" else experiment_name}
        found = experiments.read_experiments(self.store)
        return next((experiment for experiment in found if experiment.name in wanted), None)

    def delete_experiment(self, experiment_id: str) -> None:
        """Mark an experiment and its runs as deleted."""
        if experiment_id == DEFAULT_ID:
            raise SpecError("experiment 0 is the default one; delete its runs instead")
        experiments.delete_experiment(self.store, self._name(experiment_id), is_deleted=True)

    def restore_experiment(self, experiment_id: str) -> None:
        """Undo `delete_experiment`."""
        experiments.delete_experiment(self.store, self._name(experiment_id), is_deleted=False)

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Refuse: a run keeps the experiment that it was submitted to."""
        raise SpecError(
            f"experiment {self._name(experiment_id)!r} cannot be called {new_name!r}; a run keeps "
            "the experiment that it was submitted to"
        )

    def set_experiment_tag(self, experiment_id: str, tag: ExperimentTag) -> None:
        """Set a tag of an experiment."""
        experiments.edit_experiment(self.store, self._name(experiment_id), {tag.key: tag.value})

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Take a tag of an experiment away."""
        if key not in self.get_experiment(experiment_id).tags:
            raise MlflowException(
                f"Experiment {experiment_id} has no tag {key!r}", RESOURCE_DOES_NOT_EXIST
            )
        experiments.edit_experiment(self.store, self._name(experiment_id), {key: None})

    def _name(self, experiment_id: str) -> str:
        return kept_experiment(self.get_experiment(experiment_id).name)

    # Runs

    def create_run(
        self,
        experiment_id: str | None,
        user_id: str,
        start_time: int | None,
        tags: Sequence[RunTag] | None,
        run_name: str | None,
    ) -> Run:
        """Start a run, or give the one that this code is part of, once in each process."""
        experiment = self.get_experiment(experiment_id or DEFAULT_ID)
        if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
            raise MlflowException(
                f"Experiment {experiment.name!r} is deleted; restore it first", RESOURCE_CONFLICT
            )
        given = texts(tags or ())
        name = run_name or given.get(MLFLOW_RUN_NAME)
        wanted = None if experiment.experiment_id == DEFAULT_ID else experiment.name
        context = own_context(self.store)
        if context is not None and self._is_first(context, given):
            return self._give(context, name, given, wanted)
        parent = given.get(MLFLOW_PARENT_RUN_ID)
        if context is not None:
            parent = parent or context.run_id
            wanted = wanted or experiment_of(runs.find_run(self.store, context.run_id))
        spec = runs.new_spec(
            self.store,
            name or _generate_random_name(),
            kept_experiment(wanted or experiment.name),
            user=user_id,
            parent=parent,
            submitted_at=time.time() if start_time is None else start_time / 1000,
        )
        recorder(self.store).begin(spec, spec.submitted_at)
        runs.set_tags(self.store, spec.run, given)
        return self.get_run(spec.run)

    def _is_first(self, context: Context, tags: dict[str, str]) -> bool:
        key = (os.getpid(), context.run_id)
        if MLFLOW_PARENT_RUN_ID in tags or key in _given:
            return False
        _given.add(key)
        return True

    def _give(
        self, context: Context, name: str | None, tags: dict[str, str], experiment: str | None
    ) -> Run:
        labels = dict(tags)
        if name is not None:
            labels[MLFLOW_RUN_NAME] = name
        if experiment is not None:
            labels[EXPERIMENT_LABEL] = kept_experiment(experiment)
        runs.set_tags(self.store, context.run_id, labels)
        return self.get_run(context.run_id)

    def get_run(self, run_id: str) -> Run:
        """Return a run, also a deleted one."""
        return self._entity(self._find(run_id))

    def update_run_info(
        self, run_id: str, run_status: int | None, end_time: int | None, run_name: str | None
    ) -> RunInfo:
        """End a run that MLflow has started, or call it by another name."""
        status = None if run_status is None else RunStatus.to_string(run_status)
        if run_name:
            runs.set_tags(self.store, run_id, {MLFLOW_RUN_NAME: run_name})
        record = self._find(run_id)
        context = own_context(self.store)
        is_own = context is not None and context.run_id == run_id
        if record.is_terminal and status not in (None, *STATES):
            raise MlflowException(
                f"Run {run_id} has ended, and what has ended is final in rayml; start a new run, "
                f"with parent_run_id={run_id!r} if they belong together",
                RESOURCE_CONFLICT,
            )
        if status in STATES and not record.is_terminal and not is_own:
            ended_at = time.time() if end_time is None else end_time / 1000
            end_run(self.store, run_id, STATES[status], ended_at)
        return run_info(self._find(run_id), self.store.uri)

    def delete_run(self, run_id: str) -> None:
        """Mark a run as deleted, once it has ended."""
        record = self._find(run_id)
        if not record.is_terminal:
            raise SpecError(f"run {run_id} is {record.state}; end it before you delete it")
        change_runs(self.store, RunsDeleted(runs=[run_id], is_deleted=True))

    def restore_run(self, run_id: str) -> None:
        """Undo `delete_run`."""
        self._find(run_id)
        change_runs(self.store, RunsDeleted(runs=[run_id], is_deleted=False))

    def _search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None,
        run_view_type: int,
        max_results: int,
        order_by: list[str] | None,
        page_token: str | None,
    ) -> tuple[list[Run], str | None]:
        _check_max_results(max_results)
        flush_writers(self.store)
        wanted = set(map(str, experiment_ids))
        names = [
            kept_experiment(experiment.name)
            for experiment in experiments.read_experiments(self.store)
            if experiment.experiment_id in wanted
        ]
        records = experiments.runs_of(self.store, names)
        found = [self._entity(r) for r in records if _is_viewed(r, run_view_type)]
        found = SearchUtils.filter(found, filter_string)
        found = SearchUtils.sort(found, order_by)
        page, token = SearchUtils.paginate(found, page_token, max_results)
        return page, token

    def _find(self, run_id: str) -> RunRecord:
        flush_writers(self.store)
        return runs.find_run(self.store, run_id)

    def _entity(self, record: RunRecord) -> Run:
        """Return a run as MLflow shows it; of one that has ended, the same as the last time."""
        if not record.is_terminal:
            return run_entity(record, self.store.uri)
        run = record.spec.run
        known = self._shown.get(run)
        if known is None or known[0] is not record.params or known[1] is not record.edits:
            known = record.params, record.edits, run_entity(record, self.store.uri)
            self._shown[run] = known
        return known[2]

    # What runs log

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        params: Sequence[Param],
        tags: Sequence[RunTag],
    ) -> None:
        """Log metrics, params and tags."""
        runs.log(self.store, run_id, metrics, texts(params))
        runs.set_tags(self.store, run_id, texts(tags))
        self.note_metrics(metrics)

    def delete_tag(self, run_id: str, key: str) -> None:
        """Take a tag of a run away."""
        if key not in self.get_run(run_id).data.tags:
            raise MlflowException(
                f"Run {run_id} has no tag with name: {key}", RESOURCE_DOES_NOT_EXIST
            )
        runs.delete_tag(self.store, run_id, key)

    def get_metric_history(
        self,
        run_id: str,
        metric_key: str,
        max_results: int | None = None,
        page_token: str | None = None,
    ) -> PagedList[Metric]:
        """Return a metric's points by step; none if there is no such metric."""
        record = self._find(run_id)
        points = history(record, metric_key) if metric_key in record.series else []
        if max_results is None:
            start = SearchUtils.parse_start_offset_from_page_token(page_token)
            return PagedList(points[start:], None)
        return PagedList(*SearchUtils.paginate(points, page_token, max_results))

    def log_inputs(
        self,
        run_id: str,
        datasets: Sequence[DatasetInput] | None = None,
        models: Sequence[LoggedModelInput] | None = None,
    ) -> None:
        """Log which datasets and models a run has taken."""
        runs.log_datasets(self.store, run_id, datasets or ())
        runs.log_model_inputs(self.store, run_id, [model.model_id for model in models or ()])

    # What rayml does not keep

    def search_traces(self, *_args: object, **_options: object) -> tuple[list[Any], str | None]:
        """Return none: rayml keeps no traces."""
        return [], None

    def start_trace(self, *_args: object) -> object:
        """Refuse: rayml keeps no traces."""
        raise refused("traces; send them elsewhere by mlflow.tracing.set_destination")

    def link_traces_to_run(self, *_args: object, **_options: object) -> None:
        """Refuse: rayml keeps no traces."""
        raise refused("traces")


def open_named(uri: str) -> Store:
    """Return the store at a URI: for `rayml:` that of the run which this code is part of, if any.

    Raises:
        SpecError: It is not the URI of a store.
    """
    location = parse_tracking_uri(uri)
    if location is not None:
        return _open(os.getpid(), location)
    context = find_context()
    return open_store() if context is None else context.store


@lru_cache(maxsize=16)
def _open(_pid: int, location: str) -> Store:
    """Return a store; MLflow asks for it with every call, and a forked child needs its own."""
    return open_store(location)


def _is_viewed(record: RunRecord, view_type: int) -> bool:
    """Tell whether a view has a run; archived runs, which MLflow does not know, are in `ALL`."""
    if view_type == ViewType.ALL:
        return True
    is_deleted = bool(record.attribute("deleted"))
    if view_type == ViewType.DELETED_ONLY:
        return is_deleted
    return not is_deleted and not record.attribute("archived")


def _check_max_results(count: int) -> None:
    if not isinstance(count, int) or not 0 < count <= SEARCH_MAX_RESULTS_THRESHOLD:
        raise MlflowException(
            f"Invalid value {count} for parameter 'max_results' supplied. It must be a positive "
            f"integer of at most {SEARCH_MAX_RESULTS_THRESHOLD}",
            INVALID_PARAMETER_VALUE,
        )
