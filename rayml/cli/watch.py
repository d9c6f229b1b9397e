"""Watches a run from its submission to its end: events in, a view that shows them out.

Whoever sees the run through is its `Keeper`: this process, or a child that can outlive it. What
happens arrives in one queue, signals included, so that nothing is interrupted half-way: a signal
never raises in the middle of a read of the store.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from rayml.cli.exits import drop_output, say
from rayml.errors import ClusterError, JobCancelled, RaymlError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from rayml.logs import LogReader
    from rayml.run import Run
    from rayml.store import Store
    from rayml.tracker.runs import RunRecord

_POLL_S = 0.2
_REMOTE_POLL_S = 1.0
_GRACE_S = 10.0
# `ray job stop` kills three seconds after SIGTERM.
_TERM_GRACE_S = 1.0
# Until a Ray has ended whose driver was killed.
_FIND_END_S = 10.0


@dataclass(frozen=True)
class Recorded:
    """The run is durably recorded."""

    run: str


@dataclass(frozen=True)
class Printed:
    """The keeper itself has printed a line."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The keeper has nothing left to do; the error says how the run ended, if not well."""

    error: RaymlError | None = None


@dataclass(frozen=True)
class Died:
    """The keeper has gone without a word."""


@dataclass(frozen=True)
class Signalled:
    """This process got SIGINT or SIGTERM."""

    number: int


Event: TypeAlias = Recorded | Printed | Ended | Died | Signalled
Answer: TypeAlias = Literal["wait", "detach", "cancel"]


class Keeper(Protocol):
    """Whoever sees the run through."""

    def cancel(self, grace_s: float) -> None:
        """Ask for the run's end."""

    def leave(self) -> None:
        """Let it go on without us."""

    def end_now(self) -> None:
        """End it and the run at once, recorded or not."""


class View(Protocol):
    """Whatever shows a run while it goes on."""

    def note(self, text: str) -> None:
        """Show one of rayml's own lines."""

    def printed(self, text: str) -> None:
        """Show a line that the keeper itself has printed."""

    def look(self, record: RunRecord, log: str) -> None:
        """Show the run as it is now, and what it has printed since the last look."""

    def ask(self) -> Answer:
        """Ask what an interruption means."""

    def close(self) -> None:
        """Show no more."""


class Here:
    """The run is seen through by this process, or by a cluster that this process talks to."""

    def __init__(self, events: SimpleQueue[Event], submit: Callable[[], Run]) -> None:
        """Submit the run and wait for it in a thread.

        Raises:
            RaymlError: It was not submitted.
            SystemExit: A signal has ended this while Ray was starting.
        """
        try:
            self._run = submit()
        except (KeyboardInterrupt, SystemExit) as exc:  # a second Ctrl-C; Ray's way with SIGTERM
            say("stopped while the run was starting")
            raise SystemExit(1) from exc
        events.put(Recorded(self._run.id))
        Thread(target=self._wait, args=(events,), daemon=True, name="rayml-wait").start()

    def _wait(self, events: SimpleQueue[Event]) -> None:
        try:
            self._run.wait()
        except RaymlError as exc:
            events.put(Ended(exc))
        except Exception:
            events.put(Died())
            raise
        else:
            events.put(Ended())

    def cancel(self, grace_s: float) -> None:
        """Ask for the run's end."""
        self._run.cancel(grace_s)

    def leave(self) -> None:
        """Do nothing: only a run on a cluster is left, and that needs nobody."""

    def end_now(self) -> None:
        """End this process; the Ray that it has started ends with it."""
        sys.stdout.flush()
        os._exit(1)


