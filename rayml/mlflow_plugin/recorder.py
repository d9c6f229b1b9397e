"""Who writes a run that MLflow logs to.

A run of the journal has one writer, its tracker; MLflow lets any process log to any run. So there
are three ways:

- the run that this code is part of: its own client, which gathers and never makes training wait;
- a run that MLflow has started in this process: a tracker in this process;
- a run that MLflow has started in another process of this machine (an MLflow server has several):
  that process's tracker, through a socket whose address lies beside the shard's lock.

Outside of a job every call is durable when it returns, as in MLflow's own stores. A run ends with
the process that started it, if not before: nothing stays `running`.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, NamedTuple, Protocol

import psutil

from rayml.errors import JournalFenced, NotFound, RaymlError, StoreError
from rayml.run_context import Context, find_context
from rayml.tracker.client import Client, LoopTransport, Producer
from rayml.tracker.own import own_tracker
from rayml.tracker.reader import read_runs
from rayml.tracker.records import Ended, Points, Problem, Started, Submitted, plain_values
from rayml.tracker.relay import Relay, RelayTransport

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rayml.spec import Spec
    from rayml.store import Store
    from rayml.tracker.client import Transport
    from rayml.tracker.records import Record

_FLUSH_S = 60.0


class Measured(NamedTuple):
    """One metric point, measured at this Unix time."""

    name: str
    value: float
    step: int
    at: float


class Writer(Protocol):
    """Writes to one run, and from one attempt, until the run ends."""

    attempt: int

    def add(self, *records: Record) -> None:
        """Log records about the run."""

    def measure(self, points: Sequence[Measured]) -> None:
        """Log metric points."""

    def flush(self) -> None:
        """Return once all that was logged is durable."""


class BufferedWriter:
    """Logs through a client, which makes things durable about once a second."""

    def __init__(self, client: Client, attempt: int) -> None:
        self.attempt = attempt
        self.client = client

    def add(self, *records: Record) -> None:
        """Log records about the run."""
        for record in records:
            self.client.add(record)

    def measure(self, points: Sequence[Measured]) -> None:
        """Log metric points."""
        for point in points:
            self.client.point(point.name, point.value, point.step, point.at)

    def flush(self) -> None:
        """Return once all that was logged is durable."""
        self.client.flush(_FLUSH_S)


class DirectWriter:
    """Logs to a tracker, which has made each thing durable when the call returns."""

    def __init__(self, transport: Transport, run: str, attempt: int = 1) -> None:
        self.attempt = attempt
        self._run = run
        self._producer = Producer(transport, run, attempt)
        self._lock = threading.Lock()

    def add(self, *records: Record) -> None:
        """Log records about the run.

        Raises:
            JournalFenced: The process that records the run has gone.
        """
        try:
            with self._lock:
                self._producer.record(*records)
        except (OSError, EOFError) as exc:
            raise JournalFenced(
                f"the process that recorded run {self._run} has gone, and the run with it; start "
                "a new run"
            ) from exc

    def measure(self, points: Sequence[Measured]) -> None:
        """Log metric points."""
        self.add(points_record(self._run, self.attempt, points))

    def flush(self) -> None:
        """Return: all that was logged is durable."""


def points_record(run: str, attempt: int, points: Sequence[Measured]) -> Points:
    """Return points, in the order in which they were measured, as the journal keeps them."""
    series: dict[str, tuple[list[int], list[float], list[float]]] = {}
    for point in points:
        steps, times, values = series.setdefault(point.name, ([], [], []))
        steps.append(point.step)
        times.append(point.at)
        values.append(point.value)
    plain = {n: (s, t, plain_values(v)) for n, (s, t, v) in series.items()}
    return Points(run=run, time=time.time(), attempt=attempt, rank=0, series=plain)


@dataclass
class Recorder:
    """The tracker of the runs that MLflow starts in this process; it begins with the first."""

    store: Store
    writers: dict[str, Writer] = field(default_factory=dict)
    _transport: LoopTransport | None = None
    _relay: Relay | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, spec: Spec, started_at: float) -> None:
        """Record that a run exists and runs, in this process.

        Raises:
            StoreError: The store cannot be written.
        """
        transport = self._open()
        process = psutil.Process()
        started = Started(
            run=spec.run, time=started_at, attempt=1, node="", host=spec.origin.host,
            pid=process.pid,
        )  # fmt: skip
        submitted = Submitted(run=spec.run, time=spec.submitted_at, spec=spec)
        context = find_context()
        redactor = None if context is None else context.redactor
        Producer(transport, spec.run, 1, redactor).record(submitted, started)
        self.writers[spec.run] = (
            DirectWriter(transport, spec.run)
            if context is None
            else BufferedWriter(Client(Producer(transport, spec.run, 1, redactor)), 1)
        )

    def record(self, run: str, *records: Record) -> None:
        """Record a whole run, from its submission to its end, in one piece: all of it or nothing.

        Raises:
            SpecError: The store has such a run already.
            StoreError: The store cannot be written.
        """
        Producer(self._open(), run, 1).record(*records)

    def forget(self, run: str) -> None:
        """Let a run go that has ended."""
        writer = self.writers.pop(run, None)
        if isinstance(writer, BufferedWriter):
            writer.client.close(_FLUSH_S)

    def close(self) -> None:
        """Make all durable and leave the shard in good order; runs that go on end with us."""
        for run, writer in list(self.writers.items()):
            with suppress(RaymlError):  # said when the run is found to have failed
                writer.flush()
            self.forget(run)
        relay, transport = self._relay, self._transport
        self._relay = self._transport = None
        if relay is not None:
            relay.close()
        if transport is not None:
            own_tracker(self.store).release()
            own_tracker(self.store).close()

    def _open(self) -> LoopTransport:
        with self._lock:
            if self._transport is None:
                self._transport = own_tracker(self.store).acquire()
                self._relay = Relay(self._transport, b"")
                _publish(self.store, self._transport.shard, self._relay.address)
                # Called in forked children as well, but by that process alone which made it.
                Finalize(None, self.close, exitpriority=10)
            return self._transport


_recorders: dict[tuple[int, str], Recorder] = {}


def recorder(store: Store) -> Recorder:
    """Return this process's recorder of a store; a forked child has its own."""
    return _recorders.setdefault((os.getpid(), store.uri), Recorder(store))


