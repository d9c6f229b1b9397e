"""Jobs for a RayCluster on Kubernetes, as whoever submits them from outside sees it."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

from rayml.cluster.address import ClusterName
from rayml.cluster.answers import Conflict
from rayml.cluster.bundle import machine_of, make_bundle
from rayml.cluster.client import KubeClient, RightMissing
from rayml.cluster.demand import Demand
from rayml.cluster.door import open_door
from rayml.cluster.fit import check_fit
from rayml.cluster.grants import WISH, wish_of
from rayml.cluster.observation import Observation
from rayml.cluster.patch import patch_ops, trial_ops
from rayml.cluster.plan import plan
from rayml.cluster.reservations import RUN_LABEL
from rayml.cluster.settings import Settings, check_resizable
from rayml.cluster.shape import Base, shape_of
from rayml.cluster.versions import check_image, check_versions
from rayml.errors import RaymlError, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rayml.cluster.shape import Shape
    from rayml.spec import Spec


def reach(address: str) -> tuple[str, dict[str, str]]:
    """Return the URL of a cluster's Jobs API, and the headers that it wants.

    Raises:
        SpecError: The address is not `kuberay://namespace/name`, or there is no such context.
        NotFound: There is no such RayCluster.
        ClusterUnreachable: Kubernetes does not answer, or refuses us.
    """
    door = open_door(ClusterName.parse(address), KubeClient.connect())
    return door.address, door.headers


class KubeCluster:
    """A RayCluster as it was when this was made, for a job that is to run there."""

    def __init__(self, address: str) -> None:
        """Look at it.

        Raises:
            SpecError, NotFound, ClusterUnreachable: As `reach`.
        """
        self._name, self._client = ClusterName.parse(address), KubeClient.connect()
        self._cluster = self._client.ray_cluster(self._name)
        self._settings = Settings.read(self._cluster)

    def check(self, spec: Spec) -> Spec:
        """Return a job as it goes there, if it can ever run there.

        Raises:
            SpecError: The cluster cannot be resized, or what it asks for is nothing that pods
                have, or Kubernetes refuses, or its image has another Ray or Python.
            CapacityError: What it asks for is more than the cluster can ever have.
            ClusterUnreachable: Kubernetes does not answer, or refuses us.
        """
        name, client = self._name, self._client
        if self._settings.managed is None:
            raise SpecError(
                f"{name} is not resized by rayml; let it be by rayml cluster up --adopt {name}"
            )
        check_resizable(self._cluster)
        shape, seen = self._shape(spec), Observation.read(self._cluster, ())
        versions, priority, quotas, nodes, can_grow, refusal = _at_once(
            lambda: check_versions(name, self._settings, open_door(name, client)),
            lambda: _priority(client, spec),
            lambda: client.quotas(name.namespace),
            client.nodes,
            client.has_autoscaler,
            lambda: self._try(shape, seen),
        )
        if spec.image is not None:
            check_image(spec.image, versions)
        demand = Demand(run=spec.run, shape=shape, workers=spec.resources.workers)
        check_fit(demand, self._settings, quotas, None if can_grow else nodes, seen.groups)
        if refusal is not None:
            raise refusal
        return msgspec.structs.replace(spec, priority=priority)

    def _try(self, shape: Shape, seen: Observation) -> RaymlError | None:
        """Return what Kubernetes would refuse of a group of workers, if we may ask."""
        try:
            if ops := trial_ops(shape, seen):
                self._client.patch_ray_cluster(self._name, ops, is_trial=True)
        except (RightMissing, Conflict):
            return None
        except RaymlError as exc:  # told only if nothing that is plainer stands in the way
            return exc
        return None

    def announce(self, spec: Spec) -> None:
        """Let the cluster's reservations hear of a job before it is submitted.

        Its workers leave again if nothing more comes of it.

        Raises:
            ClusterUnreachable: The head does not answer, or refuses us.
        """
        door = open_door(self._name, self._client)
        path = f"/api/packages/gcs/{WISH}{spec.run}.zip"
        door.call("PUT", path, msgspec.json.encode(wish_of(spec)))

    def pack(self) -> tuple[str, bytes] | None:
        """Return rayml's code for a head that has none, and its digest: an adopted head's.

        Raises:
            ClusterUnreachable: A package cannot be fetched.
        """
        if self._settings.managed != "adopted" or self._settings.code is None:
            return None
        bundle = make_bundle(machine_of(Base.read(self._cluster).image))
        return bundle.code.digest, bundle.as_package()

    def preview(self, spec: Spec) -> list[dict[str, Any]]:
        """Return the JSON patch by which the cluster would grow for a job.

        Workers that no run holds are taken first.

        Raises:
            SpecError, CapacityError, ClusterUnreachable: As `check`.
        """
        spec, shape = self.check(spec), self._shape(spec)
        pods = self._client.pods(self._name)
        seen = Observation.read(self._cluster, pods).after(None, (), time.time())
        workers = {worker.name for worker in seen.workers if worker.shape == shape.key}
        held: dict[str, set[str]] = {}
        for pod in pods:
            run = (pod["metadata"].get("labels") or {}).get(RUN_LABEL)
            if run is not None and pod["metadata"]["name"] in workers:
                held.setdefault(run, set()).add(pod["metadata"]["name"])
        others = [Demand(run=run, shape=shape, workers=len(names)) for run, names in held.items()]
        ours = Demand(run=spec.run, shape=shape, workers=spec.resources.workers, since=time.time())
        decided = plan([*others, ours], seen, self._settings, held, time.time())
        return patch_ops(decided, seen, {shape.key: shape})

    def _shape(self, spec: Spec) -> Shape:
        return shape_of(spec.resources, spec.image, Base.read(self._cluster))


def _at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Return what calls return that wait for others; or raise what the first raised that did."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def _priority(client: KubeClient, spec: Spec) -> int:
    """Return the value of a job's priority class; 0 if it has none, or we may not see it."""
    chosen = spec.resources.priority_class
    if chosen is None:
        return 0
    try:
        return int(client.get("priorityclasses", chosen)["value"])
    except RightMissing as exc:
        print(  # noqa: T201 - it would wait behind others without a word
            f"rayml: priority class {chosen!r} counts as 0 in the queue, as it cannot be seen: "
            f"{exc}",
            file=sys.stderr,
        )
        return 0
