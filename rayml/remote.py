"""Runs that another process sees through: a Ray job, or a process of this machine."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from rayml import _ray
from rayml._ray import jobs_api
from rayml.cluster.address import SCHEME
from rayml.code import pack_folder, renew_folder
from rayml.diff import keep_diff
from rayml.errors import ClusterError, ClusterUnreachable, RaymlError, SpecError
from rayml.kuberay import reach
from rayml.redaction import Redactor
from rayml.spec import has_jobs_api
from rayml.supervisor import request_cancel
from rayml.tracker.abandoned import HEAD_LOST, close_abandoned, end_unstarted
from rayml.tracker.live import LiveMark
from rayml.tracker.reader import read_runs
from rayml.tracker.records import Problem, Submission
from rayml.tracker.submissions import claim_key, create_submission, submission_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.delivery import Delivery
    from rayml.spec import Spec
    from rayml.store import Store

_AGENT_WAIT_S = 30.0
# A tracker that knows the run ends it or starts it again within half a minute.
_LOST_AFTER_S = {False: 10.0, True: 90.0}
# For which Ray may know no job of a run: its tracker starts one again, or its client asks for it.
_UNKNOWN_AFTER_S = 60.0
_POLL_S = 0.5
_JOB_POLL_S = 3.0
# For which a cluster may be away, its head or the way to it, before waiting for a run is given up.
_SILENCE_S = 300.0


def submit_remotely(job: Delivery, address: str) -> tuple[Spec, JobDriver]:
    """Hand a job to a cluster's Jobs API; it is a Ray job whose submission id is the run's id.

    Raises:
        ClusterUnreachable: The Jobs API does not answer, or refuses us.
        StoreError: The submission could not be recorded.
    """
    client = _client(address)
    spec, code = _pack_code(job)
    spec = msgspec.structs.replace(spec, cluster=address)
    payload = job.store.add(BytesIO(job.payload)).digest
    diff = keep_diff(job.patch, job.store, Redactor(job.secrets.values()))
    submission = Submission(spec=spec, payload=payload, code=code, diff=diff)
    if not create_submission(job.store, submission):
        raise SpecError(f"run {spec.run} exists already; submit again to get a new id")
    try:
        with _calling(address):
            private = _private(job)
            name = jobs_api.hand_over(client, json.dumps(private).encode()) if private else None
            lent = job.cluster.pack() if job.cluster is not None else None
            modules = [] if lent is None else [jobs_api.lend_code(client, *lent)]
            _start(client, spec, job.store, name, modules)
    except RaymlError:
        job.store.delete(submission_key(spec.run))
        raise
    return spec, JobDriver(client, spec, job.store)


def ping(address: str) -> str:
    """Return the version of the Ray whose Jobs API is at this address.

    Raises:
        ClusterUnreachable: It does not answer, or refuses us.
    """
    client = _client(address)
    with _calling(address):
        return str(client.get_version())


def find_driver(spec: Spec, store: Store) -> JobDriver | TrackerDriver:
    """Return a way to reach whoever sees a run through.

    Raises:
        ClusterUnreachable: It cannot be reached.
    """
    if has_jobs_api(spec.cluster):
        return JobDriver(_client(spec.cluster), spec, store)
    shard = read_runs(store).shard_of.get(spec.run, "")
    owner = LiveMark(store, shard).get() if shard else None
    if owner is None or not owner.address:
        where = f"process {owner.pid} on {owner.host}" if owner else "a process that is gone"
        raise ClusterUnreachable(
            f"run {spec.run} is tracked by {where}, which takes no requests; stop that process"
        )
    return TrackerDriver(owner.address, spec, store)


class TrackerDriver:
    """A run that is seen through by another process on a Ray that we can connect to."""

    failure: RaymlError | None = None

    def __init__(self, address: str, spec: Spec, store: Store) -> None:
        """Connect to that Ray.

        Raises:
            ClusterUnreachable: It does not answer, or does not have the run's tracker.
        """
        connection = _ray.connect(address)
        actor = _ray.find_tracker(store) if connection.address == address else None
        if actor is None:
            raise ClusterUnreachable(
                f"the Ray at {connection.address} does not track run {spec.run}; it runs on the "
                f"Ray at {address}, cancel it from a process that is not connected elsewhere"
            )
        self._actor = actor
        self._spec = spec
        self._store = store

    def payload(self) -> bytes | None:
        """Return None: it is with the process that sees the run through."""

    def cancel(self, grace_s: float, by: str) -> None:
        """Record that the run is to end."""
        request_cancel(self._actor, self._spec.run, grace_s, by)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the run has ended, or for `timeout` seconds."""
        for _ in _ticks(timeout):
            if _is_ended(self._store, self._spec.run):
                return

    def is_alive(self) -> bool:
        """Tell whether the run goes on."""
        return not _is_ended(self._store, self._spec.run)


