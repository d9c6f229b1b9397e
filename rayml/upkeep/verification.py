"""Whether all that a store holds is as it was written, and if not, who loses what.

Every object that bears a checksum or a digest is read: segments, checkpoints, tables, the catalog,
submissions, blobs. Logs bear none.
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from rayml.errors import JournalCorrupt, NotFound, StoreError, StoreUnreachable
from rayml.store import check_format
from rayml.store.base import blob_key
from rayml.tracker.catalog import Catalog, check_entry, check_state
from rayml.tracker.changes import CatalogState
from rayml.tracker.segments import Owner
from rayml.tracker.submissions import decode_submission
from rayml.upkeep.crew import Crew
from rayml.upkeep.damage import Damage
from rayml.upkeep.names import blobs_of_run, blobs_of_submission, blobs_of_versions
from rayml.upkeep.survey import check_bytes, list_shards, survey_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rayml.store import Store
    from rayml.tracker.runs import RunRecord

_DIGEST = re.compile(r"[0-9a-f]{64}")
_BLOBS = "blobs/sha256/"


def verify(store: Store, tick: Callable[[int], None] = lambda _: None) -> Iterator[Damage]:
    """Yield what is wrong with a store, as it is found; all of it is read.

    The store may be written meanwhile: what comes after the beginning may or may not be looked at.

    Args:
        store: Which.
        tick: Gets the size of each piece that was read, from any thread.

    Raises:
        StoreError: The store cannot be read.
    """
    try:
        check_format(store)
    except StoreUnreachable:
        raise
    except StoreError as exc:
        what = str(exc).partition("; ")[0].removeprefix(f"store {store.uri} ")
        yield Damage(key="rayml.json", what=f"says that the store {what}", loss="all of it")
        return
    verifier = _Verifier(store, tick)
    try:
        yield from verifier.verify()
    finally:
        verifier.crew.stop()


class _Verifier:
    def __init__(self, store: Store, tick: Callable[[int], None]) -> None:
        self.crew = Crew(store)
        self._store = store
        self._tick = tick
        self._present: set[bytes] = set()
        self._broken: dict[str, str] = {}
        self._lost: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        self._collected: set[str] = set()

    def verify(self) -> Iterator[Damage]:
        # Blobs first: what the journal names later than it was read is looked for once more.
        yield from self._check_blobs()
        yield from self._check_catalog()
        yield from self._check_submissions()
        for shard in list_shards(self._store):
            found = survey_shard(self._store, shard, self.crew, self._see, self._tick)
            yield from found.damages
        yield from self._check_marks()
        yield from self._tell_blobs()

    def _check_blobs(self) -> Iterator[Damage]:
        for folder in self._store.folders(_BLOBS):
            keys = self._store.list(f"{_BLOBS}{folder}/")
            for key, what in zip(keys, self.crew.map(self._check_blob, keys), strict=True):
                digest = key.rpartition("/")[2]
                if not _DIGEST.fullmatch(digest) or key != blob_key(digest):
                    yield Damage(key=key, what="is no name of a blob")
                elif what:
                    self._broken[digest] = what
                else:
                    self._present.add(bytes.fromhex(digest))

    def _check_blob(self, key: str) -> str:
        digest = key.rpartition("/")[2]
        what = check_bytes(self._store, key, digest, self.crew, self._tick)
        return "" if what == "is missing" else what and "holds other bytes than its name says"

    def _check_catalog(self) -> Iterator[Damage]:
        keys = self._store.list("catalog/")
        yield from self._check_each(keys, check_entry, "all that people changed from here on")
        numbers = [int(key[-17:-5]) for key in keys if re.fullmatch(r"catalog/\d{12}\.json", key)]
        for last, number in pairwise([0, *numbers]):
            if number > last + 1:
                key = f"catalog/{last + 1:012d}.json"
                loss = "all that people changed from here on"
                yield Damage(key=key, what="is missing", loss=loss)
        states = self._store.list("catalog_states/")
        yield from self._check_each(states, check_state, "")
        state = self._catalog_state()
        for digest, whose in blobs_of_versions(state):
            self._look(digest, "", whose)

    def _catalog_state(self) -> CatalogState:
        try:
            state = Catalog(self._store).refresh()
        except JournalCorrupt:  # which entry that is has been told already
            state = CatalogState()
        self._collected = {run for run, edits in state.runs.items() if edits.is_collected}
        return state

    def _check_submissions(self) -> Iterator[Damage]:
        def check(key: str, data: bytes) -> None:
            submission = decode_submission(key, data)
            if submission.spec.run not in self._collected:
                for digest, whose in blobs_of_submission(submission):
                    self._look(digest, submission.spec.run, whose)

        keys = self._store.list("submissions/")
        yield from self._check_each(keys, check, "a run that was handed to a cluster")

    def _check_marks(self) -> Iterator[Damage]:
        def check(key: str, data: bytes) -> None:
            try:
                msgspec.json.decode(data, type=Owner)
            except msgspec.DecodeError as exc:
                raise JournalCorrupt(f"{key} is not what was written") from exc

        loss = "who writes that shard is not known"
        yield from self._check_each(self._store.list("live/"), check, loss)

    def _check_each(
        self, keys: Iterable[str], check: Callable[[str, bytes], None], loss: str
    ) -> Iterator[Damage]:
        listed = list(keys)
        for key, data in zip(listed, self.crew.map(self._get, listed), strict=True):
            if data is None:
                continue  # it has gone since it was listed
            try:
                check(key, data)
            except JournalCorrupt as exc:
                what = str(exc).partition(";")[0].partition(f"{key} ")[2]
                runs = [key[12:-5]] if key.startswith("submissions/") else []
                yield Damage(key=key, what=what, loss=loss, runs=runs)

    def _get(self, key: str) -> bytes | None:
        try:
            data = self._store.get(key)
        except NotFound:
            return None
        self._tick(len(data))
        return data

    def _see(self, run: RunRecord) -> None:
        if run.spec.run not in self._collected:
            for digest, whose in blobs_of_run(run):
                self._look(digest, run.spec.run, whose)

    def _look(self, digest: str, run: str, whose: str) -> None:
        """Note who loses a blob, if it is not there as it should be."""
        if not _DIGEST.fullmatch(digest):
            self._broken.setdefault(digest, "is no digest")
        elif digest not in self._broken and bytes.fromhex(digest) not in self._present:
            # It may have come since the blobs were read.
            what = check_bytes(self._store, blob_key(digest), digest, self.crew, self._tick)
            if what:
                self._broken[digest] = what
            else:
                self._present.add(bytes.fromhex(digest))
        if digest in self._broken:
            self._lost[digest].add((whose, run))

    def _tell_blobs(self) -> Iterator[Damage]:
        for digest, what in sorted(self._broken.items()):
            losses = self._lost[digest]
            words = ", ".join(sorted({whose for whose, _ in losses})) or "no run names it"
            runs = sorted({run for _, run in losses if run})
            yield Damage(key=blob_key(digest), what=what, loss=words, runs=runs)
