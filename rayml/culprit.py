"""Which rank's failure it was that made the others fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from rayml.tracker.records import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Signs:
    """Words in the messages of ranks that fail because another one did.

    Attributes:
        of_losses: It went away.
        of_timeouts: It did not come.
    """

    of_losses: tuple[str, ...]
    of_timeouts: tuple[str, ...]

    @property
    def any(self) -> tuple[str, ...]:
        """Either."""
        return self.of_losses + self.of_timeouts


def find_culprit(
    problems: Mapping[int, Problem], world_size: int, timeout_s: float, signs: Signs
) -> Problem:
    """Return the problem of the rank that made the others fail.

    One that died or raised something of its own comes before those that lost their connection to
    it or waited for it; if there are only such, it is one that hangs.

    Args:
        problems: What is known of those that failed, the first to fail first.
        world_size: How many ranks there are.
        timeout_s: For how long they wait for each other.
        signs: How they say that they failed because of another.
    """
    dead = [rank for rank, problem in problems.items() if problem.kind != "error"]
    own = [rank for rank, problem in problems.items() if not _says(problem, signs.any)]
    waited = [rank for rank, problem in problems.items() if _says(problem, signs.of_timeouts)]
    first = (dead or own or list(problems))[0]
    absent = sorted(set(range(world_size)) - set(problems))
    if dead or own or not absent or not waited:
        message = problems[first].message
        shown = f"rank {first}: {message}" if world_size > 1 else message
        return msgspec.structs.replace(problems[first], rank=first, message=shown)
    return hang(absent, waited, timeout_s, problems[first].traceback)


def hang(
    absent: Sequence[int], waiting: Iterable[int], timeout_s: float, traceback: str = ""
) -> Problem:
    """Return the problem of ranks that others waited for in vain.

    Args:
        absent: Those that did not come; if none is named, those that wait do so for each other.
        waiting: Those that waited.
        timeout_s: For how long.
        traceback: Of where they did.
    """
    others = ", ".join(map(str, sorted(waiting)))
    names = " and ".join(f"rank {rank}" for rank in absent)
    what = f"{names} did not come for {timeout_s:g} s to where rank {others} waited: it hangs,"
    if not absent:
        what = f"rank {others} waited for {timeout_s:g} s in vain: another one"
    shown = absent[0] if absent else int(others.partition(",")[0])
    return Problem(
        kind="error",
        message=f"{what} has returned or calls another operation; see what was printed last: "
        f"rayml logs --rank {shown}",
        traceback=traceback,
        rank=shown,
    )


def _says(problem: Problem, words: tuple[str, ...]) -> bool:
    return problem.kind == "error" and any(word in problem.message for word in words)
