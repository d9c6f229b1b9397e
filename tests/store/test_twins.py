"""A writer that sleeps while a twin takes its shard over, on each kind of store.

The sleeper is a process of its own that is stopped by SIGSTOP at any moment, in the middle of a
write too. The twin goes on with its shard, compacts it and deletes what that makes spare; then the
sleeper wakes up.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec
import pytest

from rayml.errors import NotFound
from rayml.tracker.compaction import compact
from rayml.tracker.live import LiveMark
from rayml.tracker.reader import Reader
from rayml.tracker.segments import Owner
from rayml.tracker.tracker import Tracker
from tests.unit.journals import encode, ended, points, submitted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.store import Store

SHARD = "shared"
TWIN = Owner(host="twin", boot="1", pid=2, started_at=0.0)
_FEW_ROUNDS, _ROUNDS = 4, 15
_SLEEPER = """
import sys
from rayml.errors import JournalFenced
from rayml.store import open_store
from rayml.tracker.client import LoopTransport
from rayml.tracker.tracker import Tracker
from rayml.tracker import upkeep
from tests.unit.journals import OWNER, encode, points, submitted

upkeep.TICK_S = 0.01
upkeep._BUSY_SEGMENTS = 50
run = sys.argv[2]
tracker = Tracker(open_store(sys.argv[1]), "shared", OWNER)
transport = LoopTransport(tracker)
transport.append(encode(submitted(run), producer=run))
step = 0
try:
    while True:
        record = points("loss", [step], [0.5], run=run)
        transport.append(encode(record, producer=run, n=step + 2))
        print(step, flush=True)
        step += 1
except JournalFenced as exc:
    print("fenced", exc, flush=True)
transport.close()
"""


@contextmanager
def asleep(store: Store, run: str, after_s: float) -> Iterator[list[str]]:
    """Let a writer work for so long, and then sleep until the block is left.

    Yields:
        What it has said, once the block is left.
    """
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", _SLEEPER, store.uri, run], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            said.append(process.stdout.readline())
            time.sleep(after_s)
            process.send_signal(signal.SIGSTOP)
            yield said
            process.send_signal(signal.SIGCONT)
            said += process.communicate(timeout=60)[0].splitlines()
        finally:
            process.kill()
    assert process.returncode == 0


def contents(store: Store) -> dict[str, bytes]:
    """Return all that a reader or another writer goes by.

    What the sleeper had asked to be deleted may go between the list and the look at it.
    """
    found = {}
    for part in ("shards/", "live/"):
        for key in store.list(part):
            with suppress(NotFound):
                found[key] = store.get(key)
    return found


def take_over(store: Store, run: str, count: int) -> Tracker:
    """Go on with the shard as another writer; end all runs that are open."""
    tracker = Tracker(store, SHARD, TWIN)

    async def write() -> None:
        await tracker.append(encode(submitted(run), producer=run))
        for n in range(count):
            await tracker.append(
                encode(points("loss", [n], [0.5], run=run), producer=run, n=n + 2)
            )
        for n, record in enumerate(tracker.silent_runs(0)):
            name = record.spec.run
            await tracker.append(encode(ended(run=name), producer="end", n=n + 1))

    asyncio.run(write())
    return tracker


def steps_of(store: Store, run: str) -> list[int]:
    reader = Reader(store)
    reader.refresh()
    assert reader.problems == {}
    return [step for step, _, _ in reader.find(run).points("loss")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "rounds", [_FEW_ROUNDS, pytest.param(_ROUNDS, marks=pytest.mark.thorough)]
)
def test_a_writer_that_slept_changes_nothing(store: Store, rounds: int) -> None:
    rng = random.Random(4 + rounds)
    written: dict[str, int] = {}
    for n in range(rounds):
        sleeper, twin, count = f"sleeper-{n}", f"twin-{n}", rng.choice([1, 40, 200])
        with asleep(store, sleeper, rng.uniform(0, 0.5)) as said:
            take_over(store, twin, count)
            compact(store, SHARD)
            before = contents(store)
        *acknowledged, last = said
        assert last.startswith("fenced shard shared was taken over"), last

        after = contents(store)
        assert {k: v for k, v in after.items() if k.startswith("live/")} == {
            f"live/{SHARD}.json": msgspec.json.encode(TWIN)
        }
        # A compaction of the sleeper's may have deleted what is spare; nobody may add or change.
        assert after.items() <= before.items()
        written[sleeper] = int(acknowledged[-1]) + 1
        written[twin] = count
    for run, count in written.items():
        steps = steps_of(store, run)
        assert steps == list(range(len(steps)))
        # What was being written when it fell asleep may have landed without an answer.
        assert len(steps) - count in ((0, 1) if run.startswith("sleeper") else (0,)), run
    assert LiveMark(store, SHARD).get() == TWIN
