"""The garbage collection frees what nothing names, and nothing else, whoever is at work."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

import rayml
from rayml.errors import NotFound, SpecError, StoreError
from rayml.store.base import blob_key
from rayml.store.condemned import KEY, SPARED_S, STALE_S, condemn, find_condemned
from rayml.store.folder import Folder
from rayml.store.probe import check_store
from rayml.tracker.catalog import Catalog
from rayml.tracker.changes import RunsDeleted, VersionAdded
from rayml.tracker.compaction import compact
from rayml.tracker.records import Differed, Ended, Logged, Result, Submission
from rayml.tracker.segments import encode_segment, segment_key
from rayml.tracker.submissions import create_submission
from rayml.upkeep.collection import Collection, Freed, collect, read_undo_s
from rayml.upkeep.retention import DAY_S, read_retention, set_retention
from rayml.upkeep.verification import verify
from tests.store.test_verification import SHARD, Writer, artifact, fill
from tests.unit.journals import ended, make_spec, points, started, submitted

if TYPE_CHECKING:
    from collections.abc import Callable

    from rayml.store import Blob, Stat, Store

LATER_S = SPARED_S + DAY_S


def later() -> float:
    """When all that the test has written is old."""
    return time.time() + LATER_S


def delete(store: Store, *runs: str, is_deleted: bool = True) -> None:
    Catalog(store).append(lambda _: RunsDeleted(runs=list(runs), is_deleted=is_deleted))


def blobs(store: Store) -> set[str]:
    return {key.rpartition("/")[2] for key in store.list("blobs/")}


def age(store: Folder, age_s: float = LATER_S) -> None:
    for path in Path(store.uri).rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - age_s,) * 2)


def model_run(store: Store, writer: Writer, run: str, data: bytes) -> Blob:
    from rayml.store import Blob

    record = artifact(store, data, run)
    writer.write(submitted(run), started(run=run))
    writer.write(Logged(run=run, time=3.0, attempt=1, artifact=record), ended(run=run))
    store.put(f"logs/{run}/0001/00000000.log", b"printed")
    return Blob(record.files[0].digest, record.files[0].size)


# What is freed


def test_nothing_of_a_store_in_use_is_freed(store: Store) -> None:
    fill(store)
    before = set(store.list(""))
    done = collect(store, now=later())
    assert {kind: freed.objects for kind, freed in done.freed.items()} == {
        "logs": 0, "submissions": 0, "blobs": 0, "journal": 0, "scraps": 0,
    }  # fmt: skip
    assert set(store.list("")) == before
    assert list(verify(store)) == []


def test_a_blob_that_nobody_names_goes_when_it_is_old(store: Store) -> None:
    fill(store)
    orphan = store.add(io.BytesIO(b"nobody's"))
    assert collect(store).freed["blobs"] == Freed(0, 0)
    assert orphan.digest in blobs(store)
    dry = collect(store, now=later(), is_dry=True)
    assert dry.freed["blobs"] == Freed(1, 8)
    assert orphan.digest in blobs(store)
    assert collect(store, now=later()) == dry
    assert orphan.digest not in blobs(store)
    assert store.size(KEY) is None
    assert list(verify(store)) == []


def test_a_deleted_run_goes_when_the_time_to_undo_is_over(store: Store) -> None:
    check_store(store)
    writer = Writer(store)
    mine, shared = model_run(store, writer, "gone", b"mine"), store.add(io.BytesIO(b"shared"))
    model_run(store, writer, "kept", b"shared")
    create_submission(store, Submission(spec=make_spec("gone"), payload=mine.digest))
    for key in ("claims/gone.json", "claims/gone-2.json", "cancels/gone.json", "claims/kept.json"):
        store.put(key, b"{}")
    delete(store, "gone")
    assert collect(store, now=time.time() + 6 * DAY_S) == Collection(
        freed=dict.fromkeys(["logs", "submissions", "blobs", "journal", "scraps"], Freed())
    )
    dry = collect(store, now=later(), is_dry=True)
    assert dry.forgotten == ["gone"]
    assert {kind: freed.objects for kind, freed in dry.freed.items()} == {
        "logs": 1, "submissions": 4, "blobs": 1, "journal": 0, "scraps": 0,
    }  # fmt: skip
    assert collect(store, now=later()) == dry
    assert blobs(store) == {shared.digest}
    assert store.list("logs/") == ["logs/kept/0001/00000000.log"]
    assert store.list("claims/") == ["claims/kept.json"]
    assert list(verify(store)) == []
    assert collect(store, now=later()).forgotten == []


def test_a_run_that_was_brought_back_is_kept(store: Store) -> None:
    check_store(store)
    blob = model_run(store, Writer(store), "back", b"mine")
    delete(store, "back")
    delete(store, "back", is_deleted=False)
    assert collect(store, now=later()).forgotten == []
    assert blobs(store) == {blob.digest}


def test_a_forgotten_run_cannot_be_brought_back(tmp_path: Path) -> None:
    with rayml.start_run(store=tmp_path) as context:
        context.log_artifact("file", b"bytes")
    (run,) = rayml.runs(store=tmp_path)
    run.delete()
    assert collect(Folder(tmp_path), now=later()).forgotten == [run.id]
    with pytest.raises(NotFound, match="has been collected"):
        run.undelete()
    assert rayml.runs(where="deleted", store=tmp_path) == []
    assert list(verify(Folder(tmp_path))) == []


def test_the_store_s_clock_counts_not_that_of_who_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_store(store)
    model_run(store, Writer(store), "gone", b"mine")
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 1e9)
        delete(store, "gone")
    assert Catalog(store).refresh().runs["gone"].deleted_at == 1e9
    assert collect(store).forgotten == []


def test_the_bytes_of_a_registered_model_outlive_its_run(store: Store) -> None:
    check_store(store)
    writer = Writer(store)
    record = artifact(store, b"a model", "gone")
    writer.write(submitted("gone"), started(run="gone"))
    writer.write(Logged(run="gone", time=3.0, attempt=1, artifact=record), ended(run="gone"))
    Catalog(store).append(lambda _: VersionAdded(model="churn", version=1, artifact=record))
    delete(store, "gone")
    done = collect(store, now=later())
    assert done.forgotten == ["gone"]
    assert blobs(store) == {record.files[0].digest}
    assert list(verify(store)) == []


def test_results_long_params_and_submissions_keep_their_blobs(store: Store) -> None:
    check_store(store)
    writer = Writer(store)
    kept = {name: store.add(io.BytesIO(name.encode())).digest for name in "abcdefghi"}
    result = Result(format="pickle", digest=kept["a"])
    writer.write(submitted(long_params={"text": kept["b"]}))
    writer.write(msgspec.structs.replace(started(), packages=kept["g"]))
    writer.write(Differed(run="r1", time=3.0, digest=kept["h"]))
    writer.write(Ended(run="r1", time=9.0, attempt=1, state="succeeded", result=result))
    spec = make_spec("sent", long_params={"text": kept["c"]})
    sent = Submission(spec=spec, payload=kept["d"], code=kept["e"], diff=kept["i"])
    create_submission(store, sent)
    assert collect(store, now=later()).freed["blobs"].objects == 1
    assert blobs(store) == set(kept.values()) - {kept["f"]}


def test_a_deleted_run_that_has_not_ended_is_kept(store: Store) -> None:
    check_store(store)
    writer = Writer(store)
    record = artifact(store, b"mine", "r1")
    writer.write(submitted(), started())
    writer.write(Logged(run="r1", time=3.0, attempt=1, artifact=record))
    delete(store, "r1")
    assert collect(store, now=later()).forgotten == []
    assert blobs(store) == {record.files[0].digest}


def test_what_compactions_left_behind_is_freed(store: Store) -> None:
    check_store(store)
    writer = Writer(store)
    for step in range(3):
        writer.write(submitted(f"r{step}"), points("loss", [step], [0.5], run=f"r{step}"))
        compact(store, SHARD)
    old = segment_key(SHARD, 2)
    store.put(old, encode_segment(SHARD, 2, 1, "n", []))  # as if it died before it deleted
    store.put("tables/s/000000000001-000000000002-dead/points.parquet", b"x")
    store.put("probes/left", b"")
    store.put("clocks/left", b"")
    assert collect(store).freed["journal"].objects == 1
    done = collect(store, now=later())
    assert (done.freed["journal"].objects, done.freed["scraps"].objects) == (1, 2)
    assert store.size(old) is None
    assert list(verify(store)) == []


def test_files_that_were_never_finished_are_freed(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    fill(store)
    left = tmp_path / "blobs" / f".{'0' * 32}"
    left.write_bytes(b"half of it")
    assert collect(store).freed["scraps"].objects == 0
    assert collect(store, now=later()).freed["scraps"] == Freed(1, 10)
    assert not left.exists()


# When nothing is freed


def test_a_damaged_store_is_left_alone(store: Store) -> None:
    key = fill(store)["first segment"]
    store.add(io.BytesIO(b"nobody's"))
    store.put(key, store.get(key).replace(b"new", b"old"))
    before = set(store.list(""))
    with pytest.raises(StoreError, match="is damaged"):
        collect(store, now=later())
    assert set(store.list("")) == before


def test_what_a_newer_rayml_has_written_is_left_alone(store: Store) -> None:
    from rayml.tracker.segments import Batch, encode_segment

    key = fill(store)["last segment"]
    import msgspec

    new = {"type": "telepathy", "blob": "?"}
    batch = Batch(
        producer="p", n=1, run="new", attempt=1, records=[msgspec.Raw(json.dumps(new).encode())]
    )
    seq = int(key[-18:-6]) + 1
    body = [msgspec.json.encode(batch)]
    store.put(segment_key(SHARD, seq), encode_segment(SHARD, seq, 2, "n", body))
    with pytest.raises(StoreError, match="only a newer rayml knows"):
        collect(store, now=later())


# Writers at work meanwhile


def test_a_blob_that_is_stored_again_is_young_again(store: Store) -> None:
    check_store(store)
    blob = store.add(io.BytesIO(b"bytes"))
    if isinstance(store, Folder):
        age(store)
    else:
        store.renewed_s = 0.0  # nothing in a bucket can be made older
        time.sleep(1.1)
    before = store.modified(blob_key(blob.digest))
    assert before is not None
    assert store.missing([blob]) == {blob}
    store.add(io.BytesIO(b"bytes"))
    after = store.modified(blob_key(blob.digest))
    assert after is not None
    assert after > before


def test_a_writer_waits_until_its_blob_is_not_condemned(store: Store) -> None:
    check_store(store)
    blob = store.add(io.BytesIO(b"bytes"))
    other = store.add(io.BytesIO(b"other"))
    added = threading.Event()

    def add() -> None:
        store.add(io.BytesIO(b"bytes"))
        added.set()

    with condemn(store, [blob.digest]) as is_allowed:
        assert is_allowed()
        assert find_condemned(store, [blob.digest, other.digest]) == {blob.digest}
        assert store.missing([blob, other]) == {blob}
        store.add(io.BytesIO(b"other"))
        thread = threading.Thread(target=add)
        thread.start()
        assert not added.wait(1.0)
        store.delete(blob_key(blob.digest))
    thread.join(30)
    assert added.is_set()
    assert store.get(blob_key(blob.digest)) == b"bytes"


def test_a_collection_that_died_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    fill(store)
    blob = store.add(io.BytesIO(b"bytes"))
    store.put(KEY, json.dumps({"nonce": "dead", "digests": [blob.digest]}).encode())
    with pytest.raises(StoreError, match="is being collected already"):
        collect(store, now=later())
    os.utime(tmp_path / KEY, (time.time() - STALE_S - 1,) * 2)
    assert store.add(io.BytesIO(b"bytes")) == blob
    assert collect(store, now=later()).freed["blobs"].objects == 1
    assert store.size(KEY) is None


def test_of_several_that_find_a_dead_collection_one_takes_its_place(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    check_store(store)
    store.put(KEY, json.dumps({"nonce": "dead", "digests": []}).encode())
    os.utime(tmp_path / KEY, (time.time() - STALE_S - 1,) * 2)
    taken, all_tried = [], threading.Barrier(6)

    def take() -> None:
        try:
            with condemn(store, []):
                taken.append(1)
                all_tried.wait(30)
        except StoreError:
            all_tried.wait(30)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert taken == [1]
    assert store.size(KEY) is None


class Watched(Folder):
    """A folder in which something happens just before a call."""

    before: dict[str, Callable[[], None]]

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.before = {}

    def _happen(self, call: str, key: str) -> None:
        if key.startswith("blobs/") and (then := self.before.pop(call, None)):
            then()

    def stats(self, prefix: str) -> dict[str, Stat]:
        self._happen("stats", prefix)
        return super().stats(prefix)

    def modified(self, key: str) -> float | None:
        self._happen("modified", key)
        return super().modified(key)

    def delete(self, key: str) -> None:
        self._happen("delete", key)
        super().delete(key)


@pytest.mark.parametrize("moment", ["stats", "modified", "delete"])
def test_a_writer_that_reuses_a_blob_at_any_moment_finds_it_afterwards(
    tmp_path: Path, moment: str
) -> None:
    watched, store = Watched(tmp_path), Folder(tmp_path)
    fill(store)
    blob = store.add(io.BytesIO(b"reused"))
    age(store)
    threads: list[threading.Thread] = []

    def reuse() -> None:
        thread = threading.Thread(target=lambda: store.add(io.BytesIO(b"reused")))
        thread.start()
        threads.append(thread)
        thread.join(0.2)  # it has renewed the blob, or waits

    watched.before[moment] = reuse
    collect(watched)
    threads[0].join(30)
    assert not threads[0].is_alive()
    assert store.get(blob_key(blob.digest)) == b"reused"
    assert collect(store).freed["blobs"].objects == 0


def log_and_delete(store: Folder, number: int) -> None:
    """Store what is nobody's, log the same or not, and delete the run."""
    for part in range(4):
        store.add(io.BytesIO(b"%d" % part))
    with rayml.start_run(f"{number}", store=store.uri) as context:
        context.log_artifact("own", b"%d" % (number % 4))
    if number > 4:
        rayml.get_run(context.run_id, store=store.uri).delete()
    time.sleep(0.5)


