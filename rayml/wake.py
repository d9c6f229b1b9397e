"""Brings a cluster's reservations and tracker back when its head was replaced.

`python -m rayml.wake`, started on the head beside Ray: what the dead head had in hand is retried
or ended without anybody having to connect.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from rayml import _ray
from rayml._ray.drivers import begin_forgotten
from rayml.cluster.address import ClusterName
from rayml.config import setting
from rayml.errors import ClusterUnreachable, RaymlError
from rayml.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE_S = 600.0
_PAUSE_S = 0.5


def main() -> int:
    """Wait for this head's Ray, then start what a cluster of ours always has."""
    deadline = time.monotonic() + _PATIENCE_S
    steps = [_connect, _wake_reservations, _wake_tracker, _begin_forgotten]
    return 0 if all(_done(step, deadline) for step in steps) else 1


def _connect() -> None:
    _ray.connect(os.environ.get("RAY_ADDRESS", "auto"))


def _wake_reservations() -> None:
    _ray.is_resized()


def _wake_tracker() -> None:
    if (location := setting("store")) is not None:
        _ray.tracker_actor(open_store(location))


def _begin_forgotten() -> None:
    location, name = setting("store"), os.environ.get("RAY_CLUSTER_NAME")
    if location is not None and name is not None:
        namespace = os.environ.get("RAY_CLUSTER_NAMESPACE", "")
        begin_forgotten(open_store(location), str(ClusterName(namespace, name)))


def _done(step: Callable[[], None], deadline: float) -> bool:
    """Try a step until it works; tell whether it did in time."""
    while True:
        try:
            step()
        except RaymlError as exc:
            if time.monotonic() > deadline:
                print(f"rayml: {exc}", file=sys.stderr)  # noqa: T201 - the head's log
                return False
            if not isinstance(exc, ClusterUnreachable):
                print(f"rayml: {exc}; trying again", file=sys.stderr)  # noqa: T201
            time.sleep(_PAUSE_S)
        else:
            return True


if __name__ == "__main__":
    sys.exit(main())
