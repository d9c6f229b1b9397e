"""Applications of Ray Serve: one for each version of a model, beside whatever else is there.

Serve's own proxies are not used: a Ray has one set of them, at one port, and they may be somebody
else's. Replicas take no CPUs of their own, because they are the job's and it holds some already;
they run where it does.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.util.placement_group import PlacementGroup, placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

import rayml

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOYMENT = "Replica"
_NODE = "ray.io/node-id"
_ON_HEAD = {
    "num_cpus": 0,
    "resources": {"node:__internal_head__": 0.001},
    "scheduling_strategy": PlacementGroupSchedulingStrategy(PlacementGroup.empty()),
    "lifetime": "detached",
}
_WATCH_S = 15.0
_QUIET = {"log_level": "ERROR", "enable_access_log": False}
_OPTIONS: dict[str, Any] = {
    "name": DEPLOYMENT,
    "logging_config": _QUIET,
    "health_check_period_s": 5,
    "graceful_shutdown_wait_loop_s": 0.1,
    "graceful_shutdown_timeout_s": 10,
    "max_constructor_retry_count": 1,
    "max_ongoing_requests": 128,
    "max_queued_requests": 2000,
}
_OWN_ERROR = re.compile(r"rayml\.errors\.\w+: ")
_ERROR = re.compile(r"[\w.]+(Error|Exception|Refused|NotFound): ")


@dataclass(frozen=True)
class Owner:
    """The attempt of a run that applications belong to.

    Attributes:
        store: Where the run is recorded.
    """

    run: str
    attempt: int
    store: Any

    @property
    def prefix(self) -> str:
        """How the names of the run's applications begin."""
        return f"rayml-{self.run}-"

    def is_over(self) -> bool:
        """Tell whether the attempt has ended, as far as anybody has recorded."""
        try:
            run = rayml.get_run(self.run, store=self.store)
        except rayml.NotFound:  # it was deleted
            return True
        return run.ended_at is not None or run.attempt != self.attempt


class Guard:
    """Starts Ray Serve, and ends what a job has of it if that is killed before it could.

    It is outside of the job's placement group, where Serve's controller has to be started, and on
    the head, because the job's own nodes may go with it.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def start(self) -> None:
        """Start Ray Serve unless it is there, and end what an earlier attempt has left."""
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(proxy_location="Disabled", logging_config=_QUIET)
        for app in serve.status().applications:
            if app.startswith(self._owner.prefix):
                delete(app)

    def watch(self) -> None:
        """Wait until the job is over, end what is left of it here, and go."""
        is_over = False
        while not is_over:
            time.sleep(_WATCH_S)
            with suppress(rayml.StoreError):  # it will answer some day
                is_over = self._owner.is_over()
        leave(self._owner.prefix)
        ray.actor.exit_actor()


@contextmanager
def running(owner: Owner) -> Iterator[None]:
    """Have Ray Serve during the block, and nothing of the owner's afterwards."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    guard: Any = ray.remote(Guard).options(**_ON_HEAD).remote(owner)
    try:
        ray.get(guard.start.remote())
        guard.watch.remote()
        yield
    finally:
        leave(owner.prefix)
        ray.kill(guard)


class NotUp(Exception):
    """The replicas of an application did not come up; the text says why."""


def deploy(app: str, replicas: int, replica: type, *args: Any, **options: Any) -> Any:  # noqa: ANN401
    """Return a handle to an application's replicas once they are up.

    Args:
        app: Its name.
        replicas: How many.
        replica: The class of each.
        args: What that is made with.
        options: The same by name.

    Raises:
        NotUp: They do not come up; nothing of them is left.
    """
    place = {"num_cpus": 0, "label_selector": {_NODE: f"in({','.join(own_nodes())})"}}
    decorate: Any = serve.deployment(num_replicas=replicas, ray_actor_options=place, **_OPTIONS)
    bound = decorate(replica).bind(*args, **options)
    try:
        return serve.run(bound, name=app, route_prefix=None)
    except RuntimeError as exc:
        raise NotUp(_last_words(f"{exc}\n{_told(app)}")) from exc
    finally:
        if not replicas_of(app):
            delete(app)


def own_nodes() -> list[str]:
    """Return the nodes that the job may use: its own, or those of its placement group."""
    group = ray.util.get_current_placement_group()
    if group is None:
        return [ray.get_runtime_context().get_node_id()]
    return sorted(set(placement_group_table(group)["bundles_to_node_id"].values()))


def replicas_of(app: str) -> int:
    """Return how many replicas of an application answer.

    Raises:
        ClusterError: Somebody has ended Ray Serve.
    """
    try:
        found = serve.status().applications.get(app)
    except RayActorError as exc:
        raise rayml.ClusterError(
            "Ray Serve, which had the model, was ended by somebody else; submit the run again"
        ) from exc
    if found is None or DEPLOYMENT not in found.deployments:
        return 0
    states: Any = found.deployments[DEPLOYMENT].replica_states
    return int(states.get("RUNNING", 0))


def delete(app: str) -> None:
    """End an application, if it is there, once what it has begun to answer is answered."""
    with suppress(Exception):
        serve.delete(app)


def leave(prefix: str) -> None:
    """End the applications of this prefix, and Ray Serve itself if it has no others.

    Serve with proxies was started by somebody who wants it.
    """
    try:
        status = serve.status()
    except RayActorError:  # somebody has ended all of it
        return
    own = [app for app in status.applications if app.startswith(prefix)]
    if len(own) == len(status.applications) and not status.proxies:
        serve.shutdown()
        return
    for app in own:
        delete(app)


def _told(app: str) -> str:
    """Return what Serve tells of the replicas of an application that is not up."""
    found = serve.status().applications.get(app)
    return "\n".join(part.message for part in found.deployments.values()) if found else ""


def _last_words(text: str) -> str:
    r"""Return the error that a replica's traceback ends with.

    >>> _last_words("Traceback …:\n  File …\nValueError: it is too short\n")
    'ValueError: it is too short'
    >>> _last_words("… Error:\nActorDiedError()")
    'its process died while it was loaded'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines[-1].startswith("ActorDiedError"):
        return "its process died while it was loaded"
    errors = [line for line in lines if _ERROR.match(line)]
    return _OWN_ERROR.sub("", (errors or lines)[-1])[:1000]
