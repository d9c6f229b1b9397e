"""The Ray jobs that see remote runs through, as the cluster itself knows them.

Ray's Jobs API is imported only when a driver is asked about: it takes longer to import than a
tracker that comes back takes for everything else.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import ray
from ray._private import ray_constants
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.experimental import internal_kv

from rayml.errors import ClusterUnreachable
from rayml.tracker.lost import DriverState

if TYPE_CHECKING:
    from collections.abc import Collection

    from rayml.spec import Spec
    from rayml.store import Store


class RayJobs:
    """The drivers of this cluster; a run's id is its Ray job's submission id.

    Args:
        store: Where their runs are recorded.
        orphans: Runs from before this tracker began. A silent one that Ray knows no job of had its
            driver on a head that this one has replaced.
    """

    def __init__(self, store: Store, orphans: Collection[str] = ()) -> None:
        self._store = store
        self._orphans = frozenset(orphans)

    async def look(self, run: str) -> DriverState:
        """Return how the run's Ray job stands."""
        from ray.dashboard.modules.job.common import JobInfoStorageClient  # noqa: PLC0415
        from ray.job_submission import JobStatus  # noqa: PLC0415

        gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
        info = await JobInfoStorageClient(gcs).get_info(run)
        if info is None and run in self._orphans:
            return DriverState(is_over=True, words="the cluster's head was replaced")
        if info is None:
            return DriverState(is_over=False, words="")
        status = JobStatus(info.status)
        return DriverState(
            status.is_terminal(), f"Ray says about its driver: {status.value}, {info.message}"
        )

    async def restart(self, spec: Spec, attempt: int) -> None:
        """Submit the run's Ray job again, under the same id.

        Raises:
            ClusterUnreachable: The Jobs API refused.
        """
        try:
            await asyncio.to_thread(self._restart, spec, attempt)
        except (RuntimeError, OSError) as exc:
            raise ClusterUnreachable(f"the Jobs API refused its new driver: {exc}") from exc

    def _restart(self, spec: Spec, attempt: int) -> None:
        from rayml._ray.jobs_api import (  # noqa: PLC0415
            forget_job,
            hand_over,
            job_client,
            lent_code,
            submit_driver,
        )

        client = job_client(_jobs_address())
        config = getattr(self._store, "config", {})
        private = hand_over(client, json.dumps({"store": config}).encode()) if config else None
        forget_job(client, spec.run)
        submit_driver(client, spec, self._store, private, attempt, lent_code())


def _jobs_address() -> str:
    found = internal_kv._internal_kv_get(
        ray_constants.DASHBOARD_ADDRESS, namespace=ray_constants.KV_NAMESPACE_DASHBOARD
    )
    if found is None:
        raise ClusterUnreachable("this Ray has no dashboard, and so no Jobs API")
    return f"http://{found.decode()}"
