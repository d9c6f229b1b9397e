"""What people change about runs and models after the fact: one small log for the whole store.

A shard of the journal has a single writer, the tracker of its runs. The catalog has many: whoever
names a model, moves an alias, or archives a run from a laptop, with no tracker at hand. Each entry
is a numbered object that is created once:

    catalog/000000000017.json      {"format":1,"seq":17,"nonce":…,"time":…,"by":…,"change":{…}}

Of several writers of a number one wins; the others read what it wrote, decide again, and take the
next. So all changes have one order, each is there whole or not at all, and each was decided in
full knowledge of those before it.

The writer of every 256th entry also stores the state up to it, `catalog_states/000000000256.json`.
That is only a shortcut for readers: the entries stay.
"""

from __future__ import annotations

import getpass
import threading
import time
import uuid
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from rayml.artifacts.record import ArtifactRecord
from rayml.errors import JournalCorrupt, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rayml.store import Store

FORMAT = 1
_STATE_EVERY = 256
_MAX_RACES = 1000


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="version"):
    """An artifact became a version of a model."""

    model: str
    version: int
    artifact: ArtifactRecord


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
    """Deleted runs were forgotten for good; their artifacts' bytes may go."""

    runs: list[str]


Change: TypeAlias = (
    ModelVersion
    | AliasMoved
    | ModelTagged
    | RunEdited
    | RunsArchived
    | RunsDeleted
    | RunsCollected
)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One change, by whom and when: Unix seconds by the writer's clock.

    Attributes:
        change: None if a newer rayml made one that this one does not know.
    """

    format: int = FORMAT
    seq: int
    nonce: str
    time: float
    by: str
    change: Change | None


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    seq: int
    nonce: str
    time: float
    by: str
    change: msgspec.Raw


class _Tag(msgspec.Struct):
    type: str


_KNOWN_TYPES = frozenset(kind.__struct_config__.tag for kind in Change.__args__)


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One event in an alias's history."""

    alias: str
    version: int | None
    time: float
    by: str


class Version(msgspec.Struct, kw_only=True):
    """One version of a model."""

    artifact: ArtifactRecord
    time: float
    by: str
    tags: dict[str, str] = {}


class Model(msgspec.Struct, kw_only=True):
    """A registered model: its versions from 1, and which of them its aliases name."""

    versions: dict[int, Version] = {}
    aliases: dict[str, int] = {}
    tags: dict[str, str] = {}
    moves: list[Move] = []


class Edits(msgspec.Struct, kw_only=True):
    """What was changed about a run from outside."""

    labels: dict[str, str | None] = {}
    notes: str = ""
    is_archived: bool = False
    deleted_at: float | None = None
    is_collected: bool = False


class CatalogState(msgspec.Struct, kw_only=True):
    """All that the entries up to `seq` amount to."""

    format: int = FORMAT
    seq: int = 0
    models: dict[str, Model] = {}
    runs: dict[str, Edits] = {}

    def add(self, entry: Entry) -> None:  # noqa: C901 - one case per change
        """Fold the next entry."""
        change, self.seq = entry.change, entry.seq
        match change:
            case ModelVersion():
                model = self.models.setdefault(change.model, Model())
                model.versions[change.version] = Version(
                    artifact=change.artifact, time=entry.time, by=entry.by
                )
            case AliasMoved():
                self._move(change, entry)
            case ModelTagged():
                _set(self._tagged(change), change.tags)
            case RunEdited():
                edits = self._edits(change.run)
                edits.labels |= change.labels
                edits.notes = edits.notes if change.notes is None else change.notes
            case RunsArchived():
                for run in change.runs:
                    self._edits(run).is_archived = change.is_archived
            case RunsDeleted():
                for run in change.runs:
                    self._edits(run).deleted_at = entry.time if change.is_deleted else None
            case RunsCollected():
                for run in change.runs:
                    self._edits(run).is_collected = True

    def _edits(self, run: str) -> Edits:
        return self.runs.setdefault(run, Edits())

    def _move(self, change: AliasMoved, entry: Entry) -> None:
        model = self.models.setdefault(change.model, Model())
        model.moves.append(
            Move(alias=change.alias, version=change.version, time=entry.time, by=entry.by)
        )
        if change.version is None:
            model.aliases.pop(change.alias, None)
        else:
            model.aliases[change.alias] = change.version

    def _tagged(self, change: ModelTagged) -> dict[str, str]:
        model = self.models.setdefault(change.model, Model())
        return model.tags if change.version is None else model.versions[change.version].tags


