"""Hub functions on a RayCluster: what they start on Ray is on the job's workers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import rayml
from tests.hub.functions import make_squares
from tests.kube.clusters import JobCluster, ray_cluster, wait_for, wait_for_state
from tests.kube.images import FULL_IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kube.plane import Plane

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@pytest.fixture(scope="module")
def train(plane: Plane, environment: dict[str, str]) -> Iterator[JobCluster]:
    """A cluster for at most four workers, which leave when a job is over.

    Its head has Ray Serve, as KubeRay's images have: Serve's controller is there.
    """
    plane.add_image(FULL_IMAGE, Path(sys.executable).parent)
    with ray_cluster(plane, FULL_IMAGE, environment, max_workers=4, grace_s=4) as cluster:
        yield cluster


@pytest.mark.thorough
def test_one_with_modules_and_tasks_runs_on_the_jobs_workers(
    train: JobCluster, tmp_path: Path
) -> None:
    folder = make_squares(tmp_path / "hub")
    run = train.submit(folder, params={"count": 4}, resources=rayml.Resources(memory="1Gi"))
    run.wait(240)
    assert run.result == 14


def test_an_endpoint_answers_at_its_pod_follows_its_alias_and_leaves_with_its_worker(
    train: JobCluster,
) -> None:
    for slope in (1, -1):
        with rayml.start_run("fit", store=train.store) as context:
            rows = np.array([[-1.0], [0.0], [1.0], [2.0]])
            model = LogisticRegression().fit(rows, slope * rows[:, 0] > 0.5)
            artifact = context.log_model("model", model, input_example=rows)
        alias = "production" if slope == 1 else None
        rayml.register_model(artifact, "signs", alias=alias, store=train.store)

    run = train.submit(
        "hub://serve",
        inputs={"model": "rayml://models/signs@production"},
        params={"follow": "production", "host": "0.0.0.0", "poll_s": 1.0},  # noqa: S104 - its pod
        resources=rayml.Resources(cpus=1, memory="3Gi"),
    )
    wait_for_state(run, "running", patience_s=240)
    wait_for(lambda: "url" in run.labels or run.is_over, "the endpoint", 240)
    assert "url" in run.labels, f"{run.error!r}\n{run.logs()}"

    assert answer(run)["predictions"] == [True]
    rayml.model("signs", store=train.store).set_alias("production", 2)
    wait_for(lambda: answer(run)["version"] == 2, "the new version", 120)
    assert answer(run)["predictions"] == [False]
    run.cancel()
    with pytest.raises(rayml.JobCancelled):
        run.wait(120)
    wait_for(lambda: not train.pods(), "the worker's departure")


def answer(run: rayml.Run) -> Any:
    url = f"{run.labels['url']}/predict"
    request = Request(url, json.dumps([[2.0]]).encode())  # noqa: S310 - a pod of the test's own
    with urlopen(request, timeout=60) as response:  # noqa: S310 - the same
        return json.loads(response.read())
