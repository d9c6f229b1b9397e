"""Which folders of past Spark sessions a new one removes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from rayml._ray import spark_scratch

if TYPE_CHECKING:
    from pathlib import Path

HOUR_S = 3700.0


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder that an earlier session has made here, and left."""
    folder = tmp_path / "rayml-spark-old-1"
    assert spark_scratch.prepare([folder], []) == ""
    make_older(folder)
    return folder


def make_older(folder: Path) -> None:
    os.utime(folder, (time.time() - HOUR_S,) * 2)


def begin_another(beside: Path) -> None:
    assert spark_scratch.prepare([beside.parent / "rayml-spark-new-1"], []) == ""


def test_one_that_nobody_uses_goes(old: Path) -> None:
    begin_another(old)
    assert not old.exists()


def test_a_young_one_stays_as_its_processes_may_be_about_to_start(old: Path) -> None:
    os.utime(old)
    begin_another(old)
    assert old.exists()


def test_one_that_a_process_here_uses_stays(old: Path) -> None:
    words = [sys.executable, "-c", "input()"]
    marked = {**os.environ, spark_scratch.MARK: old.name}
    with subprocess.Popen(words, env=marked, stdin=subprocess.PIPE) as user:
        begin_another(old)
        assert old.exists()
        user.communicate(b"\n")


def test_one_of_another_machine_s_on_a_shared_disk_stays(old: Path) -> None:
    (old / "on-another").touch()
    make_older(old)
    begin_another(old)
    assert old.exists()


def test_what_is_no_session_s_stays(tmp_path: Path, old: Path) -> None:
    other = tmp_path / "somebody-s"
    other.mkdir()
    make_older(other)
    begin_another(old)
    assert other.exists()
