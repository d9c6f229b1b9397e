"""Upkeep: marks, compactions, and runs that nobody sees through."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import rayml
from rayml.errors import ClusterUnreachable, JournalFenced
from rayml.store.folder import Folder
from rayml.tracker import lost, upkeep
from rayml.tracker.live import LiveMark
from rayml.tracker.lost import DriverState
from rayml.tracker.tracker import Tracker
from rayml.tracker.upkeep import Upkeep
from tests.unit.journals import OWNER, encode, logged, points, read_run, started, submitted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rayml.spec import Spec


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let minutes be tenths of seconds."""
    monkeypatch.setattr(upkeep, "TICK_S", 0.02)
    monkeypatch.setattr(lost, "SUSPECT_S", 0.15)
    monkeypatch.setattr(lost, "SILENCE_S", 0.3)
    monkeypatch.setattr(upkeep, "MARK_EVERY_S", 0.1)
    monkeypatch.setattr(upkeep, "_IDLE_S", 0.1)


class Cluster:
    """The drivers of a cluster; a new one begins its attempt, or is refused."""

    def __init__(self, tracker: Tracker, *, is_over: bool = False, refuses: bool = False) -> None:
        self.tracker = tracker
        self.is_over = is_over
        self.refuses = refuses
        self.restarted: list[int] = []

    async def look(self, run: str) -> DriverState:
        return DriverState(self.is_over, f"Ray knows {run}")

    async def restart(self, spec: Spec, attempt: int) -> None:
        if self.refuses:
            raise ClusterUnreachable("the Jobs API refused")
        self.restarted.append(attempt)
        batch = encode(started(attempt), producer=f"driver {attempt}")
        await self.tracker.append(batch)


async def look_after(
    tracker: Tracker,
    until: Callable[[], bool],
    *,
    beats: bool = False,
    cluster: Cluster | None = None,
) -> None:
    upkeeper = Upkeep(tracker)
    task = asyncio.create_task(upkeeper.run(cluster))
    deadline = time.monotonic() + 10
    while not until() and time.monotonic() < deadline:
        if beats:
            tracker.beat("r1")
        await asyncio.sleep(0.05)
    task.cancel()
    upkeeper.close()
    assert until()


def has_failed(store: Folder) -> Callable[[], bool]:
    return lambda: read_run(store).state == "failed"


def open_with_run(store: Folder, **spec: Any) -> Tracker:
    tracker = Tracker(store, "s", OWNER)
    for batch in (encode(submitted(**spec)), encode(started(), n=2)):
        asyncio.run(tracker.append(batch))
    return tracker


def test_a_run_that_nobody_sees_through_ends_as_lost(store: Folder) -> None:
    tracker = open_with_run(store)
    began = time.monotonic()
    asyncio.run(look_after(tracker, has_failed(store), cluster=Cluster(tracker)))

    assert time.monotonic() - began > 0.3
    problem = read_run(store).problem
    assert problem is not None
    assert problem.kind == "lost"
    assert problem.message == "whoever saw it through is gone or silent (Ray knows r1)"


def test_a_run_whose_driver_ray_saw_ending_is_lost_sooner(
    store: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost, "SILENCE_S", 60.0)
    tracker = open_with_run(store)
    asyncio.run(look_after(tracker, has_failed(store), cluster=Cluster(tracker, is_over=True)))


RETRIED = {"retry": rayml.Retry(attempts=3, backoff_s=0.1), "cluster": "http://head:8265"}


def test_a_lost_run_is_tried_again_by_its_policy(store: Folder) -> None:
    tracker = open_with_run(store, **RETRIED)
    cluster = Cluster(tracker, is_over=True)
    asyncio.run(look_after(tracker, has_failed(store), cluster=cluster))

    assert cluster.restarted == [2, 3]
    run = read_run(store)
    assert (run.attempt, run.problem and run.problem.kind) == (3, "lost")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (RETRIED | {"secrets": ["TOKEN"]}, "its secrets are nowhere written down"),
        (RETRIED | {"cluster": ""}, "its code was with the process that submitted it"),
    ],
)
def test_what_cannot_be_tried_again_ends_and_says_why(
    store: Folder, spec: dict[str, object], why: str
) -> None:
    tracker = open_with_run(store, **spec)
    cluster = Cluster(tracker, is_over=True)
    asyncio.run(look_after(tracker, has_failed(store), cluster=cluster))

    assert cluster.restarted == []
    assert why in getattr(read_run(store).problem, "message", "")


def test_a_run_that_the_cluster_does_not_take_again_ends(store: Folder) -> None:
    tracker = open_with_run(store, **RETRIED)
    cluster = Cluster(tracker, is_over=True, refuses=True)
    asyncio.run(look_after(tracker, has_failed(store), cluster=cluster))

    assert "could not be restarted: the Jobs API refused" in getattr(
        read_run(store).problem, "message", ""
    )


def test_after_a_restart_a_run_has_its_time_again_and_is_lost_then(store: Folder) -> None:
    open_with_run(store)
    tracker = Tracker(store, "s", OWNER)
    assert tracker.silent_runs(0.3) == []
    asyncio.run(look_after(tracker, has_failed(store), cluster=Cluster(tracker)))


@pytest.mark.parametrize(("beats", "ends"), [(True, True), (False, False)])
def test_a_run_that_is_looked_after_goes_on(store: Folder, *, beats: bool, ends: bool) -> None:
    tracker, until = open_with_run(store), time.monotonic() + 1
    cluster = Cluster(tracker) if ends else None
    asyncio.run(
        look_after(tracker, lambda: time.monotonic() > until, beats=beats, cluster=cluster)
    )

    assert read_run(store).state == "running"


def test_the_mark_is_renewed(store: Folder) -> None:
    tracker = open_with_run(store)
    mark = store.root / "live" / "s.json"
    before = mark.stat().st_mtime_ns
    asyncio.run(look_after(tracker, lambda: mark.stat().st_mtime_ns > before, beats=True))


def test_a_tracker_that_was_taken_over_leaves_the_other_s_mark(store: Folder) -> None:
    tracker = Tracker(store, "s", OWNER)
    twin = msgspec.structs.replace(OWNER, pid=2)
    Tracker(store, "s", twin)
    with pytest.raises(JournalFenced, match="was taken over"):
        tracker.mark()
    with pytest.raises(JournalFenced, match="was taken over"):
        asyncio.run(tracker.close())

    assert LiveMark(store, "s").get() == twin


def test_an_idle_shard_is_compacted(store: Folder) -> None:
    tracker = open_with_run(store)
    for n in range(3, 80):
        asyncio.run(tracker.append(encode(logged(n), points("loss", [n], [0.5]), n=n)))
    before = read_run(store)
    asyncio.run(look_after(tracker, lambda: bool(store.list("checkpoints/s/")), beats=True))

    assert read_run(store).params == before.params
    assert read_run(store).points("loss") == before.points("loss")
    assert tracker.unstored.segments < 64


def test_a_fenced_tracker_is_not_looked_after(store: Folder) -> None:
    tracker = open_with_run(store)
    open_with_run_again = Tracker(store, "s", OWNER)
    asyncio.run(asyncio.wait_for(Upkeep(tracker).run(Cluster(tracker)), 5))
    assert open_with_run_again.silent_runs(60) == []
