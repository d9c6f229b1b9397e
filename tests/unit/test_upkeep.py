"""Upkeep: marks, compactions, and runs that nobody sees through."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from rayml.store.folder import Folder
from rayml.tracker import upkeep
from rayml.tracker.tracker import Tracker
from rayml.tracker.upkeep import Upkeep
from tests.unit.journals import OWNER, encode, logged, points, read_run, started, submitted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let minutes be tenths of seconds."""
    monkeypatch.setattr(upkeep, "TICK_S", 0.02)
    monkeypatch.setattr(upkeep, "SILENCE_S", 0.3)
    monkeypatch.setattr(upkeep, "MARK_EVERY_S", 0.1)
    monkeypatch.setattr(upkeep, "_IDLE_S", 0.1)


async def explain(run: str) -> str:
    return f" (Ray knows {run})"


async def look_after(
    tracker: Tracker, until: Callable[[], bool], *, beats: bool = False, ends: bool = True
) -> None:
    upkeeper = Upkeep(tracker)
    task = asyncio.create_task(upkeeper.run(explain if ends else None))
    deadline = time.monotonic() + 10
    while not until() and time.monotonic() < deadline:
        if beats:
            tracker.beat("r1")
        await asyncio.sleep(0.05)
    task.cancel()
    upkeeper.close()
    assert until()


def open_with_run(store: Folder) -> Tracker:
    tracker = Tracker(store, "s", OWNER)
    for batch in (encode(submitted()), encode(started(), n=2)):
        asyncio.run(tracker.append(batch))
    return tracker


def test_a_run_that_nobody_sees_through_ends_as_lost(store: Folder) -> None:
    tracker = open_with_run(store)
    asyncio.run(look_after(tracker, lambda: read_run(store).state == "failed"))

    problem = read_run(store).problem
    assert problem is not None
    assert problem.kind == "lost"
    assert problem.message.endswith("has been silent for 0.3 s (Ray knows r1)")


def test_after_a_restart_a_run_has_its_time_again_and_is_lost_then(store: Folder) -> None:
    open_with_run(store)
    tracker = Tracker(store, "s", OWNER)
    assert tracker.silent_runs(0.3) == []
    asyncio.run(look_after(tracker, lambda: read_run(store).state == "failed"))


@pytest.mark.parametrize(("beats", "ends"), [(True, True), (False, False)])
def test_a_run_that_is_looked_after_goes_on(store: Folder, *, beats: bool, ends: bool) -> None:
    tracker, until = open_with_run(store), time.monotonic() + 1
    asyncio.run(look_after(tracker, lambda: time.monotonic() > until, beats=beats, ends=ends))

    assert read_run(store).state == "running"


def test_the_mark_is_renewed(store: Folder) -> None:
    tracker = open_with_run(store)
    mark = store.root / "live" / "s.json"
    before = mark.stat().st_mtime_ns
    asyncio.run(look_after(tracker, lambda: mark.stat().st_mtime_ns > before, beats=True))


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
    asyncio.run(asyncio.wait_for(Upkeep(tracker).run(explain), 5))
    assert open_with_run_again.silent_runs(60) == []
