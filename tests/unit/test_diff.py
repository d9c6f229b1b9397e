"""What differed from the commit is kept as a patch that makes the same files of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import rayml
from rayml import diff
from rayml.diff import keep_diff, look, read_diff
from rayml.redaction import Redactor
from rayml.repository import find_repository
from rayml.store import open_store
from rayml.store.base import blob_key
from tests.cli.terminal import call
from tests.git import commit_all, git

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a commit, in which we are."""
    root = tmp_path / "tree"
    (root / "pkg").mkdir(parents=True)
    (root / "train.py").write_text("rate = 0.1\n")
    (root / "pkg" / "old.py").write_text("gone\n" * 50)
    (root / "weights.bin").write_bytes(bytes(range(256)))
    (root / ".gitignore").write_text("*.log\n")
    commit_all(root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("RAYML_DIFF", "on")
    monkeypatch.setattr(diff, "_SHARED", 1e-9)  # a look that is over is for no other run
    return root


def change(tree: Path) -> None:
    """Change files in every way that there is."""
    (tree / "train.py").write_text("rate = 0.2\n")
    (tree / "pkg" / "old.py").unlink()
    (tree / "weights.bin").write_bytes(bytes(reversed(range(256))))
    (tree / "new.py").write_text("no end of line")
    (tree / "empty.py").touch()
    (tree / "pkg" / "übung *.bin").write_bytes(b"\0\1\xff" * 9)
    (tree / "link").symlink_to("train.py")
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "staged.py").write_text("x = 1\n")
    git(tree, "add", "staged.py")
    (tree / "staged.py").write_text("x = 2\n")
    (tree / "noise.log").write_text("ignored")


def patch_of(folder: Path) -> bytes:
    repository = find_repository(folder)
    assert repository is not None
    return read_diff(repository)


