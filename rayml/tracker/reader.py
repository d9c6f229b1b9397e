"""Reads what was recorded, with only the store at hand: no Ray, no tracker."""

from __future__ import annotations

import threading
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec

from rayml.artifacts import Artifact
from rayml.artifacts.record import parse_uri
from rayml.errors import JournalCorrupt, NotFound, suggestion
from rayml.tracker.journal import ShardReader
from rayml.tracker.records import Submission
from rayml.tracker.runs import Fold, RunRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rayml.store import Store


class Reader:
    """All runs of a store, as of the last `refresh`.

    Attributes:
        problems: Shards that could not be read to their end, and why; the others are whole.
        shard_of: Which shard holds a run, by the run's id.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.problems: dict[str, JournalCorrupt] = {}
        self.shard_of: dict[str, str] = {}
        self._fold = Fold()
        self._shards: dict[str, ShardReader] = {}
        self._lock = threading.Lock()

    @property
    def runs(self) -> dict[str, RunRecord]:
        """All runs by id."""
        return self._fold.runs

    def refresh(self) -> None:
        """Read what has come since the last call. Safe to call from several threads.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._lock:
            self._read_shards()
            self._read_submissions()

    def _read_shards(self) -> None:
        keys = self.store.list("shards/")
        for shard, group in groupby(keys, key=lambda key: key.split("/")[1]):
            reader = self._shards.setdefault(shard, ShardReader(self.store, shard))
            self._read(reader, [key for key in group if key > reader.last_key])

    def find(self, name: str) -> RunRecord:
        """Return the run with this id or the only one that begins so; `latest` is the newest.

        Raises:
            NotFound: There is none, or several.
        """
        if name in self.runs:
            return self.runs[name]
        if name == "latest" and self.runs:
            return max(self.runs.values(), key=lambda run: run.spec.submitted_at)
        found = (
            [run for run_id, run in self.runs.items() if run_id.startswith(name)] if name else []
        )
        if len(found) == 1:
            return found[0]
        raise NotFound(self._explain(name, len(found)))

    def _explain(self, name: str, found: int) -> str:
        if found:
            return f"{found} runs in {self.store.uri} begin with {name!r}; give more of the id"
        if not self.runs:
            return f"store {self.store.uri} has no runs; is it the right one?"
        unread = "".join(f"; {problem}" for problem in self.problems.values())
        return f"store {self.store.uri} has no run {name!r}; {suggestion(name, self.runs)}{unread}"

    def _read(self, reader: ShardReader, keys: list[str]) -> None:
        try:
            for segment in reader.read_segments(keys):
                for batch in segment.batches:
                    self._fold.add(batch)
                    self.shard_of[batch.run] = reader.shard
            self.problems.pop(reader.shard, None)
        except JournalCorrupt as exc:
            self.problems[reader.shard] = exc

    def _read_submissions(self) -> None:
        for key in self._unknown(self.store.list("submissions/")):
            submission = msgspec.json.decode(self.store.get(key), type=Submission)
            spec = submission.spec
            self.runs[spec.run] = RunRecord(
                spec, params=dict(spec.params), labels=dict(spec.labels)
            )

    def _unknown(self, keys: Iterable[str]) -> list[str]:
        return [
            key for key in keys if key.rpartition("/")[2].removesuffix(".json") not in self.runs
        ]


_readers: dict[str, Reader] = {}


def read_runs(store: Store) -> Reader:
    """Return this process's reader of a store, having read all that is there.

    Raises:
        StoreError: The store cannot be read.
    """
    reader = _readers.setdefault(store.uri, Reader(store))
    reader.refresh()
    return reader


def find_artifact(store: Store, uri: str) -> Artifact:
    """Return the artifact that a `rayml://runs/<run>/<name>` URI names.

    Raises:
        SpecError: It is not such a URI.
        NotFound: The store has no such run, or the run no such artifact.
    """
    run_id, name = parse_uri(uri)
    return artifact_of(read_runs(store).find(run_id), name, store)


def artifact_of(run: RunRecord, name: str, store: Store) -> Artifact:
    """Return a run's newest artifact of this name.

    Raises:
        NotFound: It has none.
    """
    if name not in run.artifacts:
        known = suggestion(name, run.artifacts)
        raise NotFound(f"run {run.spec.run} has no artifact {name!r}; {known}")
    return Artifact(run.artifacts[name], store)
