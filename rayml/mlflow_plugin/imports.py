"""Runs of another MLflow, taken into a store: each one whole or not at all, and only once.

The id of a run that was taken follows from MLflow's, so that a second import finds it; its record
is one batch of the journal, written when all its files are in the store.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
import msgspec
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_USER,
)

from rayml.artifacts.file import save_file
from rayml.errors import RaymlError, StoreError
from rayml.mlflow_plugin import logged_models
from rayml.mlflow_plugin.artifact_repository import save_folder
from rayml.mlflow_plugin.entities import (
    OUTPUT_LABEL,
    STATES,
    UNKNOWN,
    kept_experiment,
    parse_param,
)
from rayml.mlflow_plugin.peer import PAGE, pages
from rayml.mlflow_plugin.recorder import Measured, points_record, recorder
from rayml.mlflow_plugin.runs import dataset_artifact
from rayml.origin import read_origin
from rayml.spec import InputRecord, Spec, Target, plain_value
from rayml.tracker.changes import RunEdited
from rayml.tracker.edits import change_runs
from rayml.tracker.reader import read_runs
from rayml.tracker.records import Ended, Logged, Params, Problem, Started, Submitted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow.entities import LoggedModel, Metric, Run

    from rayml.artifacts.record import ArtifactRecord
    from rayml.mlflow_plugin.peer import Peer
    from rayml.store import Store
    from rayml.tracker.records import Record

SOURCE_LABEL = "mlflow.run_id"
_POINTS = 50_000


class Outcome(NamedTuple):
    """What became of one run.

    Attributes:
        source: The run where it was.
        run: The run where it is, or would be.
        state: `done`, `known` (it was there already), `open` (it has not ended), `failed`.
        problem: Why it failed.
    """

    source: str
    name: str
    run: str
    state: str
    problem: str = ""


@dataclass
class Import:
    """What is to be taken from an MLflow into a store.

    Attributes:
        experiments: The names of the experiments to take; all of them if there are none.
        is_dry: Only tell what would be taken.
        takes_open: Also runs that have not ended, as lost ones.
    """

    peer: Peer
    store: Store
    experiments: tuple[str, ...] = ()
    is_dry: bool = False
    takes_open: bool = False
    _models: dict[str, list[LoggedModel]] = field(default_factory=dict)

    @cached_property
    def runs(self) -> list[tuple[str, Run]]:
        """The runs to take, with their experiments' names, the oldest first.

        Raises:
            StoreError: MLflow does not tell.
        """
        try:
            return sorted(self._find(), key=lambda pair: int(pair[1].info.start_time))
        except MlflowException as exc:
            raise StoreError(f"MLflow does not tell its runs: {one_line(exc)}") from exc

    @cached_property
    def ids(self) -> dict[str, str]:
        """The ids that the runs to take have here, by MLflow's."""
        return {run.info.run_id: _id_here(run) for _, run in self.runs}

    def take(self) -> Iterator[Outcome]:
        """Take one run after the other, and tell what became of each."""
        for experiment, run in self.runs:
            yield self._take(experiment, run)

    def _find(self) -> Iterator[tuple[str, Run]]:
        client = self.peer.client
        for experiment in pages(client.search_experiments, max_results=PAGE):
            if self.experiments and experiment.name not in self.experiments:
                continue
            number = [experiment.experiment_id]
            for run in pages(client.search_runs, experiment_ids=number, max_results=PAGE):
                yield kept_experiment(experiment.name), run

    def _take(self, experiment: str, run: Run) -> Outcome:
        info, here = run.info, self.ids[run.info.run_id]
        outcome = Outcome(info.run_id, info.run_name or info.run_id, here, "done")
        known = read_runs(self.store).runs
        if here in known or run.data.tags.get("rayml.run_id") in known:
            return outcome._replace(state="known")
        if info.status not in STATES and not self.takes_open:
            return outcome._replace(state="open")
        if self.is_dry:
            return outcome
        try:
            self._record(experiment, run)
        except (RaymlError, MlflowException, OSError) as exc:
            return outcome._replace(state="failed", problem=one_line(exc))
        return outcome

    def _record(self, experiment: str, run: Run) -> None:
        here = self.ids[run.info.run_id]
        with tempfile.TemporaryDirectory(prefix="rayml-") as folder:
            artifacts = list(self._artifacts(run, Path(folder)))
            models = list(self._logged_models(run, here, artifacts, Path(folder)))
        spec = self._spec(experiment, run, [note for note, _ in models])
        artifacts += [artifact for _, artifact in models if artifact is not None]
        artifacts += [dataset_artifact(self.store, one) for one in run.inputs.dataset_inputs]
        if note := run.data.tags.get(MLFLOW_RUN_NOTE):
            change_runs(self.store, RunEdited(run=here, notes=note))
        recorder(self.store).record(here, *self._records(spec, run, artifacts))

    def _records(self, spec: Spec, run: Run, artifacts: list[ArtifactRecord]) -> Iterator[Record]:
        here, began = spec.run, spec.submitted_at
        yield Submitted(run=here, time=began, spec=spec)
        yield Started(run=here, time=began, attempt=1, node="", host="", pid=0)
        values = {name: plain_value(parse_param(text)) for name, text in run.data.params.items()}
        if values:
            yield Params(run=here, time=began, attempt=1, params=values)
        points = list(self._points(run))
        for first in range(0, len(points), _POINTS):
            yield points_record(here, 1, points[first : first + _POINTS])
        ended_at = _ended_at(run, points)
        for artifact in artifacts:
            record = msgspec.structs.replace(artifact, run=here, created_at=ended_at)
            yield Logged(run=here, time=ended_at, attempt=1, artifact=record)
        state = STATES.get(run.info.status, "failed")
        yield Ended(
            run=here, time=ended_at, attempt=1, state=state, problem=_problem(run.info.status)
        )

    def _points(self, run: Run) -> Iterator[Measured]:
        for name in run.data.metrics:
            history = self.peer.client.get_metric_history(run.info.run_id, name)
            for point in sorted(history, key=_by_time):
                yield Measured(name, float(point.value), point.step, point.timestamp / 1000)

    def _spec(self, experiment: str, run: Run, notes: list[logged_models.ModelNote]) -> Spec:
        tags, info = run.data.tags, run.info
        parent = self._parent(tags)
        known = {MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE, MLFLOW_SOURCE_NAME, MLFLOW_GIT_COMMIT}
        known |= {MLFLOW_PARENT_RUN_ID} if parent else set()
        labels = {name: text for name, text in tags.items() if name not in known}
        labels[SOURCE_LABEL] = info.run_id
        for output in run.outputs.model_outputs if run.outputs is not None else ():
            number = model_id_here(self.ids[info.run_id], output.model_id)
            labels[OUTPUT_LABEL + number] = str(output.step)
        for note in notes:
            labels |= logged_models.label_of(note)
        user = info.user_id or tags.get(MLFLOW_USER) or UNKNOWN
        origin = msgspec.structs.replace(
            read_origin(Path.cwd()), user=user, host="", python="",
            command=tags.get(MLFLOW_SOURCE_NAME, ""), commit=tags.get(MLFLOW_GIT_COMMIT),
        )  # fmt: skip
        name = info.run_name or info.run_id
        return Spec(
            run=self.ids[info.run_id], name=name, experiment=experiment,
            target=Target(kind="block", text=name), origin=origin,
            submitted_at=info.start_time / 1000, store=self.store.uri, cluster="",
            working_dir="", inputs=_inputs(run), labels=labels, parent=parent,
        )  # fmt: skip

    def _parent(self, tags: Mapping[str, str]) -> str | None:
        parent = self.ids.get(tags.get(MLFLOW_PARENT_RUN_ID, ""))
        return parent or None

    def _artifacts(self, run: Run, folder: Path) -> Iterator[ArtifactRecord]:
        client, run_id = self.peer.client, run.info.run_id
        copies = folder / "artifacts"
        copies.mkdir()
        for found in client.list_artifacts(run_id):
            path = Path(client.download_artifacts(run_id, found.path, str(copies)))
            if not found.is_dir:
                yield save_file(self.store, found.path, path)
            elif (saved := save_folder(self.store, found.path, path)) is not None:
                yield saved

    def _logged_models(
        self, run: Run, here: str, artifacts: list[ArtifactRecord], folder: Path
    ) -> Iterator[tuple[logged_models.ModelNote, ArtifactRecord | None]]:
        """Yield the models that a run has made: what is known of each, and its files."""
        taken = {artifact.name for artifact in artifacts}
        for model in self._models_of(run):
            name = next(n for n in _numbered(model.name) if n not in taken)
            taken.add(name)
            artifact = self._model_files(model, name, folder)
            note = logged_models.ModelNote(
                model_id=model_id_here(here, model.model_id), name=model.name, artifact=name,
                status=str(model.status.value), created=model.creation_timestamp, updated=0,
                kind=model.model_type, tags=dict(model.tags), params=dict(model.params or {}),
            )  # fmt: skip
            note = logged_models.measured(note, model.metrics or ())
            yield (
                msgspec.structs.replace(note, updated=model.last_updated_timestamp),
                artifact,
            )

    def _model_files(self, model: LoggedModel, name: str, folder: Path) -> ArtifactRecord | None:
        if model.status != LoggedModelStatus.READY:
            return None
        copies = folder / model.model_id
        copies.mkdir()
        path = mlflow.artifacts.download_artifacts(
            artifact_uri=f"models:/{model.model_id}", dst_path=str(copies)
        )
        return save_folder(self.store, name, Path(path))

    def _models_of(self, run: Run) -> list[LoggedModel]:
        number = run.info.experiment_id
        if number not in self._models:
            self._models[number] = _find_models(self.peer, number)
        return [m for m in self._models[number] if m.source_run_id == run.info.run_id]


