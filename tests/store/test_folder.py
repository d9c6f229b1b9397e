"""What a folder does beyond the contract: bad disks, bad keys, and a death at any moment."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rayml.errors import SpecError, StoreError
from rayml.store import open_store
from rayml.store.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this root may not mount a tmpfs: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


class TestBadDisks:
    def test_a_file_in_its_place_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_text("a file")
        store = Folder(tmp_path / "store")

        for write in (store.put, store.create):
            with pytest.raises(
                StoreError, match=rf"store {store.uri} .*part of that path is a fi"
            ):
                write("runs/a", b"1")

        assert (tmp_path / "store").read_text() == "a file"

    @needs_root
    def test_a_read_only_disk_is_named(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "disk", "ro") as disk:
            store = Folder(disk / "store")

            with pytest.raises(StoreError, match="read-only file system; choose another store"):
                store.put("runs/a", b"1")
            with pytest.raises(StoreError, match="read-only"):
                store.add(io.BytesIO(b"1"))

    def test_a_missing_permission_is_named(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o555)
            is_root = os.geteuid() == 0
            if is_root:
                os.seteuid(NOBODY)
            try:
                with pytest.raises(StoreError, match="this user may not write there"):
                    Folder(folder / "store").put("runs/a", b"1")
            finally:
                if is_root:
                    os.seteuid(0)

    @needs_root
    def test_a_full_disk_is_named_and_nothing_half_is_left(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "disk", "size=256k") as disk:
            store = Folder(disk / "store")
            store.put("runs/a", b"kept")
            too_much = b"x" * 1024 * 1024

            for write in (
                lambda: store.put("runs/a", too_much),
                lambda: store.create("runs/b", too_much),
                lambda: store.add(io.BytesIO(too_much)),
            ):
                with pytest.raises(StoreError, match="disk is full; free some space"):
                    write()

            assert store.list("runs/") == ["runs/a"]
            assert store.list("blobs/") == []
            assert store.get("runs/a") == b"kept"
            assert store.create("runs/b", b"there is room again") is True
            assert [p for p in disk.rglob("*") if p.is_file() and p.name[0] == "."] == [
                disk / "store" / ".gitignore"
            ]

    def test_a_file_system_without_hard_links_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_links(*_: object, **__: object) -> None:  # what exFAT answers
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", no_links)
        store = Folder(tmp_path / "store")

        for write in (lambda: store.create("a", b"1"), lambda: store.add(io.BytesIO(b"1"))):
            with pytest.raises(StoreError, match=r"no hard links, .*another disk, or a bucket"):
                write()
        assert not store.root.joinpath("a").exists()
        assert store.list("blobs/") == []


class TestKeys:
    @pytest.mark.parametrize(
        "key", ["", "..", "../a", "a/../../b", "/etc/passwd", "a//b", "a/", "./a", "a\0b"]
    )
    def test_a_key_cannot_leave_the_folder(self, tmp_path: Path, key: str) -> None:
        store = Folder(tmp_path / "store")

        for use in (store.get, store.size, store.delete, lambda k: store.put(k, b"")):
            with pytest.raises(SpecError, match="not a key of a store; use plain names"):
                use(key)

        assert list(tmp_path.iterdir()) == []

    def test_a_relative_root_stays_where_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        store = open_store("store")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")

        store.put("k", b"1")

        assert (tmp_path / "store" / "k").read_bytes() == b"1"


def test_a_new_store_is_kept_out_of_git(tmp_path: Path) -> None:
    store = Folder(tmp_path / "store")
    store.put("runs/a", b"1")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)

    status = subprocess.run(
        ["git", "-C", tmp_path, "status", "--porcelain"], capture_output=True, check=True
    )

    assert status.stdout == b""


def test_a_folder_that_was_there_is_left_as_it_was(tmp_path: Path) -> None:
    Folder(tmp_path).put("runs/a", b"1")

    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


KILLED_WHILE = {
    "create": ("store.create('runs/a', b'whole')", "runs/a"),
    "put": ("store.put('runs/a', b'whole')", "runs/a"),
    "add": ("store.add(io.BytesIO(b'whole'))", None),
}
DIES_AT_FSYNC = """
    import io, os, signal, sys
    from pathlib import Path
    from rayml.store.folder import Folder

    real_fsync, left = os.fsync, int(sys.argv[2])

    def fsync(descriptor):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real_fsync(descriptor)

    os.fsync = fsync
    store = Folder(Path(sys.argv[1]))
    {write}
"""


@pytest.mark.parametrize("operation", KILLED_WHILE)
def test_a_death_at_any_fsync_leaves_all_or_nothing(tmp_path: Path, operation: str) -> None:
    write, key = KILLED_WHILE[operation]
    script = textwrap.dedent(DIES_AT_FSYNC).format(write=write)

    for survived in range(20):
        store = Folder(tmp_path / str(survived))
        died = subprocess.run(
            [sys.executable, "-c", script, store.uri, str(survived)], check=False, timeout=60
        )
        found = store.list("runs/") + store.list("blobs/")
        assert [store.get(key) for key in found] in ([], [b"whole"])
        if died.returncode == 0:
            break
        assert died.returncode == -signal.SIGKILL
        assert key is None or store.create("runs/a", b"again") is (not found)
    else:
        pytest.fail(f"{operation} calls fsync more than 20 times")

    assert survived >= 2, "a file and its folder, at the least, have to be synced"
    assert len(found) == 1


def test_a_death_in_the_middle_of_a_large_file_leaves_nothing_visible(tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from rayml.store.folder import Folder

        class Slow:
            def tell(self):
                return 0
            def readinto(self, buffer):
                if self.calls:
                    print("half way", flush=True)
                    time.sleep(600)
                self.calls += 1
                return len(buffer)
            calls = 0

        Folder(Path(sys.argv[1])).add(Slow())
    """
    store = Folder(tmp_path / "store")
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), store.uri], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half way\n"
        process.kill()

    assert store.list("blobs/") == []
    assert any(path.stat().st_size for path in (store.root / "blobs").iterdir())
