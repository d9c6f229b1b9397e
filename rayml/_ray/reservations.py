"""The reservations of a KubeRay cluster as a detached actor, and one run's view of it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import msgspec
import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.experimental import internal_kv

from rayml._ray.connection import HEAD_ACTOR, first_line
from rayml._ray.nodes import RayNodes, addresses_of, live_ids
from rayml.cluster.address import SCHEME, ClusterName
from rayml.cluster.answers import RightMissing
from rayml.cluster.grants import EARLY_S, SILENCE_S, WISH, Grant, Wish, wish_of
from rayml.config import setting
from rayml.errors import ClusterUnreachable, RaymlError
from rayml.store import open_store

if TYPE_CHECKING:
    from concurrent.futures import Future

    from rayml._ray.tasks import Place
    from rayml.spec import Spec

NAME = "reservations"
_START_S = 60.0
_PATIENCE_S = 300.0
_PAUSE_S = 2.0
_GROWING_S = 1.0
_LISTEN_S = 0.1
_TEND_S = 30.0
# A worker that a run has just left gets idle one moment or the next: its placement group goes, its
# process ends.
_LEAVING_S, _LEFT_S = 0.1, 1.5
_QUIET_S = 5.0
_LOOK_S = 10.0
_logger = logging.getLogger("rayml.cluster")


class Reservation:
    """The workers of one run on a cluster that is resized for it."""

    def __init__(self, actor: Any, spec: Spec) -> None:  # noqa: ANN401 - Ray has no type for a handle
        self._actor = actor
        self._spec = spec
        self._wish: Wish | None = None
        self._seen = 0

    def ask(self, attempt: int) -> None:
        """Ask for the workers of an attempt, at the run's place in the queue."""
        self._wish, self._seen = wish_of(self._spec, attempt), 0
        ray.get(self._actor.reserve.remote(msgspec.json.encode(self._wish)))

    def beat(self) -> None:
        """Say that the workers are still needed."""
        if (wish := self._wish) is not None:
            self._actor.reserve.remote(msgspec.json.encode(wish))

    def look(self) -> Future[Any]:
        """Return what is done as soon as the grant has changed; `heard` takes it."""
        return cast("Future[Any]", self._actor.look.remote(self._spec.run, self._seen).future())

    def heard(self, look: Future[Any]) -> Grant | None:
        """Return how the reservation stands now; None while the actor is away.

        Raises:
            RaymlError: The workers can never be had.
        """
        try:
            grant = cast("Grant | None", look.result())
        except RayError:
            return None
        if grant is None:  # the actor came back and has not heard of us yet
            self.beat()
            return None
        self._seen = grant.version
        if grant.problem is not None:
            raise grant.problem
        return grant

    def addresses(self, place: Place) -> list[str]:
        """Return where the run is, as `hold` takes it."""
        return addresses_of(place.nodes())

    def hold(self, addresses: list[str]) -> list[str]:
        """Note which workers the run is on; return their names.

        Raises:
            RaymlError: Kubernetes does not answer.
        """
        names: Any = ray.get(self._actor.hold.remote(self._spec.run, addresses))
        if self._wish is not None:
            self._wish = msgspec.structs.replace(self._wish, holding=tuple(names))
        return list(names)

    def ends(self) -> list[str]:
        """Return how those of the run's workers have ended that have, as Kubernetes knows it."""
        return list(ray.get(self._actor.ends.remote(self._spec.run)))

    def release(self) -> None:
        """Give the workers back."""
        self._wish = None
        self._actor.release.remote(self._spec.run)


def find_reservation(spec: Spec) -> Reservation | None:
    """Return the way to a run's workers, or None on a cluster whose size is not ours to change.

    Raises:
        ClusterUnreachable: The cluster's reservations do not answer, or may not see the cluster
            that the run was sent to.
    """
    actor = _find_actor()
    if isinstance(actor, RightMissing) and spec.cluster.startswith(SCHEME):
        raise actor
    return None if _is_foreign(actor) else Reservation(actor, spec)


def is_resized() -> bool:
    """Tell whether this cluster is resized for its jobs.

    Raises:
        ClusterUnreachable: Its reservations do not answer.
    """
    return not _is_foreign(_find_actor())


def _is_foreign(actor: Any) -> bool:  # noqa: ANN401 - Ray has no type for a handle
    # A cluster that we may not even see is none of ours, unless somebody says that it is.
    return actor is None or isinstance(actor, RightMissing)


def _find_actor() -> Any:  # noqa: ANN401 - as above
    name = own_cluster()
    return None if name is None else _actor_of(ray.get_runtime_context().gcs_address, name)


def own_cluster() -> ClusterName | None:
    """Return the RayCluster that this process is in a pod of, or None."""
    namespace, name = (os.environ.get(f"RAY_CLUSTER_{part}") for part in ("NAMESPACE", "NAME"))
    return ClusterName(namespace, name) if namespace and name else None


@cache
def _actor_of(address: str, name: ClusterName) -> Any:  # noqa: ANN401, ARG001 - one for each Ray
    actor = start_reservations(name)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        is_ours, problem = _standing(actor, name)
        if problem is None or isinstance(problem, RightMissing):
            break
        # A run must not fail because the kube-apiserver is away for a minute.
        if not isinstance(problem, ClusterUnreachable) or time.monotonic() > deadline:
            raise problem
        time.sleep(_PAUSE_S)
    if not is_ours:
        ray.kill(actor)
        return problem
    return actor


