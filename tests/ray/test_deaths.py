"""kill -9 of a client, of a node's Ray daemon, of the cluster's head, and of everything at once.

Each time a run logs and notes what was acknowledged; that is in the store afterwards, once.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

import rayml
from rayml.store import open_store
from rayml.tracker.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SCRIPT = """
import sys, rayml

def log(context, notes):
    with open(notes, "w", buffering=1) as acknowledged:
        for step in range(10_000_000):
            context.log_metric("loss", step, step, sync=True)
            acknowledged.write(f"{step}\\n")

run = rayml.submit(log, params={"notes": sys.argv[2]}, store=sys.argv[1], cluster="local")
run.wait()
"""
PATIENCE_S = 60


@pytest.fixture
def script(tmp_path: Path) -> Iterator[psutil.Process]:
    """A process with a Ray of its own, whose run logs and notes what was acknowledged."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "store"), str(tmp_path / "notes")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as popen:
        process = psutil.Process(popen.pid)
        try:
            yield process
        finally:
            with suppress(psutil.NoSuchProcess):
                kill([process, *process.children(recursive=True)])


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def find_victims(victim: str, script: psutil.Process) -> list[psutil.Process]:
    """Return those of a script's processes that have such a name, or all."""
    family = [script, *script.children(recursive=True)]
    if victim == "everything":
        return family
    return [process for process in family if is_called(process, victim)]


def is_called(process: psutil.Process, name: str) -> bool:
    title = " ".join(process.cmdline())
    if name == "client":
        return title.startswith("ray::") and "IDLE" not in title and "Tracker" not in title
    return process.name() == name


def acknowledged(notes: Path) -> int:
    return len(notes.read_text().splitlines()) if notes.exists() else 0


def wait_until_acknowledged(notes: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while acknowledged(notes) < count:
        assert time.monotonic() < deadline, "nothing is acknowledged"
        time.sleep(0.05)


@pytest.mark.parametrize("victim", ["client", "raylet", "gcs_server", "everything"])
def test_what_was_acknowledged_is_there_once_whoever_is_killed(
    script: psutil.Process, tmp_path: Path, victim: str
) -> None:
    wait_until_acknowledged(tmp_path / "notes", 100)
    family = script.children(recursive=True)
    victims = find_victims(victim, script)
    assert victims
    kill(victims)
    time.sleep(1)
    kill([script, *family])
    psutil.wait_procs([script, *family], timeout=PATIENCE_S)

    count = acknowledged(tmp_path / "notes")
    reader = Reader(open_store(tmp_path / "store"))
    reader.refresh()
    (run,) = reader.runs.values()
    steps = [step for step, _, _ in run.points("loss")]
    # The last one may have become durable and nobody was left to hear of it.
    assert steps in (list(range(count)), list(range(count + 1)))

    with rayml.start_run(store=tmp_path / "store"):
        pass  # whoever comes next ends what was left
    assert rayml.runs(store=tmp_path / "store", where="state = 'running'") == []
