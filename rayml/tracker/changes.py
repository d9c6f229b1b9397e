"""What the catalog holds: one small type per change, and the fold of all changes into a state.

A state, and all in it, is never changed once it was handed out: a fold puts new values in place of
old ones, so that other threads go on reading what they have.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from rayml.artifacts.record import ArtifactRecord

FORMAT = 1


class VersionAdded(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="version"):
    """An artifact became a version of a model; an alias, if one is given, names it at once."""

    model: str
    version: int
    artifact: ArtifactRecord
    alias: str | None = None


class AliasMoved(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="alias"):
    """An alias names this version of a model from now on, or none."""

    model: str
    alias: str
    version: int | None


class ModelTagged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="tags"):
    """Tags of a model, or of one version of it, were set, or taken away by None."""

    model: str
    tags: dict[str, str | None]
    version: int | None = None


class RunEdited(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="edit"):
    """A run's labels were set, or taken away by None; its notes were replaced, unless None."""

    run: str
    labels: dict[str, str | None] = {}
    notes: str | None = None


class RunsArchived(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="archive"):
    """Runs are left out of lists, or are in them again."""

    runs: list[str]
    is_archived: bool


class RunsDeleted(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="delete"):
    """Runs were thrown away, or brought back before they were collected."""

    runs: list[str]
    is_deleted: bool


class RunsCollected(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="collect"):
    """Deleted runs were forgotten for good; the bytes of what no model's version is may go."""

    runs: list[str]


class ExperimentEdited(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="experiment"
):
    """An experiment exists, with or without runs; tags were set, or taken away by None.

    Attributes:
        is_deleted: What MLflow is to think of it from now on; None leaves that as it is.
    """

    experiment: str
    tags: dict[str, str | None] = {}
    is_deleted: bool | None = None


class RetentionSet(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="retain"):
    """Runs of an experiment are deleted so many days after their end; None keeps them for ever."""

    experiment: str
    days: float | None


Change: TypeAlias = (
    VersionAdded
    | AliasMoved
    | ModelTagged
    | RunEdited
    | RunsArchived
    | RunsDeleted
    | RunsCollected
    | ExperimentEdited
    | RetentionSet
)
CHANGE_TYPES = frozenset(kind.__struct_config__.tag for kind in Change.__args__)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One change, by whom and when: Unix seconds by the writer's clock.

    Attributes:
        nonce: Tells the writer's own entry from another's of the same number.
        change: None if a newer rayml made one that this one does not know.
    """

    format: int = FORMAT
    seq: int
    nonce: str
    time: float
    by: str
    change: Change | None


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One event in an alias's history: which version it named from then on, None if none."""

    alias: str
    version: int | None
    time: float
    by: str


