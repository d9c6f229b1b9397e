"""What a job takes of its machine is recorded beside what it logs, however it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import rayml
from rayml.tracker.edits import find_edited

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.run import Run
    from rayml.store import Store
    from tests.ray.conftest import Submit

pytestmark = [pytest.mark.ray, pytest.mark.slow]
HALF = rayml.Resources(cpus=0.5)
MIB = 2**20
WORK = """
import subprocess, sys, time
held = bytearray(b"x") * (100 * 2**20)
began = time.process_time()
while time.process_time() - began < 0.6: pass
time.sleep(22)
"""


def take(attempts: int = 1, *, context: rayml.Context) -> float:
    """Take more than half a second of CPU and 100 MiB, for long enough to be sampled."""
    exec(WORK)  # noqa: S102 - the same as the script's
    if context.attempt < attempts:
        raise RuntimeError("not yet")
    return 0.5


def short() -> None:
    """Do nothing."""


def check(run: Run, store: Store, *, ranks: int = 1) -> None:
    """Assert that a run of `WORK` was sampled, and that its own metrics are its own."""
    run.wait()
    assert run.metrics.keys() <= {"result"}
    for rank in range(ranks):
        history = run.history("system/memory", rank=rank)
        assert 1 <= len(history) <= 4
        assert all(step % 10 == 0 for step in history.step)
        assert history.value.max() > 100 * MIB
        assert len(run.history("system/cpus", rank=rank)) == len(history)
    assert run.summary("system/host_memory").max <= 100
    record = find_edited(store, run.id)
    assert record.cpu_s > 0.5 * ranks
    assert record.max_memory > 100 * MIB


def test_every_kind_of_job_is_sampled(submit: Submit, store: Store, work: Path) -> None:
    (work / "work.py").write_text(WORK)
    as_function = submit(take, resources=HALF)
    as_script = submit("work.py", resources=HALF)
    on_ranks = submit(take, engine=rayml.Torch(workers=2), resources=rayml.Resources(cpus=0.25))
    check(as_function, store)
    check(as_script, store)
    check(on_ranks, store, ranks=2)
    both = on_ranks.history("system/memory").value.max()
    assert both > on_ranks.history("system/memory", rank=0).value.max()


@pytest.mark.thorough
def test_a_later_attempt_goes_on_with_the_samples(submit: Submit, store: Store) -> None:
    again = rayml.Retry(attempts=2, backoff_s=0.01)
    run = submit(take, params={"attempts": 2}, resources=HALF, retry=again)
    run.wait()
    assert run.attempt == 2
    assert run.history("system/memory").step.max() >= 40
    assert run.summary("system/memory").first_step <= 20
    assert find_edited(store, run.id).cpu_s > 1


def test_a_short_job_has_no_samples_but_knows_what_it_took(submit: Submit, store: Store) -> None:
    run = submit(short).wait()
    record = find_edited(store, run.id)
    assert dict(record.series) == {}
    assert 0 < record.cpu_s < 10
    assert record.max_memory > 10 * MIB
