"""All that depends on how Ray works inside; only here are Ray's non-public parts used."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shlex
import socket
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil
import ray
from ray._private import services
from ray._private import worker as ray_worker
from ray._private.authentication import authentication_token_setup as token_setup
from ray.exceptions import AuthenticationError, GetTimeoutError, RayError
from ray.experimental import internal_kv
from ray.job_submission import JobSubmissionClient
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from rayml.errors import CapacityError, ClusterUnreachable
from rayml.processes import identify
from rayml.tracker.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from ray._private.node import Node
    from ray.util.placement_group import PlacementGroup

    from rayml.config import Resources
    from rayml.store import Store
    from rayml.tracker.journal import Owner

NAMESPACE = "rayml"
_HOST_AND_PORT = re.compile(r"[^:/]+:\d+")
_ANSWER_S = 5.0
_TRACKER_START_S = 60.0
_TRACKER_CLOSE_S = 5.0
# Ray ends a worker cleanly when it has served this many calls of a function. The counter is raised
# to it by `retire_worker`, because whether a worker may be used again is known only after the
# call.
_MAX_CALLS = 1_000_000_000


@dataclass(frozen=True)
class Connection:
    """The Ray that this process is connected to.

    Attributes:
        address: Of its control service, `host:port`.
        is_own: It was started for this process and ends with it.
        description: For the user, in a few words.
    """

    address: str
    is_own: bool
    description: str


_connection: Connection | None = None
_trackers: dict[str, ray.actor.ActorHandle[TrackerActor]] = {}


def connect(cluster: str | None) -> Connection:
    """Connect this process to Ray, once.

    None follows Ray's convention: the Ray we are in, `RAY_ADDRESS`, one that runs on this machine,
    else a new one for this process alone. `"local"` always starts one. Anything else is an
    address.

    Raises:
        ClusterUnreachable: There is no Ray at that address, or it refused us.
    """
    global _connection  # noqa: PLW0603 - Ray itself has one connection a process
    if _connection is None or not ray.is_initialized():
        _hide_known_noise()
        _trackers.clear()
        _connection = _adopt() if ray.is_initialized() else _connect(cluster)
    return _connection


def _adopt() -> Connection:
    address = ray.get_runtime_context().gcs_address
    node = _own_node()
    is_own = node is not None and bool(node.all_processes)
    return Connection(address, is_own, f"the Ray that this process is part of, at {address}")


def _connect(cluster: str | None) -> Connection:
    found = cluster if cluster not in (None, "local") else None
    if cluster is None:
        found = os.environ.get("RAY_ADDRESS") or _running_on_this_machine()
    if found is None:
        return _start()
    if _HOST_AND_PORT.fullmatch(found) and not _answers(found):
        raise ClusterUnreachable(
            f"nothing answers at {found}; start a Ray there with `ray start --head`, or leave the "
            "cluster out to use this machine"
        )
    try:
        _init(found)
    except (ConnectionError, RayError, RuntimeError, ValueError) as exc:
        raise ClusterUnreachable(
            f"no Ray answers at {found}: {_first_line(exc)}; start one with `ray start --head`, "
            "or leave the cluster out to use this machine"
        ) from exc
    address = ray.get_runtime_context().gcs_address
    return Connection(address, is_own=False, description=f"the Ray cluster at {address}")


def _init(address: str) -> None:
    options: dict[str, Any] = {"namespace": NAMESPACE, "logging_level": logging.ERROR}
    host = address.partition("://")[2] or address
    if is_this_machine(host.rpartition(":")[0]):
        _use_token()
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RayError, RuntimeError):
        # The token is sent elsewhere only after it turned out that nothing goes without.
        if not _use_token():
            raise
        ray.init(address=address, **options)


def _start() -> Connection:
    # Without the dashboard, which takes seconds to start and which nobody could reach afterwards.
    ray.init(
        address="local",
        namespace=NAMESPACE,
        include_dashboard=False,
        logging_level=logging.ERROR,
    )
    address = ray.get_runtime_context().gcs_address
    cpus = ray.cluster_resources().get("CPU", 0)
    description = f"a new local Ray with {cpus:g} CPUs, which ends with this process"
    return Connection(address, is_own=True, description=description)


def _own_node() -> Node | None:
    node: Node | None = ray_worker._global_node
    return node


def _running_on_this_machine() -> str | None:
    address = services.canonicalize_bootstrap_address(None)  # type: ignore[arg-type]
    # The file that names it may have outlived it.
    return address if address is not None and _answers(address) else None


def _answers(address: str) -> bool:
    """Tell whether anything listens there: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except OSError:
        return False
    return True


