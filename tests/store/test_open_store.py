"""Which store a location means."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayml.errors import SpecError
from rayml.store import open_store
from rayml.store.folder import Folder


def test_a_path_is_a_folder_and_nothing_is_written(tmp_path: Path) -> None:
    store = open_store(tmp_path / "runs")

    assert isinstance(store, Folder)
    assert store.uri == str(tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_file_uri_is_a_folder_with_its_name_decoded(tmp_path: Path) -> None:
    assert open_store(f"file://{tmp_path}/my%20runs").uri == f"{tmp_path}/my runs"


def test_home_is_expanded() -> None:
    assert open_store("~/runs").uri == str((Path.home() / "runs").resolve())


def test_an_open_store_is_returned_as_it_is(tmp_path: Path) -> None:
    store = open_store(tmp_path)

    assert open_store(store) is store


def test_the_default_is_in_the_projects_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    monkeypatch.delenv("RAYML_STORE", raising=False)

    assert open_store().uri == str(tmp_path / ".rayml")


def test_the_setting_store_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYML_STORE", str(tmp_path / "elsewhere"))

    assert open_store().uri == str(tmp_path / "elsewhere")


def test_an_unknown_scheme_gets_the_nearest_known() -> None:
    with pytest.raises(SpecError, match="did you mean 'gs'"):
        open_store("gcs://bucket/runs")
