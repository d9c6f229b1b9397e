"""`rclone serve s3`: a real server that ignores If-None-Match and overwrites what is there."""

from __future__ import annotations

import socket
import subprocess
import sysconfig
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "rayml-tests"
READY_S = 30.0
STOP_S = 20.0

_KEY, _SECRET = "rayml-tests", "only-for-this-session"


@contextmanager
def rclone_server(folder: Path) -> Iterator[dict[str, str]]:
    """Run a server with one empty bucket; yield the environment variables that reach it."""
    (folder / BUCKET).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = _launch(folder, port)
    try:
        _wait(process, port)
        yield {
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
    finally:
        process.terminate()
        process.wait(STOP_S)


def _launch(folder: Path, port: int) -> subprocess.Popen[bytes]:
    binary = Path(sysconfig.get_path("scripts")) / "rclone"
    options = [f"--addr=127.0.0.1:{port}", f"--auth-key={_KEY},{_SECRET}", "--config="]
    return subprocess.Popen(
        [binary, "serve", "s3", folder, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"rclone did not start within {READY_S} s")
