"""Whatever is done to an object of a store, `verify` names it and whom it hurts."""

from __future__ import annotations

import io
import uuid
from typing import TYPE_CHECKING

import msgspec
import pytest

import rayml
from rayml.artifacts.record import ArtifactRecord, FileRecord
from rayml.spec import Target
from rayml.store.base import blob_key
from rayml.store.folder import Folder
from rayml.store.probe import check_store
from rayml.tracker.catalog import Catalog
from rayml.tracker.changes import RunEdited, VersionAdded
from rayml.tracker.compaction import compact
from rayml.tracker.journal import Journal
from rayml.tracker.records import Ended, Logged, Result, Submission
from rayml.tracker.segments import encode_segment, segment_key
from rayml.tracker.shards import ShardFold
from rayml.tracker.submissions import create_submission
from rayml.upkeep.verification import verify
from tests.unit.journals import (
    OWNER,
    MemoryStore,
    encode,
    ended,
    make_spec,
    points,
    started,
    submitted,
)

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.store import Store
    from rayml.tracker.records import Record
    from rayml.upkeep.damage import Damage

SHARD = "s"


class Writer:
    """Appends records to a shard, a segment for each batch."""

    def __init__(self, store: Store, shard: str = SHARD) -> None:
        self._journal = Journal(store, shard)
        self._journal.open(OWNER, ShardFold())
        self._producer, self._n = uuid.uuid4().hex, 0

    def write(self, *records: Record) -> str:
        self._n += 1
        self._journal.append([encode(*records, producer=self._producer, n=self._n)])
        return segment_key(SHARD, self._journal.seq)


def artifact(store: Store, data: bytes, run: str, name: str = "model") -> ArtifactRecord:
    blob = store.add(io.BytesIO(data))
    file = FileRecord(path="file", digest=blob.digest, size=blob.size)
    return ArtifactRecord(name=name, kind="model", format="file", files=[file], meta={}, run=run)


def fill(store: Store) -> dict[str, str]:
    """Write one object of each kind; return their keys."""
    check_store(store)
    writer = Writer(store)
    model = artifact(store, b"a model", "old")
    writer.write(submitted("old"), points("loss", [0, 1], [0.5, 0.25], run="old"))
    writer.write(Logged(run="old", time=3.0, attempt=1, artifact=model))
    writer.write(ended(run="old"))
    assert compact(store, SHARD) == 1
    catalog = Catalog(store)
    catalog.append(lambda _: VersionAdded(model="churn", version=1, artifact=model))
    catalog.append(lambda _: RunEdited(run="old", notes="good"))
    payload, code = store.add(io.BytesIO(b"payload")), store.add(io.BytesIO(b"code"))
    create_submission(
        store, Submission(spec=make_spec("sent"), payload=payload.digest, code=code.digest)
    )
    long = store.add(io.BytesIO(b'"a long parameter"'))
    writer = Writer(store)
    first = writer.write(submitted("new", long_params={"text": long.digest}), started(run="new"))
    second = writer.write(points("loss", [2], [0.1], run="new"))
    result = store.add(io.BytesIO(b"a result"))
    third = writer.write(
        Ended(
            run="new",
            time=9.0,
            attempt=1,
            state="succeeded",
            result=Result(format="pickle", digest=result.digest),
        )
    )
    [checkpoint] = store.list(f"checkpoints/{SHARD}/")
    points_key, runs_key = store.list(f"tables/{SHARD}/")
    return {
        "fence": segment_key(SHARD, 1),
        "first segment": first,
        "second segment": second,
        "last segment": third,
        "checkpoint": checkpoint,
        "points": points_key,
        "runs": runs_key,
        "catalog entry": "catalog/000000000001.json",
        "last catalog entry": "catalog/000000000002.json",
        "submission": "submissions/sent.json",
        "artifact": blob_key(model.files[0].digest),
        "payload": blob_key(payload.digest),
        "code": blob_key(code.digest),
        "long param": blob_key(long.digest),
        "result": blob_key(result.digest),
    }


