"""Horovod on all workers, which reach each other by Gloo."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from rayml.culprit import Signs, find_culprit
from rayml.ranks import Rank, RankFailed
from rayml.tracker.records import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from rayml.engine import Horovod

MODULES = {"horovod": "horovod", "torch": "torch"}
REMEDY = "python -m rayml.engines.horovod_setup builds it there; or give an image that has it"
# Horovod says no more of what others did.
SIGNS = Signs(
    raised=("horovod.",),
    of_losses=("HorovodInternalError",),
    of_timeouts=("HorovodInternalError",),
)
# Where all of its operations wait, and `hvd.init()`.
_OPERATIONS, _BASICS = "horovod.torch.mpi_ops", "horovod.common.basics"
_LOOK_S = 0.5


def run(
    settings: Horovod,
    share: Mapping[str, float],
    world_size: int,
    is_script: bool,  # noqa: FBT001 - as all engines'
    main: Callable[[Rank], bytes],
) -> bytes:
    """Run the ranks to their end; return what the first one returned.

    Raises:
        RankFailed: Its failure has ended the others.
    """
    watched = main if is_script else partial(_watch, main, settings.timeout_s)
    returned, problems = _fit(settings, share, world_size, watched)
    if returned and not problems:
        # A script's process keeps to itself what its last number was, and returns nothing.
        first = min(returned) if is_script else 0
        if first in returned:
            return returned[first]
    if not problems:
        raise RankFailed(Problem(kind="engine", message="Horovod lost the first rank at the end"))
    raise RankFailed(find_culprit(problems, world_size, settings.timeout_s, SIGNS))


def prepare_script(settings: Horovod, rank: int) -> None:
    """Watch the operations of the script that begins in this process."""
    _start_watch(rank, settings.timeout_s, threading.Event())


def _fit(
    settings: Horovod, share: Mapping[str, float], world_size: int, main: Callable[[Rank], bytes]
) -> tuple[dict[int, bytes], dict[int, Problem]]:
    if settings.elastic is None:
        from rayml._ray.horovod import fit  # noqa: PLC0415 - loads Horovod

        return fit(main, world_size, share, settings.timeout_s)
    from rayml._ray.horovod_elastic import Crew  # noqa: PLC0415 - loads Horovod

    last_numbered = partial(_call_elastic, main)
    return Crew(last_numbered, settings.elastic, share, settings.timeout_s).fit()


def _watch(main: Callable[[Rank], bytes], timeout_s: float, rank: Rank) -> bytes:
    """Call `main`, and tell when one of Horovod's operations, or `hvd.init()`, waits for long.

    Horovod's own check for stalled ranks never finds any on Gloo: its list of ranks is empty.
    """
    ended = threading.Event()
    _start_watch(rank.rank, timeout_s, ended)
    try:
        return main(rank)
    finally:
        ended.set()


def _start_watch(rank: int, timeout_s: float, ended: threading.Event) -> None:
    arguments = (rank, timeout_s, ended)
    threading.Thread(target=_tell_waits, args=arguments, daemon=True).start()


def _tell_waits(rank: int, timeout_s: float, ended: threading.Event) -> None:
    since: dict[FrameType, float] = {}
    told = False
    while not ended.wait(min(_LOOK_S, timeout_s / 4)):
        now = time.monotonic()
        # While a call's frame is kept here, no other call's can be mistaken for it.
        since = {frame: since.get(frame, now) for frame in _waiting_frames()}
        waited = now - min(since.values(), default=now)
        if waited > timeout_s / 2 or told:
            told = waited > timeout_s / 2
            _report(rank, waited if told else 0.0)


def _report(rank: int, seconds: float) -> None:
    # Only here: a script that never waits loads no Ray for it.
    from rayml._ray.horovod import report_wait  # noqa: PLC0415 - loads Horovod

    with suppress(RuntimeError):  # the group is being made anew, or over
        report_wait(rank, seconds)


def _waiting_frames() -> list[FrameType]:
    """Return where threads wait for the others: in an operation of Horovod's, or to meet."""
    if "horovod.torch" not in sys.modules:
        return []
    frames = sys._current_frames().values()  # noqa: SLF001 - the documented way to see them
    return [frame for frame in frames if _is_of_waiting(frame)]


def _is_of_waiting(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__")
    return module == _OPERATIONS or (module == _BASICS and frame.f_code.co_name == "init")


def _call_elastic(main: Callable[[Rank], bytes], rank: Rank) -> tuple[int, bytes]:
    member = _Member(rank.rank, rank.world_size, rank.local_rank, rank.node, rank.lost)
    returned = main(member)
    return member.now().rank, returned


class _Member(Rank):
    """A rank whose number is Horovod's: it changes when others go or come."""

    def now(self) -> Rank:
        """Return which it is in the group that there is; outside of one, which it is to be or was.

        Where Horovod is not loaded, that is which it was made as.
        """
        hvd = sys.modules.get("horovod.torch")
        if hvd is None:
            return self
        if hvd.is_initialized():
            return replace(self, rank=hvd.rank(), world_size=hvd.size())
        from rayml._ray.horovod import find_number  # noqa: PLC0415 - loads Horovod

        # The group may be over, and this a process that the rank has started elsewhere.
        with suppress(RuntimeError, OSError, KeyError):
            return replace(self, rank=find_number(self.rank))
        return self
