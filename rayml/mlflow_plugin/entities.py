"""Runs as MLflow shows them, and what MLflow gives as rayml keeps it; no I/O.

Params are text in MLflow. What is the usual text of a number, True, False or None is kept as such,
so that `params.depth > 3` finds it, and becomes the same text again.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import msgspec
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LifecycleStage,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
    RunTag,
)
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_USER,
)

from rayml.mlflow_uri import artifact_uri

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rayml.artifacts.record import ArtifactRecord
    from rayml.tracker.runs import RunRecord

# Labels in which rayml keeps what MLflow knows beside tags; they are no tags.
OWN_LABELS = "rayml.mlflow."
EXPERIMENT_LABEL = f"{OWN_LABELS}experiment"
INPUT_LABEL = f"{OWN_LABELS}input."
OUTPUT_LABEL = f"{OWN_LABELS}output."
DATASET_FORMAT = "mlflow-dataset"

DEFAULT_ID = "0"
UNKNOWN = "unknown"  # MLflow's word for a user whom nobody has named

_STATUS = {
    "submitted": "SCHEDULED",
    "waiting": "SCHEDULED",
    "running": "RUNNING",
    "retrying": "RUNNING",
    "succeeded": "FINISHED",
    "failed": "FAILED",
    "cancelled": "KILLED",
}
STATES = {"FINISHED": "succeeded", "FAILED": "failed", "KILLED": "cancelled"}


class DatasetNote(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset that a run has taken, as MLflow describes it."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None
    tags: dict[str, str] = {}


def shown_experiment(name: str) -> str:
    """Return the name by which MLflow knows an experiment of rayml's.

    >>> shown_experiment("default"), shown_experiment("churn")
    ('Default', 'churn')
    """
    return "Default" if name == "default" else name


def kept_experiment(name: str) -> str:
    """Return the name by which rayml knows an experiment of MLflow's.

    >>> kept_experiment("Default"), kept_experiment("churn")
    ('default', 'churn')
    """
    return "default" if name == "Default" else name


def experiment_id(name: str) -> str:
    """Return the id that MLflow has for an experiment; it follows from its name.

    >>> experiment_id("default"), experiment_id("churn")
    ('0', '615621451887769580')
    """
    if name == "default":
        return DEFAULT_ID
    number = int(hashlib.sha256(name.encode()).hexdigest()[:15], 16)
    return f"{number:018d}"[-18:]


def experiment_of(record: RunRecord) -> str:
    """Return the experiment in which MLflow shows a run: the one that its script has asked for."""
    return record.labels.get(EXPERIMENT_LABEL, record.spec.experiment)


def parse_param(text: str) -> object:
    """Return what a param's text stands for, if that has just this text.

    >>> [parse_param(text) for text in ("4", "0.1", "True", "None", "04", "1e-3", "nan", "adam")]
    [4, 0.1, True, None, '04', '1e-3', 'nan', 'adam']
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value) and str(value) == text and abs(value) < 2**63:
            return value
    return text


_CONSTANTS = {"True": True, "False": False, "None": None}


def ms(seconds: float) -> int:
    """Return a Unix time in MLflow's unit.

    >>> ms(1.0006)
    1001
    """
    return round(seconds * 1000)


def run_entity(record: RunRecord, store_uri: str) -> Run:
    """Return a run as MLflow shows it."""
    return Run(
        run_info(record, store_uri),
        RunData(list(_metrics(record)), list(_params(record)), list(_tags(record))),
        RunInputs(list(datasets(record)), list(_model_inputs(record))),
        RunOutputs(list(_model_outputs(record))),
    )


def run_info(record: RunRecord, store_uri: str) -> RunInfo:
    """Return what MLflow says of a run without its params, metrics and tags."""
    spec = record.spec
    started_at = spec.submitted_at if record.started_at is None else record.started_at
    return RunInfo(
        run_id=spec.run,
        experiment_id=experiment_id(experiment_of(record)),
        user_id=record.labels.get(MLFLOW_USER, spec.origin.user),
        status=_STATUS[record.state],
        start_time=ms(started_at),
        end_time=None if record.ended_at is None else ms(record.ended_at),
        lifecycle_stage=(
            LifecycleStage.DELETED if record.attribute("deleted") else LifecycleStage.ACTIVE
        ),
        artifact_uri=artifact_uri(store_uri, spec.run),
        run_name=record.labels.get(MLFLOW_RUN_NAME, spec.name),
    )


