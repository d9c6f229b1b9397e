"""Experiments as MLflow has them: rayml knows their names, and MLflow an id and tags as well.

An experiment is there once a run names it, or MLflow has created it: then the catalog says so, as
it does of tags and deletion.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from mlflow.entities import Experiment, ExperimentTag, LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS

from rayml.errors import NotFound
from rayml.mlflow_plugin.entities import (
    experiment_id,
    experiment_of,
    kept_experiment,
    ms,
    shown_experiment,
)
from rayml.mlflow_uri import tracking_uri
from rayml.tracker.catalog import open_catalog
from rayml.tracker.changes import CatalogState, ExperimentEdited, ExperimentState, RunsDeleted
from rayml.tracker.edits import read_edited

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rayml.store import Store
    from rayml.tracker.changes import Change
    from rayml.tracker.runs import RunRecord


def read_experiments(store: Store) -> list[Experiment]:
    """Return all experiments of a store, deleted ones among them; the default one is always there.

    Raises:
        StoreError: The store cannot be read.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for record in read_edited(store).values():
        times[experiment_of(record)].append(record.spec.submitted_at)
    states = open_catalog(store).refresh().experiments
    names = dict.fromkeys(["default", *times, *states])
    return [_entity(store, name, states.get(name), times.get(name, ())) for name in names]


def find_experiment(store: Store, experiment: str) -> Experiment:
    """Return the experiment with this id.

    Raises:
        NotFound: There is none.
        StoreError: The store cannot be read.
    """
    for found in read_experiments(store):
        if found.experiment_id == experiment:
            return found
    raise NotFound(f"No Experiment with id={experiment} exists")  # MLflow's own words


def runs_of(store: Store, names: Iterable[str]) -> list[RunRecord]:
    """Return all runs that MLflow shows in these experiments of rayml's.

    Raises:
        StoreError: The store cannot be read.
    """
    wanted = set(names)
    return [r for r in read_edited(store).values() if experiment_of(r) in wanted]


def create_experiment(store: Store, name: str, tags: Mapping[str, str]) -> str:
    """Make an experiment known before it has runs; return its id.

    Raises:
        MlflowException: There is one of that name.
        StoreError: The store cannot be written.
    """
    kept = kept_experiment(name)
    taken = {found.name for found in read_experiments(store)}

    def decide(state: CatalogState) -> Change:
        if shown_experiment(kept) in taken or kept in state.experiments:
            raise MlflowException(f"Experiment '{name}' already exists.", RESOURCE_ALREADY_EXISTS)
        return ExperimentEdited(experiment=kept, tags=dict(tags))

    open_catalog(store).append(decide)
    return experiment_id(kept)


def edit_experiment(store: Store, name: str, tags: Mapping[str, str | None]) -> None:
    """Set tags of an experiment of rayml's, or take them away by None.

    Raises:
        StoreError: The store cannot be written.
    """
    change = ExperimentEdited(experiment=name, tags=dict(tags))
    open_catalog(store).append(lambda _: change)


def delete_experiment(store: Store, name: str, *, is_deleted: bool) -> None:
    """Mark an experiment and its runs as deleted, or undo that; runs that go on stay.

    Raises:
        StoreError: The store cannot be written.
    """
    ended = [r for r in runs_of(store, [name]) if r.is_terminal]
    runs = [r.spec.run for r in ended if bool(r.attribute("deleted")) != is_deleted]
    catalog = open_catalog(store)
    if runs:
        catalog.append(lambda _: RunsDeleted(runs=runs, is_deleted=is_deleted))
    catalog.append(lambda _: ExperimentEdited(experiment=name, is_deleted=is_deleted))


def _entity(
    store: Store, name: str, state: ExperimentState | None, times: Iterable[float]
) -> Experiment:
    known = [*times, *([state.time] if state is not None else [])]
    is_deleted = state is not None and state.is_deleted
    return Experiment(
        experiment_id(name),
        shown_experiment(name),
        tracking_uri(store.uri),
        LifecycleStage.DELETED if is_deleted else LifecycleStage.ACTIVE,
        tags=[ExperimentTag(*tag) for tag in (state.tags.items() if state else ())],
        creation_time=ms(min(known, default=0)),
        last_update_time=ms(max(known, default=0)),
    )
