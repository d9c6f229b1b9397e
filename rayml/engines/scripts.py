"""What a script's own process does for its engine: it is started as `python -m rayml.engines …`.

An engine that leads opens its session there, see `led`.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rayml.engines.led import open_given
from rayml.ranks import RankFailed

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def opened() -> Iterator[None]:
    """Open in this process what a script is to find; end it if that has failed."""
    from rayml import _ray  # noqa: PLC0415 - loads Ray

    _ray.connect(None)
    try:
        with open_given():
            yield
    except RankFailed as exc:
        sys.stderr.write(exc.problem.traceback)
        raise SystemExit(f"rayml: {exc.problem.message}") from exc
