"""Builds Horovod for the PyTorch of this environment: `python -m rayml.engines.horovod_setup`.

Its source distribution needs PyTorch to be there, settings, a newer C++ than it asks for and an
older CMake than there is. A checkout of rayml has the same in its `pyproject.toml` and `Makefile`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from uv import find_uv_bin

HOROVOD = "horovod==0.28.1"
COMPILER = Path(__file__).with_name("c++20")
TORCH = "torch>=2.13"
_TOOLS = (
    *("setuptools<81", "wheel", "packaging", "cffi"),
    *("cmake<4", "cloudpickle", "psutil", "pyyaml"),
)
SETTINGS = {
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_WITHOUT_MPI": "1",
    "HOROVOD_WITH_PYTORCH": "1",
    "HOROVOD_WITHOUT_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
}


def missing_programs() -> list[str]:
    """Return what the build needs that Python's package index does not have."""
    return [name for name in ("g++", "make") if shutil.which(name) is None]


def main() -> int:
    """Install PyTorch, what the build needs, and Horovod; return the exit code."""
    if missing := missing_programs():
        names = " and ".join(missing)
        print(f"{names} not found; on Debian: apt install g++ make", file=sys.stderr)  # noqa: T201 - a command of its own
        return 1
    with tempfile.TemporaryDirectory() as folder:
        # A package need not keep that one of its files can be executed.
        compiler = shutil.copy(COMPILER, folder)
        Path(compiler).chmod(0o755)
        return _install(compiler)


def _install(compiler: str) -> int:
    paths = [sysconfig.get_path("scripts"), os.environ.get("PATH", "")]
    built_with = {"CXX": compiler, "PATH": os.pathsep.join(paths)}
    environment = {**os.environ, **SETTINGS, **built_with}
    install = [find_uv_bin(), "pip", "install", "--python", sys.executable]
    for words in (
        [TORCH, *_TOOLS],
        ["--no-build-isolation", "--reinstall-package=horovod", HOROVOD],
    ):
        if code := subprocess.run([*install, *words], env=environment, check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
