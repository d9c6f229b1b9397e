"""Which packages rayml needs beyond those of a Ray image, and how they are fetched for one."""

from __future__ import annotations

import subprocess
from importlib import metadata
from typing import TYPE_CHECKING, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rayml.errors import ClusterUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

# A Ray image has them, in the versions that fit it.
_IMAGE_HAS: Final = frozenset({"pandas", "pyarrow", "ray", "uv"})
_FETCH_S: Final = 300.0


def lacking_packages(python: str) -> dict[str, str]:
    """Return what rayml needs and a Ray image lacks: names with the versions installed here.

    Args:
        python: For which minor version of Python, such as `3.11`.
    """
    ray = _closure("ray", {"default"}, python)
    needed = _closure("rayml", set(), python, _IMAGE_HAS | ray.keys())
    return {name: version for name, version in sorted(needed.items()) if name != "rayml"}


def fetch_packages(pins: Mapping[str, str], python: str, platform: str, folder: Path) -> None:
    """Install packages for another machine into a folder: from uv's cache, or over the net.

    Args:
        pins: Names with versions.
        python: A minor version.
        platform: As uv calls it, such as `x86_64-manylinux_2_28`.
        folder: An empty one.

    Raises:
        ClusterUnreachable: One of them cannot be had.
    """
    import uv  # noqa: PLC0415 - pods read this module's pins and lack uv

    words = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--link-mode", "copy"]
    words += ["--only-binary", ":all:", "--target", str(folder)]
    words += ["--python-version", python, "--python-platform", platform]
    words += [f"{name}=={version}" for name, version in pins.items()]
    done = subprocess.run([*words, "--offline"], check=False, capture_output=True)
    if done.returncode != 0:
        done = subprocess.run(words, check=False, capture_output=True, timeout=_FETCH_S)
    if done.returncode != 0:
        last = " ".join(done.stderr.decode(errors="replace").split())[-300:]
        raise ClusterUnreachable(
            f"what rayml needs cannot be fetched for Python {python} on {platform}: {last}; check "
            "uv's index, or use an image that has rayml"
        )


def _closure(
    name: str, extras: set[str], python: str, without: Iterable[str] = ()
) -> dict[str, str]:
    """Return a package and all that it needs, as installed here."""
    found: dict[str, str] = {}
    left_out = frozenset(without)
    waiting = [(name, frozenset(extras))]
    while waiting:
        package, chosen = waiting.pop()
        package = canonicalize_name(package)
        if package in left_out or package in found:
            continue
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # what only other platforms need
            continue
        needs = _needs(package, chosen, python)
        waiting += [(needed.name, frozenset(needed.extras)) for needed in needs]
    return found


def _needs(package: str, extras: frozenset[str], python: str) -> Iterator[Requirement]:
    there = {"python_version": python, "python_full_version": f"{python}.0"}
    there |= {"sys_platform": "linux", "platform_system": "Linux"}
    for text in metadata.requires(package) or ():
        needed = Requirement(text)
        wanted = [{**there, "extra": extra} for extra in (*extras, "")]
        if needed.marker is None or any(needed.marker.evaluate(one) for one in wanted):
            yield needed
