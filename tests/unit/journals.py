"""What the tests of the journal and of all above it share: batches, and stores that fail."""

from __future__ import annotations

import hashlib
import io
import tempfile
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rayml.errors import NotFound, StoreError, StoreUnreachable
from rayml.spec import Origin, Spec, Target
from rayml.store import Blob, Stat, Store
from rayml.store.base import blob_key
from rayml.store.folder import Folder
from rayml.tracker.reader import Reader
from rayml.tracker.records import Ended, Params, Points, Started, Submitted
from rayml.tracker.segments import Batch, Owner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from rayml.tracker.checkpoints import Checkpoint
    from rayml.tracker.records import Record
    from rayml.tracker.runs import RunRecord
    from rayml.tracker.segments import Segment
    from rayml.tracker.series import Columns, Reduction

OWNER = Owner(host="tests", boot="1", pid=1, started_at=0.0)


def make_spec(run: str = "r1", **fields: object) -> Spec:
    spec = Spec(
        run=run,
        name="train",
        experiment="default",
        target=Target(kind="block", text="train"),
        origin=Origin(user="ada", host="here", command="", python="3.11", rayml="0.1.0"),
        submitted_at=1.0,
        store="/store",
        cluster="",
        working_dir="/work",
    )
    return msgspec.structs.replace(spec, **fields)


def submitted(run: str = "r1", **fields: object) -> Submitted:
    return Submitted(run=run, time=1.0, spec=make_spec(run, **fields))


def started(attempt: int = 1, run: str = "r1", rank: int = 0) -> Started:
    return Started(run=run, time=2.0, attempt=attempt, node="n", host="h", pid=1, rank=rank)


def logged(value: object, attempt: int = 1, run: str = "r1", name: str = "p") -> Params:
    return Params(run=run, time=3.0, attempt=attempt, params={name: value})


def points(
    name: str,
    steps: list[int],
    values: list[float | str],
    attempt: int = 1,
    run: str = "r1",
    rank: int = 0,
    reductions: dict[str, Reduction] | None = None,
) -> Points:
    series = {name: (steps, [4.0] * len(steps), values)}
    rest = {"attempt": attempt, "rank": rank, "reductions": reductions or {}}
    return Points(run=run, time=4.0, series=series, **rest)  # type: ignore[arg-type]


def ended(state: str = "succeeded", attempt: int = 1, run: str = "r1") -> Ended:
    return Ended(run=run, time=9.0, attempt=attempt, state=state)


def make_batch(*records: Record, producer: str = "a", n: int = 1) -> Batch:
    return Batch(
        producer=producer,
        n=n,
        run=records[0].run,
        attempt=getattr(records[0], "attempt", 1),
        records=[msgspec.Raw(msgspec.json.encode(record)) for record in records],
    )


def encode(*records: Record, producer: str = "a", n: int = 1) -> bytes:
    return msgspec.json.encode(make_batch(*records, producer=producer, n=n))


def read_run(store: Store, run: str = "r1") -> RunRecord:
    """Read a run as another process would: with nothing remembered."""
    reader = Reader(store)
    reader.refresh()
    return reader.find(run)


def logged_columns(run: RunRecord, metric: str) -> Columns:
    """A metric's points in the order that the first attempt's first worker logged them."""
    columns = run.series[metric][1, 0].recent
    assert columns is not None
    return columns


class Replayed:
    """The batches of a shard, as a `State`."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def restart(self, checkpoint: Checkpoint | None) -> None:
        assert checkpoint is None
        self.batches = []

    def add(self, segment: Segment) -> None:
        self.batches += segment.batches


class MemoryStore(Store):
    """A store for tests that make thousands of them; `test_journal` checks it against a folder."""

    is_local = True

    def __init__(self) -> None:
        self.uri = f"memory://{uuid.uuid4().hex}"
        self.objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Which store it is, as `check_store` asks; it cannot be opened elsewhere."""
        return str, (self.uri,)

    def get(self, key: str) -> bytes:
        try:
            return self.objects[key]
        except KeyError as exc:
            raise NotFound(f"store {self.uri} has no {key!r}") from exc

    def chunks(self, key: str) -> Iterator[bytes]:
        yield self.get(key)

    def stat(self, key: str) -> Stat | None:
        return Stat(len(self.objects[key]), 0.0) if key in self.objects else None

    def lock_folder(self) -> Path:
        return Path(tempfile.gettempdir())

    def create(self, key: str, data: bytes) -> bool:
        with self._lock:
            return self.objects.setdefault(key, data) is data

    def put(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def folders(self, prefix: str) -> list[str]:
        below = (key.removeprefix(prefix) for key in self.list(prefix))
        return sorted({rest.partition("/")[0] for rest in below if "/" in rest})

    def list(self, prefix: str, after: str = "") -> list[str]:
        return sorted(k for k in self.objects if k.startswith(prefix) and k > after)

    def open(self, key: str) -> BinaryIO:
        return io.BytesIO(self.get(key))

    def _keep(self, source: BinaryIO) -> tuple[Blob, bool]:
        data = source.read()
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
        self.create(blob_key(blob.digest), data)
        return blob, True


class Dying(MemoryStore):
    """Stops in the middle: after so many writes and deletions nothing works any more."""

    def __init__(self, objects: dict[str, bytes], left: int) -> None:
        super().__init__()
        self.objects = objects
        self._left = left

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise StoreError("killed")

    def create(self, key: str, data: bytes) -> bool:
        self._count()
        return super().create(key, data)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)


class Scripted(Store):
    """Fails as a store on the network does, at the calls of `create` that a script names.

    The words: `ok`, `refused` (nothing was written), `silent` (it was written, the answer was
    lost), `late` (no answer, and it arrives just before the next `create`). After the script all
    is well.
    """

    script: list[str]
    late: list[tuple[str, bytes]]

    def create(self, key: str, data: bytes) -> bool:
        while self.late:
            super().create(*self.late.pop(0))  # type: ignore[safe-super]
        word = self.script.pop(0) if self.script else "ok"
        if word == "ok":
            return super().create(key, data)  # type: ignore[safe-super]
        if word == "silent":
            super().create(key, data)  # type: ignore[safe-super]
        if word == "late":
            self.late.append((key, data))
        raise StoreUnreachable(f"store {self.uri} did not answer; try again")


class ScriptedFolder(Scripted, Folder):
    """A folder that fails by script."""

    def __init__(self, root: Path, *script: str) -> None:
        super().__init__(root)
        self.script, self.late = list(script), []


class ScriptedMemory(Scripted, MemoryStore):
    """A store in memory that fails by script."""

    def __init__(self, *script: str) -> None:
        super().__init__()
        self.script, self.late = list(script), []