class JobDriver:
    """A run that is seen through by a Ray job."""

    def __init__(self, client: JobSubmissionClient, spec: Spec, store: Store) -> None:
        self._client = client
        self._spec = spec
        self._store = store
        self._lost_since: float | None = None
        self._unknown_since: float | None = None
        self._silent_since: float | None = None
        self.failure: RaymlError | None = None

    def payload(self) -> bytes | None:
        """Return None: it is in the store."""

    def cancel(self, grace_s: float, by: str) -> None:
        """Stop the Ray job, which ends the run in order."""
        request = json.dumps({"grace_s": grace_s, "by": by}).encode()
        self._store.put(f"cancels/{self._spec.run}.json", request)
        if self._store.create(claim_key(self._spec.run), b"{}"):
            # Its driver had not begun, and now never will.
            problem = Problem(kind="cancelled", message=f"it was cancelled by {by}")
            end_unstarted(self._store, self._spec, "cancelled", problem)
        with _calling(self._client.get_address()):
            try:
                self._client.stop_job(self._spec.run)
            except RuntimeError as exc:
                _raise_unless_unknown(exc)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the run has ended, its driver is lost, or for `timeout` seconds."""
        next_look = 0.0
        for now in _ticks(timeout):
            if _is_ended(self._store, self._spec.run) or self.failure is not None:
                return
            if now >= next_look:
                self.look(now)
                next_look = now + _JOB_POLL_S

    def is_alive(self) -> bool:
        """Tell whether the run goes on."""
        return self.failure is None and not _is_ended(self._store, self._spec.run)

    def look(self, now: float) -> None:
        """Notice a driver that has ended, or is gone, without recording the run's end.

        Raises:
            ClusterUnreachable: The cluster has been away for long.
        """
        try:
            with _calling(self._client.get_address()):
                info = self._find_job()
        except ClusterUnreachable:
            self._silent_since = self._silent_since or now
            if now - self._silent_since >= _SILENCE_S:
                raise
            return
        self._silent_since = None
        if info is None:
            self._lost_since = None
            self._miss(now)
        else:
            self._unknown_since = None
            self._heed(info, now)

    def _miss(self, now: float) -> None:
        """End a run of which Ray knows no job: its driver went with a head that was replaced."""
        self._unknown_since = self._unknown_since or now
        if now - self._unknown_since < _UNKNOWN_AFTER_S:
            return
        if self._spec.run in read_runs(self._store).shard_of:
            close_abandoned(self._store)  # a tracker that lives sees to it itself
        elif self._store.create(claim_key(self._spec.run), b"{}"):
            end_unstarted(self._store, self._spec, "failed", HEAD_LOST)
        else:
            self.failure = ClusterError(
                f"the driver of run {self._spec.run} is gone and has recorded nothing, and Ray "
                "knows no such job: was its head replaced? Submit it again"
            )

    def _heed(self, info: JobDetails, now: float) -> None:
        if not JobStatus(info.status).is_terminal():
            self._lost_since = None
            return
        self._lost_since = self._lost_since or now
        is_tracked = self._spec.run in read_runs(self._store).shard_of
        if now - self._lost_since >= _LOST_AFTER_S[is_tracked]:
            self.failure = ClusterError(
                f"the driver of run {self._spec.run} ended without recording how: "
                f"{info.status}, {info.message}; see `ray job logs {self._spec.run}`"
            )

    def _find_job(self) -> JobDetails | None:
        """Return what Ray says about the driver; it has none for a moment between two attempts."""
        try:
            return self._client.get_job_info(self._spec.run)
        except RuntimeError as exc:
            _raise_unless_unknown(exc)
            return None


def _raise_unless_unknown(exc: RuntimeError) -> None:
    """Let it pass that Ray knows no such job: its head may have been replaced."""
    if "404" not in str(exc):
        raise exc


def _ticks(timeout: float | None) -> Iterator[float]:
    deadline = float("inf") if timeout is None else time.monotonic() + timeout
    while True:
        yield time.monotonic()
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(_POLL_S, left))


def _is_ended(store: Store, run: str) -> bool:
    return read_runs(store).find(run).is_terminal


def _client(address: str) -> JobSubmissionClient:
    url, headers = reach(address) if address.startswith(SCHEME) else (address, None)
    with _calling(address):
        return jobs_api.job_client(url, headers)


@contextmanager
def _calling(address: str) -> Iterator[None]:
    try:
        yield
    except (ConnectionError, OSError, RuntimeError, AuthenticationError) as exc:
        first = str(exc).strip().partition("\n")[0].rstrip(".")
        raise ClusterUnreachable(
            f"the Jobs API at {address} did not do as asked: {first}; check the address, and the "
            "token that Ray's own documentation calls RAY_AUTH_TOKEN"
        ) from exc


def _start(
    client: JobSubmissionClient,
    spec: Spec,
    store: Store,
    private: str | None,
    py_modules: list[str],
) -> None:
    deadline = time.monotonic() + _AGENT_WAIT_S
    while True:
        try:
            jobs_api.submit_driver(client, spec, store, private, py_modules=py_modules)
        except RuntimeError as exc:
            if "already exists" in str(exc):  # a new head has found the submission in the store
                return
            # A cluster that has just started answers before it can take jobs.
            if "No available agent" not in str(exc) or time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


def _pack_code(job: Delivery) -> tuple[Spec, str | None]:
    """Return the spec as it runs on the cluster, and the digest of the packed folder."""
    spec = job.spec
    if job.code_folder is None:
        return msgspec.structs.replace(spec, working_dir=""), None
    target, needed = spec.target, None
    if target.kind in ("file", "script"):
        needed = Path(target.file).relative_to(job.code_folder).as_posix()
        target = msgspec.structs.replace(target, file=needed)
    if job.code is not None:
        digest = renew_folder(job.store, job.code)
    else:
        digest = pack_folder(job.code_folder, job.store, needed)
    return msgspec.structs.replace(spec, target=target, working_dir=digest), digest


def _private(job: Delivery) -> dict[str, object]:
    config = getattr(job.store, "config", {})
    return {"secrets": job.secrets, "store": config} if job.secrets or config else {}
