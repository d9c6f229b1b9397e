"""Which Ray this process is connected to, and whether it is still there."""

from __future__ import annotations

import logging
import os
import re
import socket
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

import ray
from ray._private import services
from ray._private import worker as ray_worker
from ray._private.authentication import authentication_token_setup as token_setup
from ray.exceptions import RayError

from rayml._ray.tasks import OUTSIDE
from rayml.errors import ClusterUnreachable

if TYPE_CHECKING:
    from ray._private.node import Node

NAMESPACE = "rayml"
# Of an actor that a cluster has one of: kept on the head, without a CPU, back after it was killed.
HEAD_ACTOR: Final[dict[str, Any]] = {
    "namespace": NAMESPACE,
    "get_if_exists": True,
    "lifetime": "detached",
    "max_restarts": -1,
    "max_task_retries": -1,
    "max_concurrency": 1000,
    "num_cpus": 0,
    "scheduling_strategy": OUTSIDE,
    "resources": {"node:__internal_head__": 0.001},
}
_HOST_AND_PORT = re.compile(r"[^:/]+:\d+")
_ANSWER_S = 5.0
_NOISE = ("worker died or was killed", "Task ServeController.")


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


def connect(cluster: str | None) -> Connection:
    """Connect this process to Ray, once.

    None follows Ray's convention: the Ray we are in, `RAY_ADDRESS`, one that runs on this machine,
    else a new one for this process alone. `"local"` always starts one. Anything else is an
    address.

    Raises:
        ClusterUnreachable: There is no Ray at that address, or it refused us.
    """
    global _connection  # noqa: PLW0603 - Ray itself has one connection a process
    if _connection is None or _connection.address != _current_address():
        _hide_known_noise()
        _connection = _adopt() if ray.is_initialized() else _connect(cluster)
    return _connection


def _current_address() -> str | None:
    """Return the Ray that we are really connected to: user code may have changed it."""
    return ray.get_runtime_context().gcs_address if ray.is_initialized() else None


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
            f"no Ray answers at {found}: {first_line(exc)}; start one with `ray start --head`, "
            "or leave the cluster out to use this machine"
        ) from exc
    address = ray.get_runtime_context().gcs_address
    return Connection(address, is_own=False, description=f"the Ray cluster at {address}")


def _init(address: str) -> None:
    options: dict[str, Any] = {"namespace": NAMESPACE, "logging_level": logging.ERROR}
    host = address.partition("://")[2] or address
    if is_this_machine(host.rpartition(":")[0]):
        use_token()
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RayError, RuntimeError):
        # The token is sent elsewhere only after it turned out that nothing goes without.
        if not use_token():
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


def use_token() -> bool:
    """Use Ray's token from now on if there is one; tell whether that is new."""
    if token_setup.AUTH_MODE_ENV_VAR in os.environ:
        return False
    logging.getLogger(token_setup.__name__).setLevel(logging.ERROR)
    return token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


@cache
def _hide_known_noise() -> None:
    """Drop Ray's own paragraphs about a worker that died, and about the end of its Serve.

    rayml reports the one as the run's failure, and the other is how an endpoint ends.
    """
    show = ray_worker.print_to_stdstream

    def show_rest(data: dict[str, object], ignore_prefix: bool) -> None:  # noqa: FBT001 - Ray's
        lines = cast("list[str]", data.get("lines") or [])
        if data.get("pid") == "raylet" and any(noise in x for x in lines for noise in _NOISE):
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


def first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0] or type(exc).__name__
