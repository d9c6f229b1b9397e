"""One worker of a job that several work on: which one it is, and how it failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayml.tracker.records import Problem


@dataclass(frozen=True)
class Rank:
    """Which of a job's workers a process is; a job without an engine has one.

    Attributes:
        rank: Among all, counted from 0.
        world_size: How many there are.
        local_rank: Among those on the same machine, counted from 0.
        node: Ray's id of that machine.
        lost: What became of the one in whose place it is, in words; empty if it is in no one's.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    node: str = ""
    lost: str = ""

    def now(self) -> Rank:
        """Return which it is at the moment: elastic groups renumber their members."""
        return self


# That of a job without an engine.
ALONE = Rank()


class RankFailed(Exception):
    """A rank has failed.

    Attributes:
        problem: Why.
        at: When, in Unix seconds; 0 where nobody could look at the clock.
    """

    def __init__(self, problem: Problem, at: float = 0.0) -> None:
        super().__init__(problem, at)
        self.problem = problem
        self.at = at