def own_context(store: Store) -> Context | None:
    """Return the context of the run that this code is part of, if this store records it."""
    context = find_context()
    return context if context is not None and context.store.uri == store.uri else None


def find_writer(store: Store, run: str) -> Writer:
    """Return the way to log to a run that has not ended.

    Raises:
        JournalFenced: It is written elsewhere, and nobody can log to it from here.
    """
    context = own_context(store)
    if context is not None and context.run_id == run:
        return BufferedWriter(context.client, context.attempt)
    own = recorder(store)
    if run not in own.writers:
        own.writers[run] = _reach(store, run)
    return own.writers[run]


def flush_writers(store: Store) -> None:
    """Make durable what this process has logged, so that it can be read.

    Raises:
        StoreError: It cannot be.
    """
    context = own_context(store)
    if context is not None:
        context.client.flush(_FLUSH_S)
    for writer in list(recorder(store).writers.values()):
        writer.flush()


def end_run(store: Store, run: str, state: str, ended_at: float) -> None:
    """Record the end of a run that MLflow has started; nothing can be logged to it any more.

    Raises:
        JournalFenced: It is written elsewhere, and nobody can end it from here.
        StoreError: The store cannot be written.
    """
    writer = find_writer(store, run)
    writer.flush()
    problem = None if state == "succeeded" else _problem(state)
    end = Ended(run=run, time=ended_at, attempt=writer.attempt, state=state, problem=problem)
    writer.add(end)
    writer.flush()
    recorder(store).forget(run)


def _problem(state: str) -> Problem:
    if state == "cancelled":
        return Problem(kind="cancelled", message="MLflow was told that it was killed")
    return Problem(kind="error", message="MLflow was told that it had failed")


def _relay_path(store: Store, shard: str) -> Path:
    return store.lock_folder() / f"{shard}.relay"


def _publish(store: Store, shard: str, address: str) -> None:
    """Let the other processes of this user know how to reach this one."""
    path = _relay_path(store, shard)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(address)
        partial.replace(path)
    except OSError as exc:
        raise StoreError(f"{path} cannot be written: {exc.strerror}; mend its folder") from exc


def _reach(store: Store, run: str) -> Writer:
    reader = read_runs(store)
    if run not in reader.runs:
        raise NotFound(f"store {store.uri} has no run {run!r}; create it first")
    if reader.runs[run].is_terminal:
        raise JournalFenced(
            f"run {run} has ended, and what has ended is final; start a new run, with "
            f"parent_run_id={run!r} if they belong together"
        )
    try:
        address = _relay_path(store, reader.shard_of[run]).read_text("ascii")
        return DirectWriter(RelayTransport(address), run)
    except (KeyError, OSError, EOFError, AuthenticationError) as exc:
        raise JournalFenced(
            f"run {run} is recorded by a process that cannot be reached from here; log to it from "
            "where it runs, or set labels, which anybody may"
        ) from exc