def files(tree: Path) -> dict[str, tuple[bytes, bool]]:
    """Return what git sees in a tree: bytes, and whether they can be executed."""
    names = git(tree, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    paths = [tree / name for name in names if name and os.path.lexists(tree / name)]
    return {str(p.relative_to(tree)): (p.read_bytes(), os.access(p, os.X_OK)) for p in paths}


def track(store: Path) -> rayml.Run:
    with rayml.start_run(store=store) as context:
        pass
    return rayml.get_run(context.run_id, store=store)


# The patch


def test_the_patch_makes_the_same_files_of_the_commit(tree: Path, tmp_path: Path) -> None:
    git(tree, "config", "diff.noprefix", "true")  # nothing of the user's changes what it is
    git(tree, "config", "diff.context", "0")
    git(tree, "config", "color.ui", "always")
    change(tree)
    before = (tree / ".git" / "index").read_bytes(), git(tree, "count-objects")
    patch = patch_of(tree)
    assert ((tree / ".git" / "index").read_bytes(), git(tree, "count-objects")) == before

    git(tmp_path, "clone", "-q", str(tree), "clone")
    git(tmp_path / "clone", "apply", given=patch)
    assert files(tmp_path / "clone") == files(tree)
    assert (tmp_path / "clone" / "link").is_symlink()


def test_all_of_the_repository_counts_wherever_the_job_runs(tree: Path) -> None:
    (tree / "train.py").write_text("rate = 0.2\n")
    (tree / "pkg" / "pyproject.toml").touch()
    assert patch_of(tree / "pkg") == patch_of(tree)
    assert b"+rate = 0.2" in patch_of(tree)


def test_nothing_is_kept_of_what_does_not_differ(tree: Path) -> None:
    os.utime(tree / "train.py", (1, 1))  # git has to look at what is in it
    assert patch_of(tree) == b""


def test_a_tree_that_was_added_has_its_own_changes(tree: Path, tmp_path: Path) -> None:
    git(tree, "worktree", "add", "-q", str(tmp_path / "second"))
    (tmp_path / "second" / "new.py").write_text("x = 1\n")
    assert b"new.py" in patch_of(tmp_path / "second")
    assert patch_of(tree) == b""


def test_the_repository_of_whose_hook_we_are_does_not_count(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    (tree / "train.py").write_text("rate = 0.2\n")
    assert b"+rate = 0.2" in patch_of(tree)


# What is left out


def test_large_files_are_left_out_and_named(tree: Path) -> None:
    (tree / "train.py").write_text("rate = 0.2\n")
    (tree / "weights.bin").write_bytes(os.urandom(diff.MAX_FILE_BYTES + 1))
    (tree / "data.csv").write_bytes(b"x" * (diff.MAX_FILE_BYTES + 1))
    text = patch_of(tree).decode()
    reason = "it has 1,048,577 bytes and a file may have 1,048,576"
    assert text.splitlines()[:2] == [
        f"# left out: data.csv: {reason}",
        f"# left out: weights.bin: {reason}",
    ]
    assert text.count("diff --git") == 1
    git(tree, "stash", "-q")
    git(tree, "apply", given=text.encode())
    assert (tree / "train.py").read_text() == "rate = 0.2\n"


@pytest.mark.parametrize(
    "name", [".env", ".env.local", "server.pem", "id_ed25519", "credentials.json", "db_password"]
)
def test_files_of_secrets_are_left_out(tree: Path, name: str) -> None:
    (tree / name).write_text("hunter2")
    text = patch_of(tree).decode()
    assert text == f"# left out: {name}: files of that name hold secrets\n"


@pytest.mark.parametrize("name", ["auth.py", "tokenizer.json", "environment.yml", "keys.md"])
def test_files_that_are_called_alike_are_kept(tree: Path, name: str) -> None:
    (tree / name).write_text("x")
    assert b"left out" not in patch_of(tree)


def test_of_many_files_the_small_ones_are_kept(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diff, "MAX_FILES", 3)
    for size in range(5):
        (tree / f"f{size}").write_text("x" * size)
    text = patch_of(tree).decode()
    assert text.count("diff --git") == 3
    assert text.startswith("# left out: f3: 5 files differ and 3 are kept\n# left out: f4: ")


def test_a_patch_that_is_too_large_is_left_out(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diff, "MAX_BYTES", 200)
    (tree / "pkg" / "old.py").unlink()  # 250 bytes
    assert patch_of(tree) == b"# left out: pkg/old.py: the patch has more than 200 bytes\n"


def test_virtual_environments_and_other_repositories_are_left_out(tree: Path) -> None:
    (tree / ".venv" / "bin").mkdir(parents=True)
    (tree / ".venv" / "bin" / "python").touch()
    (tree / "other").mkdir()
    git(tree / "other", "init", "-q")
    (tree / "other" / "file").touch()
    assert patch_of(tree) == b"# left out: other/: it is a repository of its own\n"


# When there is nothing to be told


def test_git_that_takes_too_long_is_ended(
    tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    git(tree, "config", "filter.slow.clean", "sleep 60")
    (tree / ".gitattributes").write_text("*.py filter=slow\n")
    (tree / "train.py").write_text("rate = 0.2\n")
    monkeypatch.setattr(diff, "TIME_S", 0.5)
    assert look(tree).result() == b""
    assert "is not kept: git took more than 0.5 s; RAYML_DIFF=off does without it" in caplog.text


def test_without_git_a_warning_says_that_nobody_knows(
    tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "")
    assert look(tree).result() == b""
    assert "is not kept: git cannot be started" in caplog.text


def test_no_repository_no_commit_or_no_wish_is_nothing(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "train.py").write_text("rate = 0.2\n")
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    (tmp_path / "empty" / "new.py").touch()
    assert [look(tmp_path).result(), look(tmp_path / "empty").result()] == [b"", b""]
    monkeypatch.setenv("RAYML_DIFF", "off")
    assert look(tree).result() == b""


def test_a_setting_that_is_neither_on_nor_off_is_told(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAYML_DIFF", "maybe")
    assert track(tmp_path / "store").diff == ""
    assert "is not kept: setting 'diff' is 'maybe', neither on nor off" in caplog.text


# In a run


def test_a_run_keeps_it_and_equal_ones_are_one_blob(tree: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert track(store).diff == ""
    before = len(open_store(store).list("blobs/"))
    (tree / "train.py").write_bytes(b"rate = '\xe9'\n")  # Latin-1
    first, second = track(store), track(store)
    assert first.diff == second.diff
    assert first.diff.encode("utf-8", "surrogateescape") == patch_of(tree)
    assert len(open_store(store).list("blobs/")) == before + 1


def test_the_command_line_tells_of_it(tree: Path, tmp_path: Path) -> None:
    (tree / "train.py").write_text("rate = 0.2\n")
    run = track(tmp_path / "store")
    given = (run.id, "--store", tmp_path / "store")
    shown = call("show", *given, cwd=tree).stdout
    assert f"commit {git(tree, 'rev-parse', 'HEAD')[:10]} + changes, printed by --diff" in shown
    assert call("show", "--diff", *given, cwd=tree).stdout == run.diff
    assert '"diff": "' in call("show", "--json", *given, cwd=tree).stdout


def test_secrets_are_not_kept(tree: Path, tmp_path: Path) -> None:
    (tree / "train.py").write_text("key = 'hunter2hunter2'\n")
    store = open_store(tmp_path / "store")
    digest = keep_diff(look(tree), store, Redactor(["hunter2hunter2"]))
    assert b"+key = '***'" in store.get(blob_key(digest))


def test_runs_that_begin_together_share_what_git_has_read(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = look(tree)
    assert first.result() == b""
    (tree / "train.py").write_text("rate = 0.2\n")
    monkeypatch.setattr(diff, "_SHARED", 1e9)
    assert look(tree / "pkg") is first
    monkeypatch.setattr(diff, "_SHARED", 1e-9)
    assert b"+rate = 0.2" in look(tree).result()


# The commit


def test_the_commit_is_found_wherever_git_keeps_it(tree: Path, tmp_path: Path) -> None:
    def commit(folder: Path) -> str | None:
        repository = find_repository(folder)
        return repository.commit() if repository is not None else None

    expected = git(tree, "rev-parse", "HEAD")
    (tree / "pkg" / "pyproject.toml").touch()
    git(tree, "worktree", "add", "-q", str(tmp_path / "second"))
    assert [commit(tree), commit(tree / "pkg"), commit(tmp_path / "second")] == [expected] * 3
    git(tree, "pack-refs", "--all")
    assert [commit(tree), commit(tmp_path / "second")] == [expected] * 2
    git(tree, "checkout", "-q", "--detach")
    assert commit(tree) == expected
