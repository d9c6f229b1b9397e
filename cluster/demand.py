"""What one run asks of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayml.cluster.shape import Shape


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Workers that a run holds or waits for: all of them or none.

    Attributes:
        run: The run's id.
        shape: What each worker is.
        workers: How many.
        priority: The higher is served first.
        since: Its place among those of its priority: the earliest first. Unix time in seconds.
        owner: Who submitted the run.
    """

    run: str
    shape: Shape
    workers: int
    priority: int = 0
    since: float = 0.0
    owner: str = ""
