"""What a run asks of a cluster's reservations, and what they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rayml.config import Resources

if TYPE_CHECKING:
    from rayml.errors import RaymlError


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a run needs: all of these workers, or none.

    Attributes:
        attempt: Which of its tries needs them; each asks anew, from the run's place in the queue.
        owner: Who submitted it.
        since: When it was submitted, in Unix seconds: its place in the queue.
        priority: Of two that wait, the higher one comes first.
        image: Of its workers; None for the cluster's own.
        holding: The names of the workers that it has already: an actor that was restarted learns
            from it what was granted.
    """

    run: str
    attempt: int
    owner: str
    experiment: str
    since: float
    resources: Resources
    priority: int = 0
    image: str | None = None
    holding: tuple[str, ...] = ()


class Grant(NamedTuple):
    """How a reservation stands; `version` rises with every change.

    Attributes:
        is_ready: All its workers are there.
        reason: What it waits for, in words; empty if it does not wait.
        problem: Why it can never be had, or None.
        bundle: What a placement group asks of each of its workers.
        selector: The label by which it finds them.
        shape: The key of their shape.
    """

    version: int
    is_ready: bool = False
    reason: str = ""
    problem: RaymlError | None = None
    bundle: dict[str, float] | None = None
    selector: dict[str, str] | None = None
    shape: str = ""