KINDS = [
    "fence", "first segment", "second segment", "last segment", "checkpoint", "points", "runs",
    "catalog entry", "last catalog entry", "submission", "artifact", "payload", "code",
    "long param", "result",
]  # fmt: skip
# A store without one of these is one that had not come so far.
OPTIONAL = {"last segment", "submission", "checkpoint", "last catalog entry"}
HURT = {
    "fence": [],
    "first segment": ["new"],
    "second segment": ["new"],
    "last segment": ["new"],
    "checkpoint": ["new"],
    "points": ["old"],
    "runs": ["new"],
    "catalog entry": [],
    "last catalog entry": [],
    "submission": ["sent"],
    "artifact": ["old"],
    "payload": ["sent"],
    "code": ["sent"],
    "long param": ["new"],
    "result": ["new"],
}


def damages(store: Store) -> list[Damage]:
    return list(verify(store))


def hurt(found: list[Damage]) -> set[str]:
    return {run for damage in found for run in damage.runs}


def flip(store: Store, key: str, where: float) -> None:
    data = bytearray(store.get(key))
    data[int(where * (len(data) - 1))] ^= 1
    store.put(key, bytes(data))


def test_a_whole_store_has_no_damage(store: Store) -> None:
    fill(store)
    sizes: list[int] = []
    assert list(verify(store, sizes.append)) == []
    assert sum(sizes) > 1000
    assert damages(store) == []


def test_an_empty_store_has_no_damage(store: Store) -> None:
    assert damages(store) == []


def test_a_store_that_was_used_has_no_damage(tmp_path: Path) -> None:
    with rayml.start_run("used", store=tmp_path, params={"text": "x" * 9000}) as context:
        context.log_metric("loss", 1)
        context.log_artifact("file", b"bytes")
    assert damages(Folder(tmp_path)) == []


@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_one_flipped_bit_is_named(store: Store, kind: str, where: float) -> None:
    key = fill(store)[kind]
    flip(store, key, where)
    found = damages(store)
    assert key in {damage.key for damage in found if not damage.is_expected}
    assert set(HURT[kind]) <= hurt(found)
    assert all("\n" not in str(damage) for damage in found)


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in OPTIONAL])
def test_a_missing_object_is_named(store: Store, kind: str) -> None:
    key = fill(store)[kind]
    store.delete(key)
    found = damages(store)
    assert key in {damage.key for damage in found}
    assert set(HURT[kind]) <= hurt(found)