def _standing(actor: Any, name: ClusterName) -> tuple[bool, RaymlError | None]:  # noqa: ANN401 - as above
    try:
        found: Any = ray.get(actor.standing.remote(), timeout=_START_S)
    except (GetTimeoutError, RayError) as exc:
        raise ClusterUnreachable(
            f"the reservations of {name} did not answer within {_START_S:g} s: {first_line(exc)}; "
            "look at the cluster's head"
        ) from exc
    is_ours, problem = found
    return is_ours, problem


def start_reservations(name: ClusterName) -> Any:  # noqa: ANN401 - as above
    """Return the actor of a cluster's reservations, which the first caller starts.

    It is detached, needs no CPU, is kept on the head, and comes back after it was killed.
    """
    options = ray.remote(ReservationsActor).options(name=NAME, **HEAD_ACTOR)
    return options.remote(str(name))


def _take_early_wishes() -> list[bytes]:
    """Take out what the Jobs API's clients have laid into the control service's memory."""
    wishes = []
    for name in internal_kv._internal_kv_list(f"gcs://{WISH}"):
        wishes.append(internal_kv._internal_kv_get(name))
        internal_kv._internal_kv_del(name)
    return [wish for wish in wishes if wish is not None]


def _tend_unclaimed(location: str, cluster: str) -> None:
    from rayml._ray.drivers import tend_unclaimed  # noqa: PLC0415 - only the head needs it

    tend_unclaimed(open_store(location), cluster)


class ReservationsActor:
    """Reservations as an actor: looks and acts all the time while anything is on its way."""

    def __init__(self, address: str) -> None:
        # Only the head needs them.
        from rayml.cluster.client import KubeClient  # noqa: PLC0415
        from rayml.cluster.reservations import Reservations  # noqa: PLC0415

        self._name = ClusterName.parse(address)
        self._client = KubeClient.connect()
        self._reservations = Reservations(self._name, self._client, RayNodes())
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._is_ours = False
        self._left_at = -_LEFT_S
        self._is_moving = False
        # Nobody may ever call it after a restart, and still workers have to leave.
        loop = asyncio.get_running_loop()
        works = (self._act(), self._listen(), self._tend())
        self._tasks = [loop.create_task(work) for work in works]

    async def standing(self) -> tuple[bool, RaymlError | None]:
        """Return whether the cluster's size is ours to change, or why nobody knows."""
        try:
            self._is_ours = self._is_ours or await asyncio.to_thread(self._reservations.is_ours)
        except RaymlError as exc:
            return False, exc
        return self._is_ours, None

    async def reserve(self, wish: bytes) -> None:
        """As `Reservations.reserve`."""
        self._reserve(wish, SILENCE_S)

    def _reserve(self, wish: bytes, patience_s: float) -> None:
        if self._reservations.reserve(msgspec.json.decode(wish, type=Wish), patience_s):
            self._wake.set()

    async def look(self, run: str, seen: int) -> Grant | None:
        """Return how a reservation stands, as soon as that is newer than `seen`, or after 10 s."""
        deadline = asyncio.get_running_loop().time() + _LOOK_S
        while True:
            grant = self._reservations.grant(run)
            left = deadline - asyncio.get_running_loop().time()
            if grant is None or grant.version > seen or left <= 0:
                return grant
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), left)
            except TimeoutError:
                continue

    async def hold(self, run: str, addresses: list[str]) -> list[str]:
        """As `Reservations.hold`."""
        workers = await asyncio.to_thread(self._reservations.hold, run, addresses)
        self._wake.set()
        return workers

    async def ends(self, run: str) -> list[str]:
        """As `Reservations.ends`."""
        return await asyncio.to_thread(self._reservations.ends, run)

    async def release(self, run: str) -> None:
        """As `Reservations.release`."""
        self._reservations.release(run)
        self._left_at = time.monotonic()
        self._wake.set()

    async def _listen(self) -> None:
        """Hear of jobs before their drivers have started, and of nodes as soon as they have come.

        Both cost a call each of Ray's control service, where a step costs five of Kubernetes.
        """
        known: frozenset[str] = frozenset()
        while True:
            await asyncio.sleep(_LISTEN_S)
            try:
                for wish in await asyncio.to_thread(_take_early_wishes):
                    self._reserve(wish, EARLY_S)
                nodes = await asyncio.to_thread(live_ids) if self._is_moving else known
                if nodes != known:
                    known = nodes
                    self._wake.set()
            except (RayError, RuntimeError, msgspec.DecodeError):
                _logger.exception("a wish was lost")  # the driver will say it again

    async def _tend(self) -> None:
        """Let no run wait for ever for a driver that will not come."""
        while (location := setting("store")) is not None:
            await asyncio.sleep(_TEND_S)
            try:
                await asyncio.to_thread(_tend_unclaimed, location, str(self._name))
            except RaymlError as exc:
                _logger.warning("submissions not seen to", extra={"why": str(exc)})
            except Exception:  # whatever it is, the next time may be better
                _logger.exception("submissions not seen to")

    async def _act(self) -> None:
        while True:
            self._wake.clear()
            pause_s = await self._step()
            self._changed.set()
            self._changed = asyncio.Event()
            try:
                await asyncio.wait_for(self._wake.wait(), pause_s)
            except TimeoutError:
                continue

    async def _step(self) -> float:
        try:
            self._is_moving = await asyncio.to_thread(self._reservations.step)
        except RaymlError as exc:
            self._reservations.fail(exc)
            _logger.warning("step failed", extra={"why": str(exc)})
            return _QUIET_S
        except Exception:  # whatever it is, the reservations of others must go on
            _logger.exception("step failed")
            return _QUIET_S
        if time.monotonic() - self._left_at < _LEFT_S:
            return _LEAVING_S
        return _GROWING_S if self._is_moving else _QUIET_S
