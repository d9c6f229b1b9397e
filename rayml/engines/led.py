"""Engines whose function runs once, in one process, and leads the job's workers.

Each has one thing more to offer than `rayml.engines` says: `open_session(settings, workers)`, a
context manager in which the function's process finds the engine. It is entered where the code
runs, in the job's folder and with its variables: by the runner around a function, and by a
script's own process, see `scripts`.
"""

from __future__ import annotations

import importlib
import os
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import msgspec

from rayml.code import unpack_folder
from rayml.config import Resources
from rayml.engine import Engine, engine_name
from rayml.errors import SpecError
from rayml.ranks import Rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from rayml._ray import Place
    from rayml.store import Store

# Tells the process that the code runs in what to open, as JSON.
_VARIABLE = "RAYML_SESSION"
# The names of the job's secrets among its variables, as JSON.
_SECRETS = "RAYML_SECRETS"
_opened: list[_Session] = []
_borrowers: list[Borrower] = []
_BORROWER_GRACE_S = 2.0


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """The workers that a job holds, as any of its processes can find them.

    Attributes:
        group: The id of Ray's placement group, in hexadecimal digits: a bundle for each.
        count: How many.
        share: What the job takes of each, under Ray's names; no memory where each is the job's
            alone, on Kubernetes.
        memory: Bytes that each has for the job; None if it has asked for none.
        env: The variables that the job was given.
    """

    group: str
    count: int
    share: dict[str, float]
    memory: int | None = None
    env: dict[str, str] = {}


class Borrower(Protocol):
    """What sees a run through that borrows this process's workers."""

    def cancel(self, grace_s: float, by: str) -> None:
        """Ask the run to end."""

    def join(self) -> None:
        """Wait until it has."""

    def is_alive(self) -> bool:
        """Tell whether it goes on."""


class _Session(msgspec.Struct, frozen=True, kw_only=True):
    engine: Engine
    workers: Workers


def run(
    engine: Engine, resources: Resources, share: Mapping[str, float], main: Callable[[Rank], bytes]
) -> bytes:
    """Call `main` once, in this process, where it finds what to open; return what it returned.

    Raises:
        RankFailed: It has failed.
    """
    from rayml._ray.members import group_id, job_variables  # noqa: PLC0415 - loads Ray
    from rayml._ray.tasks import this_node  # noqa: PLC0415 - loads Ray

    env = job_variables()
    workers = Workers(
        group=group_id(),
        count=resources.workers,
        share=dict(share),
        memory=resources.memory_bytes,
        env=env,
    )
    session = _Session(engine=engine, workers=workers)
    os.environ[_VARIABLE] = msgspec.json.encode(session).decode()
    return main(Rank(node=this_node()))


def bring_code(count: int, store: Store, digest: str) -> None:
    """Unpack a job's folder on each of its workers, whose search path it is in already."""
    from rayml._ray.members import run_on_each  # noqa: PLC0415 - loads Ray

    run_on_each(count, unpack_folder, store, digest)


def name_secrets(secrets: Iterable[str]) -> None:
    """Note which variables of this process and its children are the job's secrets."""
    os.environ[_SECRETS] = msgspec.json.encode(list(secrets)).decode()


def own_secrets() -> dict[str, str]:
    """Return the job's secrets, in the process that its code runs in."""
    names = msgspec.json.decode(os.environ.get(_SECRETS, "[]"), type=list[str])
    return {name: os.environ[name] for name in names if name in os.environ}


def held_workers() -> Workers:
    """Return the workers that this process leads.

    Raises:
        SpecError: It leads none.
    """
    if not _opened:
        raise SpecError(
            "borrow=True takes the workers of the run around it, and this process leads none; "
            "submit from a function whose engine is Dask or Spark, or leave it out"
        )
    return _opened[-1].workers


def lend(workers: Workers, resources: Resources) -> Place:
    """Return a place on workers that this process leads.

    Ray is asked for no CPUs of theirs: they are the job's alone, and its engine may hold them.
    """
    from rayml._ray.capacity import ray_resources  # noqa: PLC0415 - loads Ray
    from rayml._ray.members import find_group  # noqa: PLC0415 - loads Ray
    from rayml._ray.tasks import Place  # noqa: PLC0415 - loads Ray

    gpus = {name: amount for name, amount in ray_resources(resources).items() if name == "GPU"}
    return Place({"CPU": 0, **gpus}, find_group(workers.group), is_borrowed=True)


def resources_to_borrow(wanted: Resources | None, engine: Engine | None) -> Resources:
    """Return what a run takes of the workers that this process leads: all, if it does not say.

    Raises:
        SpecError: It wants more than there is, or there is none.
    """
    held = held_workers()
    most = Resources(
        cpus=held.share.get("CPU", 0),
        gpus=held.share.get("GPU", 0),
        memory=held.memory,
        workers=held.count,
    )
    if wanted is None:
        said = 1 if engine is None else engine.wishes()["workers"]
        wanted = most if said is None else replace(most, workers=said)
    for name in ("workers", "cpus", "gpus"):
        if getattr(wanted, name) > getattr(most, name):
            raise SpecError(
                f"{name}={getattr(wanted, name):g} is more than the run around it has to lend, "
                f"{getattr(most, name):g}; ask for less, or leave out borrow=True"
            )
    return wanted


def end_with_session(borrower: Borrower) -> None:
    """See to it that a run on borrowed workers is over before they are given back."""
    _borrowers.append(borrower)


@contextmanager
def _borrowers_end() -> Iterator[None]:
    """Wait for those that borrow workers, or cancel them if the code that lends has failed."""
    try:
        yield
        _join_borrowers()
    except BaseException:
        for borrower in _borrowers:
            if borrower.is_alive():
                borrower.cancel(_BORROWER_GRACE_S, "the run around it, which has ended")
        _join_borrowers()
        raise


def _join_borrowers() -> None:
    for borrower in _borrowers:
        borrower.join()
    _borrowers.clear()


def is_given() -> bool:
    """Tell whether the code that this process runs or starts has such an engine."""
    return _VARIABLE in os.environ


def open_given() -> AbstractContextManager[None]:
    """Return the session that this process's code is to run in; without one, nothing happens."""
    if not is_given():
        return nullcontext()
    return _open(msgspec.json.decode(os.environ.pop(_VARIABLE), type=_Session))


@contextmanager
def _open(session: _Session) -> Iterator[None]:
    module = importlib.import_module(f"rayml.engines.{engine_name(session.engine)}")
    with module.open_session(session.engine, session.workers):
        _opened.append(session)
        try:
            with _borrowers_end():
                yield
        finally:
            _opened.remove(session)
