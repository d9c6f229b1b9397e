"""Images of containers: folders of programs on this machine."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.kube.building import cache_folder, locked

if TYPE_CHECKING:
    from collections.abc import Mapping

INSTALL_S = 900
# With all that is installed here, rayml and its engines too.
FULL_IMAGE = (
    f"rayml-tests/full:{importlib.metadata.version('ray')}"
    f"-py{sys.version_info.major}{sys.version_info.minor}"
)

_HIDDEN = (Path("/tmp"), Path("/var/tmp"), Path("/home/ray"))  # noqa: S108 - a container has its own


def image_config(path: Path, pull_s: float, env: Mapping[str, str]) -> dict[str, Any]:
    """What the kubelet has to know of an image whose programs are in `path`."""
    needed = [path.parent if path.name == "bin" else path]
    if (path / "python").exists():
        needed.append((path / "python").resolve().parent.parent)
    hidden = {str(one) for one in needed if any(one.is_relative_to(other) for other in _HIDDEN)}
    return {"path": str(path), "pullS": pull_s, "env": dict(env), "folders": sorted(hidden)}


def ray_image() -> tuple[str, Path]:
    """The stock Ray image: its name, and its folder of programs, made once for each user.

    It holds Ray of the version that is installed here, with the parts that KubeRay's images have,
    and nothing of ours.
    """
    ray = importlib.metadata.version("ray")
    python = f"{sys.version_info.major}{sys.version_info.minor}"
    name = f"rayproject/ray:{ray}-py{python}"
    cache = cache_folder()
    target = cache / f"ray-{ray}-py{python}"
    with locked(cache / "ray-image.lock"):
        if not (target / "finished").exists():
            shutil.rmtree(target, ignore_errors=True)
            _install(target, ray)
            (target / "finished").touch()
    return name, target / "bin"


def _install(target: Path, ray: str) -> None:
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    _run(uv, "venv", "--quiet", "--python", sys.executable, target)
    _run(
        *(uv, "pip", "install", "--quiet", "--python", target / "bin" / "python"),
        "--compile-bytecode",  # containers see it read-only: each process would compile it anew
        f"ray[default,data]=={ray}",
    )


def _run(*words: object) -> None:
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        check=False,
        text=True,
        timeout=INSTALL_S,
    )
    if done.returncode:
        raise RuntimeError(f"the Ray image could not be made: {done.stderr[-2000:]}")
