"""A cluster's Jobs API, and the memory of its control service."""

from __future__ import annotations

import json
import os
import secrets as randomness
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import ray
from ray._private.runtime_env import constants
from ray.exceptions import AuthenticationError
from ray.experimental import internal_kv
from ray.job_submission import JobSubmissionClient

from rayml import processes
from rayml._ray.connection import use_token
from rayml._ray.tasks import quote
from rayml.errors import ClusterUnreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rayml.spec import Spec
    from rayml.store import Store

# What a driver that was asked to stop needs for its job's grace and its own last records.
_STOP_WAIT_S = 60
# By these, Ray takes another cluster for the one that is said.
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def job_client(address: str, headers: dict[str, str] | None = None) -> JobSubmissionClient:
    """Return a client of a cluster's Jobs API.

    Without headers, the token is sent only to a cluster that has asked for one.

    Raises:
        ConnectionError, RuntimeError, AuthenticationError: It does not answer, or refuses us.
    """
    with processes.variables(dict.fromkeys(_OVERRIDES)):
        if headers is not None:
            return JobSubmissionClient(address, headers=headers)
        try:
            return JobSubmissionClient(address)
        except AuthenticationError:
            if not use_token():
                raise
            return JobSubmissionClient(address)


def submit_driver(
    client: JobSubmissionClient,
    spec: Spec,
    store: Store,
    private: str | None,
    attempt: int = 1,
    py_modules: Sequence[str] = (),
) -> None:
    """Start the Ray job that sees a run through; its submission id is the run's id.

    Args:
        client: Of the cluster.
        spec: The run.
        store: Where it is recorded.
        private: Where `hand_over` has laid what must not be written down.
        attempt: With which to go on.
        py_modules: Where rayml's own code is, if the cluster does not have it.

    Raises:
        RuntimeError: The cluster refused.
    """
    words = ["python", "-m", "rayml.driver", spec.run, "--store", store.uri]
    words += ["--private", private] if private else []
    words += ["--attempt", str(attempt)] if attempt > 1 else []
    environment: dict[str, Any] = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_WAIT_S)}}
    if py_modules:
        environment["py_modules"] = list(py_modules)
    client.submit_job(
        # In place of Ray's shell: when that is stopped, a driver that is its child is left to the
        # container's first process, which need not collect it, and Ray waits for it to go.
        entrypoint=f"exec {' '.join(map(quote, words))}",
        submission_id=spec.run,
        metadata={"rayml_run": spec.run, "rayml_name": spec.name},
        runtime_env=environment,
    )


def keep_environment_to_itself() -> None:
    """Let what a driver of ours starts have no environment: what it was started with is its own.

    Workers that wait for work take only tasks without one; for others, a process is started.
    """
    name = constants.RAY_JOB_CONFIG_JSON_ENV_VAR
    config = json.loads(os.environ.get(name, "{}"))
    if config.get("runtime_env", {}).pop("env_vars", None):
        os.environ[name] = json.dumps(config)


def forget_job(client: JobSubmissionClient, run: str) -> None:
    """Let a run's Ray job have been never, if there was one: its id can be used again.

    Raises:
        RuntimeError: The cluster refused.
    """
    try:
        client.delete_job(run)
    except RuntimeError as exc:
        if str(HTTPStatus.NOT_FOUND.value) not in str(exc):
            raise


def lend_code(client: JobSubmissionClient, digest: str, data: bytes) -> str:
    """Lay rayml's own code into a cluster, unless it is there; return where.

    Raises:
        RuntimeError: The cluster refused.
    """
    name = f"_ray_pkg_rayml_{digest}.zip"
    if client._do_request("GET", f"/api/packages/gcs/{name}").status_code != HTTPStatus.OK:
        _upload(client, name, data)
    return f"gcs://{name}"


def lent_code() -> list[str]:
    """Return where the code that this process runs was lent from; nothing if it is installed."""
    return list(ray.get_runtime_context().runtime_env.get("py_modules") or ())


def hand_over(client: JobSubmissionClient, private: bytes) -> str:
    """Lay what must not be written down into the cluster's memory; return where it can be taken.

    Ray's job records, which its dashboard shows, hold only the random name.
    """
    name = f"_ray_pkg_{randomness.token_hex(16)}.zip"
    _upload(client, name, private)
    return f"gcs://{name}"


def _upload(client: JobSubmissionClient, name: str, data: bytes) -> None:
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
