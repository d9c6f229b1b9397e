"""A Ray cluster of one node, as a user starts it: `ray start --head` with its token left on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """Where it is: its Jobs API and its control service, and how it was started."""

    jobs: str
    gcs: str
    env: dict[str, str]
    temp: Path


@contextmanager
def started_head(write: Callable[[Head], list[str]] = lambda _: [], **env: str) -> Iterator[Head]:
    """Start one, which has ended after the block, with all that it has started.

    Args:
        write: Returns further words of `ray start`; it may put what they need into `temp`.
        env: More of its environment.
    """
    # Short, because Ray makes sockets below it whose paths may have 107 characters.
    temp = Path(tempfile.mkdtemp(prefix="rh", dir="/tmp"))
    port, dashboard = free_port(), free_port()
    own = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "RAYML_"))}
    own |= {"PATH": f"{BIN}:{own['PATH']}", "RAY_TMPDIR": str(temp), "RAY_worker_niceness": "0"}
    head = Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}", own | env, temp)
    words = [str(BIN / "ray"), "start", "--head", "--disable-usage-stats", f"--port={port}"]
    words += [f"--dashboard-port={dashboard}", f"--temp-dir={temp}", *write(head)]
    # Two heads on one machine would both want the default.
    words += [f"--dashboard-agent-listen-port={free_port()}"]
    try:  # one that does not start in time leaves processes too
        subprocess.run(words, env=head.env, check=True, capture_output=True, cwd=temp)
        yield head
    finally:
        _end_all_below(temp)


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_all_below(temp: Path) -> None:
    """End the processes that were started for a head: they all name its folder."""
    ours = [p for p in psutil.process_iter(["cmdline", "environ"]) if _names(p, str(temp))]
    for process in ours:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(ours, timeout=10)


def _names(process: psutil.Process, folder: str) -> bool:
    environment = (process.info["environ"] or {}).get("RAY_TMPDIR", "")
    in_words = any(folder in word for word in process.info["cmdline"] or ())
    return process.pid != os.getpid() and (environment == folder or in_words)
