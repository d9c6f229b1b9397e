"""Horovod's ranks on a job's workers when some may go, and come back."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import ray
from horovod.runner.elastic.discovery import DiscoveredHosts, HostDiscovery
from horovod.runner.elastic.driver import ElasticDriver
from horovod.runner.elastic.rendezvous import create_rendezvous_handler
from horovod.runner.http.http_server import RendezvousServer
from ray.exceptions import RayError
from ray.util import placement_group_table

from rayml._ray.deaths import rank_failure
from rayml._ray.horovod import (
    find_absent,
    meeting_variables,
    read_waits,
    slot_variables,
    tell_numbers,
)
from rayml._ray.members import LOOK_S, SETTLE_S, held_group, hire, locate
from rayml.culprit import hang
from rayml.memory import oom_kills
from rayml.ranks import Rank, RankFailed
from rayml.tracker.records import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from horovod.runner.common.util.hosts import SlotInfo
    from ray.util.placement_group import PlacementGroup

    from rayml._ray.members import Actor

# A worker that was lost is tried again after some 2 s, and after twice as long each time.
_COOLDOWN_S = (1, 30)
# Within which time a node must take a connection.
_ANSWER_S = 2.0
# How often in a row a worker may be lost so soon after it began, or hang.
_LOSSES, _SOON_S = 3, 30.0
# How one ends that was lost: whatever else ends a rank is its own doing, and ends the job.
_LOST = ("killed", "oom", "node_lost")
# What a rank raises because of another one.
_OTHERS = "HorovodInternalError"


class _Bundles(HostDiscovery):  # type: ignore[misc]  # it has no types
    """To Horovod each worker of the job is a machine, so that one's loss costs no other."""

    def __init__(self, group: PlacementGroup) -> None:
        super().__init__()
        self._group = group
        self._doubted: set[str] = set()

    def doubt(self, host: str) -> None:
        """Note that a worker was lost: Ray calls a node that is gone alive for some time yet."""
        self._doubted.add(host)

    def find_available_hosts_and_slots(self) -> dict[str, int]:
        """Return the workers that are there."""
        bundles = placement_group_table(self._group)["bundles_to_node_id"]
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        found = {_host(bundle): alive[node] for bundle, node in bundles.items() if node in alive}
        return {
            host: 1
            for host in sorted(found, key=_bundle)
            if host not in self._doubted or _answers(found[host])
        }


def _answers(node: Mapping[str, Any]) -> bool:
    """Tell whether Ray's process on a node takes connections."""
    address = (node["NodeManagerAddress"], node["NodeManagerPort"])
    with suppress(OSError), socket.create_connection(address, _ANSWER_S):
        return True
    return False


def _host(bundle: int) -> str:
    return f"worker-{bundle}"


def _bundle(host: str) -> int:
    return int(host.rpartition("-")[2])


class _Driver(ElasticDriver):  # type: ignore[misc]  # it has no types
    """Horovod's own, which never takes a lost worker that is back for the one that was lost."""

    def __init__(self, *args: object, **options: object) -> None:
        self.ready: dict[str, float] = {}
        self._order: list[str] = []
        super().__init__(*args, **options)

    def record_ready(self, host: str, slot: int) -> None:
        """Note since when a rank waits for the others to meet again."""
        self.ready[host] = time.monotonic()
        super().record_ready(host, slot)

    def forget(self, host: str) -> None:
        """Note that a worker's process has ended."""
        with suppress(ValueError):
            self._order.remove(host)

    def _update_host_assignments(self, current_hosts: DiscoveredHosts) -> list[SlotInfo]:
        self.ready.clear()
        for host in self._host_assignments.keys() - set(self._order):
            del self._host_assignments[host]
        pending: list[SlotInfo] = super()._update_host_assignments(current_hosts)
        self._order = list(self._host_assignments)
        slots = self._rank_assignments.values()
        tell_numbers(self._rendezvous, {_bundle(slot.hostname): slot.rank for slot in slots})
        return pending

    def _get_host_assignments(self, current_hosts: DiscoveredHosts) -> tuple[Any, Any]:
        """Number those first that are there already: the first one's state is everybody's."""
        there = current_hosts.host_assignment_order
        new = sorted(set(there) - set(self._order), key=_bundle)
        order = [host for host in self._order if host in there] + new
        ordered = DiscoveredHosts(current_hosts.host_slots, order)
        return cast("tuple[Any, Any]", super()._get_host_assignments(ordered))