class Catalog:
    """The catalog of a store, as of the last `refresh`. Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._state = CatalogState()
        self._lock = threading.RLock()

    @property
    def state(self) -> CatalogState:
        """What the entries read so far amount to."""
        return self._state

    def refresh(self) -> CatalogState:
        """Read what has come since the last call, and return the state.

        Raises:
            JournalCorrupt: An entry is missing or not what was written.
            StoreError: The store cannot be read.
        """
        with self._lock:
            keys = self._store.list("catalog/", after=_key(self._state.seq))
            if len(keys) >= _STATE_EVERY:
                self._jump()
                keys = [key for key in keys if key > _key(self._state.seq)]
            for key in keys:
                self._fold(key)
            return self._state

    def append(self, decide: Callable[[CatalogState], Change]) -> Entry:
        """Make one change durable; it is decided in knowledge of all changes before it.

        Args:
            decide: Returns the change; called again if somebody else's has come in between. It
                may raise, and then nothing changes.

        Raises:
            StoreError: The store cannot be written.
        """
        with self._lock:
            for _ in range(_MAX_RACES):
                change = decide(self.refresh())
                entry = _entry(self._state.seq + 1, change)
                if self._create(entry):
                    self._state.add(entry)
                    self._save_state()
                    return entry
        raise StoreError(
            f"store {self._store.uri} had another change {_MAX_RACES} times in a row; try again"
        )

    def _create(self, entry: Entry) -> bool:
        key = _key(entry.seq)
        if self._store.create(key, msgspec.json.encode(entry)):
            return True
        # The store may have kept a first try of ours whose answer was lost.
        return self._read(key).nonce == entry.nonce

    def _fold(self, key: str) -> None:
        entry = self._read(key)
        if entry.seq != self._state.seq + 1 or _key(entry.seq) != key:
            raise _corrupt(_key(self._state.seq + 1), "is missing")
        self._state.add(entry)

    def _read(self, key: str) -> Entry:
        try:
            return _decode(self._store.get(key))
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise _corrupt(key, "is not what was written") from exc

    def _save_state(self) -> None:
        if self._state.seq % _STATE_EVERY == 0:
            self._store.create(_state_key(self._state.seq), msgspec.json.encode(self._state))

    def _jump(self) -> None:
        """Start from the newest stored state, if that is ahead of ours."""
        stored = self._store.list("catalog_states/", after=_state_key(self._state.seq))
        for key in reversed(stored):
            try:
                state = msgspec.json.decode(self._store.get(key), type=CatalogState)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # the entries themselves tell
            if state.format == FORMAT:
                self._state = state
                return


def _key(seq: int) -> str:
    return f"catalog/{seq:012d}.json"


def _state_key(seq: int) -> str:
    return f"catalog_states/{seq:012d}.json"


def _entry(seq: int, change: Change) -> Entry:
    now, nonce = time.time(), uuid.uuid4().hex
    return Entry(seq=seq, nonce=nonce, time=now, by=getpass.getuser(), change=change)


def _decode(data: bytes) -> Entry:
    stored = msgspec.json.decode(data, type=_Stored)
    is_known = msgspec.json.decode(stored.change, type=_Tag).type in _KNOWN_TYPES
    change = msgspec.json.decode(stored.change, type=Change) if is_known else None
    return Entry(
        format=stored.format, seq=stored.seq, nonce=stored.nonce, time=stored.time, by=stored.by,
        change=change,
    )  # fmt: skip


def _set(tags: dict[str, str], changes: dict[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            tags.pop(name, None)
        else:
            tags[name] = value


def _corrupt(key: str, what: str) -> JournalCorrupt:
    return JournalCorrupt(f"catalog entry {key} {what}; restore it from a copy of the store")
