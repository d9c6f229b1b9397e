"""The side of tracking that lives with user code: it gathers and never makes training wait."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from rayml.errors import ClusterUnreachable, JournalFenced, RaymlError, SpecError, StoreError
from rayml.redaction import redact_strings
from rayml.tracker.records import Points, plain_values
from rayml.tracker.segments import Batch
from rayml.tracker.spool import Spool
from rayml.tracker.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable

    from rayml.redaction import Redactor
    from rayml.tracker.records import Record
    from rayml.tracker.series import Reduction
    from rayml.tracker.tracker import Tracker

_logger = logging.getLogger("rayml")
T = TypeVar("T")

_INTERVAL_S = 1.0  # sent twice as often, metrics slowed a loop down (benchmarks/log_metric.py)
_ALIVE_S = 1.0
_BATCH_POINTS = 50_000
_SPOOL_POINTS = 200_000
_SPOOL_RECORDS = 10_000
_MIN_STEP, _MAX_STEP = -(2**63), 2**63 - 1
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)


class Transport(Protocol):
    """The way from a client to the tracker."""

    def append(self, data: bytes) -> None:
        """Return once an encoded batch is durable; raise the tracker's errors."""


class ActorTransport:
    """Calls the tracker actor of a Ray cluster."""

    def __init__(self, actor: object) -> None:
        self._actor = actor

    def append(self, data: bytes) -> None:
        """Return once the batch is durable; waits while a killed actor comes back."""
        import ray  # noqa: PLC0415 - clients without an actor do without Ray

        answer = self._actor.append.remote(data).future()  # type: ignore[attr-defined]
        while not wait([answer], _ALIVE_S).done:
            # Shut down by another thread, Ray answers nobody any more.
            if not ray.is_initialized():
                raise ClusterUnreachable("Ray was shut down before the record was durable")
        answer.result()


class _LastingExecutor(ThreadPoolExecutor):
    """Works until the process is gone: handlers at exit may still have something to record."""

    def submit(self, function: Callable[..., T], /, *args: object, **options: object) -> Future[T]:
        """Run a function in another thread, or here when Python starts no more threads."""
        try:
            return super().submit(function, *args, **options)
        except RuntimeError:
            done: Future[T] = Future()
            try:
                done.set_result(function(*args, **options))
            except Exception as exc:  # noqa: BLE001 - whoever waits for the result raises it
                done.set_exception(exc)
            return done