def age_and_collect(store: Folder) -> None:
    # Whoever stored it has named it by then, or never will.
    settled = [k for k, stat in store.stats("blobs/").items() if time.time() - stat.modified > 3]
    for key in settled:
        with suppress(FileNotFoundError):
            os.utime(Path(store.uri, key), (time.time() - LATER_S,) * 2)
    try:
        collect(Folder(Path(store.uri)))
    except StoreError as exc:
        assert "is being collected already" in str(exc)  # noqa: PT017 - or else all is well


def test_collections_and_trackers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    check_store(store)
    ends = time.monotonic() + 8

    def gather() -> None:
        while time.monotonic() < ends:
            age_and_collect(store)

    with ThreadPoolExecutor(2) as pool:
        gathering = [pool.submit(gather) for _ in range(2)]
        count = 0
        while time.monotonic() < ends:
            count += 1
            log_and_delete(store, count)
        for one in gathering:
            one.result()
    assert count > 4
    assert [d for d in verify(store) if not d.is_expected] == []


def test_a_second_collection_takes_nothing_twice(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    fill(store)
    for number in range(50):
        store.add(io.BytesIO(b"%d" % number))
    age(store)
    found: list[Collection | StoreError] = []

    def gather() -> None:
        try:
            found.append(collect(Folder(tmp_path)))
        except StoreError as exc:
            found.append(exc)

    threads = [threading.Thread(target=gather) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    done = [one for one in found if isinstance(one, Collection)]
    assert sum(one.freed["blobs"].objects for one in done) == 50
    assert list(verify(store)) == []


def test_a_run_that_comes_back_while_it_is_collected_stays(tmp_path: Path) -> None:
    watched, store = Watched(tmp_path), Folder(tmp_path)
    check_store(store)
    blob = model_run(store, Writer(store), "back", b"mine")
    delete(store, "back")

    class Late(Watched):
        def list(self, prefix: str, after: str = "") -> list[str]:
            if prefix == "submissions/" and (then := self.before.pop("survey", None)):
                then()
            return super().list(prefix, after)

    watched = Late(tmp_path)
    watched.before["survey"] = lambda: delete(store, "back", is_deleted=False)
    assert collect(watched, now=later()).forgotten == []
    assert blobs(store) == {blob.digest}


# Retention


def test_runs_go_when_their_retention_is_over(store: Store) -> None:
    check_store(store)
    writer = Writer(store)
    for run in ("expired", "model", "elsewhere", "running"):
        experiment = "other" if run == "elsewhere" else "flights"
        writer.write(submitted(run, experiment=experiment))
        if run != "running":
            writer.write(ended(run=run))
    record = artifact(store, b"a model", "model")
    Catalog(store).append(lambda _: VersionAdded(model="churn", version=1, artifact=record))
    set_retention(store, "flights", 30)
    assert collect(store, now=9.0 + 29 * DAY_S).expired == []
    assert collect(store, is_dry=True).expired == ["expired"]
    assert Catalog(store).refresh().runs == {}
    assert collect(store).expired == ["expired"]
    assert Catalog(store).refresh().runs["expired"].deleted_at is not None
    done = collect(store, now=later())
    assert (done.expired, done.forgotten) == ([], ["expired"])


def test_retention_can_be_changed_and_taken_back(store: Store) -> None:
    set_retention(store, "flights", 30)
    set_retention(store, "default", 0.5)
    set_retention(store, "flights", 10)
    assert read_retention(store) == {"flights": 10, "default": 0.5}
    set_retention(store, "flights", None)
    set_retention(store, "flights", None)
    assert read_retention(store) == {"default": 0.5}
    with pytest.raises(SpecError, match="days=-1"):
        set_retention(store, "flights", -1)
    assert list(verify(store)) == []


def test_the_time_to_undo_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_undo_s() == 7 * DAY_S
    monkeypatch.setenv("RAYML_UNDO_DAYS", "0.5")
    assert read_undo_s() == DAY_S / 2
    monkeypatch.setenv("RAYML_UNDO_DAYS", "soon")
    with pytest.raises(SpecError, match="undo_days='soon'"):
        read_undo_s()
