"""A real MLflow server on the loopback interface, which ends with its test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_S = 120.0


@contextmanager
def mlflow_server(backend: str, folder: Path, workers: int = 2) -> Iterator[str]:
    """Serve a backend store from a process group of its own; yield the server's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["server", "--backend-store-uri", backend, "--host", "127.0.0.1", "--port", str(port)]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, "--workers", str(workers)],
            cwd=folder,
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _await_health(url, process, log)
        yield url
    finally:
        _end(process)


def read(url: str) -> bytes:
    """Return what a server of ours answers."""
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - our own server
        return bytes(answer.read())


def _await_health(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            read(f"{url}/health")
        except (urllib.error.URLError, TimeoutError):
            told = log.read_text(errors="replace")[-4000:]
            assert process.poll() is None, told
            assert time.monotonic() < deadline, told
            time.sleep(0.2)
        else:
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
