"""Where the attempts of one run run: wherever there is room, or on workers that come for it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rayml import _ray
from rayml.errors import RaymlError
from rayml.tracker.records import Released, Reserved

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from rayml.cluster.grants import Grant
    from rayml.spec import Spec
    from rayml.tracker.records import Record


class Places:
    """The places of one run's attempts, one after the other.

    Args:
        spec: The run.
        record: Writes a record durably.
    """

    def __init__(self, spec: Spec, record: Callable[[Record], object]) -> None:
        """Find out whether the cluster is resized for its jobs.

        Raises:
            ClusterUnreachable: Nobody knows.
        """
        self._spec = spec
        self._record = record
        self._reservation = _ray.find_reservation(spec)

    def take(
        self,
        attempt: int,
        pause: Callable[[Future[Any]], None],
        explain: Callable[[str], None],
    ) -> _ray.Place:
        """Return where an attempt runs: at once, or when the cluster has grown for it.

        Args:
            attempt: Which one.
            pause: Waits a moment for a future. What it raises ends the waiting.
            explain: Is told what is waited for.

        Raises:
            RaymlError: The workers can never be had.
        """
        if self._reservation is None:
            return _ray.find_place(self._spec.resources)
        self._reservation.ask(attempt)
        grant = _await_grant(self._reservation, pause, explain)
        place = _ray.take_workers(
            self._spec.resources.workers, grant.bundle or {}, grant.selector or {}
        )
        try:
            placed = place.ready()
            while not placed.done():
                pause(placed)
            self._note(attempt, grant, self._reservation.hold(place))
        except BaseException:
            place.release()
            raise
        return place

    def give_back(self, place: _ray.Place, attempt: int) -> None:
        """Let others have an attempt's place."""
        place.release()
        if self._reservation is not None:
            self._reservation.release()
            with suppress(RaymlError):  # the run's end says the same
                self._record(Released(run=self._spec.run, time=time.time(), attempt=attempt))

    def drop(self) -> None:
        """Ask for nothing any more."""
        if self._reservation is not None:
            self._reservation.release()

    def beat(self) -> None:
        """Say that the run still needs its workers."""
        if self._reservation is not None:
            self._reservation.beat()

    def why_not_started(self) -> str:
        """Say in words what an attempt that has its place waits for."""
        if self._reservation is not None:
            return "its workers are there, and a process on them starts"
        return _ray.busy_reason(self._spec.resources)

    def _note(self, attempt: int, grant: Grant, workers: list[str]) -> None:
        run, now = self._spec.run, time.time()
        self._record(
            Reserved(run=run, time=now, attempt=attempt, shape=grant.shape, workers=workers)
        )


def _await_grant(
    reservation: _ray.Reservation,
    pause: Callable[[Future[Any]], None],
    explain: Callable[[str], None],
) -> Grant:
    look = reservation.look()
    while True:
        pause(look)
        if not look.done():
            continue
        grant = reservation.heard(look)
        if grant is not None and grant.is_ready:
            return grant
        if grant is not None and grant.reason:
            explain(grant.reason)
        look = reservation.look()
