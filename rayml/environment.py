"""What an attempt's process is started with: variables, and packages that uv installs for it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rayml import _ray
from rayml.code import unpacked_folder
from rayml.engine import has_ranks
from rayml.errors import SpecError
from rayml.installed import CLUSTERS, requirements_text, split_held

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
    if requirements := _wanted(spec):
        explain(f"installing {requirements_text(requirements)}")
        environment["py_executable"] = _install(requirements)
    return environment


def _wanted(spec: Spec) -> list[str]:
    """Return what is to be installed on top of the environment: what that does not meet.

    A list of a whole environment names what is here already. That is not installed again, which
    would take minutes and shadow Ray; it only says of which versions all else is. An image of the
    job's own has other packages than this process.

    Raises:
        SpecError: There is nothing that meets the requirements.
    """
    if spec.image is not None:
        return spec.requirements
    missing, held = split_held(spec.requirements)
    return _with_needs(missing, held) if missing and held else missing


def _with_needs(missing: list[str], held: list[str]) -> list[str]:
    """Return requirements with all that they need: the cluster's own, and held, as it is here."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        fixed = [line for line in held if "==" in line]
        own = [f"{name}=={version(name)}" for name in CLUSTERS]
        constraints.write("\n".join([*fixed, *own]))
        constraints.flush()
        words = _found(lambda: _ray.uv_compiler(constraints.name))
        lines = _call(words, "\n".join(missing))
    return [line for line in lines.splitlines() if line and not line.startswith("#")]


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
    words = _found(lambda: _ray.uv_executable(requirements))
    _call([*words, "-c", ""])
    return " ".join(map(_ray.quote, words))


def _found(find: Callable[[], list[str]]) -> list[str]:
    try:
        return find()
    except FileNotFoundError as exc:
        raise SpecError(
            "its requirements cannot be installed: there is no uv where the job's driver runs; "
            "use an image that has uv, or one that has the packages"
        ) from exc


def _call(words: list[str], given: str = "") -> str:
    """Return what uv prints.

    Raises:
        SpecError: It fails; with its own words.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False, input=given)
    if done.returncode != 0:
        raise SpecError(f"its requirements cannot be installed: {done.stderr.strip()}")
    return done.stdout
