"""A job's folder as one archive."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from rayml import code
from rayml.errors import ArtifactCorrupt, SpecError
from rayml.store import open_store
from rayml.store.base import blob_key

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = tmp_path / "project"
    (made / "package").mkdir(parents=True)
    (made / "train.py").write_text("print(1)\n")
    (made / "package" / "módulo.py").write_text("X = 1\n")
    return made


def _names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_comes_back_as_it_was(folder: Path, store: Store) -> None:
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    back = code.unpack_folder(store, code.pack_folder(folder, store))
    assert _names(back) == {"train.py", "package/módulo.py", "run.sh"}
    assert (back / "train.py").read_text() == "print(1)\n"


def test_the_same_content_has_the_same_digest(folder: Path, store: Store) -> None:
    first = code.pack_folder(folder, store)
    os.utime(folder / "train.py", (1, 1))
    assert code.pack_folder(folder, store) == first
    (folder / "train.py").write_text("print(2)\n")
    assert code.pack_folder(folder, store) != first


def test_caches_and_environments_stay_behind(folder: Path, store: Store) -> None:
    for name in (".venv/lib.py", "__pycache__/train.pyc", ".git/config", ".rayml/x"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no")
    back = code.unpack_folder(store, code.pack_folder(folder, store))
    assert _names(back) == {"train.py", "package/módulo.py"}


def test_what_git_ignores_stays_behind(folder: Path, store: Store) -> None:
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / ".gitignore").write_text("data/\n")
    (folder / "data").mkdir()
    (folder / "data" / "big.csv").write_text("1,2\n")
    back = code.unpack_folder(store, code.pack_folder(folder, store))
    assert _names(back) == {"train.py", "package/módulo.py", ".gitignore"}


def test_a_folder_that_git_ignores_as_a_whole_comes_along(folder: Path, store: Store) -> None:
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / ".gitignore").write_text("*\n")
    (folder / "scratch").mkdir()
    (folder / "scratch" / "job.py").write_text("1")
    unpacked = code.unpack_folder(store, code.pack_folder(folder / "scratch", store))
    assert _names(unpacked) == {"job.py"}


def test_the_job_itself_comes_along_even_if_git_ignores_it(folder: Path, store: Store) -> None:
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / ".gitignore").write_text("job.py\n")
    (folder / "job.py").write_text("1")
    (folder / "more.py").write_text("2")
    assert "job.py" not in _names(code.unpack_folder(store, code.pack_folder(folder, store)))
    assert "job.py" in _names(code.unpack_folder(store, code.pack_folder(folder, store, "job.py")))


def test_an_empty_folder_is_one_there_too(tmp_path: Path, store: Store) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert _names(code.unpack_folder(store, code.pack_folder(empty, store))) == set()


def test_too_large_a_folder_is_refused_with_its_size(folder: Path, store: Store) -> None:
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(code.MAX_BYTES + 1)
    with pytest.raises(SpecError, match=r"536,870,\d+ bytes in 3 files"):
        code.pack_folder(folder, store)


def test_a_corrupt_archive_is_not_unpacked(folder: Path, store: Store, tmp_path: Path) -> None:
    digest = code.pack_folder(folder, store)
    blob = tmp_path / "store" / blob_key(digest)
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactCorrupt):
        code.unpack_folder(store, digest)
    assert not (tmp_path / f"rayml-{os.getuid()}" / "code" / digest).exists()