def _first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0] or type(exc).__name__


@cache
def _hide_known_noise() -> None:
    """Drop Ray's own paragraph about a worker that died: rayml reports it as the run's failure."""
    show = ray_worker.print_to_stdstream

    def show_rest(data: dict[str, object], ignore_prefix: bool) -> None:  # noqa: FBT001 - Ray's
        lines = cast("list[str]", data.get("lines") or [])
        if data.get("pid") == "raylet" and any("worker died or was killed" in x for x in lines):
            return
        show(data, ignore_prefix)

    ray_worker.print_to_stdstream = show_rest


def is_connected() -> bool:
    """Tell whether this process is connected to a Ray."""
    return bool(ray.is_initialized())


def is_alive() -> bool:
    """Tell whether a Ray that this process started still has all its processes."""
    node = _own_node()
    dead = {kind for kind, _ in node.dead_processes()} if node is not None else set()
    return not {"gcs_server", "raylet"}.intersection(dead)


def leave() -> None:
    """Let the trackers of a Ray that ends with this process leave their shards in good order."""
    if _connection is None or not _connection.is_own or not is_alive():
        return
    with suppress(GetTimeoutError, RayError):  # what is left open, the next start closes
        closed: list[Any] = [actor.close.remote() for actor in _trackers.values()]
        ray.get(closed, timeout=_TRACKER_CLOSE_S)


# --- the Jobs API ---


def job_client(address: str) -> JobSubmissionClient:
    """Return a client of a cluster's Jobs API.

    The token is sent only to a cluster that has asked for one.

    Raises:
        ConnectionError, RuntimeError, AuthenticationError: It does not answer, or refuses us.
    """
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        if not _use_token():
            raise
        return JobSubmissionClient(address)


def is_this_machine(host: str) -> bool:
    """Tell whether a host name or address is this machine's own."""
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    own = {"127.0.0.1", "::1", _own_address()}
    return bool(addresses & own) or any(str(a).startswith("127.") for a in addresses)


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; it only asks which way it would go.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _use_token() -> bool:
    """Use Ray's token from now on if there is one; tell whether that is new."""
    if token_setup.AUTH_MODE_ENV_VAR in os.environ:
        return False
    logging.getLogger(token_setup.__name__).setLevel(logging.ERROR)
    return token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def upload(client: JobSubmissionClient, name: str, data: bytes) -> None:
    """Lay bytes into a cluster's control service, as Ray does with small packages."""
    answer = client._do_request("PUT", f"/api/packages/gcs/{name}", data=data)
    if answer.status_code != HTTPStatus.OK:
        client._raise_error(answer)


def take(uri: str) -> bytes:
    """Take such bytes out again: they are there once.

    Raises:
        ClusterUnreachable: They are not there.
    """
    data = internal_kv._internal_kv_get(uri)
    internal_kv._internal_kv_del(uri)
    if data is None:
        raise ClusterUnreachable(
            f"{uri} is not in the cluster's memory any more; submit the job again"
        )
    return data


# --- the tracker actor ---


def tracker_actor(store: Store) -> ray.actor.ActorHandle[TrackerActor]:
    """Return the tracker of a store in this cluster, serving; the first caller starts it.

    It is detached, needs no CPU, is kept on the head, and comes back after it was killed.

    Raises:
        StoreError: It cannot open the store.
        ClusterUnreachable: It does not start.
    """
    if store.uri not in _trackers:
        actor = _start_tracker(store)
        _await_tracker(actor)
        _trackers[store.uri] = actor
    return _trackers[store.uri]


def find_tracker(store: Store) -> ray.actor.ActorHandle[TrackerActor] | None:
    """Return the tracker of a store in this cluster, or None if it has none."""
    try:
        return ray.get_actor(_tracker_name(store), namespace=NAMESPACE)
    except ValueError:
        return None


def _tracker_name(store: Store) -> str:
    return f"tracker-{hashlib.sha256(store.uri.encode()).hexdigest()[:16]}"