@contextmanager
def signals_as_events(events: SimpleQueue[Event]) -> Iterator[Callable[[], None]]:
    """Put SIGINT and SIGTERM into the queue; yield what does so again after Ray has its own way.

    Until it is called, a second SIGINT raises KeyboardInterrupt: starting Ray can take long.
    """
    is_watching = False
    seen = 0

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        events.put(Signalled(number))
        if is_watching:
            return
        if seen > 1:
            raise KeyboardInterrupt
        # Not by print: the signal may have come in the middle of one.
        os.write(2, b"rayml: ends as soon as the run is recorded; Ctrl-C again ends at once\n")

    def install() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)

    def watch() -> None:
        nonlocal is_watching
        is_watching = True
        install()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    install()
    try:
        yield watch
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Watch:
    """One run on its way, as this process knows it.

    Attributes:
        run: Its id, once it is recorded.
        is_leaving: It is to go on without us.
    """

    keeper: Keeper
    events: SimpleQueue[Event]
    store: Store
    view: View
    is_leaving: bool = False
    run: str = ""
    _logs: LogReader | None = None
    _looked_at: float = 0.0
    _is_cancelled: bool = False
    _is_silent: bool = False

    def until_end(self) -> Ended | None:
        """Watch until the run has ended, or until we leave it: then return None.

        Raises:
            ClusterError: The process that was to start the run has died.
            StoreError: The run's end cannot be read.
        """
        try:
            while True:
                ended = self._handle(self._next())
                if ended is not None:
                    return ended
                if self.is_leaving and self.run:
                    self.keeper.leave()
                    return None
        finally:
            self.view.close()

    def _next(self) -> Event | None:
        try:
            return self.events.get(timeout=self._poll_s)
        except Empty:
            return None

    @property
    def _poll_s(self) -> float:
        return _POLL_S if self.store.is_local else _REMOTE_POLL_S

    def _handle(self, event: Event | None) -> Ended | None:
        match event:
            case Recorded(run):
                self._begin(run)
            case Printed(text):
                self.view.printed(text)
            case Signalled(number):
                self._interrupted(number)
            case Ended():
                if self.run:
                    self._look()
                return event
            case Died():
                return self._find_end()
        self._look_again()
        return None

    def _begin(self, run: str) -> None:
        self.run = run

    def _look_again(self) -> None:
        """Look if it is time; a store that does not answer now may do so later."""
        if not self.run or time.monotonic() - self._looked_at < self._poll_s:
            return
        try:
            self._look()
        except StoreError as exc:
            if not self._is_silent:
                self.view.note(f"cannot see the run at the moment, it goes on: {exc}")
            self._is_silent = True
        else:
            self._is_silent = False
        self._looked_at = time.monotonic()

    def _look(self) -> None:
        from rayml.logs import LogReader  # noqa: PLC0415 - not for --help
        from rayml.tracker.reader import read_runs  # noqa: PLC0415 - not for --help

        # The record first: what it says to be over has left all its output behind.
        record = read_runs(self.store).find(self.run)
        if self._logs is None:
            self._logs = LogReader(self.store, self.run, range(record.spec.world_size))
        self.view.look(record, self._logs.read(is_last=record.is_terminal))

    def _interrupted(self, number: int) -> None:
        if self._is_cancelled:
            self.view.note("ended at once, as it was asked for twice")
            self.keeper.end_now()
            return
        answer: Answer = "cancel" if number == signal.SIGTERM else self.view.ask()
        if answer == "detach":
            self.is_leaving = True
        elif answer == "cancel":
            self._cancel(_TERM_GRACE_S if number == signal.SIGTERM else _GRACE_S)

    def _cancel(self, grace_s: float) -> None:
        self.view.note(f"cancelling, with {grace_s:g} s of grace; Ctrl-C again ends at once")
        self._is_cancelled, self.is_leaving = True, False
        self.keeper.cancel(grace_s)

    def _find_end(self) -> Ended:
        """Return how a run ended whose keeper has died."""
        from rayml.listing import get_run  # noqa: PLC0415 - not for --help
        from rayml.tracker.abandoned import close_abandoned  # noqa: PLC0415

        if not self.run and self._is_cancelled:
            return Ended(JobCancelled("the run was ended before it was recorded; nothing is left"))
        if not self.run:
            raise ClusterError(
                "the process that starts the run has died before the run was recorded; what it "
                "printed is above"
            )
        deadline = time.monotonic() + _FIND_END_S
        while (error := get_run(self.run, store=self.store).error) is None:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the process that saw run {self.run} through has died, and its Ray goes on; "
                    f"look at what it does: rayml show {self.run}"
                )
            close_abandoned(self.store)
            time.sleep(_POLL_S)
        self._look()
        return Ended(error)


class Plain:
    """Shows a run as lines: what it prints on one stream, what rayml says on stderr."""

    def __init__(self, *, log_to_stderr: bool = False) -> None:
        self._out = sys.stderr if log_to_stderr else sys.stdout
        self._state = ""
        self._attempt = 0
        self._last = "\n"

    def note(self, text: str) -> None:
        """Print on stderr."""
        say(text)

    def printed(self, text: str) -> None:
        """Print on stderr as it is."""
        print(text, file=sys.stderr, end="", flush=True)

    def look(self, record: RunRecord, log: str) -> None:
        """Print what the run has printed, and its state where that has changed."""
        if not self._state:
            self.note(f"run {record.spec.run} ({record.spec.name}) submitted")
        state = f"{record.state}: {record.reason}" if record.reason else record.state
        is_news, self._state = state != self._state and bool(record.reason), state
        if is_news and record.state == "waiting":
            self.note(state)
        # A short run has ended before anybody saw it running.
        if record.started is not None and record.started.attempt > self._attempt:
            self._attempt = record.started.attempt
            attempt = f", attempt {self._attempt}" if self._attempt > 1 else ""
            self.note(f"running on {record.started.host}{attempt}")
        self._write(log)
        if is_news and record.state == "retrying":
            self.note(state)

    def _write(self, log: str) -> None:
        if not log:
            return
        self._last = log[-1]
        try:
            self._out.write(log)
            self._out.flush()
        except BrokenPipeError:  # the run goes on, and its log is in the store
            drop_output(self._out)

    def ask(self) -> Answer:
        """Answer for a user whom nobody can ask."""
        return "cancel"

    def close(self) -> None:
        """End the line in which the run has left off."""
        if self._last != "\n":
            self._write("\n")
