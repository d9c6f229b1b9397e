"""What a tracker does beside recording, to its shard and to runs that nobody sees through."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from rayml.errors import JournalFenced, RaymlError
from rayml.tracker.lost import LostRuns

if TYPE_CHECKING:
    from rayml.tracker.lost import Drivers
    from rayml.tracker.tracker import Tracker

_logger = logging.getLogger("rayml.tracker")
TICK_S = 5.0
MARK_EVERY_S = 60.0
_IDLE_S = 10.0
_IDLE_SEGMENTS = 64
_BUSY_SEGMENTS = 1024
_BUSY_BYTES = 128 * 1024 * 1024
_PATIENCE_S = 600.0
_CLOSING_SEGMENTS = 256
_CLOSING_S = 3.0


class Upkeep:
    """Marks one tracker's shard as alive, has it compacted, and ends runs that are silent."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._marked_at = time.monotonic()
        self._compaction: subprocess.Popen[bytes] | None = None
        self._not_before = 0.0

    async def run(self, drivers: Drivers | None = None) -> None:
        """Look every few seconds, until cancelled or fenced.

        Args:
            drivers: Who sees the runs through. Without them, runs do not end for silence: they
                live and die with this process.
        """
        lost = LostRuns(self._tracker, drivers) if drivers is not None else None
        while True:
            await asyncio.sleep(TICK_S)
            try:
                if lost is not None:
                    await lost.settle()
                await asyncio.to_thread(self._mark)
                self._compact_if_due()
            except JournalFenced as exc:
                self._log(logging.ERROR, "fenced", why=str(exc))
                return
            except RaymlError as exc:
                # The store is away; appends tell those who wait.
                self._log(logging.WARNING, "upkeep failed", why=str(exc))

    def close(self) -> None:
        """Compact once more if many short runs have left much to read; a few seconds at most."""
        if self._compaction is None and self._tracker.unstored.segments >= _CLOSING_SEGMENTS:
            self._start_compaction()
        if self._compaction is not None:
            with self._compaction as running:
                try:
                    running.wait(_CLOSING_S)
                except subprocess.TimeoutExpired:
                    running.kill()  # which harms nothing: the next one begins where it was

    def _mark(self) -> None:
        """Let others see that this shard has a writer, by comparison with a mark of their own."""
        if time.monotonic() - self._marked_at >= MARK_EVERY_S:
            self._tracker.mark()
            self._marked_at = time.monotonic()

    def _compact_if_due(self) -> None:
        now, unstored = time.monotonic(), self._tracker.unstored
        if self._compaction is not None:
            if self._compaction.poll() is None:
                return
            failed = self._compaction.returncode != 0
            self._log(
                logging.WARNING if failed else logging.INFO,
                "compaction ended",
                code=self._compaction.returncode,
            )
            self._not_before = now + (_PATIENCE_S if failed else 0)
            self._compaction = None
        is_idle = now - unstored.last_at >= _IDLE_S and unstored.segments >= _IDLE_SEGMENTS
        is_busy = unstored.segments >= _BUSY_SEGMENTS or unstored.size >= _BUSY_BYTES
        if (is_idle or is_busy) and now >= self._not_before:
            self._start_compaction()

    def _log(self, level: int, event: str, **facts: object) -> None:
        _logger.log(level, event, extra={"shard": self._tracker.shard} | facts)

    def _start_compaction(self) -> None:
        unstored = self._tracker.unstored
        self._log(
            logging.INFO, "compaction starts", segments=unstored.segments, bytes=unstored.size
        )
        # A process of its own: it takes CPU and memory that the tracker must not lack.
        self._compaction = subprocess.Popen(
            [sys.executable, "-m", "rayml.tracker.compaction"],
            stdin=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        assert self._compaction.stdin is not None  # noqa: S101 - it was asked for
        with self._compaction.stdin as order:
            order.write(pickle.dumps((self._tracker.store, self._tracker.shard)))
        self._tracker.unstored.clear()
