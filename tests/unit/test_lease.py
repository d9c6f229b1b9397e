"""Leases: a shard has one writer on a machine, and is used again when that is done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest

import rayml
from rayml.errors import StoreError
from rayml.processes import identify
from rayml.store.folder import Folder
from rayml.tracker.abandoned import close_abandoned
from rayml.tracker.lease import lease_shard, open_tracker, reopen_tracker
from rayml.tracker.live import STALE_S, LiveMark
from rayml.tracker.own import close_idle
from rayml.tracker.segments import Owner
from tests.unit.journals import OWNER

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = Owner(host="another.machine", boot="1", pid=1, started_at=0.0)


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


def test_a_shard_is_leased_to_one_at_a_time_and_then_again(store: Folder) -> None:
    first, second = lease_shard(store), lease_shard(store)
    assert first.shard != second.shard

    first.release()
    third = lease_shard(store)
    assert third.shard == first.shard
    second.release()
    third.release()


def test_many_leases_at_the_same_moment_are_of_as_many_shards(store: Folder) -> None:
    # A name that one of them has just made up may be found, and locked, by another.
    with ThreadPoolExecutor(16) as pool:
        leases = list(pool.map(lambda _: lease_shard(store), range(200)))
    assert len({lease.shard for lease in leases}) == 200
    for lease in leases:
        lease.release()


def test_a_hundred_runs_one_after_the_other_share_a_shard(store: Folder) -> None:
    for n in range(100):
        with rayml.start_run(store=store) as context:
            context.log_metric("n", n)

    assert len(store.folders("shards/")) == 1
    assert [run.metrics["n"] for run in rayml.runs(store=store)] == list(range(99, -1, -1))


def test_runs_at_the_same_time_have_a_shard_each(store: Folder) -> None:
    code = "import rayml, sys\nwith rayml.start_run(store=sys.argv[1]): print(1); input()"
    words = [sys.executable, "-c", code, store.uri]
    processes = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    assert len(store.folders("shards/")) == 3

    processes[0].kill()
    for process in processes:
        process.communicate(b"\n")
    assert sorted(run.state for run in rayml.runs(store=store)) == [
        "running", "succeeded", "succeeded",
    ]  # fmt: skip
    with rayml.start_run(store=store):
        pass
    assert len(store.folders("shards/")) == 3
    assert [run.state for run in rayml.runs(store=store)].count("failed") == 1


def test_a_shard_that_somebody_marks_as_alive_is_not_leased(store: Folder) -> None:
    lease = lease_shard(store)
    LiveMark(store, lease.shard).set(OWNER)
    lease.release()

    other = lease_shard(store)
    assert other.shard != lease.shard
    other.release()


def test_an_owner_s_tracker_goes_on_with_the_shard_it_had(store: Folder) -> None:
    tracker, lease = open_tracker(store, OWNER)
    lease.release()

    again = reopen_tracker(store, OWNER)
    assert again is not None
    assert again.shard == tracker.shard
    assert reopen_tracker(store, ELSEWHERE) is None


def head(host: str, cluster: str = "ray/train@k1") -> Owner:
    return Owner(host=host, boot="1", pid=7, started_at=0.0, cluster=cluster)


def test_a_new_head_goes_on_with_the_shard_of_the_one_that_it_replaces(store: Folder) -> None:
    tracker, lease = open_tracker(store, head("train-head-a"))
    lease.release()

    assert reopen_tracker(store, head("train-head-b", "ray/train@k2")) is None
    assert reopen_tracker(store, head("train-head-b", "")) is None
    again = reopen_tracker(store, head("train-head-b"))
    assert again is not None
    assert again.shard == tracker.shard


def test_a_head_s_container_that_was_started_again_goes_on_with_its_shard(store: Folder) -> None:
    this = identify(psutil.Process(), cluster="ray/train@k1")
    # The same machine, as a pod keeps its name, and often the same process id.
    before = msgspec.structs.replace(this, started_at=this.started_at - 60)
    tracker, lease = open_tracker(store, before)
    lease.release()
    again = reopen_tracker(store, this)
    assert again is not None
    assert again.shard == tracker.shard


def test_a_head_that_lives_keeps_its_shard(store: Folder) -> None:
    this = identify(psutil.Process(), cluster="ray/train@k1")
    _, lease = open_tracker(store, this)
    lease.release()
    other = identify(psutil.Process(os.getppid()), cluster="ray/train@k1")
    assert reopen_tracker(store, other) is None


def test_new_runs_do_not_wait_for_a_damaged_shard(store: Folder) -> None:
    with rayml.start_run("lost", store=store):
        pass
    close_idle()
    (shard,) = store.folders("shards/")
    store.put(min(store.list(f"shards/{shard}/")), b"no segment\n at all\n")

    with rayml.start_run("kept", store=store):
        pass
    assert len(store.folders("shards/")) == 2
    assert [run.name for run in rayml.runs(store=store)] == ["kept"]


def test_a_store_that_is_another_project_s_is_neither_written_nor_read(store: Folder) -> None:
    store.put("rayml.json", b'{"dependencies": []}')
    with pytest.raises(StoreError, match="another project's"), rayml.start_run(store=store):
        pass
    with pytest.raises(StoreError, match="another project's"):
        rayml.runs(store=store)
    assert store.list("") == ["rayml.json"]


# Marks of other machines


def test_another_machine_s_shard_is_closed_when_its_mark_is_old(store: Folder) -> None:
    mark = LiveMark(store, "s")
    mark.set(ELSEWHERE)
    close_abandoned(store)
    assert mark.get() == ELSEWHERE

    old = time.time() - STALE_S - 5
    os.utime(store.root / "live" / "s.json", (old, old))
    close_abandoned(store)
    assert mark.get() is None
    assert store.list("clocks/") == []


def test_a_machine_whose_clock_is_an_hour_ahead_closes_nobody_s_shard(
    store: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = LiveMark(store, "s")
    mark.set(ELSEWHERE)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)

    assert not mark.is_stale()
