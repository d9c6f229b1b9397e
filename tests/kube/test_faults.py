"""What breaks while jobs run on a RayCluster: nothing is lost, done twice, or held for ever."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from ray.job_submission import JobSubmissionClient

import rayml
from rayml.cluster.book import BOOK
from rayml.cluster.manifest import account_name
from rayml.spec import Spec
from rayml.store import open_store
from rayml.tracker.records import Submission
from rayml.tracker.submissions import create_submission
from tests.kube.clusters import JobCluster, ray_cluster, wait_for, wait_for_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.kube.plane import Plane

AGAIN = rayml.Retry(attempts=2, backoff_s=1)
ONE = rayml.Resources(cpus=1, memory="512Mi")

# Pods come and go, some of them for minutes.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def train(plane: Plane, ray_image: str, environment: dict[str, str]) -> Iterator[JobCluster]:
    """A cluster whose idle workers leave at once."""
    with ray_cluster(plane, ray_image, environment, grace_s=0) as cluster:
        yield cluster


def count(gate: str, *, context: Any) -> int:
    """Count attempts in the store, and stay in the first until somebody breaks it."""
    import time

    from rayml.store import open_store

    store = open_store(gate)
    first = store.create("began", b"")
    context.log_metric("attempt", 1 if first else 2)
    while first:
        time.sleep(0.1)
    return int(store.create("ended", b""))


def begin(train: JobCluster, name: str, **options: Any) -> rayml.Run:
    """Submit such a job and return it once its code runs: a little later than the run does."""
    gate = f"{train.store}-gates/{name}"
    settings = {"resources": ONE, "retry": AGAIN, **options}
    run = train.submit(count, params={"gate": gate}, **settings)
    wait_for(lambda: open_store(gate).stat("began"), "the first attempt's code", 180)
    return run


def assert_nothing_is_held(train: JobCluster) -> None:
    def book() -> str:  # there is none before the first reservation
        return str(train.client.ray_cluster(train.name)["metadata"]["annotations"].get(BOOK, "[]"))

    wait_for(lambda: book() == "[]", "the end of all reservations")
    wait_for(lambda: not train.pods(), "the workers' departure")


def kill_driver(train: JobCluster, run: rayml.Run) -> None:
    code, text = train.plane.exec(
        train.name.namespace, train.head(), ["pkill", "-9", "-f", f"rayml.driver {run.id}"]
    )
    assert code == 0, text


def kill_reservations(train: JobCluster) -> bool:
    """Kill the actor; return whether there was one."""
    words = ["pkill", "-9", "-f", "ray::ReservationsActor"]
    code, text = train.plane.exec(train.name.namespace, train.head(), words)
    assert code in (0, 1), text
    return code == 0


def test_a_client_that_is_killed_leaves_its_run_alone(train: JobCluster, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "import time\ndef train():\n    time.sleep(4)\n    return 'done'\n"
    )
    code = (
        "import rayml, sys, time\n"
        "run = rayml.submit('job.py:train', cluster=sys.argv[1], store=sys.argv[2])\n"
        "print(run.id, flush=True)\n"
        "run.wait()\n"
    )
    words = [sys.executable, "-c", code, str(train.name), train.store]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=tmp_path, text=True) as client:
        assert client.stdout is not None
        run = rayml.get_run(client.stdout.readline().strip(), store=train.store)
        client.send_signal(signal.SIGKILL)
    wait_for_state(run, "succeeded", patience_s=180)
    assert_nothing_is_held(train)


def test_a_driver_that_is_killed_is_replaced(train: JobCluster) -> None:
    run = begin(train, "driver")
    kill_driver(train, run)
    wait_for_state(run, "succeeded", "failed", patience_s=240)
    assert (run.state, run.attempt, run.metrics["attempt"]) == ("succeeded", 2, 2)
    assert_nothing_is_held(train)


def test_an_actor_of_reservations_that_is_killed_takes_no_worker(train: JobCluster) -> None:
    run = train.submit(nap_for, params={"seconds": 45}, resources=ONE)
    wait_for_state(run, "running", patience_s=180)
    (pod,) = wait_for(lambda: train.pods_of(run), "the pod's label")
    assert kill_reservations(train)
    seen = set()
    while run.state == "running":
        seen |= set(train.pods())
        time.sleep(0.2)
    assert (run.state, run.attempt, seen) == ("succeeded", 1, {pod})
    assert_nothing_is_held(train)


def nap_for(seconds: float) -> None:
    import time

    time.sleep(seconds)


def test_a_worker_s_pod_that_is_deleted_is_replaced(train: JobCluster) -> None:
    run = begin(train, "pod")
    (pod,) = train.pods_of(run)
    train.client.delete("pods", pod, train.name.namespace)
    wait_for_state(run, "succeeded", "failed", patience_s=240)
    assert (run.state, run.attempt) == ("succeeded", 2)
    assert_nothing_is_held(train)


def fill_memory(*, is_ray_awake: bool) -> None:
    import os
    import signal
    import time

    if not is_ray_awake:
        os.kill(os.getppid(), signal.SIGSTOP)
    held = []
    while True:
        # So slowly that Ray, which looks four times a second, sees it before the kernel acts.
        held.append(b"x" * 2_000_000)
        time.sleep(0.05)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("is_ray_awake", "words"),
    [
        (False, "OOMKilled, exit code 137; it may use 512Mi: give the job more memory"),
        (True, "for memory: its machine, or its container, had no more"),
    ],
    ids=["by-the-kernel", "by-ray"],
)
def test_a_worker_that_uses_too_much_memory_says_so(
    train: JobCluster, is_ray_awake: bool, words: str
) -> None:
    run = train.submit(fill_memory, params={"is_ray_awake": is_ray_awake}, resources=ONE)
    wait_for_state(run, "failed", patience_s=240)
    assert isinstance(run.error, rayml.JobFailed)
    assert run.error.kind == "oom"
    assert words in str(run.error)
    assert_nothing_is_held(train)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "is_removed",
    [True, False],
    ids=["removed", "still-listed"],
)
def test_a_node_that_is_lost_costs_an_attempt(train: JobCluster, is_removed: bool) -> None:
    train.plane.add_node("node-lost", cpu=4, memory="8Gi", labels={"disk": "here"})
    there = rayml.Resources(cpus=1, memory="512Mi", node_selector={"disk": "here"})
    try:
        run = begin(train, f"node-{is_removed}", resources=there)
    finally:
        lost = train.pods()
        train.plane.lose_node("node-lost", remove=is_removed)
    train.plane.add_node("node-new", cpu=4, memory="8Gi", labels={"disk": "here"})
    try:
        wait_for_state(run, "succeeded", "failed", patience_s=360)
        assert (run.state, run.attempt) == ("succeeded", 2)
        if not is_removed:
            bury(train, "node-lost", lost)
        assert_nothing_is_held(train)
    finally:
        train.plane.remove_node("node-new")


def bury(train: JobCluster, node: str, pods: Iterable[str]) -> None:
    """Let Kubernetes forget a dead node, as somebody does who is sure of it."""
    train.plane.api.delete(f"/api/v1/nodes/{node}")
    for pod in pods:
        path = f"/api/v1/namespaces/{train.name.namespace}/pods/{pod}"
        train.plane.api.delete(path, {"gracePeriodSeconds": 0})


@pytest.mark.parametrize(
    "component", [pytest.param("operator", marks=pytest.mark.thorough), "kube-apiserver"]
)
def test_a_component_that_is_away_only_delays(train: JobCluster, component: str) -> None:
    run = train.submit(nap, resources=ONE)
    train.plane.stop(component)
    try:
        time.sleep(60)  # the fault itself: it is away for so long
    finally:
        train.plane.start(component)
        if component == "kube-apiserver":
            train.plane.wait_ready()
    wait_for_state(run, "succeeded", "failed", patience_s=240)
    assert run.state == "succeeded", run.error
    assert_nothing_is_held(train)


def nap() -> str:
    return "slept"


@pytest.mark.thorough
def test_what_others_change_in_the_cluster_stays(train: JobCluster) -> None:
    mine = {"metadata": {"annotations": {"team/owner": "ada"}}}
    train.client.patch_ray_cluster(train.name, mine)
    run = train.submit(nap, resources=ONE)
    for number in range(20):
        changes = {"metadata": {"annotations": {"team/number": str(number)}}}
        train.client.patch_ray_cluster(train.name, changes)
    wait_for_state(run, "succeeded", "failed", patience_s=180)
    assert run.state == "succeeded", run.error
    found = train.client.ray_cluster(train.name)["metadata"]["annotations"]
    assert (found["team/owner"], found["team/number"]) == ("ada", "19")


@pytest.mark.thorough
def test_a_head_whose_container_restarts_goes_on_with_its_runs(train: JobCluster) -> None:
    run = begin(train, "container")
    train.plane.signal(train.name.namespace, train.head(), signal.SIGKILL)

    # Nobody connects: this process only reads the store.
    wait_for_state(run, "succeeded", "failed", patience_s=300)
    assert (run.state, run.attempt) == ("succeeded", 2), run.error
    assert_nothing_is_held(train)


@pytest.mark.thorough
def test_a_head_that_is_lost_before_a_job_s_driver_began_starts_it(train: JobCluster) -> None:
    run = train.submit(nap, resources=ONE)
    hidden = train.submit(nap, resources=ONE, secrets={"TOKEN": "not-for-others"})
    train.plane.signal(train.name.namespace, train.head(), signal.SIGKILL)

    wait_for_state(run, "succeeded", "failed", patience_s=300)
    assert (run.state, run.attempt) == ("succeeded", 1), run.error
    wait_for_state(hidden, "succeeded", "failed", patience_s=120)
    assert "head was replaced before its driver had begun" in str(hidden.error)
    assert_nothing_is_held(train)


def test_a_driver_that_ends_before_it_begins_ends_its_run(train: JobCluster) -> None:
    spec = rayml.submit(nap, resources=ONE, store=train.store, dry_run=True)
    assert isinstance(spec, Spec)
    spec = msgspec.structs.replace(spec, cluster=str(train.name))
    store = open_store(train.store)
    assert create_submission(store, Submission(spec=spec, payload="", code=None))
    client = JobSubmissionClient(f"rayml://{train.name.namespace}/{train.name.name}")
    client.submit_job(entrypoint="exit 3", submission_id=spec.run)

    # Its client has gone: this process only reads the store.
    run = rayml.get_run(spec.run, store=store)
    wait_for_state(run, "failed", patience_s=120)
    assert "its driver ended before it began: FAILED" in str(run.error)
    assert_nothing_is_held(train)


def test_a_new_head_goes_on_with_the_runs_of_the_old_one(train: JobCluster) -> None:
    run = begin(train, "head")
    alone = train.submit(nap_for, params={"seconds": 600}, resources=rayml.Resources(cpus=2))
    wait_for_state(alone, "running", patience_s=180)
    train.client.delete("pods", train.head(), train.name.namespace)

    # Nobody connects: this process only reads the store.
    wait_for_state(run, "succeeded", "failed", patience_s=300)
    assert (run.state, run.attempt) == ("succeeded", 2), run.error
    wait_for_state(alone, "failed", patience_s=120)
    assert_nothing_is_held(train)


def test_a_head_that_has_lost_its_rights_says_which(train: JobCluster) -> None:
    api = train.plane.api
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{train.name.namespace}/rolebindings"
    title = account_name(train.name)
    found = api.get(f"{path}/{title}")
    binding = {key: found[key] for key in ("apiVersion", "kind", "subjects", "roleRef")}
    binding["metadata"] = {"name": title, "labels": found["metadata"]["labels"]}
    api.delete(f"{path}/{title}")
    try:
        kill_reservations(train)
        run = train.submit(nap, resources=ONE)
        wait_for_state(run, "failed", patience_s=180)
    finally:
        api.create(path, binding)
    assert "may not get rayclusters" in str(run.error)
    wait_for_state(train.submit(nap, resources=ONE), "succeeded", "failed", patience_s=240)
    assert_nothing_is_held(train)
