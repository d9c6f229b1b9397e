"""Copies of stores: whole, also while the source is written, and never of two stores in one."""

from __future__ import annotations

import io
import shutil
import threading
from typing import TYPE_CHECKING

import pytest

import rayml
from rayml.errors import SpecError, StoreError
from rayml.store import check_format
from rayml.store.base import blob_key
from rayml.store.folder import Folder
from rayml.tracker.catalog import Catalog
from rayml.tracker.changes import RunEdited
from rayml.tracker.compaction import compact
from rayml.tracker.reader import Reader
from rayml.tracker.records import Logged
from rayml.upkeep.transfer import copy_store
from rayml.upkeep.verification import verify
from tests.store.test_verification import SHARD, Writer, artifact, fill
from tests.unit.journals import Dying, MemoryStore, ended, points, started, submitted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rayml.store import Store


def read(store: Store) -> Reader:
    reader = Reader(store)
    reader.refresh()
    assert reader.problems == {}
    return reader


def contents(store: Store) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list("") if not key.startswith("probes/")}


@pytest.fixture
def target(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Store:
    """An empty store of the other kind."""
    from rayml.store import open_store

    if store.is_local:
        return open_store(request.getfixturevalue("s3_store_uri"))
    return open_store(tmp_path / "target")


@pytest.mark.s3
def test_a_copy_holds_the_same_and_verifies(store: Store, target: Store) -> None:
    fill(store)
    store.put("logs/old/0001/00000000.log", b"printed")
    store.put("live/s.json", store.get("shards/s/000000000001.jsonl"))
    store.delete("live/s.json")
    copied = copy_store(store, target)
    assert contents(target) == contents(store)
    assert copied.objects == len(store.list("")) - 1  # all but the marker
    assert list(verify(target)) == []
    assert set(read(target).runs) == {"old", "new", "sent"}
    check_format(target)


def test_a_copy_is_brought_up_to_date(tmp_path: Path) -> None:
    store, target = Folder(tmp_path / "a"), Folder(tmp_path / "b")
    fill(store)
    copy_store(store, target)
    Writer(store).write(submitted("later"))
    again = copy_store(store, target)
    assert (again.objects, again.skipped) == (2, len(store.list("")) - 3)
    assert contents(target) == contents(store)


def test_a_copy_of_a_folder_by_other_means_is_a_store(tmp_path: Path) -> None:
    with rayml.start_run("mine", store=tmp_path / "a") as context:
        context.log_artifact("file", b"bytes")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert list(verify(Folder(tmp_path / "b"))) == []
    assert rayml.get_run("latest", store=tmp_path / "b").artifact("file").load() == b"bytes"
    with rayml.start_run("next", store=tmp_path / "b"):
        pass
    assert [run.name for run in rayml.runs(store=tmp_path / "b")] == ["next", "mine"]


@pytest.mark.parametrize("left", range(0, 23, 4))
def test_an_interrupted_copy_cannot_be_used_and_is_finished_later(left: int) -> None:
    store, target = MemoryStore(), MemoryStore()
    fill(store)
    dying = Dying({}, left)
    with pytest.raises(StoreError):
        copy_store(store, dying)
    if "rayml.json" in dying.objects:
        with pytest.raises(StoreError, match="unfinished copy"):
            Reader(dying).refresh()
    target.objects = dying.objects
    copy_store(store, target)
    assert contents(target) == contents(store)


def test_a_place_with_another_store_is_refused(store: Store, tmp_path: Path) -> None:
    fill(store)
    other = Folder(tmp_path / "other")
    fill(other)
    before = contents(other)
    with pytest.raises(SpecError, match="no copy of"):
        copy_store(store, other)
    assert contents(other) == before


def test_a_place_with_other_files_is_refused(tmp_path: Path) -> None:
    store, other = Folder(tmp_path / "a"), Folder(tmp_path / "b")
    fill(store)
    other.put("rayml.json", b"{}")
    with pytest.raises(SpecError, match="no copy of"):
        copy_store(store, other)


def test_a_store_is_not_copied_to_itself_and_an_empty_one_not_at_all(tmp_path: Path) -> None:
    store = Folder(tmp_path / "a")
    with pytest.raises(SpecError, match="is empty"):
        copy_store(store, Folder(tmp_path / "b"))
    fill(store)
    with pytest.raises(SpecError, match="itself"):
        copy_store(store, Folder(tmp_path / "a"))


def test_a_copy_that_was_written_to_is_refused(tmp_path: Path) -> None:
    store = Folder(tmp_path / "a")
    fill(store)
    changes: dict[str, Callable[[Store], object]] = {
        "catalog": lambda s: Catalog(s).append(lambda _: RunEdited(run="old", notes="mine")),
        "shard": lambda s: Writer(s).write(submitted("mine")),
        "new shard": lambda s: Writer(s, "another").write(submitted("mine")),
    }
    for name, change in changes.items():
        target = Folder(tmp_path / name)
        copy_store(store, target)
        change(target)
        with pytest.raises((SpecError, StoreError)):
            copy_store(store, target)
        # Also after the source has gone on to the same number.
        Catalog(store).append(lambda _: RunEdited(run="old", notes="ours"))
        with pytest.raises((SpecError, StoreError)):
            copy_store(store, target)


def test_a_damaged_blob_is_left_out_and_told(tmp_path: Path) -> None:
    store, target = Folder(tmp_path / "a"), Folder(tmp_path / "b")
    key = fill(store)["artifact"]
    store.put(key, b"other bytes")
    assert copy_store(store, target).damaged == [key]
    assert target.size(key) is None


def test_a_large_blob_is_copied(store: Store, target: Store) -> None:
    fill(store)
    blob = store.add(io.BytesIO(b"x" * (9 * 1024 * 1024)))
    copy_store(store, target)
    assert target.size(blob_key(blob.digest)) == blob.size


class Slow(MemoryStore):
    """Calls back at every write: whatever can come in between comes in between."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self.then = then

    def create(self, key: str, data: bytes) -> bool:
        self.then()
        return super().create(key, data)


def test_a_copy_of_a_store_in_use_is_what_it_was_at_some_moment() -> None:
    store = MemoryStore()
    fill(store)
    writer, count, lock = Writer(store), 0, threading.RLock()

    def write() -> None:
        nonlocal count
        with lock:
            count += 1
            run = f"run {count}"
            model = artifact(store, f"model {count}".encode(), run)
            writer.write(submitted(run), started(run=run))
            writer.write(Logged(run=run, time=3.0, attempt=1, artifact=model))
            writer.write(points("loss", [count], [0.5], run=run), ended(run=run))
            Catalog(store).append(lambda _: RunEdited(run=run, notes="noted"))
            if count % 9 == 0 and count < 60:
                compact(store, SHARD)

    target = Slow(write)
    copy_store(store, target)
    target.then = lambda: None
    assert count > 20
    assert list(verify(target)) == []
    whole, copied = read(store).runs, read(target).runs
    edits = Catalog(target).refresh().runs
    assert set(edits) <= set(copied)
    numbers = sorted(int(run[4:]) for run in copied if run.startswith("run "))
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(copied) < len(whole)
    before = len(copied)
    copy_store(store, target)
    assert len(read(target).runs) == len(whole) > before
    assert list(verify(target)) == []