class VersionState(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model."""

    artifact: ArtifactRecord
    time: float
    by: str
    tags: dict[str, str] = {}


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """A registered model: its versions from 1, and which of them its aliases name."""

    versions: dict[int, VersionState] = {}
    aliases: dict[str, int] = {}
    tags: dict[str, str] = {}
    moves: list[Move] = []


class Edits(msgspec.Struct, frozen=True, kw_only=True):
    """What was changed about a run from outside.

    Attributes:
        labels: Those that were set, and as None those that were taken away.
        deleted_at: Unix seconds; None if it is not deleted.
        deleted_seq: The entry that says so; 0 if that is not known.
        is_collected: It was deleted for good.
    """

    labels: dict[str, str | None] = {}
    notes: str = ""
    is_archived: bool = False
    deleted_at: float | None = None
    deleted_seq: int = 0
    is_collected: bool = False


NO_EDITS = Edits()


class ExperimentState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an experiment beside its runs; the time is that of its first entry."""

    time: float
    tags: dict[str, str] = {}
    is_deleted: bool = False


class CatalogState(msgspec.Struct, kw_only=True):
    """All that the entries up to `seq` amount to.

    Attributes:
        is_partial: There were entries among them that only a newer rayml knows.
        retention: After how many days ended runs are deleted, by experiment.
    """

    format: int = FORMAT
    seq: int = 0
    models: dict[str, ModelState] = {}
    runs: dict[str, Edits] = {}
    experiments: dict[str, ExperimentState] = {}
    is_partial: bool = False
    retention: dict[str, float] = {}

    def copy(self) -> CatalogState:
        """Return a state that can be added to without changing this one."""
        return replace(
            self,
            models=dict(self.models),
            runs=dict(self.runs),
            experiments=dict(self.experiments),
        )

    def add(self, entry: Entry) -> None:
        """Fold the next entry."""
        self.seq = entry.seq
        match entry.change:
            case None:
                self.is_partial = True
            case VersionAdded() | AliasMoved() | ModelTagged() as change:
                model = self.models.get(change.model, ModelState())
                self.models[change.model] = _changed_model(model, change, entry)
            case RunEdited(run=run):
                self._edit([run], entry)
            case RunsArchived(runs=runs) | RunsDeleted(runs=runs) | RunsCollected(runs=runs):
                self._edit(runs, entry)
            case ExperimentEdited(experiment=name) as change:
                known = self.experiments.get(name, ExperimentState(time=entry.time))
                self.experiments[name] = _changed_experiment(known, change)
            case RetentionSet(experiment=experiment, days=days):
                kept = {e: d for e, d in self.retention.items() if e != experiment}
                self.retention = kept if days is None else kept | {experiment: days}

    def _edit(self, runs: list[str], entry: Entry) -> None:
        for run in runs:
            self.runs[run] = _changed_run(self.runs.get(run, NO_EDITS), entry)


def _changed_experiment(state: ExperimentState, change: ExperimentEdited) -> ExperimentState:
    is_deleted = state.is_deleted if change.is_deleted is None else change.is_deleted
    return replace(state, tags=_tagged(state.tags, change.tags), is_deleted=is_deleted)


def _changed_run(edits: Edits, entry: Entry) -> Edits:
    match entry.change:
        case RunEdited() as change:
            notes = edits.notes if change.notes is None else change.notes
            return replace(edits, labels=edits.labels | change.labels, notes=notes)
        case RunsArchived() as change:
            return replace(edits, is_archived=change.is_archived)
        case RunsDeleted() as change:
            at, seq = (entry.time, entry.seq) if change.is_deleted else (None, 0)
            return replace(edits, deleted_at=at, deleted_seq=seq)
        case RunsCollected():
            return replace(edits, is_collected=True)
    return edits


def _changed_model(
    model: ModelState, change: VersionAdded | AliasMoved | ModelTagged, entry: Entry
) -> ModelState:
    match change:
        case VersionAdded():
            added = VersionState(artifact=change.artifact, time=entry.time, by=entry.by)
            model = replace(model, versions=model.versions | {change.version: added})
            if change.alias is None:
                return model
            return _moved(model, change.alias, change.version, entry)
        case AliasMoved():
            return _moved(model, change.alias, change.version, entry)
        case ModelTagged(version=None):
            return replace(model, tags=_tagged(model.tags, change.tags))
        case ModelTagged(version=number) if number in model.versions:
            version = model.versions[number]
            version = replace(version, tags=_tagged(version.tags, change.tags))
            return replace(model, versions=model.versions | {number: version})
    return model


def _moved(model: ModelState, alias: str, version: int | None, entry: Entry) -> ModelState:
    aliases = {name: number for name, number in model.aliases.items() if name != alias}
    if version is not None:
        aliases[alias] = version
    move = Move(alias=alias, version=version, time=entry.time, by=entry.by)
    return replace(model, aliases=aliases, moves=[*model.moves, move])


def _tagged(tags: dict[str, str], changes: dict[str, str | None]) -> dict[str, str]:
    merged = tags | changes
    return {name: value for name, value in merged.items() if value is not None}
