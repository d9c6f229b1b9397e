"""What an attempt's process is started with: variables, and packages that uv installs for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rayml import _ray
from rayml.code import unpacked_folder
from rayml.engine import has_ranks
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rayml.spec import Spec


def runtime_env(spec: Spec, code: str | None, explain: Callable[[str], None]) -> dict[str, object]:
    """Return a job's Ray runtime environment.

    Args:
        spec: The job.
        code: Digest of the packed folder that it runs in, if that came from another machine.
        explain: Is told what takes its time.

    Raises:
        SpecError: Its requirements cannot be installed; with uv's own words.
    """
    environment: dict[str, object] = {}
    variables = dict(spec.env)
    if spec.engine is not None and not has_ranks(spec.engine):
        variables["PYTHONPATH"] = _search_path(spec, code)
    if variables:
        environment["env_vars"] = variables
    if spec.requirements:
        explain(f"installing {', '.join(spec.requirements)}")
        environment["py_executable"] = _install(spec.requirements)
    return environment


def _search_path(spec: Spec, code: str | None) -> str:
    """Return where workers that execute parts of a function find its modules."""
    installed = (sys.prefix, sys.base_prefix)
    own = [folder for folder in sys.path if folder and not folder.startswith(installed)]
    root = Path(spec.working_dir or Path.cwd()) if code is None else unpacked_folder(code)
    beside = [(root / spec.target.file).parent] if spec.target.file else []
    folders = [*map(str, [*beside, root]), *(own if code is None else [])]
    given = spec.env.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    return os.pathsep.join(dict.fromkeys([*folders, *given.split(os.pathsep)])).strip(os.pathsep)


def _install(requirements: list[str]) -> str:
    """Let uv prepare the packages once, so that a mistake in them is one clear error."""
    try:
        words = _ray.uv_executable(requirements)
    except FileNotFoundError as exc:
        raise SpecError(
            "its requirements cannot be installed: there is no uv where the job's driver runs; "
            "use an image that has uv, or one that has the packages"
        ) from exc
    done = subprocess.run(
        [*words, "-c", ""],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise SpecError(f"its requirements cannot be installed: {done.stderr.strip()}")
    return " ".join(map(_ray.quote, words))
