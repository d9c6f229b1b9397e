"""Ray clusters of ours on the test plane, with a store that their pods reach."""

from __future__ import annotations

import contextlib
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import rayml
from rayml.cluster.address import ClusterName
from rayml.cluster.choices import Choices
from rayml.cluster.client import KubeClient
from rayml.cluster.lifecycle import up
from rayml.cluster.readiness import wait_until_ready
from tests.s3 import BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.kube.plane import Plane

PATIENCE_S = 120.0


@dataclass(frozen=True)
class JobCluster:
    """A RayCluster that `up` has made.

    Attributes:
        name: Its namespace and name.
        store: The URI of the store that its jobs use.
    """

    name: ClusterName
    store: str
    client: KubeClient
    plane: Plane

    def submit(self, function: Any, **options: Any) -> rayml.Run:
        """Submit a job to it."""
        run = rayml.submit(function, cluster=str(self.name), store=self.store, **options)
        assert isinstance(run, rayml.Run)
        return run

    def adopt(self) -> None:
        """Let rayml resize it, though somebody else has made it."""
        chosen = Choices(store=self.store, store_secret="s3", grace_s=0)
        up(self.name, self.client, chosen, adopt=True, wait_s=120, tell=print)

    def set_grace(self, grace_s: float) -> None:
        """Let idle workers stay for so long, from now on."""
        changes = {"metadata": {"annotations": {"rayml.io/grace-s": str(grace_s)}}}
        self.client.patch_ray_cluster(self.name, changes)

    def pods(self, kind: str = "worker") -> dict[str, dict[str, Any]]:
        """Return its pods of a kind that are not going, by name."""
        return {
            pod["metadata"]["name"]: pod
            for pod in self.client.pods(self.name)
            if pod["metadata"]["labels"]["ray.io/node-type"] == kind
            and "deletionTimestamp" not in pod["metadata"]
        }

    def head(self) -> str:
        """Return the name of its head's pod."""
        (name,) = self.pods("head")
        return name

    def pods_of(self, run: rayml.Run) -> set[str]:
        """Return the pods that show a run as a label."""
        return {
            name
            for name, pod in self.pods().items()
            if pod["metadata"]["labels"].get("rayml.io/run") == run.id
        }


def wait_for(check: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Return what a check returns once that is true."""
    deadline = time.monotonic() + patience_s
    while not (found := check()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {patience_s:g} s")
        time.sleep(0.2)
    return found


def wait_for_state(run: rayml.Run, *states: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until a run is in one of these states."""
    deadline = time.monotonic() + patience_s
    while run.state not in states:
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"run {run.id} is {run.state} ({run.reason}) and not {states} after "
                f"{patience_s:g} s; {run.error!r}\n{run.logs()}"
            )
        time.sleep(0.2)


@contextlib.contextmanager
def ray_cluster(
    plane: Plane, image: str, s3: Mapping[str, str], **choices: Any
) -> Iterator[JobCluster]:
    """Make a RayCluster in a namespace of its own; both are gone afterwards."""
    with _place(plane, "train", s3) as cluster:
        chosen = Choices(image=image, store=cluster.store, store_secret="s3", **choices)
        up(cluster.name, cluster.client, chosen, wait_s=180, tell=print)
        yield cluster


@contextlib.contextmanager
def foreign_cluster(
    plane: Plane, image: str, s3: Mapping[str, str], **more: Any
) -> Iterator[JobCluster]:
    """Make a RayCluster that knows nothing of rayml, in a namespace of its own.

    What is given besides goes into its `spec`.
    """
    with _place(plane, "theirs", s3) as cluster:
        pod = {"containers": [{"name": "ray-head", "image": image}]}
        size = {"cpu": "1", "memory": "1Gi"}
        container = {"name": "ray-worker", "image": image, "resources": {"limits": size}}
        worker = {"containers": [container]}
        group = {"groupName": "own", "replicas": 0, "minReplicas": 0, "maxReplicas": 1}
        spec = {
            "rayVersion": image.partition(":")[2].partition("-")[0],
            "headGroupSpec": {
                "rayStartParams": {"num-cpus": "0"},
                "template": {"spec": pod},
            },
            "workerGroupSpecs": [group | {"template": {"spec": worker}}],
            **more,
        }
        item = {
            "apiVersion": "ray.io/v1",
            "kind": "RayCluster",
            "metadata": {"name": cluster.name.name},
            "spec": spec,
        }
        cluster.client.create("rayclusters", item, cluster.name.namespace)
        wait_until_ready(cluster.name, cluster.client, 180, print)
        yield cluster


@contextlib.contextmanager
def _place(plane: Plane, title: str, s3: Mapping[str, str]) -> Iterator[JobCluster]:
    """Make a namespace for a RayCluster of this name, with a Secret for its store."""
    namespace = f"jobs-{uuid.uuid4().hex[:6]}"
    path = f"/api/v1/namespaces/{namespace}"
    plane.api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    plane.api.wait(f"{path}/serviceaccounts/default", bool)
    plane.api.create(f"{path}/secrets", {"metadata": {"name": "s3"}, "stringData": dict(s3)})
    name, client = ClusterName(namespace, title), KubeClient.connect()
    try:
        yield JobCluster(name, f"s3://{BUCKET}/{namespace}", client, plane)
    finally:
        client.delete("rayclusters", name.name, namespace)
        wait_for(lambda: not client.pods(name), "the end of the cluster's pods")
        client.delete("namespaces", namespace)