def history(record: RunRecord, name: str) -> list[Metric]:
    """Return a metric's points by step."""
    return [
        Metric(name, value, ms(time), step, run_id=record.spec.run)
        for step, time, value in record.points(name)
    ]


def derived_tags(record: RunRecord) -> dict[str, str]:
    """Return the tags that follow from what rayml knows of a run anyway."""
    spec = record.spec
    found = {
        MLFLOW_RUN_NAME: spec.name,
        MLFLOW_USER: "" if spec.origin.user == UNKNOWN else spec.origin.user,
        MLFLOW_SOURCE_NAME: spec.target.file or spec.origin.command,
        MLFLOW_GIT_COMMIT: spec.origin.commit,
        MLFLOW_PARENT_RUN_ID: spec.parent,
        MLFLOW_RUN_NOTE: str(record.attribute("notes")),
    }
    return {name: value for name, value in found.items() if value}


def dataset_note(given: DatasetInput) -> DatasetNote:
    """Return a dataset as rayml keeps it."""
    dataset = given.dataset
    return DatasetNote(
        name=dataset.name,
        digest=dataset.digest,
        source_type=dataset.source_type,
        source=dataset.source,
        schema=dataset.schema,
        profile=dataset.profile,
        tags={tag.key: tag.value for tag in given.tags},
    )


def dataset_input(note: DatasetNote) -> DatasetInput:
    """Return a dataset as MLflow shows it."""
    tags = [InputTag(key, value) for key, value in note.tags.items()]
    dataset = Dataset(
        note.name, note.digest, note.source_type, note.source, note.schema, note.profile
    )
    return DatasetInput(dataset, tags)


def datasets(record: RunRecord) -> Iterator[DatasetInput]:
    """Yield the datasets that a run has taken."""
    for artifact in record.artifacts.values():
        if is_dataset(artifact):
            yield dataset_input(msgspec.convert(artifact.meta, DatasetNote))


def is_dataset(artifact: ArtifactRecord) -> bool:
    """Tell whether an artifact only says which dataset MLflow has taken."""
    return artifact.format == DATASET_FORMAT


def texts(pairs: Iterable[Param | RunTag]) -> dict[str, str]:
    """Return MLflow's params or tags as a dict; the last of a name counts."""
    return {pair.key: str(pair.value) for pair in pairs}


def _metrics(record: RunRecord) -> Iterator[Metric]:
    for name in record.series:
        last = record.summary(name)
        yield Metric(
            name, last.last, _measured_at(record, name), last.last_step, run_id=record.spec.run
        )


def _measured_at(record: RunRecord, name: str) -> int:
    """Return about when a metric's last value was measured; exactly, its history says that."""
    recent = [s.recent.time[-1] for s in record.series[name].values() if s.recent]
    return ms(max(recent, default=record.ended_at or record.spec.submitted_at))


def _params(record: RunRecord) -> Iterator[Param]:
    for name, value in record.params.items():
        yield Param(name, str(value))


def _tags(record: RunRecord) -> Iterator[RunTag]:
    for name, value in (derived_tags(record) | record.labels).items():
        if not name.startswith(OWN_LABELS):
            yield RunTag(name, value)


def _model_inputs(record: RunRecord) -> Iterator[LoggedModelInput]:
    for name in record.labels:
        if name.startswith(INPUT_LABEL):
            yield LoggedModelInput(name.removeprefix(INPUT_LABEL))


def _model_outputs(record: RunRecord) -> Iterator[LoggedModelOutput]:
    for name, step in record.labels.items():
        if name.startswith(OUTPUT_LABEL):
            yield LoggedModelOutput(name.removeprefix(OUTPUT_LABEL), int(step))
