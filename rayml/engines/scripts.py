"""What a script's own process does for its engine: it is started as `python -m rayml.engines …`.

An engine that leads opens its session there, see `led`. Each of the others has one thing more to
offer than `rayml.engines` says: `prepare_script(settings, rank)`, called before the script begins.
"""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from rayml.engine import Engine, engine_name
from rayml.engines.led import is_given, open_given
from rayml.ranks import RankFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rayml.ranks import Rank

# Tells the process what to prepare, as JSON.
_VARIABLE = "RAYML_SCRIPT"


class _Member(msgspec.Struct, frozen=True, kw_only=True):
    engine: Engine
    rank: int


def call(engine: Engine, main: Callable[[Rank], bytes], rank: Rank) -> bytes:
    """Call what starts a rank's script, whose process is told what to prepare."""
    os.environ[_VARIABLE] = msgspec.json.encode(_Member(engine=engine, rank=rank.rank)).decode()
    return main(rank)


def is_engine_s() -> bool:
    """Tell whether a script that is started by this process has an engine."""
    return _VARIABLE in os.environ or is_given()


@contextmanager
def opened() -> Iterator[None]:
    """Do for a script what its engine wants in this process; end it if its session has failed."""
    if _VARIABLE in os.environ:
        member = msgspec.json.decode(os.environ.pop(_VARIABLE), type=_Member)
        engine = importlib.import_module(f"rayml.engines.{engine_name(member.engine)}")
        engine.prepare_script(member.engine, member.rank)
        yield
        return
    from rayml import _ray  # noqa: PLC0415 - loads Ray

    _ray.connect(None)
    try:
        with open_given():
            yield
    except RankFailed as exc:
        sys.stderr.write(exc.problem.traceback)
        raise SystemExit(f"rayml: {exc.problem.message}") from exc
