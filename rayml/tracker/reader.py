"""Reads what was recorded, with only the store at hand: no Ray, no tracker."""

from __future__ import annotations

import threading
from collections.abc import MutableMapping
from typing import TYPE_CHECKING

import msgspec

from rayml.artifacts import Artifact
from rayml.artifacts.record import parse_uri
from rayml.errors import JournalCorrupt, NotFound, suggestion
from rayml.store import check_format
from rayml.tracker.runs import RunRecord, new_run
from rayml.tracker.shards import ShardFold, ShardReader
from rayml.tracker.stored import StoredRun, load_run, run_id_of
from rayml.tracker.submissions import decode_submission, run_of
from rayml.tracker.tables import StoredPoints, ended_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rayml.store import Store
    from rayml.tracker.checkpoints import Checkpoint
    from rayml.tracker.runs import Stored
    from rayml.tracker.segments import Segment


class RunMap(MutableMapping[str, RunRecord]):
    """Runs by id. Those that come as lines of a table are decoded when somebody looks at them."""

    def __init__(self) -> None:
        self._records: dict[str, RunRecord] = {}
        self._lines: dict[str, tuple[bytes, Stored]] = {}

    def add_line(self, line: bytes, points: Stored) -> str:
        """Add a run as it stands in a table, with the way to its points; return its id."""
        run = run_id_of(line)
        self._records.pop(run, None)
        self._lines[run] = line, points
        return run

    def copy(self) -> dict[str, RunRecord]:
        """Return all of them, decoded."""
        for run in list(self._lines):
            self._decode(run)
        return dict(self._records)

    def __getitem__(self, run: str) -> RunRecord:
        if run in self._lines:
            self._decode(run)
        return self._records[run]

    def _decode(self, run: str) -> None:
        line, points = self._lines.pop(run)
        self._records[run] = load_run(msgspec.json.decode(line, type=StoredRun), points)

    def __setitem__(self, run: str, record: RunRecord) -> None:
        self._records[run] = record

    def __delitem__(self, run: str) -> None:
        if self._lines.pop(run, None) is None:
            del self._records[run]

    def __contains__(self, run: object) -> bool:
        return run in self._records or run in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter([*self._records, *self._lines])

    def __len__(self) -> int:
        return len(self._records) + len(self._lines)


class _Shard:
    """What a reader knows of one shard: a `State` that also has the runs in tables."""

    def __init__(self, store: Store, shard: str, reader: Reader) -> None:
        self._state = ShardFold(reader.runs)
        self._store = store
        self._shard = shard
        self._reader = reader
        self._position = ShardReader(store, shard)

    def refresh(self) -> None:
        self._position.read_into(self)

    def restart(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is None:
            self._state.restart(None)
            return
        spans = checkpoint.header.spans
        points = StoredPoints(self._store, self._shard, spans, self._renew)
        self._state.restart(checkpoint, points)
        for stored in checkpoint.runs:
            self._reader.shard_of[stored.run] = self._shard
        for line in ended_lines(self._store, self._shard, spans):
            self._reader.shard_of[self._reader.runs.add_line(line, points)] = self._shard

    def add(self, segment: Segment) -> None:
        self._state.add(segment)
        for batch in segment.batches:
            self._reader.shard_of[batch.run] = self._shard

    def _renew(self, run: RunRecord) -> None:
        self._position = ShardReader(self._store, self._shard)
        self._reader.refresh()
        fresh = self._reader.runs[run.spec.run]
        run.series, run.stored = fresh.series, fresh.stored


class Reader:
    """All runs of a store, as of the last `refresh`.

    Attributes:
        runs: All runs by id.
        problems: Shards that could not be read to their end, and submissions, and why; the others
            are whole.
        shard_of: Which shard holds a run, by the run's id.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.runs = RunMap()
        self.problems: dict[str, JournalCorrupt] = {}
        self.shard_of: dict[str, str] = {}
        self._shards: dict[str, _Shard] = {}
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Read what has come since the last call. Safe to call from several threads.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._lock:
            if not self._shards:
                check_format(self.store)
            for shard in self.store.folders("shards/"):
                self._read(shard)
            self._read_submissions()

    def _read(self, name: str) -> None:
        shard = self._shards.setdefault(name, _Shard(self.store, name, self))
        try:
            shard.refresh()
            self.problems.pop(name, None)
        except JournalCorrupt as exc:
            self.problems[name] = exc

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

    def _read_submissions(self) -> None:
        for key in self._unknown(self.store.list("submissions/")):
            try:
                submission = decode_submission(key, self.store.get(key))
            except JournalCorrupt as exc:
                self.problems[key] = exc
            else:
                self.problems.pop(key, None)
                self.runs[submission.spec.run] = new_run(submission.spec)

    def _unknown(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if run_of(key) not in self.runs]


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
