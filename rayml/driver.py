"""What a Ray job of ours executes: takes a submission from the store and sees its run through.

`python -m rayml.driver RUN --store URI [--private NAME] [--attempt N]`, on the cluster's head,
without a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

from rayml import _ray
from rayml._ray import jobs_api
from rayml.errors import CapacityError, ClusterError, NotFound, RaymlError, SpecError
from rayml.run import Run
from rayml.store import open_store, read_blob
from rayml.supervisor import Supervisor
from rayml.tracker.abandoned import end_unstarted
from rayml.tracker.records import Problem
from rayml.tracker.submissions import claim_key, read_submission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rayml.store import Store
    from rayml.tracker.records import Submission

_STOP_GRACE_S = 10.0


def main(words: Sequence[str] | None = None) -> int:
    """Execute one submission; return the exit code: 0 succeeded, 1 failed, 2 refused."""
    parser = argparse.ArgumentParser(prog="python -m rayml.driver", description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--store", required=True)
    parser.add_argument("--private")
    parser.add_argument("--attempt", type=int, default=1)
    given = parser.parse_args(words)
    try:
        return _execute(given.run, given.store, given.private, given.attempt)
    except RaymlError as exc:
        print(f"rayml: {exc}", file=sys.stderr)  # noqa: T201 - the Ray job's log
        return 2


def _execute(run_id: str, location: str, private_name: str | None, attempt: int) -> int:
    jobs_api.keep_environment_to_itself()
    connection = _ray.connect(os.environ.get("RAY_ADDRESS", "auto"))
    private = json.loads(jobs_api.take(private_name)) if private_name else {}
    store = open_store(location, private.get("store"))
    submission = _claim(run_id, attempt, store)
    spec = submission.spec
    payload = b"".join(read_blob(store, submission.payload))
    secrets = private.get("secrets", {})
    try:
        if attempt == 1 and not _ray.is_resized():
            _ray.check_capacity(spec.resources)
        supervisor = Supervisor(
            spec, payload, secrets, store, connection, attempt, submission.code,
            diff=lambda: submission.diff,
        )  # fmt: skip
    except ClusterError as exc:  # nothing of it is recorded, and no other driver may begin it
        if attempt == 1:
            end_unstarted(store, spec, "failed", _not_begun(exc))
        raise
    signal.signal(signal.SIGTERM, lambda *_: _stop(supervisor, run_id, store))
    supervisor.start()
    if attempt > 1 and store.size(f"cancels/{run_id}.json") is not None:
        _stop(supervisor, run_id, store)  # asked for while nobody was there to hear it
    return _report(Run(spec, store, driver=supervisor))


def _not_begun(exc: ClusterError) -> Problem:
    if isinstance(exc, CapacityError):
        return Problem(kind="capacity", message=str(exc))
    return Problem(kind="lost", message=f"its driver could not begin: {exc}")


def _claim(run_id: str, attempt: int, store: Store) -> Submission:
    submission = read_submission(store, run_id)
    claim = {"job": os.environ.get("RAY_JOB_ID", ""), "pid": os.getpid()}
    if not store.create(claim_key(run_id, attempt), json.dumps(claim).encode()):
        raise SpecError(
            f"run {run_id} is executed by another driver already; this one does nothing"
        )
    return submission


def _stop(supervisor: Supervisor, run_id: str, store: Store) -> None:
    try:
        request = json.loads(store.get(f"cancels/{run_id}.json"))
    except NotFound:
        request = {"grace_s": _STOP_GRACE_S, "by": "`ray job stop`"}
    supervisor.cancel_soon(request["grace_s"], request["by"])


def _report(run: Run) -> int:
    for line in run.logs(follow=True):
        print(line, end="", flush=True)  # noqa: T201 - `ray job logs` shows it
    try:
        run.wait()
    except RaymlError as exc:
        print(f"rayml: {exc}", file=sys.stderr)  # noqa: T201 - the Ray job's log
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