def _start_tracker(store: Store) -> ray.actor.ActorHandle[TrackerActor]:
    name = _tracker_name(store)
    options = _tracker_class().options(
        name=name,
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached",
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=1000,
        num_cpus=0,
        resources={"node:__internal_head__": 0.001},
    )
    actor = options.remote(store, uuid.uuid4().hex[:16])
    return cast("ray.actor.ActorHandle[TrackerActor]", actor)


def _await_tracker(actor: Any) -> None:  # noqa: ANN401 - Ray's type for a handle has no methods
    try:
        problem = ray.get(actor.problem.remote(), timeout=_TRACKER_START_S)
    except (GetTimeoutError, RayError) as exc:
        raise ClusterUnreachable(
            f"the tracker actor did not start within {_TRACKER_START_S:g} s: {_first_line(exc)}; "
            "look at the cluster's head"
        ) from exc
    if problem is not None:
        ray.kill(actor)
        raise problem


@cache
def _tracker_class() -> ray.actor.ActorClass[TrackerActor]:
    return ray.remote(TrackerActor)


class TrackerActor:
    """The tracker as an actor: reports a store that it cannot open as a value.

    An error in an actor's constructor would reach callers wrapped, without its type.
    """

    def __init__(self, store: Store, shard: str) -> None:
        self._problem: Exception | None = None
        self._tracker: Tracker | None = None
        try:
            self._tracker = Tracker(store, shard, owner_of_cluster())
        except Exception as exc:  # noqa: BLE001 - handed to the caller, who raises it
            self._problem = exc

    async def problem(self) -> Exception | None:
        """Return why the store cannot be opened, or None."""
        return self._problem

    async def append(self, data: bytes) -> int:
        """As `Tracker.append`."""
        return await self._open().append(data)

    async def watch(self, run: str, seen: int) -> tuple[object, ...]:
        """As `Tracker.watch`."""
        return await self._open().watch(run, seen)

    async def close(self) -> None:
        """As `Tracker.close`."""
        await self._open().close()

    def _open(self) -> Tracker:
        if self._tracker is None:
            raise self._problem or RuntimeError("the tracker is not open")
        return self._tracker


def owner_of_cluster() -> Owner:
    """Return this node's Ray daemon: a shard whose daemon is gone has no writer any more."""
    return identify(psutil.Process(os.getppid()), ray.get_runtime_context().gcs_address)


# --- capacity ---


def check_capacity(resources: Resources) -> None:
    """Check that the cluster could ever hold a job's workers, were it idle.

    Raises:
        CapacityError: It could not; the message names the limit and the demand.
    """
    demand = ray_resources(resources)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, amount in demand.items():
        largest = max((node.get(name, 0) for node in nodes), default=0)
        if amount > largest:
            raise CapacityError(
                f"the job asks for {_show(name, amount)} a worker and the largest node has "
                f"{_show(name, largest)}; ask for less, or use a cluster that has them"
            )
    fitting = sum(_times(demand, node) for node in nodes)
    if resources.workers > fitting:
        raise CapacityError(
            f"the job asks for {resources.workers} workers of {show_resources(demand)} and the "
            f"cluster can hold {fitting}; ask for fewer or smaller ones"
        )


def busy_reason(resources: Resources) -> str:
    """Say in words what a job that could run is waiting for."""
    demand, free = ray_resources(resources), ray.available_resources()
    total = {n: a * resources.workers for n, a in demand.items()}
    short = [n for n, amount in total.items() if free.get(n, 0) < amount]
    if not short:
        return "a worker process is starting"
    parts = [f"{_show(n, free.get(n, 0))} free of {_show(n, total[n])} needed" for n in short]
    return f"the cluster is busy: {' and '.join(parts)}"


def ray_resources(resources: Resources) -> dict[str, float]:
    """Return one worker's demand under Ray's names, without what is zero."""
    demand = {
        "CPU": float(resources.cpus),
        "GPU": float(resources.gpus),
        "memory": float(resources.memory_bytes or 0),
    }
    if resources.gpu_type:
        demand[f"accelerator_type:{resources.gpu_type}"] = 0.001
    return {name: amount for name, amount in demand.items() if amount}


def show_resources(demand: dict[str, float]) -> str:
    """Return a demand for people.

    >>> show_resources({"CPU": 2.0, "memory": 4294967296.0})
    '2 CPUs and 4.0 GiB of memory'
    """
    return " and ".join(_show(n, a) for n, a in demand.items()) or "no resources"


