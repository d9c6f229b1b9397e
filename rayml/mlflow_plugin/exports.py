"""Runs of a store, given to another MLflow: each one once.

A run that was given carries the tag `rayml.run_id`, and `rayml.exported` once it is whole. One
that is not whole, because something came in between, is deleted there and given again.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.validation import (
    MAX_METRICS_PER_BATCH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
    MAX_TAG_VAL_LENGTH,
)

from rayml.errors import RaymlError
from rayml.listing import select
from rayml.mlflow_plugin.artifact_repository import artifact_files, shown_files
from rayml.mlflow_plugin.entities import (
    OUTPUT_LABEL,
    datasets,
    experiment_of,
    history,
    run_entity,
    shown_experiment,
)
from rayml.mlflow_plugin.imports import SOURCE_LABEL, Outcome, one_line
from rayml.mlflow_plugin.logged_models import notes_of
from rayml.mlflow_plugin.peer import PAGE, pages
from rayml.store import fetch_blob
from rayml.tracker.edits import read_edited

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mlflow.entities import Run

    from rayml.mlflow_plugin.artifact_repository import Shown
    from rayml.mlflow_plugin.logged_models import ModelNote
    from rayml.mlflow_plugin.peer import Peer
    from rayml.store import Store
    from rayml.tracker.runs import RunRecord

RUN_TAG, MODEL_TAG = "rayml.run_id", "rayml.model_id"
_WHOLE_TAG = "rayml.exported"
# What no name of a metric, param or tag may have in MLflow.
_REFUSED = re.compile(r"[^/\w.\- :]")


@dataclass
class Export:
    """What is to be given from a store to an MLflow.

    Attributes:
        experiment: Only the runs that belong to it.
        where: What they must meet, in the language of `rayml.runs`.
        is_dry: Only tell what would be given.
        sources: The runs that came from there, by their ids here.
    """

    peer: Peer
    store: Store
    experiment: str | None = None
    where: str | None = None
    is_dry: bool = False
    sources: dict[str, str] = field(default_factory=dict)

    @cached_property
    def runs(self) -> list[RunRecord]:
        """The runs to give, the oldest first: parents are there before their children."""
        found = select(read_edited(self.store).values(), self.experiment, self.where)
        return sorted(found, key=lambda record: record.spec.submitted_at)

    @cached_property
    def there(self) -> dict[str, str]:
        """The runs that are there, by their ids here; those that are not whole are deleted."""
        known: dict[str, str] = {}
        client = self.peer.client
        for experiment in pages(client.search_experiments, max_results=PAGE):
            number = [experiment.experiment_id]
            wanted = f"tags.`{RUN_TAG}` LIKE '%'"
            for run in pages(
                client.search_runs, experiment_ids=number, filter_string=wanted, max_results=PAGE
            ):
                if _WHOLE_TAG in run.data.tags:
                    known[run.data.tags[RUN_TAG]] = run.info.run_id
                elif not self.is_dry:
                    client.delete_run(run.info.run_id)
        return known

    def give(self) -> Iterator[Outcome]:
        """Give one run after the other, and tell what became of each."""
        for record in self.runs:
            yield self._give(record)

    def _give(self, record: RunRecord) -> Outcome:
        run = record.spec.run
        outcome = Outcome(run, record.spec.name, "", "done")
        if run in self.there or self._came_from_there(record):
            return outcome._replace(state="known", run=self._run_there(run))
        if not record.is_terminal:
            return outcome._replace(state="open")
        if self.is_dry:
            return outcome
        try:
            self.there[run] = self._write(record)
        except (RaymlError, MlflowException, OSError) as exc:
            return outcome._replace(state="failed", problem=one_line(exc))
        return outcome._replace(run=self.there[run])

    def _came_from_there(self, record: RunRecord) -> bool:
        source = record.labels.get(SOURCE_LABEL)
        if source is None:
            return False
        try:
            self.sources[record.spec.run] = self.peer.client.get_run(source).info.run_id
        except MlflowException:
            return False
        return True

    def _run_there(self, run: str) -> str:
        return self.there.get(run) or self.sources.get(run, "")

    def _write(self, record: RunRecord) -> str:
        client, shown = self.peer.client, run_entity(record, self.store.uri)
        experiment = self._experiment(shown_experiment(experiment_of(record)))
        tags = self._tags(record, shown)
        created = client.create_run(
            experiment, start_time=shown.info.start_time, tags=tags, run_name=shown.info.run_name
        )
        run = str(created.info.run_id)
        self._log(run, record, shown)
        if given := list(datasets(record)):
            client.log_inputs(run, datasets=given)
        with tempfile.TemporaryDirectory(prefix="rayml-") as folder:
            files = artifact_files(record)
            if self._lay(files, Path(folder)):
                client.log_artifacts(run, folder)
        for note in notes_of(record):
            self._write_model(run, experiment, record, note)
        client.set_tag(run, _WHOLE_TAG, "whole")
        client.set_terminated(run, shown.info.status, shown.info.end_time)
        return run

    def _experiment(self, name: str) -> str:
        client = self.peer.client
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        root = f"{self.peer.artifacts}/{plain(name)}" if self.peer.artifacts else None
        return str(client.create_experiment(name, artifact_location=root))

    def _tags(self, record: RunRecord, shown: Run) -> dict[str, str]:
        tags = {plain(k): v[:MAX_TAG_VAL_LENGTH] for k, v in shown.data.tags.items()}
        tags[RUN_TAG] = record.spec.run
        parent = self._run_there(tags.pop(MLFLOW_PARENT_RUN_ID, ""))
        return tags | ({MLFLOW_PARENT_RUN_ID: parent} if parent else {})

    def _log(self, run: str, record: RunRecord, shown: Run) -> None:
        client = self.peer.client
        params = [
            Param(plain(name), text[:MAX_PARAM_VAL_LENGTH])
            for name, text in shown.data.params.items()
        ]
        for part in _parts(params, MAX_PARAMS_TAGS_PER_BATCH):
            client.log_batch(run, params=part)
        points = [
            Metric(plain(name), point.value, point.timestamp, point.step)
            for name in record.series
            for point in history(record, name)
        ]
        for part in _parts(points, MAX_METRICS_PER_BATCH):
            client.log_batch(run, metrics=part)

    def _lay(self, files: Iterable[Shown], folder: Path) -> bool:
        """Lay files into a folder; tell whether there were any."""
        is_any = False
        for path, file in files:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            fetch_blob(self.store, file.digest, target)
            is_any = True
        return is_any

    def _write_model(self, run: str, experiment: str, record: RunRecord, note: ModelNote) -> None:
        client = self.peer.client
        tags = {**note.tags, MODEL_TAG: note.model_id}
        created = client.create_logged_model(
            experiment, note.name, run, tags=tags, params=note.params, model_type=note.kind
        )
        model = str(created.model_id)
        artifact = record.artifacts.get(note.artifact)
        with tempfile.TemporaryDirectory(prefix="rayml-") as folder:
            if artifact is not None and self._lay(shown_files(artifact), Path(folder)):
                client.log_model_artifacts(model, str(Path(folder, note.artifact)))
        client.finalize_logged_model(model, LoggedModelStatus(note.status))
        step = int(record.labels.get(OUTPUT_LABEL + note.model_id, "0"))
        client.log_outputs(run, [LoggedModelOutput(model, step)])
        metrics = [
            Metric(
                m.key, float(m.value), m.timestamp, m.step, model_id=model,
                dataset_name=m.dataset_name, dataset_digest=m.dataset_digest, run_id=run,
            )
            for m in note.metrics
        ]  # fmt: skip
        if metrics:
            client.log_batch(run, metrics=metrics)


def plain(name: str) -> str:
    """Return a name as MLflow can have it.

    >>> plain("train/loss"), plain("härte 🎈")
    ('train/loss', 'härte _')
    """
    return _REFUSED.sub("_", name)


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
