"""Which runs and Ray jobs would end with a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rayml.cluster.book import reservations_of
from rayml.cluster.door import open_door
from rayml.cluster.readiness import head_of, is_ready
from rayml.cluster.versions import live_jobs
from rayml.errors import ClusterUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rayml.cluster.address import ClusterName
    from rayml.cluster.client import KubeClient


def live_runs(
    name: ClusterName, client: KubeClient, cluster: Mapping[str, Any], *, only_ours: bool
) -> list[str]:
    """Return what would end with a cluster: its runs and its Ray jobs, by id, sorted.

    Without a head that is ready nobody can ask: then those that held or wanted workers last.

    Args:
        name: The cluster's.
        client: Of its kube-apiserver.
        cluster: The RayCluster.
        only_ours: Leave out Ray jobs that are not rayml's.

    Raises:
        ClusterUnreachable: The head is up and does not say what it runs.
    """
    found = {str(line.get("run")) for line in reservations_of(cluster)}
    head = head_of(client.pods(name))
    if head is None or not is_ready(head):
        return sorted(found)
    try:
        jobs = live_jobs(open_door(name, client))
    except ClusterUnreachable as exc:
        raise ClusterUnreachable(
            f"whether {name} runs something cannot be seen: {exc}; or say --force"
        ) from exc
    for job in jobs:
        if not only_ours or "rayml_run" in (job.get("metadata") or {}):
            found.add(str(job["submission_id"]))
    return sorted(found)