class Crew:
    """The ranks of one elastic job: those that run, those that were lost, and how it ended."""

    def __init__(
        self,
        main: Callable[[Rank], tuple[int, bytes]],
        bounds: tuple[int, int],
        share: Mapping[str, float],
        timeout_s: float,
    ) -> None:
        """Start nothing yet; `fit` does.

        Args:
            main: What each rank calls; it returns its last number and what the job returns.
            bounds: How many ranks there must be, and may be.
            share: What each takes of its worker.
            timeout_s: For how long they wait for each other.
        """
        self._main = main
        self._share = share
        self._timeout_s = timeout_s
        self._least, self._most = bounds
        self._group = held_group()
        self._server = RendezvousServer()
        self._bundles = _Bundles(self._group)
        self._driver = _Driver(
            self._server, self._bundles, *bounds, timeout_s, cooldown_range=_COOLDOWN_S
        )
        self._port: int = self._server.start(create_rendezvous_handler(self._driver))
        self._actors: dict[str, Actor] = {}
        self._began: dict[str, float] = {}
        self._lost_at = 0.0
        self._hung: set[str] = set()
        self._losses: Counter[str] = Counter()
        self._returned: dict[int, bytes] = {}
        self._problems: dict[int, Problem] = {}
        self._failed = threading.Event()

    def fit(self) -> tuple[dict[int, bytes], dict[int, Problem]]:
        """Call `main` on each rank until the job is over.

        Returns what it returned, by the rank's last number; and, if the job failed, the problems
        of the ranks that had failed by then, in the order in which they did.
        """
        try:
            self._driver.wait_for_available_slots(self._most)
            self._driver.start(self._least, self._work)
            while not self._driver.finished() and not self._failed.wait(LOOK_S):
                self._end_those_that_hang()
            if self._failed.is_set():
                time.sleep(SETTLE_S)
        finally:
            self._disband()
        if self._returned and not self._failed.is_set():
            return self._returned, {}
        return {}, dict(self._problems)

    def _work(self, slot: SlotInfo, events: Iterable[threading.Event]) -> tuple[int, float]:
        """See one rank through; Horovod wants to know its exit code, and when that was."""
        host, before, began = slot.hostname, oom_kills(), time.monotonic()
        actor = self._actors[host] = hire(self._group, _bundle(host), self._share)
        lost = self._problems.pop(_bundle(host), None)
        try:
            number, returned = self._result(actor, slot, events, lost.message if lost else "")
        except RayError as exc:
            self._lose(host, rank_failure(exc, before), began)
            return 1, time.time()
        except _Stopped:
            return 1, time.time()
        finally:
            self._actors.pop(host, None)
            self._began.pop(host, None)
            ray.kill(actor)
        self._returned[number] = returned
        return 0, time.time()

    def _result(
        self, actor: Actor, slot: SlotInfo, events: Iterable[threading.Event], lost: str
    ) -> tuple[int, bytes]:
        (seat,) = locate([actor])
        variables = meeting_variables(self._port, seat, self._timeout_s) | slot_variables(slot)
        rank = Rank(_bundle(slot.hostname), self._most, 0, seat.node, lost)
        self._began[slot.hostname] = time.monotonic()
        task: Any = actor.call.remote(self._main, rank, variables | {"HOROVOD_ELASTIC": "1"})
        while not self._has_ended(task):
            if any(event.is_set() for event in events):
                raise _Stopped
        result: tuple[int, bytes] = ray.get(task)
        return result

    def _has_ended(self, task: ray.ObjectRef[Any]) -> bool:
        return bool(ray.wait([task], timeout=LOOK_S)[0])

    def _lose(self, host: str, failure: RankFailed, began: float) -> None:
        self._lost_at = time.monotonic()
        self._driver.forget(host)
        self._bundles.doubt(host)
        if self._failed.is_set():
            return
        is_hang = host in self._hung
        problem = self._hang_of(host) if is_hang else failure.problem
        if problem.kind not in _LOST and _OTHERS not in problem.message:
            self._problems = {_bundle(host): problem}
            self._failed.set()
            return
        own = {_bundle(host): problem}
        # Those that waited for it to come to `hvd.init()` may have died of that already.
        self._problems = own | self._problems if is_hang else self._problems | own
        lived_s = time.monotonic() - began
        self._losses[host] = count_losses(self._losses[host], lived_s, is_hang=is_hang)
        if self._losses[host] >= _LOSSES:
            self._failed.set()

    def _hang_of(self, host: str) -> Problem:
        self._hung.discard(host)
        message = (
            f"it did not come for {self._timeout_s:g} s to where the others waited; see what was "
            f"printed last: rayml logs --rank {_bundle(host)}"
        )
        return Problem(kind="killed", message=message)

    def _end_those_that_hang(self) -> None:
        now = time.monotonic()
        waits = read_waits(self._server)
        self._check_for_progress(waits, now)
        waits |= {_bundle(host): now - since for host, since in dict(self._driver.ready).items()}
        running = {_bundle(host): actor for host, actor in dict(self._actors).items()}
        for bundle in find_absent(waits, running, self._timeout_s) or ():
            host = _host(bundle)
            # One that is new had less time than that, however long the others have waited.
            if now - self._began.get(host, now) >= self._timeout_s:
                self._hung.add(host)
                ray.kill(running[bundle])

    def _check_for_progress(self, waits: Mapping[int, float], now: float) -> None:
        """Raise RankFailed if all wait, each in an operation of its own: a new one would too."""
        began = {_bundle(host): self._began.get(host, now) for host in dict(self._actors)}
        # One that is new did not wait as long: what is known is of the one in whose place it is.
        # And one that waited for a lost one hears of the loss first.
        latest = ((rank, max(since, self._lost_at)) for rank, since in began.items())
        waited = [min(waits.get(rank, 0.0), now - since) for rank, since in latest]
        # After a loss they may all wait for another worker, or Horovod's driver to end that.
        patience_s = self._timeout_s + (_COOLDOWN_S[1] if self._problems else 0)
        if min(waited, default=0.0) >= patience_s:
            raise RankFailed(hang([], began, self._timeout_s))

    def _disband(self) -> None:
        for actor in list(self._actors.values()):
            ray.kill(actor)
        if not self._driver.finished():
            self._driver.stop()


def count_losses(before: int, lived_s: float, *, is_hang: bool) -> int:
    """Return how often in a row a worker was lost so that another one may not help.

    Args:
        before: How often until now.
        lived_s: For how long it was there; one that hangs is there for all of `timeout_s`.
        is_hang: The others waited for it in vain.
    """
    return before + 1 if is_hang or lived_s < _SOON_S else 0


class _Stopped(Exception):
    """A rank is not wanted any more."""
