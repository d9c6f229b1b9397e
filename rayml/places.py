"""Where the attempts of one run run: wherever there is room, or on workers that come for it."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from ray.exceptions import RayError

from rayml import _ray
from rayml.engines.led import held_workers, lend
from rayml.errors import RaymlError
from rayml.tracker.records import Released, Reserved

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from rayml.cluster.grants import Grant
    from rayml.spec import Spec
    from rayml.tracker.records import Problem, Record

_AGAIN_S = 1.0
_LOSSES = {"killed", "node_lost", "oom"}
# How Kubernetes words that a container used more memory than its limit.
_OUT_OF_MEMORY = "OOMKilled"
_END_S, _LOOK_S = 3.0, 0.3
_logger = logging.getLogger("rayml.cluster")


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
        self._lent = held_workers() if spec.borrows else None
        self._reservation = None if spec.borrows else _ray.find_reservation(spec)
        self._note: _Note | None = None
        self._place: _ray.Place | None = None

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
        if self._lent is not None:
            self._place = lend(self._lent, self._spec.resources)
            return self._place
        if self._reservation is None:
            is_spread = self._spec.engine is not None
            self._place = _ray.find_place(self._spec.resources, is_group=is_spread)
            return self._place
        self._reservation.ask(attempt)
        grant = _await_grant(self._reservation, pause, explain)
        place = _ray.take_workers(
            self._spec.resources.workers, grant.bundle or {}, grant.selector or {}
        )
        try:
            placed = place.ready()
            while not placed.done():
                pause(placed)
            addresses = self._reservation.addresses(place)
        except BaseException:
            place.release()
            raise
        # The job need not wait until it is written down where it runs.
        self._note = _Note(lambda: self._write_down(attempt, grant, addresses))
        return place

    def give_back(self, place: _ray.Place, attempt: int) -> None:
        """Let others have an attempt's place."""
        place.release()
        if self._note is not None:
            self._note.end()
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

    def explain_loss(self, problem: Problem) -> Problem:
        """Add to the problem of an attempt whose process is gone what Kubernetes knows of it."""
        if self._reservation is None or problem.kind not in _LOSSES:
            return problem
        if not (ends := self._await_ends(self._reservation)):
            return problem
        message = f"{problem.message}: {'; '.join(ends)}"
        if not any(_OUT_OF_MEMORY in end for end in ends):
            return msgspec.structs.replace(problem, kind="node_lost", message=message)
        resources = self._spec.resources
        limit = resources.memory_limit or resources.memory
        message = f"{'; '.join(ends)}; it may use {limit}: give the job more memory"
        return msgspec.structs.replace(problem, kind="oom", message=message)

    def _await_ends(self, reservation: _ray.Reservation) -> list[str]:
        """Return how workers have ended; Ray may notice it before Kubernetes does."""
        deadline = time.monotonic() + _END_S
        while True:
            try:
                if ends := reservation.ends():
                    return ends
            except (RaymlError, RayError) as exc:
                _logger.warning("no word of the workers' ends", extra={"why": str(exc)})
            if time.monotonic() >= deadline:
                return []
            time.sleep(_LOOK_S)

    def why_not_started(self) -> str:
        """Say in words what an attempt that has its place waits for."""
        is_held = self._place is not None and self._place.is_held()
        if self._reservation is not None or is_held:
            return "its workers are there, and a process on them starts"
        return _ray.busy_reason(self._spec.resources)

    def _write_down(self, attempt: int, grant: Grant, addresses: list[str]) -> None:
        run, now = self._spec.run, time.time()
        workers = self._reservation.hold(addresses)  # type: ignore[union-attr]
        self._record(
            Reserved(run=run, time=now, attempt=attempt, shape=grant.shape, workers=workers)
        )


class _Note:
    """Something that is written down beside the job, as soon as that is possible."""

    def __init__(self, write: Callable[[], None]) -> None:
        self._write = write
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._try, name="rayml-note", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Try no more; what is being written is finished."""
        self._is_over.set()
        self._thread.join()

    def _try(self) -> None:
        while True:
            try:
                self._write()
            except Exception as exc:  # noqa: BLE001 - Kubernetes, the store or Ray are away
                _logger.warning("not written down yet", extra={"why": str(exc)})
            else:
                return
            if self._is_over.wait(_AGAIN_S):
                return


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