def _find_models(peer: Peer, experiment_id: str) -> list[LoggedModel]:
    """Return the logged models of an experiment; older servers know of none."""
    try:
        found = pages(peer.client.search_logged_models, experiment_ids=[experiment_id])
        return list(found)
    except (MlflowException, NotImplementedError):
        return []


def model_id_here(run: str, model_id: str) -> str:
    """Return the id that a logged model of MLflow's has here, in the run that holds it."""
    return f"m-{run}-{hashlib.sha256(model_id.encode()).hexdigest()[:8]}"


def _id_here(run: Run) -> str:
    """Return the id that a run of MLflow's has in any store: it follows from its own."""
    began = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    digest = hashlib.sha256(run.info.run_id.encode()).hexdigest()[:10]
    return f"{began:%Y%m%d-%H%M%S}-{digest}"


def _by_time(point: Metric) -> tuple[int, bool, float]:
    """Return a key by which the point comes last that MLflow takes for the last one of a step."""
    return point.timestamp, not math.isnan(point.value), point.value


def _ended_at(run: Run, points: list[Measured]) -> float:
    if run.info.end_time is not None:
        return float(run.info.end_time) / 1000
    return max((point.at for point in points), default=run.info.start_time / 1000)


def _problem(status: str) -> Problem | None:
    if status == "FINISHED":
        return None
    if status == "KILLED":
        return Problem(kind="cancelled", message="it was killed, as MLflow says")
    if status == "FAILED":
        return Problem(kind="error", message="it failed, as MLflow says")
    return Problem(kind="lost", message=f"it was {status} in MLflow when it was imported")


def _inputs(run: Run) -> dict[str, InputRecord]:
    datasets = [given.dataset for given in run.inputs.dataset_inputs]
    return {
        dataset.name: InputRecord(name=dataset.name, uri=_source_uri(dataset), kind="uri")
        for dataset in datasets
    }


def _source_uri(dataset: Any) -> str:  # noqa: ANN401 - MLflow's entity
    try:
        told = json.loads(dataset.source)
    except ValueError:
        return str(dataset.source)
    found = [told[key] for key in ("uri", "url", "path") if isinstance(told, dict) and key in told]
    return str(found[0]) if found else f"mlflow://{dataset.source_type}/{dataset.digest}"


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 1
    while True:
        number += 1
        yield f"{name}-{number}"


def one_line(exc: Exception) -> str:
    """Return an error in one line that is not too long."""
    return " ".join(str(exc).split())[:500]
