"""What a run asks of a cluster's reservations, and what they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rayml.config import Resources

if TYPE_CHECKING:
    from rayml.errors import RaymlError
    from rayml.spec import Spec


# A reservation of which nothing has been heard for so long is dropped.
SILENCE_S = 30.0
# That of a run whose driver is still to come: heads are slow when many start at once.
EARLY_S = 60.0
# So begins the name under which a wish lies in the memory of Ray's control service until it is
# heard; Ray takes what its own packages could be called.
WISH = "_ray_pkg_rayml_wish_"


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


def wish_of(spec: Spec, attempt: int = 1) -> Wish:
    """Return what an attempt of a run needs."""
    return Wish(
        run=spec.run,
        attempt=attempt,
        owner=spec.origin.user,
        experiment=spec.experiment,
        since=spec.submitted_at,
        resources=spec.resources,
        priority=spec.priority,
        image=spec.image,
    )


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
