"""What MLflow's clients log, as records of rayml's journal, or of its catalog for ended runs."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from rayml.artifacts.file import save_file
from rayml.errors import JournalFenced, NotFound
from rayml.mlflow_plugin.entities import (
    DATASET_FORMAT,
    INPUT_LABEL,
    UNKNOWN,
    dataset_note,
    derived_tags,
    history,
    parse_param,
)
from rayml.mlflow_plugin.recorder import Measured, find_writer, flush_writers, own_context
from rayml.origin import new_run_id, read_origin
from rayml.spec import Spec, Target, plain_value
from rayml.tracker.catalog import open_catalog
from rayml.tracker.changes import NO_EDITS, RunEdited
from rayml.tracker.edits import change_runs, edited
from rayml.tracker.reader import read_runs
from rayml.tracker.records import Labels, Logged, Params

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mlflow.entities import DatasetInput, Metric

    from rayml.artifacts.record import ArtifactRecord
    from rayml.store import Store
    from rayml.tracker.runs import RunRecord

_NOT_PLAIN = re.compile(r"[^\w.-]+")


def new_spec(
    store: Store,
    name: str,
    experiment: str,
    *,
    user: str = "",
    parent: str | None = None,
    submitted_at: float,
) -> Spec:
    """Return what describes a run that MLflow starts in this process."""
    folder = Path.cwd()
    origin = read_origin(folder)
    if user and user != UNKNOWN:
        origin = msgspec.structs.replace(origin, user=user)
    return Spec(
        run=new_run_id(),
        name=name,
        experiment=experiment,
        target=Target(kind="block", text=name),
        origin=origin,
        submitted_at=submitted_at,
        store=store.uri,
        cluster="",
        working_dir=str(folder),
        parent=parent,
    )


def find_run(store: Store, run: str) -> RunRecord:
    """Return a run with its edits, also a deleted one.

    Raises:
        NotFound: There is none of this very id, or its data has been collected.
        StoreError: The store cannot be read.
    """
    found = read_runs(store).runs
    edits = open_catalog(store).refresh().runs.get(run)
    if run not in found or (edits is not None and edits.is_collected):
        raise NotFound(f"Run with id={run} not found")  # MLflow's own words
    return edited(found[run], edits)


def log(store: Store, run: str, metrics: Sequence[Metric], params: Mapping[str, str]) -> None:
    """Log metrics and params.

    Raises:
        NotFound: There is no such run.
        JournalFenced: It has ended, or nobody can log to it from here.
        StoreError: The store cannot be written.
    """
    fresh = _without_copies(store, run, metrics)
    kept = _without_given(store, run, params)
    if not fresh and not kept:
        return
    writer = find_writer(store, run)
    if kept:
        # Not as `log_params` does, which cuts long ones: MLflow promises them whole.
        values = {name: plain_value(parse_param(text)) for name, text in kept.items()}
        now = time.time()
        writer.add(Params(run=run, time=now, attempt=writer.attempt, params=values))
    if fresh:
        points = [Measured(m.key, float(m.value), m.step, m.timestamp / 1000) for m in fresh]
        writer.measure(points)


def _without_copies(store: Store, run: str, metrics: Sequence[Metric]) -> Sequence[Metric]:
    """Leave out the points that MLflow only repeats to say to which model they belong."""
    if not any(metric.model_id for metric in metrics):
        return metrics
    flush_writers(store)
    record = find_run(store, run)
    names = {metric.key for metric in metrics} & record.series.keys()
    known = {_identity(metric) for name in names for metric in history(record, name)}
    return [m for m in metrics if m.model_id is None or _identity(m) not in known]


def _identity(metric: Metric) -> tuple[object, ...]:
    return metric.key, metric.step, metric.timestamp, repr(float(metric.value))


def _without_given(store: Store, run: str, params: Mapping[str, str]) -> Mapping[str, str]:
    """Leave out what the job was given as params, which have their own types."""
    context = own_context(store)
    if context is None or context.run_id != run:
        return params
    given = {name: str(value) for name, value in context.params.items()}
    return {name: text for name, text in params.items() if given.get(name) != text}


def set_tags(store: Store, run: str, tags: Mapping[str, str]) -> None:
    """Set tags: in the journal while the run goes on and can be reached, else in the catalog.

    Raises:
        NotFound: There is no such run.
        StoreError: The store cannot be written.
    """
    if not tags:
        return
    record = _known(store, run)
    known = derived_tags(record)
    if tags.get(MLFLOW_PARENT_RUN_ID) == record.spec.parent:
        known[MLFLOW_PARENT_RUN_ID] = str(record.spec.parent)
    labels = {n: t for n, t in tags.items() if n in record.labels or known.get(n) != t}
    notes = labels.pop(MLFLOW_RUN_NOTE, None)
    if notes is not None:
        change_runs(store, RunEdited(run=run, notes=notes))
    if labels:
        set_labels(store, record, labels)


def set_labels(store: Store, record: RunRecord, labels: Mapping[str, str]) -> None:
    """Set labels of a run, wherever it can be done.

    Raises:
        StoreError: The store cannot be written.
    """
    run = record.spec.run
    edits = record.edits or NO_EDITS
    context = own_context(store)
    is_own = context is not None and context.run_id == run
    # An edit wins over what the journal says, so what was edited once has to be edited again.
    is_edited = bool(edits.labels.keys() & labels.keys())
    if is_own or not (record.is_terminal or is_edited):
        with suppress(JournalFenced):  # anybody may edit a run that others record
            writer = find_writer(store, run)
            now = time.time()
            writer.add(Labels(run=run, time=now, attempt=writer.attempt, labels=dict(labels)))
            if not is_edited:
                return
    change_runs(store, RunEdited(run=run, labels=dict(labels)))


def delete_tag(store: Store, run: str, key: str) -> None:
    """Take a tag away.

    Raises:
        StoreError: The store cannot be written.
    """
    gone: dict[str, str | None] = {key: None}
    note = key == MLFLOW_RUN_NOTE
    change_runs(store, RunEdited(run=run, notes="") if note else RunEdited(run=run, labels=gone))


def log_datasets(store: Store, run: str, datasets: Iterable[DatasetInput]) -> None:
    """Log which datasets a run has taken: an artifact each, which describes it.

    Raises:
        JournalFenced: The run has ended, or nobody can log to it from here.
        StoreError: The store cannot be written.
    """
    for given in datasets:
        log_artifact(store, run, dataset_artifact(store, given))


def dataset_artifact(store: Store, given: DatasetInput) -> ArtifactRecord:
    """Store the description of a dataset, and return its record."""
    note = dataset_note(given)
    name = _NOT_PLAIN.sub("-", f"{note.name[:100]}-{note.digest[:40]}").strip(".-") or "dataset"
    saved = save_file(store, f"inputs/{name}", msgspec.json.encode(note))
    return msgspec.structs.replace(saved, format=DATASET_FORMAT, meta=msgspec.to_builtins(note))


def log_model_inputs(store: Store, run: str, model_ids: Iterable[str]) -> None:
    """Log which models a run has taken.

    Raises:
        StoreError: The store cannot be written.
    """
    if labels := {INPUT_LABEL + model_id: "" for model_id in model_ids}:
        set_labels(store, _known(store, run), labels)


def log_artifact(store: Store, run: str, artifact: ArtifactRecord) -> None:
    """Log an artifact whose files are in the store.

    Raises:
        JournalFenced: The run has ended, or nobody can log to it from here.
        StoreError: The store cannot be written.
    """
    writer = find_writer(store, run)
    now = time.time()
    record = msgspec.structs.replace(artifact, run=run, created_at=now)
    writer.add(Logged(run=run, time=now, attempt=writer.attempt, artifact=record))


def _known(store: Store, run: str) -> RunRecord:
    """Return a run as far as this process has read of it; what it has not heard of is read."""
    flush_writers(store)
    return find_run(store, run)
