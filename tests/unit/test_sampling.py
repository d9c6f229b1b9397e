"""What an attempt takes of its machine: measured with its children, apart from its metrics."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import rayml
from rayml.machine import Meter
from rayml.sampling import INTERVAL_S, interval_s, next_step
from rayml.store import open_store
from rayml.tracker.edits import find_edited
from rayml.tracker.records import Used
from tests.unit.journals import ended, points, submitted
from tests.unit.test_runs import fold

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rayml.tracker.runs import RunRecord

MIB = 2**20
SPIN = """
import sys, time
held = bytearray(b"x") * (100 * 2**20)
while time.process_time() < 0.5: pass
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def busy_child() -> Iterator[subprocess.Popen[bytes]]:
    """A child that has taken half a second of CPU, and holds 100 MiB until its input ends."""
    command = [sys.executable, "-c", SPIN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child


# What is measured


def test_children_are_measured_with_their_parent() -> None:
    meter = Meter(os.getpid())
    alone = meter.take()["memory"]
    with busy_child() as child:
        taken = meter.take()
        child.communicate()
    assert taken["memory"] > alone + 100 * MIB
    assert 0.01 < taken["cpus"] <= (os.cpu_count() or 1)


def test_what_a_child_took_that_has_ended_counts() -> None:
    meter = Meter(os.getpid())
    with busy_child() as child:
        child.communicate()
    assert 0.01 < meter.take()["cpus"] <= (os.cpu_count() or 1)


def test_the_machine_is_measured() -> None:
    meter = Meter(os.getpid())
    with busy_child() as child:
        taken = meter.take()
        child.communicate()
    assert 0 < taken["host_cpu"] <= 110  # the kernel counts in hundredths of a second
    assert 0 < taken["host_memory"] < 100
    assert all(value >= 0 for value in taken.values())


def test_a_process_that_has_gone_leaves_the_machine_s_measures() -> None:
    with busy_child() as child:
        meter = Meter(child.pid)
        child.communicate()
    assert meter.take().keys() & {"cpus", "memory", "host_memory"} == {"host_memory"}


# When it is measured


@pytest.mark.parametrize(("days", "most"), [(1, 2_000), (30, 4_000), (365, 5_500)])
def test_a_long_run_has_few_samples(days: int, most: int) -> None:
    elapsed, count = 0.0, 0
    while elapsed < days * 86_400:
        elapsed, count = next_step(elapsed, interval_s(count, 0.005)), count + 1
    assert count < most


def test_the_dearer_a_sample_the_fewer_there_are() -> None:
    assert interval_s(0, 0.0) == INTERVAL_S
    for cost_s in (0.001, 0.02, 0.5):
        assert cost_s / interval_s(0, cost_s) <= 0.0005


# How it is shown


def test_a_run_s_own_metrics_stay_apart() -> None:
    run = fold(
        submitted(), points("loss", [0], [0.5]), points("system/cpus", [10, 20], [2.0, 1.5])
    )
    assert dict(run.last_values()) == {"loss": 0.5}
    (name, found), *others = run.system_values()
    assert (name, found.last, found.max, others) == ("cpus", 1.5, 2.0, [])


def test_what_the_machine_did_can_be_asked_for_but_is_not_compared(tmp_path: Path) -> None:
    ids = []
    for value in (1, 2):
        with rayml.start_run(store=tmp_path) as context:
            context.log_metrics({"loss": value, "system/cpus": value}, step=10)
        ids.append(context.run_id)

    runs = rayml.runs(store=tmp_path)
    assert [name for name in map(str, runs.to_pandas()) if name.startswith("metrics.")] == [
        "metrics.loss"
    ]
    assert list(runs.compare().index) == ["metrics.loss"]
    run = rayml.get_run(ids[0], store=tmp_path)
    assert run.metrics == {"loss": 1}
    assert list(run.history("system/cpus").value) == [1]
    (found,) = rayml.runs(where="metrics.system/cpus > 1", store=tmp_path)
    assert found.id == ids[1]


# What it amounts to


def test_a_run_knows_what_it_took(tmp_path: Path) -> None:
    record = track(tmp_path, f"subprocess.run([sys.executable, '-c', {SPIN!r}], input=b'')")
    assert 0.5 <= record.cpu_s < 30
    assert record.max_memory > 100 * MIB
    (found,) = rayml.runs(where="cpu_s >= 0.5 and max_memory > 1e8", store=tmp_path)
    assert found.id == record.spec.run
    assert list(record.series) == []  # a short run has no samples


@pytest.mark.parametrize("block", ["pass", f"subprocess.run([sys.executable, '-c', {SPIN!r}])"])
def test_a_peak_that_may_be_from_before_is_not_the_run_s(tmp_path: Path, block: str) -> None:
    before = f"held = bytearray(b'x') * {400 * MIB}; del held"
    assert track(tmp_path, block, before).max_memory == 0


def track(store: Path, block: str, before: str = "pass") -> RunRecord:
    """Return the run of a block that another process has tracked."""
    code = f"""
import rayml, subprocess, sys
{before}
with rayml.start_run(store={str(store)!r}):
    {block}
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdin=subprocess.DEVNULL)
    return find_edited(open_store(store), "latest")


def test_attempts_and_ranks_sum_up() -> None:
    used = [
        Used(
            run="r1", time=5.0, attempt=attempt, rank=rank, wall_s=2, cpu_s=1.5, max_memory=memory
        )
        for attempt, rank, memory in [(1, 0, 10), (2, 0, 30), (2, 1, 20)]
    ]
    run = fold(submitted(), *used, ended(attempt=2))
    assert (run.cpu_s, run.max_memory) == (4.5, 30)
