"""What is installed where a run executes is kept once, as a list that installs it again."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

import rayml
from rayml.installed import list_installed
from rayml.store import open_store

if TYPE_CHECKING:
    from pathlib import Path


def install(folder: Path, name: str, source: object = None) -> None:
    """Put a package into a folder as pip does."""
    made = folder / f"{name}.dist-info"
    made.mkdir(parents=True)
    if source is not None:
        (made / "direct_url.json").write_text(json.dumps(source))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which Python finds packages."""
    (tmp_path / "site").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    return tmp_path / "site"


def test_what_is_installed_here_is_what_the_packages_say() -> None:
    lines = [line for line in list_installed().splitlines() if not line.startswith("#")]
    found = {one.name: one for one in map(Requirement, lines)}
    assert len(found) > 50
    for name in ("msgspec", "ray", "typing-extensions", "cloudpickle"):
        assert found[name].specifier.contains(version(name)), name


def test_packages_that_come_from_no_index_say_from_where(folder: Path) -> None:
    commit = {"vcs": "git", "commit_id": "abc123"}
    install(folder, "plain_one-1.0")
    install(folder, "from_git-1.0", {"url": "https://me:secret@host/x.git", "vcs_info": commit})
    install(folder, "from_web-1.0", {"url": "https://host/x-1.0.whl", "archive_info": {}})
    install(folder, "mine-1.0", {"url": "file:///home/me", "dir_info": {"editable": True}})
    install(folder, "odd-1.0", ["?"])
    assert list_installed().splitlines() == [
        "from-git @ git+https://host/x.git@abc123",
        "from-web @ https://host/x-1.0.whl",
        "# mine==1.0 was installed from file:///home/me",
        "# odd==1.0 comes from somewhere else",
        "plain-one==1.0",
    ]


def test_of_two_the_one_that_python_imports_counts(folder: Path) -> None:
    install(folder, "one-2.0")
    install(folder.parent / "later", "one-1.0")
    sys.path.append(str(folder.parent / "later"))
    assert list_installed() == "one==2.0\n"


def test_runs_of_one_environment_share_its_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "store")
    install(tmp_path / "site", "aaa-1.0")
    monkeypatch.syspath_prepend(tmp_path / "site")
    first, second = track(store.uri), track(store.uri)
    install(tmp_path / "site", "aab-1.0")
    third = track(store.uri)
    assert first.packages == second.packages == list_installed().replace("aab==1.0\n", "")
    assert third.packages.startswith("aaa==1.0\naab==1.0\n")
    assert len(store.list("blobs/")) == 2


def track(store: str) -> rayml.Run:
    """Return a run that has ended."""
    with rayml.start_run(store=store) as context:
        pass
    return rayml.get_run(context.run_id, store=store)
