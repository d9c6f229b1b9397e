"""What an attempt's process is started with: variables, and packages that uv installs for it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from rayml import _ray
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rayml.spec import Spec


def runtime_env(spec: Spec, explain: Callable[[str], None]) -> dict[str, object]:
    """Return a job's Ray runtime environment.

    Args:
        spec: The job.
        explain: Is told what takes its time.

    Raises:
        SpecError: Its requirements cannot be installed; with uv's own words.
    """
    environment: dict[str, object] = {}
    if spec.env:
        environment["env_vars"] = spec.env
    if spec.requirements:
        explain(f"installing {', '.join(spec.requirements)}")
        environment["py_executable"] = _install(spec.requirements)
    return environment


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
