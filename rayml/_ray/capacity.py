"""What a cluster can ever give, and what it is short of now, in words."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.core.generated.autoscaler_pb2 import (  # type: ignore[attr-defined]
    GetClusterStatusReply,
)
from ray.experimental.internal_kv import _internal_kv_get, internal_kv_get_gcs_client

from rayml.errors import CapacityError

if TYPE_CHECKING:
    from rayml.config import Resources

_ANSWER_S = 10.0
_OF_A_NODE = "node_"


def check_capacity(resources: Resources) -> None:
    """Check that the cluster could ever hold a job's workers, were it idle.

    Where Ray's own autoscaler adds machines, what there is now is no limit.

    Raises:
        CapacityError: It could not; the message names the limit and the demand.
    """
    text = _misfit(resources)
    if text and not _is_autoscaling():
        raise CapacityError(text)


def _misfit(resources: Resources) -> str:
    """Return what the nodes that are there lack, were they idle; empty if nothing."""
    demand = ray_resources(resources)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, amount in demand.items():
        largest = max((node.get(name, 0) for node in nodes), default=0)
        if amount > largest:
            return (
                f"the job asks for {_show(name, amount)} a worker and the largest node has "
                f"{_show(name, largest)}; ask for less, or use a cluster that has them"
            )
    fitting = sum(_times(demand, node) for node in nodes)
    if resources.workers > fitting:
        return (
            f"the job asks for {resources.workers} workers of {show_resources(demand)} and the "
            f"cluster can hold {fitting}; ask for fewer or smaller ones"
        )
    return ""


def _is_autoscaling() -> bool:
    """Tell whether Ray's own autoscaler looks after this cluster.

    The monitor of one without it calls each node's type after the node.
    """
    gcs: Any = internal_kv_get_gcs_client()
    reply = GetClusterStatusReply.FromString(gcs.get_cluster_status(timeout_s=_ANSWER_S))
    if reply.autoscaling_state.autoscaler_state_version > 0:  # only the second version reports
        return True
    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}")
    types = (status.get("autoscaler_report") or {}).get("node_type_mapping") or {}
    return not all(kind.startswith(_OF_A_NODE) for kind in types.values())


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
