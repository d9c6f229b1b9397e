"""The contract of `rayml.store.Store`, as tests: what rayml relies on, whoever keeps the bytes."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import cloudpickle
import pytest

from rayml.errors import ArtifactCorrupt, NotFound, StoreError
from rayml.store import Blob, check_format, check_store, fetch_blob, read_blob
from rayml.store.base import CHUNK_BYTES, blob_key

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.store import Store


class Objects:
    """Objects are there whole or not at all, under any name."""

    @pytest.mark.parametrize("data", [b"", b"\0\xff\n", "naïve 🚀".encode()])
    def test_get_returns_what_was_put(self, store: Store, data: bytes) -> None:
        store.put("runs/a/note", data)

        assert store.get("runs/a/note") == data
        assert store.size("runs/a/note") == len(data)

    def test_a_missing_object_is_named(self, store: Store) -> None:
        store.put("runs/a", b"1")

        for read in (store.get, lambda key: list(store.chunks(key))):
            with pytest.raises(NotFound, match="has no 'runs/b'") as caught:
                read("runs/b")
            assert store.uri in str(caught.value)
        assert store.size("runs/b") is None

    def test_an_empty_store_has_nothing(self, store: Store) -> None:
        assert store.list("runs/") == []
        assert store.list("") == []
        assert store.size("runs/a") is None
        with pytest.raises(NotFound):
            store.get("runs/a")

    def test_a_folder_is_no_object(self, store: Store) -> None:
        store.put("runs/a/b", b"1")

        with pytest.raises(NotFound):
            store.get("runs/a")
        assert store.size("runs/a") is None

    def test_put_overwrites(self, store: Store) -> None:
        store.put("k", b"the first, longer")
        store.put("k", b"second")

        assert store.get("k") == b"second"

    def test_a_reader_sees_one_whole_object_while_it_is_replaced(self, store: Store) -> None:
        versions = [bytes([number]) * 200_000 for number in range(8)]
        store.put("k", versions[0])

        with ThreadPoolExecutor(8) as pool:
            writes = [pool.submit(store.put, "k", version) for version in versions]
            reads = [pool.submit(store.get, "k") for _ in range(40)]
            for write in writes:
                write.result()

            assert {read.result() for read in reads} <= set(versions)

    def test_an_object_opens_as_a_file(self, store: Store) -> None:
        data = bytes(range(256)) * 20_000
        store.put("a/object", data)
        with store.open("a/object") as file:
            assert file.read(3) == data[:3]
            assert file.seek(1_000_000) == 1_000_000
            assert file.read(2_000_000) == data[1_000_000:3_000_000]
            assert file.seek(-5, 2) == len(data) - 5
            assert file.read() == data[-5:]
            assert file.read(1) == b""
            file.seek(0)
            assert file.read() == data
        with pytest.raises(NotFound), store.open("a/missing") as file:
            file.read(1)

    def test_stats_are_those_of_the_listed_objects(self, store: Store) -> None:
        for name, data in {"a/1": b"x", "a/b/2": b"", "ab/3": b"xyz"}.items():
            store.put(name, data)
        found = store.stats("a/")
        assert {key: stat.size for key, stat in found.items()} == {"a/1": 1, "a/b/2": 0}
        assert found["a/1"].modified == store.modified("a/1")

    def test_delete_can_be_repeated(self, store: Store) -> None:
        store.put("runs/a", b"1")
        store.delete("runs/a")
        store.delete("runs/a")
        store.delete("never/was")

        assert store.size("runs/a") is None
        assert store.list("runs/") == []

    def test_chunks_are_pieces_of_the_whole_in_order(self, store: Store) -> None:
        data = random.Random(1).randbytes(2 * CHUNK_BYTES + 17)
        store.put("big", data)

        pieces = list(store.chunks("big"))

        assert b"".join(pieces) == data
        assert len(pieces) > 1
        assert max(map(len, pieces)) <= 4 * CHUNK_BYTES

    def test_the_time_of_a_change_is_known(self, store: Store) -> None:
        assert store.modified("k") is None
        store.put("k", b"1")
        first = store.modified("k")
        assert first is not None
        store.put("other", b"1")
        other = store.modified("other")
        assert other is not None
        assert 0 <= other - first < 60

    def test_folders_are_named_once_each(self, store: Store) -> None:
        for key in ("a/x/1", "a/x/2", "a/y", "a/z/deep/1", "b/w/1"):
            store.put(key, b"")
        assert sorted(store.folders("a/")) == ["x", "z"]
        assert list(store.folders("none/")) == []

    def test_locks_lie_on_this_machine(self, store: Store) -> None:
        folder = store.lock_folder()
        assert folder.is_dir()
        assert store.list("") == []

    @pytest.mark.parametrize("key", ["a b", "a%2Fb", "a=b+c", "naïve", "🚀", "a#b?c&d"])
    def test_unusual_keys_keep_their_names(self, store: Store, key: str) -> None:
        store.put(f"odd/{key}", b"1")

        assert store.get(f"odd/{key}") == b"1"
        assert store.list("odd/") == [f"odd/{key}"]


class Creation:
    """A key is taken once, by one writer."""

    def test_the_second_writer_changes_nothing(self, store: Store) -> None:
        assert store.create("shards/a/1", b"first") is True
        assert store.create("shards/a/1", b"second") is False
        assert store.get("shards/a/1") == b"first"

    def test_a_deleted_object_can_be_created_again(self, store: Store) -> None:
        store.create("k", b"first")
        store.delete("k")

        assert store.create("k", b"second") is True
        assert store.get("k") == b"second"

    def test_of_many_threads_exactly_one_wins(self, store: Store) -> None:
        def race(writer: int) -> list[bool]:
            return [store.create(f"race/{key:02}", b"writer %d" % writer) for key in range(20)]

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(race, range(8)))

        for key in range(20):
            winners = [writer for writer, won in enumerate(outcomes) if won[key]]
            assert len(winners) == 1
            assert store.get(f"race/{key:02}") == b"writer %d" % winners[0]

    def test_the_probe_accepts_the_store(self, store: Store) -> None:
        check_store(store)

        assert check_format(store) is True
        assert store.list("probes/") == []


class Listing:
    """All keys are listed, in order."""

    def test_keys_come_sorted(self, store: Store) -> None:
        for key in ("runs/b", "runs/a/2", "runs/a/10", "runs/a-b", "other/x"):
            store.put(key, key.encode())

        assert store.list("runs/") == ["runs/a-b", "runs/a/10", "runs/a/2", "runs/b"]
        assert store.list("") == ["other/x", *store.list("runs/")]

    def test_a_prefix_is_a_folder_not_the_start_of_a_name(self, store: Store) -> None:
        for key in ("run/1", "runs/2", "runs"):
            store.delete(key)
        store.put("run/1", b"")
        store.put("runs/2", b"")

        assert store.list("run/") == ["run/1"]

    def test_after_leaves_out_the_key_and_those_before(self, store: Store) -> None:
        for number in range(5):
            store.put(f"shards/a/{number:03}", b"1")

        assert store.list("shards/a/", after="shards/a/002") == [
            "shards/a/003",
            "shards/a/004",
        ]
        assert store.list("shards/a/", after="shards/a/004") == []

    def test_more_than_one_page_is_listed_whole(self, store: Store) -> None:
        keys = [f"many/{number:04}" for number in range(1100)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, b""), keys))

        assert store.list("many/") == keys


class Blobs:
    """Blobs lie under their digest, once, and are checked when they are read."""

    def test_a_blob_lies_under_its_digest(self, store: Store) -> None:
        blob = store.add(io.BytesIO(b"hello"))

        assert blob == Blob(hashlib.sha256(b"hello").hexdigest(), 5)
        assert store.get(blob_key(blob.digest)) == b"hello"
        assert b"".join(read_blob(store, blob.digest)) == b"hello"

    def test_equal_bytes_are_stored_once(self, store: Store) -> None:
        blobs = {store.add(io.BytesIO(b"same")) for _ in range(3)}

        assert len(blobs) == 1
        assert len(store.list("blobs/")) == 1

    def test_an_empty_file_is_a_blob(self, store: Store) -> None:
        blob = store.add(io.BytesIO())

        assert blob.size == 0
        assert list(read_blob(store, blob.digest)) in ([], [b""])

    def test_only_the_rest_of_a_file_is_stored(self, store: Store) -> None:
        source = io.BytesIO(b"header:body")
        source.seek(7)

        blob = store.add(source)

        assert blob.size == 4
        assert store.get(blob_key(blob.digest)) == b"body"

    def test_a_large_file_comes_back_whole(self, store: Store, tmp_path: Path) -> None:
        data = random.Random(2).randbytes(20 * 1024 * 1024)
        source, copy = tmp_path / "source", tmp_path / "copy"
        source.write_bytes(data)

        with source.open("rb") as file:
            blob = store.add(file)
        fetch_blob(store, blob.digest, copy)

        assert blob == Blob(hashlib.sha256(data).hexdigest(), len(data))
        assert copy.read_bytes() == data

    def test_blobs_that_are_not_there_are_told_from_those_that_are(self, store: Store) -> None:
        there = [store.add(io.BytesIO(b"%d" % number)) for number in range(20)]
        cut = store.add(io.BytesIO(b"whole"))
        store.put(blob_key(cut.digest), b"who")
        never = [Blob(blob.digest[:2] + "0" * 62, 1) for blob in there]

        assert store.missing([*there, cut, *never]) == {cut, *never}
        assert store.missing(there[:1]) == set()
        assert store.missing([]) == set()

    def test_a_blob_is_never_replaced(self, store: Store) -> None:
        blob = store.add(io.BytesIO(b"hello"))
        store.put(blob_key(blob.digest), b"HELLO")

        store.add(io.BytesIO(b"hello"))

        assert store.get(blob_key(blob.digest)) == b"HELLO"

    def test_a_file_that_changes_while_it_is_stored_never_lies_under_a_wrong_digest(
        self, store: Store, tmp_path: Path
    ) -> None:
        path = tmp_path / "changing"
        path.write_bytes(b"1" * 20 * 1024 * 1024)

        class Changing(io.FileIO):
            """Is written to as soon as it has been read once."""

            def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
                count = super().readinto(buffer)
                if self.tell() == 20 * 1024 * 1024:
                    path.write_bytes(b"2" * 20 * 1024 * 1024)
                return count or 0

        with io.BufferedReader(Changing(path)) as file, suppress(StoreError):
            store.add(file)

        for key in store.list("blobs/"):
            list(read_blob(store, key.rpartition("/")[2]))

    def test_threads_may_add_the_same_bytes_at_once(self, store: Store) -> None:
        data = random.Random(3).randbytes(CHUNK_BYTES + 1)

        with ThreadPoolExecutor(4) as pool:
            blobs = set(pool.map(lambda _: store.add(io.BytesIO(data)), range(4)))

        assert len(blobs) == 1
        assert b"".join(read_blob(store, blobs.pop().digest)) == data

    @pytest.mark.parametrize("damage", [b"", b"hellO", b"hello, and more"])
    def test_a_corrupt_blob_is_detected(self, store: Store, damage: bytes) -> None:
        blob = store.add(io.BytesIO(b"hello"))
        store.put(blob_key(blob.digest), damage)

        with pytest.raises(ArtifactCorrupt, match=blob.digest[:12]):
            list(read_blob(store, blob.digest))

    def test_no_file_is_left_of_a_corrupt_blob(self, store: Store, tmp_path: Path) -> None:
        blob = store.add(io.BytesIO(b"hello"))
        store.put(blob_key(blob.digest), b"hellO")
        target = tmp_path / "out" / "copy"
        target.parent.mkdir()

        with pytest.raises(ArtifactCorrupt):
            fetch_blob(store, blob.digest, target)

        assert list(target.parent.iterdir()) == []

    def test_no_file_is_left_of_a_missing_blob(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(NotFound):
            fetch_blob(store, "0" * 64, tmp_path / "copy")

        assert not (tmp_path / "copy").exists()


class Elsewhere:
    """A store can be sent to another process."""

    @pytest.mark.parametrize("pickler", [pickle, cloudpickle])
    def test_a_pickled_store_opens_the_same_place(self, store: Store, pickler: object) -> None:
        store.put("k", b"here")

        copy = pickle.loads(pickler.dumps(store))  # type: ignore[attr-defined]
        copy.put("k2", b"there")

        assert type(copy) is type(store)
        assert (copy.uri, copy.is_local) == (store.uri, store.is_local)
        assert copy.get("k") == b"here"
        assert store.get("k2") == b"there"


class StoreContract(Objects, Creation, Listing, Blobs, Elsewhere):
    """All of it; a subclass called `Test…` gives the fixture `store`, an empty one each time."""
