"""rayml for pods of a stock Ray image: its own code and the packages that such images lack.

A bundle is one archive, made for a Python version and a machine. It goes into ConfigMaps, which
each pod mounts; `rayml.cluster.code` has the other end. Equal input gives equal bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import platform
import re
import sys
import tarfile
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rayml
from rayml.cluster.code import CODE_FOLDER, COMMAND_FOLDER, HOOK, HOOK_FILE, HOOK_FOLDER, Code
from rayml.cluster.packages import fetch_packages, lacking_packages
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FORMAT: Final = "3"
# Kubernetes takes 1 MiB for a ConfigMap in all, base64 not counted.
PART_BYTES: Final = 900_000
_PLATFORMS: Final = {
    "amd64": "x86_64-manylinux_2_28",
    "arm64": "aarch64-manylinux_2_28",
}
_ARCHES: Final = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
# What installers write about an installation, which this is not.
_LEFT_OUT: Final = frozenset({".lock", "INSTALLER", "RECORD", "REQUESTED", "direct_url.json"})
# A third of all files are pygments' languages, and every pod unpacks what is here: Python's do.
_LEXERS: Final = "pygments/lexers/"
_KEPT_LEXERS: Final = frozenset({"__init__.py", "_mapping.py", "python.py", "special.py"})
_TAG_PYTHON: Final = re.compile(r"(?<![a-z0-9])py3(\d{1,2})(?![0-9])")


@dataclass(frozen=True)
class Machine:
    """What a bundle is made for.

    Attributes:
        python: A minor version, such as `3.11`.
        arch: `amd64` or `arm64`, as Kubernetes says.
    """

    python: str
    arch: str = "amd64"

    def __post_init__(self) -> None:
        if self.arch not in _PLATFORMS:
            known = " or ".join(_PLATFORMS)
            raise SpecError(f"arch={self.arch!r} is no machine that rayml runs on; say {known}")
        if not re.fullmatch(r"3\.\d{1,2}", self.python):
            raise SpecError(f"python={self.python!r} is no version; write it as '3.11'")

    def __str__(self) -> str:
        return f"Python {self.python} on {self.arch}"


@dataclass(frozen=True)
class Bundle:
    """An archive that gives rayml to pods.

    Attributes:
        code: What it is called in a cluster.
        data: The archive: tar, compressed by gzip.
    """

    code: Code
    data: bytes

    @classmethod
    def of(cls, data: bytes) -> Bundle:
        """Return the bundle that has this data."""
        digest = hashlib.sha256(data).hexdigest()[:12]
        return cls(Code(digest, math.ceil(len(data) / PART_BYTES)), data)

    def as_package(self) -> bytes:
        """Return its code as a zip file, which Ray takes as a job's `py_modules`."""
        packed = io.BytesIO()
        with (
            tarfile.open(fileobj=io.BytesIO(self.data), mode="r:gz") as members,
            zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as package,
        ):
            for member in members:
                name = member.name.removeprefix(f"{CODE_FOLDER}/")
                file = members.extractfile(member)
                if name != member.name and file is not None:
                    package.writestr(zipfile.ZipInfo(name), file.read())
        return packed.getvalue()

    @property
    def parts(self) -> list[bytes]:
        """The data in pieces that fit into a ConfigMap each."""
        return [self.data[at : at + PART_BYTES] for at in range(0, len(self.data), PART_BYTES)]


def machine_of(image: str, arch: str | None = None) -> Machine:
    """Return for what an image is made, as far as its tag says; else it is as this process.

    >>> machine_of("rayproject/ray:2.60.0-py312-aarch64")
    Machine(python='3.12', arch='arm64')
    >>> machine_of("registry:5000/own/py39:2.1-py311-gpu", "amd64").python
    '3.11'
    """
    tag = image.rpartition("/")[2].partition(":")[2]
    found = _TAG_PYTHON.search(tag)
    python = f"3.{found[1]}" if found else f"3.{sys.version_info.minor}"
    return Machine(python, arch or ("arm64" if "aarch64" in tag or "arm64" in tag else "amd64"))


