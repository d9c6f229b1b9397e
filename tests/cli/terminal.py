"""`rayml` as a user starts it: in a pipe, or on a terminal of its own."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
START_S = 120.0  # until a run on a Ray of its own has begun, on two busy cores
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
_TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests themselves run under
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def command(words: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "rayml.cli", *map(str, words)]


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """A user's environment, without what this session of tests has set."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "RAYML_"))}
    own |= {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
    own["RAY_worker_niceness"] = "0"  # or jobs wait for all others on a busy machine
    return {**own, **(variables or {})}


def call(
    *words: object, cwd: Path, env: Mapping[str, str] | None = None, timeout_s: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a pipe."""
    return subprocess.run(
        command(words),
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout_s,
        check=False,
    )


@contextmanager
def started(
    *words: object, cwd: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a pipe, to which its stderr goes as well; it ends with the block."""
    with subprocess.Popen(
        command(words),
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


class Terminal:
    """A command on a pseudo-terminal that nobody but the test looks at."""

    def __init__(self, *words: object, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self._master, slave = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *command(words)],
            cwd=cwd,
            env=environment({"COLUMNS": "100", "LINES": "30", **(env or {})}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._seen = b""
        self._position = 0

    @property
    def text(self) -> str:
        """All that was shown, without colours and cursor movements."""
        return _CONTROL.sub("", self._seen.decode(errors="replace"))

    def expect(self, pattern: str, timeout_s: float = START_S) -> re.Match[str]:
        """Wait until this was shown after what was expected last."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = re.compile(pattern).search(self.text, self._position)
            if found:
                self._position = found.end()
                return found
            assert self._read(deadline - time.monotonic()), f"no {pattern!r} in:\n{self.text}"

    def type(self, text: str) -> None:
        """Type on its keyboard."""
        os.write(self._master, text.encode())

    def wait(self, timeout_s: float = START_S) -> int:
        """Read what is left to be shown, and return the exit code."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(timeout=max(1.0, deadline - time.monotonic()))

    def hang_up(self) -> None:
        """Close the window."""
        if self._master >= 0:
            os.close(self._master)
        self._master = -1

    def close(self) -> None:
        """Leave no process and no terminal behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.hang_up()

    def _read(self, timeout_s: float) -> bool:
        """Read a piece; False when the terminal is closed or the time is up."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, timeout_s))
        data = b""
        with suppress(OSError):  # EIO: its last process has gone
            data = os.read(self._master, 65536) if ready else b""
        self._seen += data
        return bool(data)


def end(pid: int) -> None:
    """Kill a process that a test has started, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
