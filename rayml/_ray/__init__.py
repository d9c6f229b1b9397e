"""All that depends on how Ray works inside; only here are Ray's non-public parts used."""

from __future__ import annotations

from rayml._ray.capacity import busy_reason, check_capacity
from rayml._ray.connection import (
    NAMESPACE,
    Connection,
    connect,
    is_alive,
    is_connected,
    is_this_machine,
)
from rayml._ray.deaths import NODE_LOSSES, RAY_DIED, explain_death
from rayml._ray.reservations import Reservation, find_reservation, is_resized
from rayml._ray.spark_scratch import clear as clear_session
from rayml._ray.spark_scratch import on_nodes, scratch_folders, session_name
from rayml._ray.tasks import (
    Place,
    find_place,
    node_is_alive,
    quote,
    run_on_node,
    start_attempt,
    take_workers,
    this_node,
    uv_compiler,
    uv_executable,
    wait_for_any,
)
from rayml._ray.trackers import find_tracker, leave, tracker_actor

__all__ = [
    "NAMESPACE",
    "NODE_LOSSES",
    "RAY_DIED",
    "Connection",
    "Place",
    "Reservation",
    "busy_reason",
    "check_capacity",
    "clear_session",
    "connect",
    "explain_death",
    "find_place",
    "find_reservation",
    "find_tracker",
    "is_alive",
    "is_connected",
    "is_resized",
    "is_this_machine",
    "leave",
    "node_is_alive",
    "on_nodes",
    "quote",
    "run_on_node",
    "scratch_folders",
    "session_name",
    "start_attempt",
    "take_workers",
    "this_node",
    "tracker_actor",
    "uv_compiler",
    "uv_executable",
    "wait_for_any",
]
