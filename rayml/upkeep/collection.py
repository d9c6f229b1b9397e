"""Frees what nothing names any more; trackers, readers and other collections may be at work.

- *Runs* whose retention is over are deleted, as people delete them.
- *Deleted runs* whose time to undo is over are forgotten for good: the catalog says so first, and
  from then on nobody can bring them back. Their logs and submissions go, and the blobs that only
  they have named.
- *Blobs* that no run, registered model or submission names go when they are a week old. Why no
  writer loses one meanwhile stands in `rayml.store.condemned`.
- *Journal*: what compaction left behind, by its own rules; tables of one that died.
- *Scraps*: keys of tests and clocks that were not removed, and files that were never finished.

All ages are by the store's own clock. A store that is damaged, or that has records which only a
newer rayml knows, is left as it is: what is named there cannot be told. Killed at any moment, the
next collection goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rayml.config import setting
from rayml.errors import JournalCorrupt, NotFound, SpecError, StoreError
from rayml.store import Stat, check_format
from rayml.store.base import blob_key
from rayml.store.condemned import SPARED_S, condemn, read_clock
from rayml.tracker.catalog import Catalog, entry_key
from rayml.tracker.changes import NO_EDITS, RunsCollected, RunsDeleted
from rayml.tracker.checkpoints import decode_checkpoint
from rayml.tracker.compaction import spare_keys
from rayml.tracker.submissions import decode_submission, run_of
from rayml.upkeep.crew import Crew
from rayml.upkeep.names import blobs_of_run, blobs_of_submission, blobs_of_versions
from rayml.upkeep.retention import DAY_S, find_expired
from rayml.upkeep.survey import list_shards, survey_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rayml.store import Store
    from rayml.tracker.changes import CatalogState, Change
    from rayml.tracker.runs import RunRecord

_BLOBS = "blobs/sha256/"
_SCRAPS_S = DAY_S
_UNDO_DAYS = "7"
_CONDEMNED_AT_ONCE = 2000
_TRIES = 10


class Freed(NamedTuple):
    """How much was freed of one kind."""

    objects: int = 0
    size: int = 0


@dataclass
class Collection:
    """What a collection did; a dry one, what it would have done.

    Attributes:
        expired: Runs that were deleted because their retention is over; they can be undeleted.
        forgotten: Deleted runs that nobody can bring back any more.
        freed: Objects and bytes by kind: `logs`, `submissions`, `blobs`, `journal`, `scraps`.
    """

    expired: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    freed: dict[str, Freed] = field(default_factory=dict)


def read_undo_s(days: str | None = None) -> float:
    """Return for how many seconds a deleted run can come back: the setting `undo_days`, or 7.

    Raises:
        SpecError: It is not a number of days.
    """
    text = setting("undo_days", days) or _UNDO_DAYS
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise SpecError(f"undo_days={text!r} is no number of days; give a number from 0 up")
    return found * DAY_S


def collect(
    store: Store,
    *,
    undo_s: float = float(_UNDO_DAYS) * DAY_S,
    is_dry: bool = False,
    now: float | None = None,
    tick: Callable[[int], None] = lambda _: None,
) -> Collection:
    """Free what nothing in a store needs any more.

    Args:
        store: Which.
        undo_s: For how long a deleted run can be brought back.
        is_dry: Change nothing, and return what would be done.
        now: What time it is, in Unix seconds; by default the store's own clock tells.
        tick: Gets the size of each object that was read.

    Raises:
        StoreError: The store is damaged, or written by a newer rayml, or another collection is
            deleting; what was freed until then is not needed.
        StoreUnreachable: It is silent.
    """
    check_format(store)
    collector = _Collector(store, undo_s, read_clock(store) if now is None else now, tick)
    try:
        return collector.collect(is_dry=is_dry)
    finally:
        collector.crew.stop()


@dataclass
class _Facts:
    """What the journal tells: which blobs are named, and which runs have ended, and when."""

    state: CatalogState
    named: set[bytes] = field(default_factory=set)
    ended: dict[str, tuple[str, float]] = field(default_factory=dict)
    unended: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)

    def name(self, blobs: Iterator[tuple[str, str]]) -> None:
        """Note that blobs are needed."""
        self.named |= {bytes.fromhex(digest) for digest, _ in blobs}

    @property
    def gone(self) -> set[str]:
        """All runs that were forgotten, now or before."""
        before = {run for run, edits in self.state.runs.items() if edits.is_collected}
        return before | self.forgotten


class _Collector:
    def __init__(
        self, store: Store, undo_s: float, now: float, tick: Callable[[int], None]
    ) -> None:
        self.crew = Crew(store)
        self._store = store
        self._undo_s = undo_s
        self._now = now
        self._tick = tick
        self._catalog = Catalog(store)
        self._deleted_at: dict[int, float] = {}

    def collect(self, *, is_dry: bool) -> Collection:
        facts = self._survey()
        for _ in range(_TRIES):
            if is_dry or self._forget(facts):
                break
            facts = self._survey()  # somebody has undeleted one of the runs
        expired = find_expired(facts.state, facts.ended, self._now)
        facts.name(blobs_of_versions(facts.state))
        if not is_dry:
            expired = self._expire(facts)
        found = Collection(expired=expired, forgotten=sorted(facts.forgotten))
        gone = facts.gone
        free = self._count if is_dry else self._delete
        found.freed["logs"] = free(self._logs(gone))
        found.freed["submissions"] = free(self._submissions(gone))
        scraps = free(self._scraps())  # also what may keep a dead collection's list in its place
        blobs = dict(self._blobs(facts.named))
        found.freed["blobs"] = self._count(blobs) if is_dry else self._delete_blobs(blobs)
        found.freed["journal"] = free(self._spare_journal())
        found.freed["scraps"] = scraps
        return found

    def _survey(self) -> _Facts:
        facts = _Facts(self._read_catalog())
        due = {run for run in facts.state.runs if self._is_due(facts.state, run)}

        def see(run: RunRecord) -> None:
            name = run.spec.run
            if facts.state.runs.get(name, NO_EDITS).is_collected:
                return
            if not run.is_terminal:
                facts.unended.add(name)
            elif name in due:
                facts.forgotten.add(name)
                return
            else:
                facts.ended[name] = run.spec.experiment, run.ended_at or run.spec.submitted_at
            facts.name(blobs_of_run(run))

        for shard in list_shards(self._store):
            found = survey_shard(self._store, shard, self.crew, see, self._tick)
            damage = next((d for d in found.damages if not d.is_expected), None)
            if damage is not None:
                raise self._refusal(f"is damaged ({damage.key} {damage.what})")
            if found.has_unknown:
                raise self._refusal("has records that only a newer rayml knows")
        facts.forgotten -= facts.unended
        self._name_submissions(facts)
        return facts

    def _read_catalog(self) -> CatalogState:
        state = self._catalog.refresh()
        if state.is_partial:
            raise self._refusal("has changes that only a newer rayml knows")
        return state

    def _refusal(self, what: str) -> StoreError:
        return StoreError(
            f"store {self._store.uri} {what}, so that what it needs cannot be told and nothing is "
            "freed; see `rayml store verify`, or upgrade rayml"
        )

    def _is_due(self, state: CatalogState, run: str) -> bool:
        """Tell whether a run was deleted so long ago that it may be forgotten."""
        edits = state.runs.get(run, NO_EDITS)
        if edits.deleted_at is None or edits.is_collected:
            return False
        # The clock of whoever deleted it may be wrong.
        stored_at = self._stored_at(edits.deleted_seq) if edits.deleted_seq else 0.0
        return self._now - max(edits.deleted_at, stored_at) >= self._undo_s

    def _stored_at(self, seq: int) -> float:
        if seq not in self._deleted_at:
            self._deleted_at[seq] = self._store.modified(entry_key(seq)) or self._now
        return self._deleted_at[seq]

    def _name_submissions(self, facts: _Facts) -> None:
        gone = facts.gone
        for key in self._store.list("submissions/"):
            if run_of(key) in gone:
                continue
            try:
                submission = decode_submission(key, self._store.get(key))
            except JournalCorrupt as exc:
                raise self._refusal(f"is damaged ({key})") from exc
            except NotFound:  # its cluster did not take it
                continue
            facts.name(blobs_of_submission(submission))

    def _forget(self, facts: _Facts) -> bool:
        """Say for good that runs are gone; False if one of them is not to go any more."""
        is_changed = False

        def decide(state: CatalogState) -> Change | None:
            nonlocal is_changed
            if state.is_partial:
                raise self._refusal("has changes that only a newer rayml knows")
            is_changed = not all(self._is_due(state, run) for run in facts.forgotten)
            if is_changed or not facts.forgotten:
                return None
            return RunsCollected(runs=sorted(facts.forgotten))

        self._catalog.append(decide)
        # What is registered from now on belongs to a run that was not forgotten.
        facts.state = self._read_catalog()
        return not is_changed

    def _expire(self, facts: _Facts) -> list[str]:
        expired: list[str] = []

        def decide(state: CatalogState) -> Change | None:
            expired[:] = find_expired(state, facts.ended, self._now)
            return RunsDeleted(runs=expired, is_deleted=True) if expired else None

        self._catalog.append(decide)
        return expired

    def _logs(self, gone: set[str]) -> dict[str, Stat]:
        runs = gone.intersection(self._store.folders("logs/")) if gone else ()
        return {k: s for run in sorted(runs) for k, s in self._store.stats(f"logs/{run}/").items()}

    def _submissions(self, gone: set[str]) -> dict[str, Stat]:
        prefixes = ("submissions/", "claims/", "cancels/") if gone else ()
        every = {k: s for prefix in prefixes for k, s in self._store.stats(prefix).items()}
        # A driver that is tried again claims the run by its id and the attempt.
        return {
            key: stat
            for key, stat in every.items()
            if run_of(key) in gone or run_of(key).rpartition("-")[0] in gone
        }

    def _blobs(self, named: set[bytes]) -> Iterator[tuple[str, Stat]]:
        for folder in self._store.folders(_BLOBS):
            for key, stat in self._store.stats(f"{_BLOBS}{folder}/").items():
                digest = key.rpartition("/")[2]
                # What is no name of a blob is somebody else's; `verify` tells of it.
                if key == blob_key(digest) and self._is_older(stat, SPARED_S):
                    try:
                        is_named = bytes.fromhex(digest) in named
                    except ValueError:
                        continue
                    if not is_named:
                        yield key, stat

    def _spare_journal(self) -> dict[str, Stat]:
        spare: dict[str, Stat] = {}
        for shard in list_shards(self._store):
            prefixes = (f"shards/{shard}/", f"checkpoints/{shard}/", f"tables/{shard}/")
            stats = {k: s for prefix in prefixes for k, s in self._store.stats(prefix).items()}
            keys = [*spare_keys(self._store, shard), *self._stray_tables(shard, stats)]
            spare |= {key: stats[key] for key in keys if key in stats}
        return spare

    def _stray_tables(self, shard: str, stats: Mapping[str, Stat]) -> Iterator[str]:
        """Yield the tables of compactions that died before they wrote a checkpoint."""
        nonces = set()
        for key in self._store.list(f"checkpoints/{shard}/"):
            try:
                header = decode_checkpoint(key, self._store.get(key)).header
            except NotFound:
                continue
            nonces |= {span.nonce for span in header.spans}
        for key, stat in stats.items():
            span = key.split("/")[2] if key.startswith("tables/") else ""
            if span and span.rpartition("-")[2] not in nonces and self._is_older(stat, SPARED_S):
                yield key

    def _scraps(self) -> dict[str, Stat]:
        found = self._store.unfinished()
        for prefix in ("probes/", "clocks/"):
            found |= self._store.stats(prefix)
        return {key: stat for key, stat in found.items() if self._is_older(stat, _SCRAPS_S)}

    def _is_older(self, stat: Stat, age_s: float) -> bool:
        return self._now - stat.modified >= age_s

    def _count(self, objects: Mapping[str, Stat]) -> Freed:
        return Freed(len(objects), sum(stat.size for stat in objects.values()))

    def _delete(self, objects: Mapping[str, Stat]) -> Freed:
        for _ in self.crew.map(self._store.delete, objects):
            pass
        return self._count(objects)

    def _delete_blobs(self, blobs: Mapping[str, Stat]) -> Freed:
        freed: dict[str, Stat] = {}
        waiting = list(blobs)
        while waiting:
            group, waiting = waiting[:_CONDEMNED_AT_ONCE], waiting[_CONDEMNED_AT_ONCE:]
            with condemn(self._store, (key.rpartition("/")[2] for key in group)) as is_allowed:

                def delete(key: str, is_allowed: Callable[[], bool] = is_allowed) -> str:
                    stat_at = self._store.modified(key)
                    if stat_at is None or self._now - stat_at < SPARED_S:
                        return "spared"
                    if not is_allowed():
                        return "waits"
                    self._store.delete(key)
                    return "freed"

                for key, word in zip(group, self.crew.map(delete, group), strict=True):
                    if word == "freed":
                        freed[key] = blobs[key]
                    elif word == "waits":
                        waiting.append(key)
        return self._count(freed)
