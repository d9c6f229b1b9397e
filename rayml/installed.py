"""Which packages an attempt finds installed, as a list that pip and uv install again.

The list is kept once for each environment: a blob in the store, which `Started` names.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import msgspec
from packaging.requirements import InvalidRequirement, Requirement

from rayml.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rayml.store import Store

_Folders: TypeAlias = tuple[tuple[str, int], ...]
# The collection of what nobody names spares a blob for far longer: see `rayml.store.condemned`.
_RENEW_S = 3600.0
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?=$|[\s\[(<>=!~;@])")
# More are not looked at one by one.
_SHOWN = 8
CLUSTERS = ("ray", "rayml")
# How the line of a rayml begins that no index has.
OWN = "# rayml=="
_kept: dict[tuple[str, _Folders], tuple[float, str]] = {}
_keeping = threading.Lock()


class _Source(msgspec.Struct):
    """What `direct_url.json` says of a package that comes from no index (PEP 610)."""

    url: str
    vcs_info: dict[str, str] | None = None


def keep_installed(store: Store) -> str:
    """Store the list of what is installed for this process, unless it is; return its digest.

    Without an answer from the store it is empty: a run goes on without its list.
    """
    key = (store.uri, _folders())
    with _keeping, suppress(StoreError, OSError):
        stored_at, digest = _kept.get(key, (-_RENEW_S, ""))
        if time.monotonic() - stored_at >= _RENEW_S:
            digest = store.add(BytesIO(list_installed().encode())).digest
            _kept[key] = (time.monotonic(), digest)
        return digest
    return ""


def list_installed() -> str:
    """Return one line for each distribution on this process's search path, by name.

    One that was installed from a folder of its machine is a comment, as it is nowhere else.
    """
    found: dict[str, str] = {}
    for folder, _ in _folders():
        for name, line in _distributions(folder):
            found.setdefault(name, line)  # Python takes the first one, too
    return "".join(f"{found[name]}\n" for name in sorted(found))


def exact_requirements(packages: str, old: Sequence[str], new: Sequence[str]) -> list[str]:
    r"""Return requirements that install again what a list of `list_installed` says.

    Ray and rayml are left out: they are the cluster's.

    Args:
        packages: That list.
        old: What had been required; what the list does not name of it, such as a path, stays.
        new: What counts more than the list.

    >>> listed = "b==1\nc==1\nray==2.60.0\n# mine==1 was installed from file:///mine\n"
    >>> exact_requirements(listed, ["B>=1", "./mine"], ["C>=2"])
    ['./mine', 'C>=2', 'b==1']
    """
    lines = {_name(line): line for line in packages.splitlines() if not line.startswith("#")}
    rest = [requirement for requirement in old if _name(requirement) not in lines]
    left_out = {*CLUSTERS, *map(_name, new)}
    return [*rest, *new, *(line for name, line in lines.items() if name not in left_out)]


def requirements_text(requirements: Sequence[str]) -> str:
    """Return requirements in one line; of a whole environment, how many there are.

    >>> requirements_text(["a==1", "b"]), requirements_text(["a"] * 100)
    ('a==1, b', '100 packages')
    """
    few = len(requirements) <= _SHOWN
    return ", ".join(requirements) if few else f"{len(requirements)} packages"


def split_held(requirements: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return which requirements are to be installed, and which this process has to the letter.

    Those that what is installed meets otherwise are neither.
    """
    here = set(list_installed().splitlines())
    held = [r for r in requirements if r in here]
    return [r for r in requirements if r not in here and not is_met(r)], held


def is_met(requirement: str) -> bool:
    """Tell whether what is installed here meets a requirement, its extras included.

    A path or URL is none that could tell. The build of a package for all machines is as good as
    that for CPUs alone, which has a name of its own.

    >>> is_met("msgspec>=0.1"), is_met("msgspec>=999"), is_met("ray[default]"), is_met("./mine")
    (True, False, True, False)
    """
    try:
        wanted = Requirement(requirement)
    except InvalidRequirement:
        return False
    if wanted.url is not None:
        return False
    if wanted.marker is not None and not wanted.marker.evaluate():
        return True
    found = _installed_version(wanted.name)
    if found is None or not wanted.specifier.contains(found, prereleases=True):
        return False
    return all(
        is_met(needed) for extra in wanted.extras for needed in read_extra(wanted.name, extra)
    )


def _installed_version(name: str) -> str | None:
    for each in (name, name.removesuffix("-cpu")):
        with suppress(PackageNotFoundError):
            return version(each)
    return None


def read_extra(name: str, extra: str) -> Iterator[str]:
    """Yield what an extra of an installed package needs."""
    for text in requires(name) or ():
        needed = Requirement(text)
        if needed.marker is not None and needed.marker.evaluate({"extra": extra}):
            if needed.marker.evaluate({"extra": ""}):
                continue  # the package itself needs it
            needed.marker = None
            yield str(needed)


def _name(requirement: str) -> str:
    """Return whose requirement it is, as packages are compared by name; empty for a path."""
    found = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def _folders() -> _Folders:
    """Return the search path, with the times at which something was installed there."""
    found = {}
    for folder in sys.path:
        with suppress(OSError):
            found[folder] = os.stat(folder or ".").st_mtime_ns  # noqa: PTH116 - on the way of each run
    return tuple(found.items())


def _distributions(folder: str) -> Iterator[tuple[str, str]]:
    """Yield name and line; both are in the name of the folder, which saves reading hundreds."""
    with suppress(OSError), os.scandir(folder or ".") as entries:
        for entry in entries:
            if entry.name.endswith(".dist-info"):
                name, _, version = entry.name.removesuffix(".dist-info").partition("-")
                name = name.replace("_", "-").lower()
                yield name, _line(name, version, Path(entry.path, "direct_url.json"))


def _line(name: str, version: str, source: Path) -> str:
    try:
        found = msgspec.json.decode(source.read_bytes(), type=_Source)
    except OSError:
        return f"{name}=={version}"
    except msgspec.DecodeError:
        return f"# {name}=={version} comes from somewhere else"
    url = urlsplit(found.url)
    bare = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()  # without a password
    if url.scheme == "file":
        return f"# {name}=={version} was installed from {bare}"
    if (vcs := found.vcs_info) is not None:
        return f"{name} @ {vcs.get('vcs', 'git')}+{bare}@{vcs.get('commit_id', '')}"
    return f"{name} @ {bare}"
