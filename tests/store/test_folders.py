"""What logging a folder costs the second time, and that it never trusts what it should not."""

from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rayml.artifacts.file import save_file
from rayml.errors import SpecError, StoreUnreachable
from rayml.store import open_store
from rayml.store.base import blob_key
from rayml.store.bucket import Bucket, Patience
from tests.faults import Fault, faults

if TYPE_CHECKING:
    from rayml.artifacts import ArtifactRecord
    from rayml.store import Store

MIB = 1024 * 1024
FILES, FILE_BYTES = 35, 2 * MIB


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rayml" / "digests"


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A folder that is large enough to be remembered."""
    folder = tmp_path / "source"
    (folder / "deep").mkdir(parents=True)
    source = random.Random(6)
    for number in range(FILES):
        (folder / "deep" / f"{number:02}.bin").write_bytes(source.randbytes(FILE_BYTES))
    return folder


@pytest.fixture
def settled(fresh: Path) -> Path:
    """Such a folder, whose files were last written more than two seconds ago."""
    time.sleep(2.1)
    return fresh


def log(store: Store, folder: Path) -> ArtifactRecord:
    record = save_file(store, "folder", folder)
    assert {file.path: file.digest for file in record.files} == {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.bin"))
    }
    assert store.missing([]) == set()
    assert all(store.size(blob_key(file.digest)) == file.size for file in record.files)
    return record


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_an_unchanged_folder_is_not_read_again(store: Store, settled: Path) -> None:
    first = log(store, settled)
    before = bytes_read()

    again = save_file(store, "folder", settled)

    assert bytes_read() - before < FILE_BYTES
    assert again.files == first.files


def test_a_changed_file_is_noticed_though_its_times_were_set_back(
    store: Store, settled: Path
) -> None:
    log(store, settled)
    path = settled / "deep" / "03.bin"
    found = path.stat()
    path.write_bytes(b"x" * FILE_BYTES)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))

    log(store, settled)


def test_a_file_that_is_replaced_by_an_older_one_is_noticed(store: Store, settled: Path) -> None:
    log(store, settled)
    (settled / "deep" / "04.bin").rename(settled / "deep" / "05.bin")

    assert len(log(store, settled).files) == FILES - 1


def test_a_file_that_was_written_just_now_is_not_remembered(store: Store, fresh: Path) -> None:
    path = fresh / "deep" / "03.bin"
    for letter in b"abc":
        path.write_bytes(bytes([letter]) * FILE_BYTES)

        log(store, fresh)


def test_a_file_that_is_written_through_memory_is_read_again(store: Store, settled: Path) -> None:
    array = np.memmap(settled / "deep" / "03.bin", mode="r+")
    array[0] ^= 1
    time.sleep(2.1)
    for _ in range(2):
        log(store, settled)
        array[0] ^= 1


def test_what_the_store_has_lost_is_sent_again(store: Store, settled: Path) -> None:
    record = log(store, settled)
    for file in record.files[::3]:
        store.delete(blob_key(file.digest))

    log(store, settled)


def test_another_store_gets_all_of_it(store: Store, settled: Path, tmp_path: Path) -> None:
    log(store, settled)

    log(open_store(tmp_path / "another"), settled)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"deep/00.bin": 1}', b"\xff"])
def test_a_damaged_cache_is_ignored(
    settled: Path, tmp_path: Path, cache: Path, damage: bytes
) -> None:
    store = open_store(tmp_path / "store")
    log(store, settled)
    (kept,) = cache.iterdir()
    kept.write_bytes(damage)

    log(store, settled)

    assert len(kept.read_bytes()) > 100 * FILES


def test_without_a_cache_directory_all_goes_on(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")

    log(open_store(tmp_path / "store"), fresh)


def test_a_small_folder_leaves_no_trace_in_the_cache(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "a.bin").write_bytes(b"1")

    log(open_store(tmp_path / "store"), tmp_path / "small")

    assert not cache.exists()


def test_a_file_that_cannot_be_read_is_named(fresh: Path, tmp_path: Path) -> None:
    (fresh / "deep" / "03.bin").unlink()
    (fresh / "deep" / "03.bin").symlink_to(fresh / "deep")

    with pytest.raises(SpecError, match=r"03\.bin"):
        save_file(open_store(tmp_path / "store"), "folder", fresh)


@pytest.mark.s3
def test_after_an_interruption_only_the_rest_is_sent(
    s3_environment: dict[str, str], s3_store_uri: str, fresh: Path
) -> None:
    config = {name.lower(): value for name, value in s3_environment.items()}
    with faults(s3_environment["AWS_ENDPOINT_URL"]) as proxy:
        config["aws_endpoint_url"] = proxy.url
        store = Bucket(s3_store_uri, config, Patience(first_s=1, later_s=1))
        lost = hashlib.sha256((fresh / "deep" / "20.bin").read_bytes()).hexdigest()
        proxy.add(Fault(method="PUT", match=lost, times=1000))
        with pytest.raises(StoreUnreachable):
            save_file(store, "folder", fresh)
        sent = len(store.list("blobs/"))
        assert 0 < sent < FILES
        proxy.clear()

        log(store, fresh)

        assert len([r for r in proxy.requests if r.startswith("PUT")]) == FILES - sent
