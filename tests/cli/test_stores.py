"""Commands that care for a whole store; no Ray runs here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

import rayml
from rayml.store.base import blob_key
from rayml.tracker.own import close_idle
from tests.cli.terminal import call, command, environment
from tests.cli.test_reading import Run, strict_json

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """One run with an artifact and a metric."""
    store = tmp_path / "store"
    with rayml.start_run("kept", experiment="flights", store=store) as context:
        context.log_metric("loss", 0.5)
        context.log_artifact("file", b"bytes")
    close_idle()
    return store


@pytest.fixture
def rayml_in(store: Path, tmp_path: Path) -> Run:
    return Run(store, tmp_path)


def damage_blob(store: Path) -> str:
    (run,) = rayml.runs(store=store)
    blob = store / blob_key(run.artifact("file").digest)
    blob.chmod(0o644)
    blob.write_bytes(b"other")
    return blob.relative_to(store).as_posix()


def test_a_whole_store_verifies(rayml_in: Run, store: Path) -> None:
    done = rayml_in("store", "verify")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"rayml: store {store} is whole\n"
    assert rayml_in.json("store", "verify") == []


def test_damage_is_one_line_and_exit_code_1(rayml_in: Run, store: Path) -> None:
    (run,) = rayml.runs(store=store)
    key = damage_blob(store)
    done = rayml_in("store", "verify")
    assert done.returncode == 1
    what = "holds other bytes than its name says"
    assert done.stdout == f"{key}: {what}; file 'file' (of run {run.id})\n"
    assert done.stderr == f"rayml: store {store} is damaged in 1 place\n"
    printed = rayml_in("store", "verify", "--json")
    assert printed.returncode == 1
    assert strict_json(printed.stdout) == [
        {"key": key, "what": what, "loss": "file 'file'", "runs": [run.id], "is_expected": False}
    ]


def test_ctrl_c_ends_a_verification(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with rayml.start_run(store=store) as context:
        big = context.log_artifact("big", b"x")
    folder = store / "blobs" / "sha256" / big.digest[:2]
    # A blob that never ends.
    os.mkfifo(folder / ("0" * 64))
    words = command(["store", "verify", "--store", store])
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(words, cwd=tmp_path, env=environment(), **told) as verifying:
        with (folder / ("0" * 64)).open("wb") as endless:  # opens when it is being read
            verifying.send_signal(signal.SIGINT)
            endless.write(b"x")
        said, _ = verifying.communicate(timeout=30)
    assert (verifying.returncode, said) == (130, "")


def test_a_store_that_cannot_be_read_is_exit_code_3(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = call("store", "verify", "--store", blocked, cwd=tmp_path)
    assert done.returncode == 3, done.stderr


def test_a_store_is_copied(store: Path, tmp_path: Path) -> None:
    done = call("store", "copy", store, "copy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"rayml: store {tmp_path}/copy is a copy of {store}: ")
    (run,) = rayml.runs(store=tmp_path / "copy")
    assert run.artifact("file").load() == b"bytes"
    again = call("store", "copy", store, "copy", "--json", cwd=tmp_path)
    data = strict_json(again.stdout)
    assert isinstance(data, dict)
    assert (data["objects"], data["damaged"]) == (0, [])
    assert data["skipped"] > 0


def test_a_copy_onto_another_store_is_a_wrong_call(store: Path, tmp_path: Path) -> None:
    with rayml.start_run(store=tmp_path / "other"):
        pass
    done = call("store", "copy", store, "other", cwd=tmp_path)
    assert done.returncode == 2
    assert "is not empty and no copy of" in done.stderr


def test_gc_tells_what_it_frees(rayml_in: Run, store: Path) -> None:
    (run,) = rayml.runs(store=store)
    run.delete()
    said = rayml_in("store", "gc", "--dry-run")
    assert said.returncode == 0, said.stderr
    assert "blobs would be freed: 0 objects, 0 B\n" in said.stdout
    assert "forgotten" not in said.stdout
    at_once = {"RAYML_UNDO_DAYS": "0"}
    done = call("store", "gc", "--store", store, cwd=store, env=at_once)
    assert done.stdout.startswith(f"run {run.id} forgotten: ")
    again = rayml_in.json("store", "gc")
    assert isinstance(again, dict)
    assert (again["expired"], again["forgotten"]) == ([], [])
    assert list(again["freed"]) == ["logs", "submissions", "blobs", "journal", "scraps"]


def test_retention_is_set_and_listed(rayml_in: Run, store: Path) -> None:
    (run,) = rayml.runs(store=store)
    done = rayml_in("store", "retain", "flights", "--days", 0)
    assert (done.returncode, done.stdout) == (0, "flights: deleted 0 days after the end\n")
    said = rayml_in("store", "gc", "--dry-run")
    assert f"run {run.id} would be deleted: its retention is over\n" in said.stdout
    assert rayml_in.json("store", "retain") == {"flights": 0.0}
    assert rayml_in("store", "retain", "flights", "--forever").stdout == ""
    assert rayml_in("store", "retain", "flights").returncode == 2
    assert rayml_in("store", "retain", "--days", "3").returncode == 2


def test_the_doctor_prints_a_line_for_each_look(rayml_in: Run, store: Path) -> None:
    done = rayml_in("doctor")
    assert done.returncode == 0, done.stdout
    levels = {line.split()[1]: line.split()[0] for line in done.stdout.splitlines()}
    assert levels["store"] == levels["create-only"] == levels["clock"] == "ok"
    assert re.search(r"horovod +0\.28\.1, built with Gloo\n", done.stdout)
    found = rayml_in.json("doctor")
    assert isinstance(found, list)
    assert [finding["check"] for finding in found] == list(levels)


def test_the_doctor_s_exit_code_is_1_if_a_look_fails(rayml_in: Run, store: Path) -> None:
    (store / "rayml.json").write_text("{}")
    done = rayml_in("doctor")
    assert done.returncode == 1
    assert "fail  store        store " in done.stdout
    unreached = rayml_in("doctor", "--cluster", "http://127.0.0.1:1")
    assert "fail  cluster      the Jobs API at http://127.0.0.1:1 did not" in unreached.stdout
