"""What a job prints: captured whole, kept in the store in parts, readable while it is written.

Both output streams of the process are pointed at a private file, so that output of C code and of
child processes is caught too, and nothing is lost when the process is killed: whoever finds the
file later stores the rest of it.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rayml.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rayml.redaction import Redactor
    from rayml.store import Store

_FIRST_INTERVAL_S = 0.25
_LAST_INTERVAL_S = 5.0
_PART_BYTES = 4 * 1024 * 1024


def capture_path(run: str, attempt: int, rank: int = 0) -> Path:
    """Return the file that catches what a rank of an attempt prints, on its machine."""
    folder = Path(tempfile.gettempdir()) / f"rayml-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{run}-{attempt}-{rank}.out"


class LogShipper:
    """Moves a capture file's bytes to the store, in order, without secrets.

    What is in the store already is not stored again: a second shipper goes on where the first was
    killed.
    """

    def __init__(
        self, store: Store, run: str, attempt: int, redactor: Redactor, rank: int = 0
    ) -> None:
        self._store = store
        self._folder = f"{_folder(run, rank)}{attempt:04d}/"
        self._redactor = redactor
        self._path = capture_path(run, attempt, rank)
        self._mark = self._path.with_suffix(".mark")
        self._position, self._part, self._count = self._read_mark()

    def ship(self, *, is_last: bool) -> bool:
        """Store what was printed since the last call, and tell whether there was anything.

        Args:
            is_last: Nothing more will come; store the rest even if it may be half a secret.

        Raises:
            StoreError: The store refused; the next call tries the same bytes again.
        """
        data = self._next(is_last=is_last)
        if not data:
            return False
        # The mark goes first: whoever tries again, here or in another process, sends the same
        # bytes under the same name, whether or not they arrived the first time.
        self._count = len(data)
        self._write_mark()
        text = self._redactor.redact(data)
        while not self._store.create(self._key, text) and self._store.get(self._key) != text:
            self._part += 1  # by this rank, when it was on another machine
        self._position, self._part, self._count = self._position + len(data), self._part + 1, 0
        return True

    def remove(self) -> None:
        """Delete the capture file; call it when all of it is in the store."""
        self._path.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)

    def _next(self, *, is_last: bool) -> bytes:
        data = self._read()
        if self._count:
            return data[: self._count]
        if is_last and len(data) < _PART_BYTES:
            return data
        return data[: len(data) - self._redactor.held_back(data)]

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                return file.read(_PART_BYTES)
        except FileNotFoundError:
            return b""

    @property
    def _key(self) -> str:
        return f"{self._folder}{self._part:08d}.log"

    def _read_mark(self) -> tuple[int, int, int]:
        try:
            position, part, count = map(int, self._mark.read_text().split())
        except (FileNotFoundError, ValueError):
            return 0, 0, 0
        return position, part, count

    def _write_mark(self) -> None:
        staged = self._mark.with_suffix(".staged")
        staged.write_text(f"{self._position} {self._part} {self._count}")
        staged.replace(self._mark)


def _folder(run: str, rank: int) -> str:
    return f"logs/{run}/{rank:05d}/"


def ship_rest(store: Store, run: str, attempt: int, redactor: Redactor, rank: int = 0) -> None:
    """Store what a process printed before it died, and delete its capture file.

    Raises:
        StoreError: The store refused.
    """
    shipper = LogShipper(store, run, attempt, redactor, rank)
    while shipper.ship(is_last=True):
        pass
    shipper.remove()


@contextmanager
def output_to(descriptor: int) -> Iterator[None]:
    """Point this process's output at an open file, that of C code and of children too."""
    streams, saved = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
    _flush(*streams)
    for number in (1, 2):
        os.dup2(descriptor, number)
    sys.stdout, sys.stderr = _text_stream(1), _text_stream(2)
    try:
        yield
    finally:
        _flush(sys.stdout, sys.stderr)
        sys.stdout, sys.stderr = streams
        for number, before in zip((1, 2), saved, strict=True):
            os.dup2(before, number)
            os.close(before)


class Capture:
    """Points this process's output at the capture file while a job runs, and ships it."""

    def __init__(self, shipper: LogShipper, path: Path) -> None:
        self._shipper = shipper
        self._path = path
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ship_all, name="rayml-logs", daemon=True)

    def start(self) -> None:
        """Begin to catch what is printed."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        self._pointed = ExitStack()
        self._pointed.enter_context(output_to(descriptor))
        os.close(descriptor)
        self._thread.start()

    def stop(self) -> None:
        """Point the output back where it went before."""
        self._pointed.close()

    def finish(self) -> None:
        """Return once everything that was caught is in the store.

        Raises:
            StoreError: The store refused.
        """
        self._ended.set()
        self._thread.join()
        while self._shipper.ship(is_last=True):
            pass
        self._shipper.remove()

    def _ship_all(self) -> None:
        started, interval_s = time.monotonic(), _FIRST_INTERVAL_S
        while not self._ended.wait(interval_s):
            try:
                self._shipper.ship(is_last=False)
            except StoreError:
                continue  # the bytes stay in the file; `finish` raises if the store stays away
            # A long run prints for days: fewer, larger parts as it grows older.
            interval_s = min(_LAST_INTERVAL_S, max(interval_s, (time.monotonic() - started) / 120))


def _text_stream(descriptor: int) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )


def _flush(*streams: TextIO) -> None:
    for stream in streams:
        # A job may have closed its output, or put None or its own object in its place.
        with suppress(AttributeError, ValueError):
            stream.flush()


class LogReader:
    """Reads what a run's ranks have printed from the store, and remembers how far it came.

    A rank's output comes attempt by attempt; with several ranks each line says whose it is.
    """

    def __init__(self, store: Store, run: str, ranks: Sequence[int] = (0,)) -> None:
        self._ranks = [
            _RankReader(store, _folder(run, rank), f"[rank {rank}] " if len(ranks) > 1 else "")
            for rank in ranks
        ]

    def read(self, *, is_last: bool = False) -> str:
        """Return what was stored since the last call; a character is never cut in two.

        Args:
            is_last: Nothing more will come; with several ranks a line without an end waits for it.
        """
        return "".join(rank.read(is_last=is_last) for rank in self._ranks)


class _RankReader:
    def __init__(self, store: Store, folder: str, label: str) -> None:
        self._store = store
        self._folder = folder
        self._label = label
        self._last = self._rest = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self, *, is_last: bool) -> str:
        text = []
        for key in self._store.list(self._folder, after=self._last):
            text.append(self._decoder.decode(self._store.get(key)))
            self._last = key
        return self._labelled("".join(text), is_last) if self._label else "".join(text)

    def _labelled(self, text: str, is_last: bool) -> str:  # noqa: FBT001 - of the method above
        *lines, self._rest = (self._rest + text).split("\n")
        if is_last and self._rest:
            lines, self._rest = [*lines, self._rest], ""
        return "".join(f"{self._label}{line}\n" for line in lines)


def follow(
    read: Callable[[bool], str], is_over: Callable[[], bool], interval_s: float
) -> Iterator[str]:
    """Yield complete lines as they come, with their ends, until the run is over.

    Args:
        read: Returns what is new; it is told whether this is the last time.
        is_over: Tells whether nothing more will come.
        interval_s: Seconds between two looks.
    """
    rest = ""
    while True:
        over = is_over()
        *lines, rest = (rest + read(over)).splitlines(keepends=True) or [""]
        if rest.endswith("\n"):
            lines, rest = [*lines, rest], ""
        yield from lines
        if over:
            break
        time.sleep(interval_s)
    if rest:
        yield rest
