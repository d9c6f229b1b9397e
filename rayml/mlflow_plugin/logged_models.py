"""What MLflow knows of a model beside its files: a note in a label of the run that made it.

The files are an artifact of that run, whose name is the model's (or, if that is taken, the name
with a number), so that `run.artifact("model")` and `rayml.register_model` know it as well.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

import msgspec
from mlflow.entities import LoggedModel, LoggedModelStatus, Metric

from rayml.errors import NotFound
from rayml.mlflow_plugin.entities import OWN_LABELS, experiment_id, experiment_of, ms
from rayml.mlflow_uri import artifact_uri

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rayml.tracker.runs import RunRecord

MODEL_LABEL = f"{OWN_LABELS}model."


class MetricNote(msgspec.Struct, frozen=True):
    """The newest value of a metric of a model; the time is in MLflow's milliseconds."""

    key: str
    value: float | str
    timestamp: int
    step: int
    dataset_name: str | None = None
    dataset_digest: str | None = None


class ModelNote(msgspec.Struct, frozen=True, kw_only=True):
    """A model as MLflow knows it; times are in MLflow's milliseconds.

    Attributes:
        artifact: The name of the artifact that holds its files.
        is_alone: No run has made it: the one that holds it is there for it alone.
    """

    model_id: str
    name: str
    artifact: str
    status: str
    created: int
    updated: int
    kind: str | None = None
    tags: dict[str, str] = {}
    params: dict[str, str] = {}
    metrics: list[MetricNote] = []
    is_deleted: bool = False
    is_alone: bool = False


def new_model_id(run: str) -> str:
    """Return a new id, which says which run holds the model."""
    return f"m-{run}-{secrets.token_hex(4)}"


def run_of(model_id: str) -> str:
    """Return the run that holds a model.

    >>> run_of("m-20261123-181110-95b9fc-0a1b2c3d")
    '20261123-181110-95b9fc'
    """
    return model_id.removeprefix("m-").rpartition("-")[0]


def new_note(model_id: str, name: str, artifact: str, *, kind: str | None = None) -> ModelNote:
    """Return what is known of a model before it has files."""
    now = ms(time.time())
    return ModelNote(
        model_id=model_id, name=name, artifact=artifact, status="PENDING", created=now,
        updated=now, kind=kind,
    )  # fmt: skip


def find_note(record: RunRecord, model_id: str) -> ModelNote:
    """Return what is known of a model.

    Raises:
        NotFound: The run holds no such model.
    """
    text = record.labels.get(MODEL_LABEL + model_id)
    if text is None:
        raise NotFound(f"Logged model with ID '{model_id}' not found.")
    return msgspec.json.decode(text, type=ModelNote)


def notes_of(record: RunRecord) -> Iterator[ModelNote]:
    """Yield what is known of the models that a run holds."""
    for name, text in record.labels.items():
        if name.startswith(MODEL_LABEL):
            yield msgspec.json.decode(text, type=ModelNote)


def label_of(note: ModelNote) -> dict[str, str]:
    """Return the label that keeps a note."""
    return {MODEL_LABEL + note.model_id: msgspec.json.encode(note).decode()}


def free_name(record: RunRecord, name: str) -> str:
    """Return the name, with a number if an artifact or model of the run has it already."""
    taken = {*record.artifacts, *(note.artifact for note in notes_of(record))}
    names = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    return next(free for free in names if free not in taken)


def model_entity(record: RunRecord, note: ModelNote, store_uri: str) -> LoggedModel:
    """Return a model as MLflow shows it."""
    run = record.spec.run
    return LoggedModel(
        experiment_id=experiment_id(experiment_of(record)),
        model_id=note.model_id,
        name=note.name,
        artifact_location=artifact_uri(store_uri, run, note.artifact),
        creation_timestamp=note.created,
        last_updated_timestamp=note.updated,
        model_type=note.kind,
        source_run_id=None if note.is_alone else run,
        status=LoggedModelStatus(note.status),
        tags=dict(note.tags),
        params=dict(note.params),
        metrics=[_metric(metric, note.model_id, run) for metric in note.metrics],
    )


def measured(note: ModelNote, metrics: Iterable[Metric]) -> ModelNote:
    """Return a model's note with newer values of metrics."""
    newest = {(m.key, m.dataset_name, m.dataset_digest): m for m in note.metrics}
    for metric in metrics:
        newest[metric.key, metric.dataset_name, metric.dataset_digest] = MetricNote(
            metric.key, _plain(metric.value), metric.timestamp, metric.step,
            metric.dataset_name, metric.dataset_digest,
        )  # fmt: skip
    return changed(note, metrics=list(newest.values()))


def changed(note: ModelNote, **changes: object) -> ModelNote:
    """Return a note with these changes, made now."""
    return msgspec.structs.replace(note, **changes, updated=ms(time.time()))


def _plain(value: float) -> float | str:
    return value if value - value == 0 else str(value)  # JSON has no NaN and no infinities


def _metric(note: MetricNote, model_id: str, run: str) -> Metric:
    return Metric(
        note.key, float(note.value), note.timestamp, note.step, model_id=model_id,
        dataset_name=note.dataset_name, dataset_digest=note.dataset_digest, run_id=run,
    )  # fmt: skip
