"""kill -9 of the tracker under load, many times, on local disk and on S3.

What was acknowledged is in the store, and everything is there once.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from rayml import _ray
from rayml.store import open_store
from rayml.tracker.client import ActorTransport, Producer
from rayml.tracker.compaction import compact
from rayml.tracker.live import live_shards
from rayml.tracker.reader import Reader
from tests.ray.conftest import end_tracker, tracker_pid
from tests.unit.journals import ended, points, submitted

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.s3]

_WRITERS = 4
_SIZE = 20


@dataclass
class Load:
    """Writers that append to a tracker, each to a run of its own, until they are to stop."""

    store: Store
    kills: int
    stop: threading.Event = field(default_factory=threading.Event)
    acknowledged: dict[str, int] = field(default_factory=dict)

    def write(self, run: str) -> None:
        """Send batches of points one by one, and note how many are acknowledged."""
        transport = ActorTransport(_ray.tracker_actor(self.store))
        producer = Producer(transport, run, 1)
        producer.record(submitted(run))
        while not self.stop.is_set():
            step = self.acknowledged.get(run, 0)
            steps = list(range(step, step + _SIZE))
            producer.record(points("loss", steps, [float(s) for s in steps], run=run))
            self.acknowledged[run] = step + _SIZE
        producer.record(ended(run=run))

    def compact(self) -> None:
        """Compact again and again what they write."""
        while not self.stop.wait(0.5):
            for shard in live_shards(self.store):
                compact(self.store, shard)

    def kill(self, rng: random.Random) -> None:
        """Kill the tracker as soon as it has been back for a moment, and then once more."""
        for _ in range(self.kills):
            before = sum(self.acknowledged.values())
            pid = tracker_pid(self.store)
            time.sleep(rng.uniform(0, 0.2))
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 60
            while sum(self.acknowledged.values()) == before and rng.random() < 0.5:
                assert time.monotonic() < deadline, "nothing is acknowledged any more"
                time.sleep(0.01)
        self.stop.set()


def check(load: Load) -> None:
    """Compare what is in the store with what was acknowledged."""
    reader = Reader(load.store)
    reader.refresh()
    assert reader.problems == {}
    assert len(load.acknowledged) == _WRITERS
    for run, count in load.acknowledged.items():
        assert reader.find(run).state == "succeeded"
        found = [(step, value) for step, _, value in reader.find(run).points("loss")]
        assert found == [(step, float(step)) for step in range(count)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [25, pytest.param(100, marks=pytest.mark.thorough)])
def test_what_was_acknowledged_survives_every_kill(
    ray_address: str, tmp_path: Path, s3_store_uri: str, kills: int
) -> None:
    loads = [Load(open_store(where), kills) for where in (tmp_path / "store", s3_store_uri)]
    rng = random.Random(os.environ.get("RAYML_TEST_SEED", "4"))
    try:
        with ThreadPoolExecutor(16) as pool:
            for load in loads:
                _ray.tracker_actor(load.store)
            work = [
                pool.submit(load.write, f"{n}-{w}")
                for n, load in enumerate(loads)
                for w in range(_WRITERS)
            ]
            work += [pool.submit(load.compact) for load in loads]
            try:
                for killing in [pool.submit(load.kill, rng) for load in loads]:
                    killing.result()
            finally:
                for load in loads:
                    load.stop.set()
            for done in work:
                done.result(120)
        for load in loads:
            check(load)
            assert load.store.list("checkpoints/")
    finally:
        for load in loads:
            end_tracker(load.store)