class LoopTransport:
    """Runs a tracker in this process, on an event loop in a thread of its own."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._upkeep = Upkeep(tracker)
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_LastingExecutor(thread_name_prefix="rayml-write"))
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="rayml-tracker", daemon=True
        )
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._upkeep.run(), self._loop)

    @property
    def shard(self) -> str:
        """Where it writes."""
        return self._tracker.shard

    def append(self, data: bytes) -> None:
        """Return once the batch is durable."""
        asyncio.run_coroutine_threadsafe(self._tracker.append(data), self._loop).result()

    def is_current(self) -> bool:
        """Tell whether the tracker may go on, after a while in which it wrote nothing.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._tracker.is_current()

    def close(self) -> None:
        """Leave the shard in good order and stop; every append has returned by then."""
        # A mark that stays is no loss: the next process here looks at the shard and clears it.
        with suppress(StoreError):
            asyncio.run_coroutine_threadsafe(self._tracker.close(), self._loop).result()
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._upkeep.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    """End all other tasks of the loop: one that was only told to would outlive the loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class Producer:
    """Numbers one source's batches and sends them one by one, each until it is durable.

    Attributes:
        redactor: Takes secrets out of batches before they go anywhere.
    """

    def __init__(
        self, transport: Transport, run: str, attempt: int, redactor: Redactor | None = None
    ) -> None:
        self.run = run
        self.attempt = attempt
        self.transport = transport
        self.redactor = redactor
        self._id = uuid.uuid4().hex
        self._n = 0
        self._recording = threading.Lock()

    def encode(self, records: list[Record]) -> bytes:
        """Return the next batch, encoded, with `***` for every secret in it."""
        self._n += 1
        data = self._encode(records)
        if self.redactor is None or self.redactor.redact(data) == data:
            return data
        return self._encode([redact_strings(record, self.redactor.redact) for record in records])

    def _encode(self, records: list[Record]) -> bytes:
        raws = [msgspec.Raw(msgspec.json.encode(record)) for record in records]
        batch = Batch(
            producer=self._id, n=self._n, run=self.run, attempt=self.attempt, records=raws
        )
        return msgspec.json.encode(batch)

    def send(self, data: bytes) -> None:
        """Return once the batch is durable.

        Raises:
            RaymlError: As the tracker's `append`.
        """
        self.transport.append(data)

    def record(self, *records: Record) -> None:
        """Make a few records durable and return; several threads may do so."""
        with self._recording:
            self.send(self.encode(list(records)))


class Client:
    """Buffers what one attempt logs and sends it from a thread of its own.

    `point` and `add` never wait for the tracker: while it does not answer, what is more than
    memory should hold waits on this machine's disk. `flush` and `close` return once all that was
    logged before is durable, or raise. Safe to use from several threads.
    """

    def __init__(
        self,
        producer: Producer,
        *,
        rank: int = 0,
        eager: bool = False,
    ) -> None:
        """Start to send.

        Args:
            producer: Numbers and sends the batches.
            rank: Of the worker that logs.
            eager: Send at once what comes, for a process that may end without warning.
        """
        self._producer = producer
        self._rank = rank
        self._eager = eager
        self._records: list[Record] = []
        self._series: dict[str, tuple[list[int], list[float], list[float]]] = {}
        self._next_step: dict[str, int] = {}
        self._reductions: dict[str, Reduction] = {}
        self._points = 0
        self._added = 0
        self._durable = 0
        self._failure: RaymlError | None = None
        self._deadline = float("inf")
        self._closing = False
        self._spool = Spool()
        self._is_spooling = self._has_warned = False
        self._order = threading.Lock()  # batches are numbered in the order in which they are sent
        self._lock = threading.Lock()
        self._progress = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._sender = threading.Thread(target=self._send_all, name="rayml-client", daemon=True)
        self._sender.start()

    def reduce(self, name: str, how: Reduction) -> None:
        """Say how several ranks' values of a metric become one; it is sent with the points."""
        self._reductions[name] = how

    def point(self, name: str, value: float, step: int | None, at: float | None = None) -> None:
        """Buffer one metric point; without a step it takes the one after the metric's last.

        Args:
            name: The metric's.
            value: Any float.
            step: Where on the metric's axis.
            at: When it was measured, in Unix seconds; now by default.

        Raises:
            SpecError: The step has more than 64 bits, or the name a character that UTF-8 has not.
        """
        now = time.time() if at is None else at
        with self._lock:
            columns = self._series.get(name)
            if columns is None:
                _check_text(name)
                columns = self._series[name] = ([], [], [])
            if step is None:
                step = self._next_step.get(name, 0)
            if not _MIN_STEP <= step <= _MAX_STEP:
                raise SpecError(f"metric {name!r} got the step {step}; a step has at most 64 bits")
            self._next_step[name] = step + 1
            columns[0].append(step)
            columns[1].append(now)
            columns[2].append(value)
            self._points += 1
            self._added += 1
            is_due = self._eager or self._points % _BATCH_POINTS == 0
        if is_due:
            self._wake.set()
            self._relieve_memory()

    def next_step(self, name: str) -> int | None:
        """Return the step after a metric's last; None if it has no point from this process."""
        return self._next_step.get(name)

    def add(self, record: Record, *, urgent: bool = False) -> None:
        """Buffer a record; an urgent one is sent at once, still without waiting for it.

        Raises:
            SpecError: It holds a character that UTF-8 has not.
        """
        _check_text(record)
        with self._lock:
            self._records.append(record)
            self._added += 1
        if urgent or self._eager:
            self._wake.set()
        self._relieve_memory()

    def flush(self, timeout_s: float = 30.0) -> None:
        """Return once everything that was logged before this call is durable.

        Raises:
            StoreError: It is not, `timeout_s` seconds later, or the store or tracker refused it.
        """
        with self._progress:
            target = self._added
            self._wake.set()
            self._progress.wait_for(
                lambda: self._durable >= target or self._failure is not None, timeout_s
            )
            missing = target - self._durable
        if self._failure is not None:
            raise self._failure
        if missing > 0:
            raise StoreError(
                f"{missing} logged values were not durable after {timeout_s:g} s; "
                "the tracker did not answer, look at its store"
            )

    def close(self, timeout_s: float = 30.0) -> None:
        """Flush and stop; nothing can be logged afterwards.

        Raises:
            StoreError: As `flush`; what was not durable by then is lost.
        """
        self._deadline = time.monotonic() + timeout_s
        try:
            self.flush(timeout_s)
        finally:
            self._closing = True
            self._wake.set()
            self._sender.join(timeout_s)
            with self._order:
                self._spool.close()

    def _send_all(self) -> None:
        while not self._closing:
            self._wake.wait(_INTERVAL_S)
            self._wake.clear()
            while batch := self._next_batch():
                data, count = batch
                self._send(data)
                with self._progress:
                    self._durable += count
                    self._progress.notify_all()

    def _next_batch(self) -> tuple[bytes, int] | None:
        with self._order:
            return self._spool.pop() if self._spool else self._encode_waiting()

    def _encode_waiting(self) -> tuple[bytes, int] | None:
        taken = self._take()
        return (self._producer.encode(taken[0]), taken[1]) if taken else None

    def _relieve_memory(self) -> None:
        """Move what waits in memory to disk if it is much: the sender is held up."""
        if self._points < _SPOOL_POINTS and len(self._records) < _SPOOL_RECORDS:
            return
        with self._lock:
            if self._is_spooling:
                return
            self._is_spooling = True
        threading.Thread(target=self._spool_waiting, name="rayml-spool", daemon=True).start()

    def _spool_waiting(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            _logger.warning(
                "the tracker does not answer, or does not keep up; what is logged waits on this "
                "machine's disk meanwhile"
            )
        try:
            with self._order:
                if batch := self._encode_waiting():
                    self._spool.add(*batch)
        except StoreError as exc:
            self._give_up(exc)
        finally:
            self._is_spooling = False

    def _take(self) -> tuple[list[Record], int] | None:
        with self._lock:
            records, series, count = self._records, self._series, self._points
            self._records, self._series, self._points = [], {}, 0
        if series:
            records = [*records, self._points_record(series)]
            count += len(records) - 1
        else:
            count += len(records)
        return (records, count) if records else None

    def _points_record(
        self, series: dict[str, tuple[list[int], list[float], list[float]]]
    ) -> Points:
        return Points(
            run=self._producer.run,
            time=time.time(),
            attempt=self._producer.attempt,
            rank=self._rank,
            series={n: (s, t, plain_values(v)) for n, (s, t, v) in series.items()},
            reductions=dict(self._reductions),
        )

    def _send(self, data: bytes) -> None:
        attempt = 0
        while self._failure is None:
            try:
                return self._producer.send(data)
            except (JournalFenced, SpecError) as exc:
                self._give_up(exc)
            except Exception as exc:  # noqa: BLE001 - whatever the way to the tracker raises
                if time.monotonic() > self._deadline:
                    self._give_up(_store_error(exc))
                time.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
                attempt += 1
        return None

    def _give_up(self, error: RaymlError) -> None:
        with self._progress:
            self._failure = error
            self._progress.notify_all()


def _check_text(value: object) -> None:
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError as exc:
        raise SpecError(f"{exc.object!r} cannot be logged; it is not valid Unicode text") from exc


def _store_error(exc: Exception) -> RaymlError:
    return exc if isinstance(exc, RaymlError) else StoreError(f"the tracker did not answer: {exc}")