def test_without_its_only_checkpoint_a_shard_is_read_by_its_segments(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    store.delete(fill(store)["checkpoint"])
    # All segments up to the first checkpoint are still there.
    assert damages(store) == []


def test_what_lies_behind_a_gap_is_lost_to_its_runs(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    check_store(store)
    writer = Writer(store)
    for run in ("ended before", "cut", "behind"):
        writer.write(submitted(run))
        writer.write(ended(run=run) if run == "ended before" else started(run=run))
    store.delete(segment_key(SHARD, 5))
    [damage] = damages(store)
    assert damage.key == segment_key(SHARD, 5)
    assert damage.what == "is missing"
    assert damage.runs == ["behind", "cut"]


@pytest.mark.parametrize("left", [0, 1, 40, 200, -2, -8, -20])
def test_a_torn_tip_is_told_from_corruption(store: Store, left: int) -> None:
    key = fill(store)["last segment"]
    store.put(key, store.get(key)[:left])
    [damage] = [d for d in damages(store) if d.key == key]
    assert damage.is_expected
    assert "a crash has cut off its writing" in damage.what


def test_a_torn_segment_that_a_later_writer_has_named_is_no_damage(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    key = fill(store)["last segment"]
    store.put(key, store.get(key)[:50])
    Writer(store).write(submitted("next"))
    assert [d for d in damages(store) if d.key == key] == []


def test_a_newer_format_is_named(store: Store) -> None:
    keys = fill(store)
    for kind in ("first segment", "checkpoint"):
        from rayml.tracker.segments import seal

        lines = store.get(keys[kind]).splitlines()[:-1]
        header = msgspec.json.decode(lines[0]) | {"format": 99}
        store.put(keys[kind], seal([msgspec.json.encode(header), *lines[1:]]))
    found = {damage.key: damage.what for damage in damages(store)}
    assert "has format 99 and this rayml reads up to 1" in found[keys["first segment"]]
    assert "has format 99 and this rayml reads up to 1" in found[keys["checkpoint"]]


@pytest.mark.parametrize(
    ("marker", "word"),
    [(b'{"name": "x"}', "another project's"), (b'{"format": 9, "probed": "x"}', "format 9")],
)
def test_a_store_that_is_not_ours_is_named(store: Store, marker: bytes, word: str) -> None:
    fill(store)
    store.put("rayml.json", marker)
    [damage] = damages(store)
    assert damage.key == "rayml.json"
    assert word in damage.what


def test_a_segment_from_another_project_is_named(store: Store) -> None:
    key = fill(store)["second segment"]
    seq = int(key[-18:-6])
    store.put(key, encode_segment("theirs", seq, 2, "nonce", [encode(submitted("theirs"))]))
    found = {damage.key: damage for damage in damages(store)}
    assert found[key].what == f"is segment {seq} of shard theirs"
    assert "new" in found[key].runs


def test_a_writer_that_was_fenced_and_wrote_is_named(store: Store) -> None:
    key = fill(store)["last segment"]
    seq = int(key[-18:-6])
    store.put(key, encode_segment(SHARD, seq, 1, "nonce", [encode(ended(run="new"))]))
    [damage] = [damage for damage in damages(store) if damage.key == key]
    assert damage.what == "has epoch 1 after epoch 2"


def test_a_blob_under_another_name_is_named(store: Store) -> None:
    keys = fill(store)
    store.put(keys["artifact"], store.get(keys["result"]))
    [damage] = damages(store)
    assert damage.key == keys["artifact"]
    assert damage.what == "holds other bytes than its name says"
    assert damage.loss == "model 'churn' version 1, model 'model'"
    assert damage.runs == ["old"]


def test_a_blob_that_nobody_names_is_checked_too(store: Store) -> None:
    fill(store)
    blob = store.add(io.BytesIO(b"nobody's"))
    store.put(blob_key(blob.digest), b"changed!")
    [damage] = damages(store)
    assert (damage.key, damage.loss) == (blob_key(blob.digest), "no run names it")


def test_leaving_early_ends_the_work(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    keys = fill(store)
    flip(store, keys["fence"], 0.5)
    assert next(verify(store)).key == keys["fence"]


def test_a_submission_from_before_they_were_sealed_is_read(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    check_store(store)
    payload = store.add(io.BytesIO(b"payload"))
    spec = make_spec("sent", target=Target(kind="block", text="train"))
    old = msgspec.json.encode(Submission(spec=spec, payload=payload.digest))
    store.create("submissions/sent.json", old)
    assert damages(store) == []
    assert rayml.get_run("sent", store=tmp_path).state == "submitted"


def nothing() -> None:
    """Happen not at all."""


class Busy(MemoryStore):
    """A store in which something happens at every so many reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.then = nothing

    def get(self, key: str) -> bytes:
        self.reads += 1
        if self.reads % 7 == 0:
            then, self.then = self.then, nothing
            then()
            self.then = then
        return super().get(key)


def test_a_store_in_use_has_no_damage() -> None:
    store = Busy()
    fill(store)
    writer, count = Writer(store), 0

    def write() -> None:
        nonlocal count
        count += 1
        run = f"run {count}"
        model = artifact(store, run.encode(), run)
        writer.write(submitted(run), points("loss", [count], [0.5], run=run))
        writer.write(Logged(run=run, time=3.0, attempt=1, artifact=model), ended(run=run))
        if count % 4 == 0 and count < 40:
            compact(store, SHARD)

    store.then = write
    for _ in range(5):
        assert damages(store) == []
    assert count > 10
