"""A cluster's nodes as its control service sees them: which are there, busy, or may go."""

from __future__ import annotations

from dataclasses import dataclass

import ray
from ray._private import state as ray_state
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated import autoscaler_pb2

WORKER = "rayml_worker"


@dataclass(frozen=True)
class Node:
    """One live Ray node.

    Attributes:
        id: Ray's own, in hex.
        address: Its IP address.
        is_busy: Something of it is taken, by a task, an actor or a placement group.
    """

    id: str
    address: str
    is_busy: bool


def live_nodes() -> list[Node]:
    """Return the nodes that are alive."""
    free = ray_state.available_resources_per_node()
    return [
        Node(node["NodeID"], node["NodeManagerAddress"], _is_busy(node, free.get(node["NodeID"])))
        for node in ray.nodes()
        if node["Alive"]
    ]


def live_ids() -> frozenset[str]:
    """Return the ids of the nodes that are alive."""
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])


def drain_idle(node_id: str) -> bool:
    """Let a node take nothing new if it is idle; tell whether that was so.

    Ray itself decides, at once with what it schedules: between our look and a pod's deletion no
    task can slip onto the node.
    """
    gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
    reason = autoscaler_pb2.DRAIN_NODE_REASON_IDLE_TERMINATION  # type: ignore[attr-defined]
    is_accepted, _ = gcs.drain_node(node_id, reason, "no job of rayml needs this worker", 0)
    return bool(is_accepted)


def _is_busy(node: dict[str, dict[str, float]], free: dict[str, float] | None) -> bool:
    if free is None:  # it has just come or gone: nobody can tell
        return True
    total = node["Resources"]
    return any(free.get(name, 0) < total[name] for name in ("CPU", "GPU", WORKER) if name in total)


class RayNodes:
    """The nodes of the Ray that this process is connected to, as reservations look at them."""

    def live(self) -> list[Node]:
        """As `live_nodes`."""
        return live_nodes()

    def drain_idle(self, node_id: str) -> bool:
        """As `drain_idle`."""
        return drain_idle(node_id)


def addresses_of(node_ids: list[str]) -> list[str]:
    """Return the IP addresses of nodes; one that has gone is left out."""
    return [node.address for node in live_nodes() if node.id in node_ids]