def _show(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / 2**30:.1f} GiB of memory"
    if name in ("CPU", "GPU"):
        return f"{amount:g} {name}{'' if amount == 1 else 's'}"
    kind = re.sub(r"^accelerator_type:", "", name)
    return f"{'a' if amount else 'no'} GPU of type {kind}"


def _times(demand: dict[str, float], node: dict[str, float]) -> int:
    if not demand:
        return sys.maxsize
    return int(min(node.get(name, 0) / amount + 1e-9 for name, amount in demand.items()))


# --- attempts ---


@cache
def _attempt_function() -> ray.remote_function.RemoteFunction:
    function = ray.remote(max_calls=_MAX_CALLS, max_retries=0)(_attempt)
    return cast("ray.remote_function.RemoteFunction", function)


def _attempt(execute: Callable[..., tuple[bytes, bool]], *args: object) -> bytes:
    outcome, is_clean = execute(*args, this_node())
    if not is_clean:
        retire_worker()
    return outcome


def start_attempt(
    execute: Callable[..., tuple[bytes, bool]],
    args: tuple[object, ...],
    resources: Resources,
    runtime_env: dict[str, object],
    group: PlacementGroup | None,
    name: str,
) -> ray.ObjectRef[Any]:
    """Start `execute(*args, node)` as a Ray task; it returns (outcome, is_clean)."""
    demand = ray_resources(resources)
    accelerator = {k: v for k, v in demand.items() if k.startswith("accelerator_type")}
    options: dict[str, object] = {
        "num_cpus": demand.get("CPU", 0),
        "num_gpus": demand.get("GPU", 0),
        "memory": int(demand["memory"]) if "memory" in demand else None,
        "resources": accelerator or None,
        "name": name,
    }
    if runtime_env:
        options["runtime_env"] = runtime_env
    if group is not None:
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
        )
    task = _attempt_function().options(**options).remote(execute, *args)
    return cast("ray.ObjectRef[Any]", task)


def retire_worker() -> None:
    """Let this worker end after the task that it executes: user code has left something behind."""
    manager: Any = ray_worker.global_worker.function_actor_manager
    for function_id, info in list(manager._function_execution_info.items()):
        if info.max_calls == _MAX_CALLS:
            manager._num_task_executions[function_id] = _MAX_CALLS - 1


def reserve(resources: Resources) -> PlacementGroup | None:
    """Ask for all of a job's workers at once; None for a single one, which its task asks for."""
    if resources.workers == 1:
        return None
    bundles = [ray_resources(resources) or {"CPU": 0.001} for _ in range(resources.workers)]
    return cast("PlacementGroup", placement_group(bundles, strategy="PACK"))


def release(group: PlacementGroup | None) -> None:
    """Give a reservation back."""
    if group is not None:
        remove_placement_group(group)


def run_on_node(
    node_id: str, function: Callable[..., object], *args: object
) -> ray.ObjectRef[Any]:
    """Run a function on one node without waiting for free CPUs."""
    task = ray.remote(num_cpus=0, max_retries=0)(function)
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return cast("ray.ObjectRef[Any]", task.options(scheduling_strategy=strategy).remote(*args))


def this_node() -> str:
    """Return the id of the node that this process is on; empty outside Ray."""
    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


def node_is_alive(node_id: str) -> bool:
    """Tell whether a node is still part of the cluster."""
    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


def uv_executable(requirements: list[str]) -> list[str]:
    """Return the words that start Python with packages on top of this environment's."""
    import uv  # noqa: PLC0415 - only jobs with requirements need it

    words = [uv.find_uv_bin(), "run", "--quiet", "--no-project", "--python", sys.executable]
    for requirement in requirements:
        words += ["--with", requirement]
    return [*words, "python"]


def quote(word: str) -> str:
    """Return a word as the shell that starts Ray's workers reads it."""
    return shlex.quote(word)


def oom_kills() -> int:
    """Return how many processes this machine's kernel has killed for memory since it started."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    match = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else 0


def wait_for_any(refs: list[ray.ObjectRef[Any]], timeout_s: float) -> list[ray.ObjectRef[Any]]:
    """Return those of the references that are ready, as soon as there is one."""
    ready, _ = ray.wait(refs, num_returns=1, timeout=max(0.0, timeout_s))
    return cast("list[ray.ObjectRef[Any]]", ready)
