"""PyTorch's process group on all workers, through Ray Train."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rayml.ranks import RankFailed
from rayml.tracker.records import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rayml.engine import Torch
    from rayml.ranks import Rank

MODULES = {"torch": "torch", "pydantic": "ray[train]"}
# How Gloo and PyTorch's store say that another rank went away.
_LOSSES = ("Connection closed by peer", "Connection reset", "Broken pipe", "recvValue failed")
# How these and NCCL's watchdog say that one did not come.
_TIMEOUTS = ("Timed out waiting", "timed out after", "Timeout waiting", "Watchdog caught")


def run(
    settings: Torch,
    share: Mapping[str, float],
    world_size: int,
    is_script: bool,  # noqa: FBT001 - as all engines'
    main: Callable[[Rank], bytes],
) -> bytes:
    """Run the ranks to their end; return what the first one returned.

    Raises:
        RankFailed: Its failure has ended the others.
    """
    from rayml._ray.train import Group, fit  # noqa: PLC0415 - loads Ray Train

    backend = settings.backend or ("nccl" if share.get("GPU") else "gloo")
    group = Group(None if is_script else backend, settings.timeout_s)
    outcome = fit(main, world_size, share, group)
    if isinstance(outcome, bytes):
        return outcome
    raise RankFailed(find_culprit(outcome, world_size, settings.timeout_s))


def find_culprit(problems: Mapping[int, Problem], world_size: int, timeout_s: float) -> Problem:
    """Return the problem of the rank that made the others fail.

    One that died or raised something of its own comes before those that lost their connection to
    it or waited for it; if there are only such, it is one that hangs.

    Args:
        problems: What is known of those that failed, the first to fail first.
        world_size: How many ranks there are.
        timeout_s: For how long they wait for each other.
    """
    dead = [rank for rank, problem in problems.items() if problem.kind != "error"]
    own = [rank for rank, problem in problems.items() if not _says(problem, _TIMEOUTS + _LOSSES)]
    waited = [rank for rank, problem in problems.items() if _says(problem, _TIMEOUTS)]
    first = (dead or own or list(problems))[0]
    absent = sorted(set(range(world_size)) - set(problems))
    if dead or own or not absent or not waited:
        message = problems[first].message
        shown = f"rank {first}: {message}" if world_size > 1 else message
        return msgspec.structs.replace(problems[first], rank=first, message=shown)
    names = " and ".join(f"rank {rank}" for rank in absent)
    others = ", ".join(str(rank) for rank in sorted(waited))
    return Problem(
        kind="error",
        message=f"{names} did not come for {timeout_s:g} s to where rank {others} waited: it "
        "hangs, or calls another operation; see what it printed last: "
        f"rayml logs --rank {absent[0]}",
        traceback=problems[first].traceback,
        rank=absent[0],
    )


def _says(problem: Problem, words: tuple[str, ...]) -> bool:
    return problem.kind == "error" and any(word in problem.message for word in words)
