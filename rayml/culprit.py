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
        raised: With which their messages begin: what a rank raised of its own begins otherwise.
        of_losses: It went away.
        of_timeouts: It did not come.
    """

    raised: tuple[str, ...]
    of_losses: tuple[str, ...]
    of_timeouts: tuple[str, ...]

    def are_in(self, problem: Problem) -> bool:
        """Tell whether a rank says either."""
        return self._says(problem, self.of_losses + self.of_timeouts)

    def are_of_timeout(self, problem: Problem) -> bool:
        """Tell whether a rank says that another did not come."""
        return self._says(problem, self.of_timeouts)

    def _says(self, problem: Problem, words: tuple[str, ...]) -> bool:
        is_theirs = problem.kind == "error" and problem.message.startswith(self.raised)
        return is_theirs and any(word in problem.message for word in words)


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
    own = [rank for rank, problem in problems.items() if not signs.are_in(problem)]
    waited = [rank for rank, problem in problems.items() if signs.are_of_timeout(problem)]
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
