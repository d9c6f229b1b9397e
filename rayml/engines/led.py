"""Engines whose function runs once, in one process, and leads the job's workers.

Each has one thing more to offer than `rayml.engines` says: `open_session(settings, workers)`, a
context manager in which the function's process finds the engine. It is entered where the code
runs, in the job's folder and with its variables: by the runner around a function, and by a
script's own process, which is started as `python -m rayml.engines script.py …`.
"""

from __future__ import annotations

import importlib
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, cast

import msgspec

from rayml.engine import Engine, engine_name
from rayml.ranks import Rank

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

# Tells the process that the code runs in what to open, as JSON.
_VARIABLE = "RAYML_SESSION"


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """The workers that a job holds, as any of its processes can find them.

    Attributes:
        group: The id of Ray's placement group, in hexadecimal digits: a bundle for each.
        count: How many.
        share: What the job takes of each, under Ray's names.
        node: Ray's id of the machine that the job's first process is on.
        env: The variables that the job was given.
    """

    group: str
    count: int
    share: dict[str, float]
    node: str
    env: dict[str, str] = {}


class _Session(msgspec.Struct, frozen=True, kw_only=True):
    engine: Engine
    workers: Workers


def run(
    engine: Engine,
    share: Mapping[str, float],
    count: int,
    is_script: bool,  # noqa: ARG001, FBT001 - as all engines'
    main: Callable[[Rank], bytes],
) -> bytes:
    """Call `main` once, in this process, where it finds what to open; return what it returned.

    Raises:
        RankFailed: It has failed.
    """
    from rayml._ray.members import group_id, job_variables  # noqa: PLC0415 - loads Ray
    from rayml._ray.tasks import this_node  # noqa: PLC0415 - loads Ray

    node = this_node()
    env = job_variables()
    workers = Workers(group=group_id(), count=count, share=dict(share), node=node, env=env)
    session = _Session(engine=engine, workers=workers)
    os.environ[_VARIABLE] = msgspec.json.encode(session).decode()
    return main(Rank(node=node))


def script_launcher() -> list[str]:
    """Return what stands between `python` and a script's name: nothing without such an engine."""
    return ["-m", "rayml.engines"] if _VARIABLE in os.environ else []


def open_given() -> AbstractContextManager[None]:
    """Return the session that this process's code is to run in; without one, nothing happens."""
    if _VARIABLE not in os.environ:
        return nullcontext()
    session = msgspec.json.decode(os.environ.pop(_VARIABLE), type=_Session)
    module = importlib.import_module(f"rayml.engines.{engine_name(session.engine)}")
    opened = module.open_session(session.engine, session.workers)
    return cast("AbstractContextManager[None]", opened)
