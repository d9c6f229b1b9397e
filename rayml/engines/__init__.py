"""The engines: one file each, all with the same things to offer.

- `MODULES`: what must be installed where the ranks run, and how each is called on PyPI.
- `REMEDY`: how it gets there.
- `run(settings, share, world_size, is_script, main)`: starts the ranks on the run's workers, calls
  `main(rank)` on each and returns what the first one returned; raises RankFailed for the rank
  whose failure ended them all.
- `prepare_script(settings, rank)`: what a rank's script finds in its process, see `scripts`.
- In place of both, where the function runs once and leads the workers: `open_session`, see `led`.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rayml.engine import Horovod, engine_name, has_ranks
from rayml.engines import led, scripts
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
    if not has_ranks(engine):
        return led.run(engine, spec.resources, share, main)
    is_script = spec.target.kind == "script"
    if is_script:
        main = partial(scripts.call, engine, main)
    outcome: bytes = _module(engine).run(engine, share, spec.resources.workers, is_script, main)
    return outcome


def check_installed(engine: Engine) -> None:
    """Check that what an engine needs is installed in this environment.

    Raises:
        SpecError: Something is missing; the message says how to get it.
    """
    module = _module(engine)
    missing = [name for wanted, name in module.MODULES.items() if find_spec(wanted) is None]
    if missing:
        raise SpecError(
            f"engine {engine_name(engine)} needs {' and '.join(missing)}, which is not installed "
            f"where the job runs; {module.REMEDY}"
        )


def is_lone_horovod(spec: Spec) -> bool:
    """Tell whether a job of several workers has called `hvd.init()` without the engine for it.

    With it, an elastic job may be alone for a while, rightly.
    """
    hvd = sys.modules.get("horovod.torch")
    is_alone = hvd is not None and hvd.is_initialized() and hvd.size() == 1
    is_meant = isinstance(spec.engine, Horovod) or spec.resources.workers == 1
    return is_alone and not is_meant


def _module(engine: Engine) -> ModuleType:
    return importlib.import_module(f"rayml.engines.{engine_name(engine)}")