def this_machine() -> Machine:
    """Return for what this process itself is made."""
    arch = _ARCHES.get(platform.machine(), "amd64")
    return Machine(f"{sys.version_info.major}.{sys.version_info.minor}", arch)


def make_bundle(machine: Machine) -> Bundle:
    """Return the bundle for a machine; packages are fetched once and then kept in a cache.

    They come in the versions that are installed here, by uv from wherever it is set up to fetch.

    Raises:
        ClusterUnreachable: A package cannot be fetched for that machine.
    """
    pins = lacking_packages(machine.python)
    # Two members of gzip make one: the packages, which stay, and rayml's own code, which changes.
    return Bundle.of(_packages(pins, machine) + _compress(_own_files(), is_end=True))


def _packages(pins: Mapping[str, str], machine: Machine) -> bytes:
    key = hashlib.sha256(f"{_FORMAT} {machine} {sorted(pins.items())}".encode()).hexdigest()
    path = _cache_folder() / f"{key[:32]}.tar.gz"
    with suppress(OSError):
        return path.read_bytes()
    with tempfile.TemporaryDirectory(prefix="rayml-bundle-") as folder:
        fetch_packages(pins, machine.python, _PLATFORMS[machine.arch], Path(folder))
        found = {f"{CODE_FOLDER}/{name}": data for name, data in _files(Path(folder))}
    data = _compress(found)
    _keep(path, data)
    return data


def _own_files() -> dict[str, bytes]:
    """Return rayml's modules, what importlib.metadata reads about it, its command, the hook."""
    folder = Path(rayml.__file__).parent
    found = {
        f"{CODE_FOLDER}/rayml/{name}": data
        for name, data in _files(folder)  # `rayml/cluster` and `rayml/hub` may be links
        if name.endswith((".py", "py.typed"))
    }
    version = metadata.version("rayml")
    lines = ["Metadata-Version: 2.1", "Name: rayml", f"Version: {version}"]
    lines += [f"Requires-Dist: {text}" for text in metadata.requires("rayml") or ()]
    about = f"{CODE_FOLDER}/rayml-{version}.dist-info/METADATA"
    found[about] = "\n".join([*lines, ""]).encode()
    found[f"{HOOK_FOLDER}/{HOOK_FILE}"] = HOOK.encode()
    found[f"{COMMAND_FOLDER}/rayml"] = b'#!/bin/sh\nexec python3 -m rayml.cli "$@"\n'
    return found


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a folder that Python may want."""
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if name not in {"__pycache__", "bin"})
        for name in sorted(names):
            path = (Path(where) / name).relative_to(folder).as_posix()
            if _is_needed(path, name):
                yield path, (folder / path).read_bytes()


def _is_needed(path: str, name: str) -> bool:
    if name in _LEFT_OUT or name.endswith((".pyc", ".pyi")) or "/sboms/" in path:
        return False
    return not path.startswith(_LEXERS) or name in _KEPT_LEXERS


def _compress(files: Mapping[str, bytes], *, is_end: bool = False) -> bytes:
    """Return (the end of) an archive without times, owners and other accidents."""
    plain = io.BytesIO()
    for name, data in sorted(files.items()):
        member = tarfile.TarInfo(name)
        member.size = len(data)
        is_run = ".so" in Path(name).suffixes or name.startswith(f"{COMMAND_FOLDER}/")
        member.mode = 0o755 if is_run else 0o644
        plain.write(member.tobuf(tarfile.USTAR_FORMAT))
        plain.write(data + b"\0" * (-len(data) % tarfile.BLOCKSIZE))
    plain.write(b"\0" * 2 * tarfile.BLOCKSIZE if is_end else b"")
    return gzip.compress(plain.getvalue(), compresslevel=6, mtime=0)


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "rayml" / "bundles"


def _keep(path: Path, data: bytes) -> None:
    """Keep what was fetched for the next time; who may write no cache does without."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(data)
        Path(file.name).replace(path)
