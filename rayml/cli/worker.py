"""A child process that sees a run through, and can go on when the command has gone.

The child is in a session of its own: neither Ctrl-C nor the end of the terminal reaches it. It
takes orders through a channel; when that closes without the order to go on alone, its parent has
died, and it cancels the run.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING

from rayml.cli.exits import exit_code, say
from rayml.cli.watch import Died, Ended, Printed, Recorded
from rayml.errors import RaymlError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from queue import SimpleQueue

    from rayml.cli.watch import Event
    from rayml.run import Run

_ORPHAN_GRACE_S = 10.0
_TERM_GRACE_S = 1.0
_EXIT_S = 20.0


@dataclass(frozen=True)
class Cancel:
    """An order: end the run."""

    grace_s: float


@dataclass(frozen=True)
class GoOn:
    """An order: see the run through alone."""


class Worker:
    """The child, as its parent sees it."""

    def __init__(self, events: SimpleQueue[Event], submit: Callable[[], Run]) -> None:
        """Start it by a fork, before this process has threads; in the child, never return."""
        from multiprocessing import Pipe  # noqa: PLC0415 - only `rayml run` needs it

        self._channel, theirs = Pipe()
        output, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            self._channel.close()
            os.close(output)
            raise SystemExit(_see_through(submit, theirs, writer))
        theirs.close()
        os.close(writer)
        self._printed = Thread(target=_pass_on, args=(output, events), daemon=True)
        self._printed.start()
        Thread(target=self._hear, args=(events,), daemon=True).start()

    def _hear(self, events: SimpleQueue[Event]) -> None:
        while True:
            try:
                events.put(self._channel.recv())
            except (EOFError, OSError):
                break
        self._printed.join(1.0)  # its last words come before the news of its end
        events.put(Died())

    def cancel(self, grace_s: float) -> None:
        """Ask for the run's end; before it is recorded, for that of its beginning."""
        self._order(Cancel(grace_s))

    def leave(self) -> None:
        """Let it go on alone."""
        self._order(GoOn())

    def end_now(self) -> None:
        """Kill it; the Ray that it has started ends with it."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def join(self) -> None:
        """Wait until it has ended, and with it the Ray that it has started."""
        deadline = time.monotonic() + _EXIT_S
        while time.monotonic() < deadline:
            with suppress(ChildProcessError):
                if os.waitpid(self._pid, os.WNOHANG)[0] == 0:
                    time.sleep(0.02)
                    continue
            return

    def _order(self, order: Cancel | GoOn) -> None:
        with suppress(OSError):  # it has died, and `Died` tells so
            self._channel.send(order)


def _pass_on(output: int, events: SimpleQueue[Event]) -> None:
    with os.fdopen(output, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            events.put(Printed(line))


def _see_through(submit: Callable[[], Run], channel: Connection, output: int) -> int:
    """In the child: submit the run, take orders, and wait for its end."""
    os.setsid()
    signal.signal(signal.SIGHUP, lambda *_: None)
    _redirect(output)
    os.close(output)
    error = None
    try:
        run = submit()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: _cancel_soon(run))
        Thread(target=_obey, args=(channel, run), daemon=True).start()
        _tell(channel, Recorded(run.id))
        run.wait()
    except RaymlError as exc:
        error = exc
    _tell(channel, Ended(error))
    return exit_code(error)


def _tell(channel: Connection, event: Event) -> None:
    with suppress(OSError):  # the parent has gone, or has left us alone
        channel.send(event)


def _obey(channel: Connection, run: Run) -> None:
    while True:
        try:
            order = channel.recv()
        except (EOFError, OSError):
            _forget_terminal()
            _cancel(run, _ORPHAN_GRACE_S)
            return
        if isinstance(order, GoOn):
            _forget_terminal()
            return
        _cancel(run, order.grace_s)


def _cancel(run: Run, grace_s: float) -> None:
    try:
        run.cancel(grace_s)
    except RaymlError as exc:
        say(str(exc))


def _cancel_soon(run: Run) -> None:
    Thread(target=_cancel, args=(run, _TERM_GRACE_S), daemon=True).start()


def _forget_terminal() -> None:
    """Let go of the parent's output: who waits for its end must not wait for us."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    _redirect(nowhere)
    os.close(nowhere)


def _redirect(output: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nowhere, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(nowhere)
