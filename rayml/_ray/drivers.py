"""The Ray jobs that see remote runs through, as the cluster itself knows them.

Ray's Jobs API is imported only when a driver is asked about: it takes longer to import than a
tracker that comes back takes for everything else.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import ray
from ray._private import ray_constants
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.experimental import internal_kv

from rayml.errors import ClusterUnreachable
from rayml.tracker.abandoned import HEAD_LOST, end_unstarted
from rayml.tracker.catalog import open_catalog
from rayml.tracker.lost import DriverState, obstacle
from rayml.tracker.reader import read_runs
from rayml.tracker.records import Problem
from rayml.tracker.submissions import claim_key, read_submission, run_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from ray.job_submission import JobDetails, JobSubmissionClient

    from rayml.spec import Spec
    from rayml.store import Store

# For which a client that has recorded a submission may need to ask for its driver.
_CLIENT_PATIENCE_S = 120.0


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
        from rayml._ray.jobs_api import forget_job, job_client  # noqa: PLC0415

        client = job_client(_jobs_address())
        forget_job(client, spec.run)
        _submit(client, spec, self._store, attempt)


def begin_forgotten(store: Store, cluster: str) -> None:
    """See to the runs that this cluster's last head was told of and had no driver for yet.

    One that nobody has claimed gets its driver; one that cannot get one again is ended.

    Args:
        store: Where they were submitted.
        cluster: This cluster's address, as jobs name it.

    Raises:
        ClusterUnreachable: The Jobs API refused.
        StoreError: The store cannot be read or written.
    """
    _see_to(store, cluster, _unrecorded(store, _submitted(store)), patience_s=0)


def tend_unclaimed(store: Store, cluster: str) -> None:
    """See to the runs that no driver takes, though the head is the same.

    One whose driver has ended before it could claim the run is ended; one whose client died before
    it could ask for a driver gets it. The client would notice, but need not be there any more.
    What it takes and raises is as for `begin_forgotten`.
    """
    claimed = {run_of(key) for key in store.list("claims/")}
    unclaimed = _submitted(store) - claimed
    if unclaimed:  # seldom: only then what there is of runs is read
        _see_to(store, cluster, _unrecorded(store, unclaimed), _CLIENT_PATIENCE_S)


def _submitted(store: Store) -> set[str]:
    return {run_of(key) for key in store.list("submissions/")}


def _unrecorded(store: Store, runs: set[str]) -> set[str]:
    return runs - read_runs(store).shard_of.keys() - open_catalog(store).refresh().runs.keys()


def _see_to(store: Store, cluster: str, runs: set[str], patience_s: float) -> None:
    from rayml._ray.jobs_api import job_client  # noqa: PLC0415

    if not runs:
        return
    try:
        client = job_client(_jobs_address())
        jobs = {job.submission_id: job for job in client.list_jobs()}
        for run in sorted(runs):
            spec = read_submission(store, run).spec
            if spec.cluster != cluster:
                continue
            if run in jobs:
                _end_if_over(jobs[run], spec, store)
            elif time.time() - spec.submitted_at >= patience_s:
                _begin(client, spec, store)
    except (RuntimeError, OSError) as exc:
        raise ClusterUnreachable(f"the Jobs API refused: {exc}") from exc


def _end_if_over(job: JobDetails, spec: Spec, store: Store) -> None:
    if job.status.is_terminal() and store.create(claim_key(spec.run), b"{}"):
        words = f"its driver ended before it began: {job.status.value}, {job.message}"
        end_unstarted(store, spec, "failed", Problem(kind="lost", message=words))


def _begin(client: JobSubmissionClient, spec: Spec, store: Store) -> None:
    claim = claim_key(spec.run)
    is_claimed = store.size(claim) is not None  # by a driver that died before it recorded anything
    if not is_claimed and not obstacle(spec):
        _submit(client, spec, store, 1)
    elif is_claimed or store.create(claim, b"{}"):
        end_unstarted(store, spec, "failed", HEAD_LOST)


def _submit(client: JobSubmissionClient, spec: Spec, store: Store, attempt: int) -> None:
    from rayml._ray.jobs_api import hand_over, lent_code, submit_driver  # noqa: PLC0415

    config = getattr(store, "config", {})
    private = hand_over(client, json.dumps({"store": config}).encode()) if config else None
    submit_driver(client, spec, store, private, attempt, lent_code())


def _jobs_address() -> str:
    found = internal_kv._internal_kv_get(
        ray_constants.DASHBOARD_ADDRESS, namespace=ray_constants.KV_NAMESPACE_DASHBOARD
    )
    if found is None:
        raise ClusterUnreachable("this Ray has no dashboard, and so no Jobs API")
    return f"http://{found.decode()}"
