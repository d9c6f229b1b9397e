"""A cluster's Jobs API, and the memory of its control service."""

from __future__ import annotations

from http import HTTPStatus

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError
from ray.experimental import internal_kv
from ray.job_submission import JobSubmissionClient

from rayml._ray.connection import use_token
from rayml.errors import ClusterUnreachable


def job_client(address: str) -> JobSubmissionClient:
    """Return a client of a cluster's Jobs API.

    The token is sent only to a cluster that has asked for one.

    Raises:
        ConnectionError, RuntimeError, AuthenticationError: It does not answer, or refuses us.
    """
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        if not use_token():
            raise
        return JobSubmissionClient(address)


async def explain_driver(run: str) -> str:
    """Return what Ray knows of the end of a run's driver, for a sentence; or nothing."""
    from ray.dashboard.modules.job.common import JobInfoStorageClient  # noqa: PLC0415 - heavy

    gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
    info = await JobInfoStorageClient(gcs).get_info(run)
    if info is None:
        return ""
    return f" (Ray says about its driver: {info.status}, {info.message})"


def upload(client: JobSubmissionClient, name: str, data: bytes) -> None:
    """Lay bytes into a cluster's control service, as Ray does with small packages."""
    answer = client._do_request("PUT", f"/api/packages/gcs/{name}", data=data)
    if answer.status_code != HTTPStatus.OK:
        client._raise_error(answer)


def take(uri: str) -> bytes:
    """Take such bytes out again: they are there once.

    Raises:
        ClusterUnreachable: They are not there.
    """
    data = internal_kv._internal_kv_get(uri)
    internal_kv._internal_kv_del(uri)
    if data is None:
        raise ClusterUnreachable(
            f"{uri} is not in the cluster's memory any more; submit the job again"
        )
    return data
