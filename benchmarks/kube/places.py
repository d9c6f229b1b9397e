"""A control plane on this machine with a RayCluster that rayml resizes, and its store."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rayml.cluster.book import BOOK
from tests.kube.clusters import JobCluster, ray_cluster, wait_for
from tests.kube.images import ray_image
from tests.kube.plane import Plane
from tests.s3 import s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@contextmanager
def job_cluster(folder: Path, nodes: Mapping[str, float], **choices: Any) -> Iterator[JobCluster]:
    """Make a plane with nodes of so many CPUs, and a RayCluster on it.

    The variables of this process's environment lead to both, and to the store.
    """
    with Plane() as plane, s3_server(folder, plane.host_address) as s3:
        name, path = ray_image()
        plane.add_image(name, path)
        for node, cpus in nodes.items():
            plane.add_node(node, cpu=cpus, memory="16Gi")
        os.environ.update({**s3, "KUBECONFIG": str(plane.kubeconfig)})
        with ray_cluster(plane, name, s3, **choices) as cluster:
            yield cluster


def reservations(cluster: JobCluster) -> list[Any]:
    """Return what the RayCluster says of its reservations."""
    found = cluster.client.ray_cluster(cluster.name)["metadata"]["annotations"]
    return list(json.loads(found.get(BOOK, "[]")))


def wait_until_empty(cluster: JobCluster) -> None:
    """Wait until no worker is left, not even one that is going."""
    wait_for(lambda: len(cluster.client.pods(cluster.name)) == 1, "the end of all workers")
