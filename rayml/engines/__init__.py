"""The engines: one file each, all with the same two things to offer.

- `MODULES`: what must be installed where the ranks run, and how each is called on PyPI.
- `run(settings, share, world_size, is_script, main)`: starts the ranks on the run's workers, calls
  `main(rank)` on each and returns what the first one returned; raises RankFailed for the rank
  whose failure ended them all.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rayml.engine import engine_name
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from rayml.engine import Engine
    from rayml.ranks import Rank
    from rayml.spec import Spec


def run(
    engine: Engine, spec: Spec, share: Mapping[str, float], main: Callable[[Rank], bytes]
) -> bytes:
    """Run a job's ranks to their end; return what the first one returned.

    Args:
        engine: The job's.
        spec: The job.
        share: What each rank takes of its worker, under Ray's names.
        main: What each rank calls; it raises RankFailed if it has failed.

    Raises:
        RankFailed: What that one did has ended all others.
        SpecError: Something that the engine needs is not installed here.
    """
    check_installed(engine)
    is_script = spec.target.kind == "script"
    outcome: bytes = _module(engine).run(engine, share, spec.world_size, is_script, main)
    return outcome


def check_installed(engine: Engine) -> None:
    """Check that what an engine needs is installed in this environment.

    Raises:
        SpecError: Something is missing; the message says how to get it.
    """
    needed = _module(engine).MODULES
    if missing := [package for module, package in needed.items() if find_spec(module) is None]:
        name = engine_name(engine)
        raise SpecError(
            f"engine {name} needs {' and '.join(missing)}, which is not installed where the job "
            f"runs; install 'rayml[{name}]' there, or give requirements={missing!r} or an image"
        )


def _module(engine: Engine) -> ModuleType:
    return importlib.import_module(f"rayml.engines.{engine_name(engine)}")
