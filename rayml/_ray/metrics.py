"""The tracker's counters in Ray's own metrics, which Prometheus reads from every node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ray.util.metrics import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from rayml.tracker.tracker import Tracker

_EVERY_S = 5.0
_BOUNDARIES_S = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30]


class TrackerMetrics:
    """Counters of one tracker, tagged with its store and shard; times are in seconds."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._tags = {"store": tracker.store.uri, "shard": tracker.shard}
        keys = tuple(self._tags)
        self._batches = Counter(
            "rayml_tracker_acknowledged_batches", "Batches made durable.", keys
        )
        self._bytes = Counter("rayml_tracker_written_bytes", "Bytes of these batches.", keys)
        self._failures = Counter(
            "rayml_tracker_failed_writes", "Writes that the store refused.", keys
        )
        self._waits = Histogram(
            "rayml_tracker_acknowledge_seconds",
            "From a batch's arrival until it was durable.",
            _BOUNDARIES_S,
            keys,
        )
        self._queue = Gauge("rayml_tracker_queued_batches", "Batches not durable yet.", keys)
        self._lag = Gauge("rayml_tracker_lag_seconds", "How long the oldest one waits.", keys)
        self._unstored = Gauge(
            "rayml_tracker_uncompacted_bytes", "Written since the last checkpoint.", keys
        )
        self._runs = Gauge("rayml_tracker_open_runs", "Runs that have not ended.", keys)

    async def publish(self) -> None:
        """Publish every few seconds, until cancelled."""
        while True:
            self._publish()
            await asyncio.sleep(_EVERY_S)

    def _publish(self) -> None:
        tracker, load, tags = self._tracker, self._tracker.load.take(), self._tags
        for counter, count in (
            (self._batches, load.batches),
            (self._bytes, load.size),
            (self._failures, load.failures),
        ):
            if count:
                counter.inc(count, tags)
        for wait_s in load.waits_s:
            self._waits.observe(wait_s, tags)
        self._queue.set(tracker.waiting, tags)
        self._lag.set(tracker.lag_s, tags)
        self._unstored.set(tracker.unstored.size, tags)
        self._runs.set(tracker.open_runs, tags)
