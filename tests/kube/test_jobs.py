"""Jobs on a RayCluster that is resized for each of them."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import sysconfig
import textwrap
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import rayml
from rayml.cluster.answers import Refused
from rayml.cluster.shape import Base, shape_of
from rayml.errors import CapacityError, JobCancelled, JobTimeout, SpecError
from rayml.spec import Spec
from tests.kube.clusters import JobCluster, foreign_cluster, ray_cluster, wait_for, wait_for_state
from tests.kube.images import FULL_IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kube.plane import Plane

SMALL = rayml.Resources(cpus=1, memory="512Mi")
PAIR = rayml.Resources(cpus=1, memory="512Mi", workers=2)
# Ray Data has four processes of its own.
ROOMY = rayml.Resources(cpus=1, memory="1536Mi", workers=2)
TRIO = rayml.Resources(cpus=1, memory="640Mi", workers=3)

# Pods come and go, some of them for minutes.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def train(plane: Plane, ray_image: str, environment: dict[str, str]) -> Iterator[JobCluster]:
    """A cluster for at most four workers, which stay for four seconds."""
    with ray_cluster(plane, ray_image, environment, max_workers=4, grace_s=4) as cluster:
        yield cluster


def where() -> str:
    import socket

    return socket.gethostname()


def sleep(seconds: float = 60) -> str:
    print("sleeping", flush=True)
    time.sleep(seconds)
    return where()


def all_workers() -> list[str]:
    """Return the host of each of the job's workers, from tasks that run beside each other."""
    import ray

    @ray.remote(num_cpus=0, resources={"rayml_worker": 0.6})
    def host() -> str:
        import socket
        import time

        time.sleep(0.5)
        return socket.gethostname()

    return sorted(ray.get([host.remote() for _ in range(2)]))


def test_a_job_gets_its_workers_and_they_leave_after_it(train: JobCluster) -> None:
    run = train.submit(all_workers, resources=PAIR)
    wait_for(lambda: len(train.pods_of(run)) == 2, "two pods that show the run")
    labelled = train.pods_of(run)
    run.wait(180)

    assert set(run.result) == labelled  # type: ignore[call-overload]
    assert run.id in [costly.id for costly in rayml.runs(where="worker_s > 0", store=train.store)]
    wait_for(lambda: not train.pods(), "the workers' departure")


def test_the_next_job_of_a_shape_takes_warm_workers(train: JobCluster) -> None:
    wait_for(lambda: not train.pods(), "the end of what other tests have left")
    train.set_grace(120)
    first = train.submit(where, resources=SMALL).wait(180)
    second = train.submit(where, resources=SMALL).wait(180)
    train.set_grace(4)
    assert first.result == second.result


def test_a_script_with_words_and_a_secret_runs_on_a_worker(
    train: JobCluster, tmp_path: Path
) -> None:
    (tmp_path / "helper.py").write_text("text = 'helped'\n")
    (tmp_path / "script.py").write_text(
        "import os, socket, sys, helper\n"
        "print(sys.argv[1:], helper.text, len(os.environ['TOKEN']), socket.gethostname())\n"
    )
    run = train.submit(
        "script.py", args=["--depth", "4"], working_dir=tmp_path, resources=SMALL,
        secrets={"TOKEN": "not-for-others"},
    )  # fmt: skip
    run.wait(180)
    printed = str(run.logs())
    assert re.match(r"\['--depth', '4'\] helped 14 train-rayml-\w+-worker-\w+\n", printed)


def spread_by_itself() -> list[object]:
    """Return the hosts of tasks that take all CPUs, and what Ray Data has counted."""
    import ray
    import ray.data

    @ray.remote
    def host() -> str:
        import socket
        import time

        time.sleep(0.5)
        return socket.gethostname()

    hosts = ray.get([host.options(scheduling_strategy="SPREAD").remote() for _ in range(2)])
    numbers = ray.data.range(100, override_num_blocks=4)
    total = numbers.map_batches(lambda batch: {"id": batch["id"] * 2}).sum("id")
    return [sorted(hosts), total, int(ray.cluster_resources()["CPU"])]


class TestWhatAJobStartsOnRay:
    """It runs on the job's workers, which leave when the job is over."""

    @pytest.mark.thorough
    def test_by_a_function(self, train: JobCluster) -> None:
        run = train.submit(spread_by_itself, resources=ROOMY)
        wait_for(lambda: len(train.pods_of(run)) == 2, "two pods that show the run")
        hosts = sorted(train.pods_of(run))
        run.wait(240)
        assert run.result == [hosts, 9900, 2]
        wait_for(lambda: not train.pods(), "the workers' departure")

    @pytest.mark.thorough
    def test_by_a_script(self, train: JobCluster, tmp_path: Path) -> None:
        text = textwrap.dedent(inspect.getsource(spread_by_itself))
        (tmp_path / "script.py").write_text(f"{text}\nprint('told', spread_by_itself())\n")
        run = train.submit("script.py", working_dir=tmp_path, resources=ROOMY)
        wait_for(lambda: len(train.pods_of(run)) == 2, "two pods that show the run")
        hosts = sorted(train.pods_of(run))
        run.wait(240)
        assert f"told {[hosts, 9900, 2]}\n" in str(run.logs())
        wait_for(lambda: not train.pods(), "the workers' departure")


def test_no_more_workers_than_the_limit_at_any_time(train: JobCluster) -> None:
    # A pod of the test before would count.
    wait_for(lambda: len(train.client.pods(train.name)) == 1, "the end of all workers")
    three = rayml.Resources(cpus=1, memory="512Mi", workers=3)
    runs = [train.submit(sleep, params={"seconds": 3}, resources=three) for _ in range(2)]
    seen, reasons = 0, set()
    while not all(run.state == "succeeded" for run in runs):
        assert "failed" not in {run.state for run in runs}, [run.error for run in runs]
        seen = max(seen, len(train.pods()))
        reasons |= {run.reason for run in runs}
        time.sleep(0.2)
    assert seen == 3
    assert any("limit of 4 workers" in reason for reason in reasons)


def test_what_others_change_while_a_job_comes_and_goes_stays(train: JobCluster) -> None:
    template = train.client.ray_cluster(train.name)["spec"]["headGroupSpec"]["template"]
    sizes = {"replicas": 0, "minReplicas": 0, "maxReplicas": 1}
    theirs = {"groupName": "theirs", **sizes, "rayStartParams": {}, "template": template}
    groups = "/spec/workerGroupSpecs"
    run = train.submit(all_workers, resources=PAIR)
    train.client.patch_ray_cluster(
        train.name, [{"op": "add", "path": f"{groups}/0", "value": theirs}]
    )  # which moves all of ours
    theirs = train.client.ray_cluster(train.name)["spec"]["workerGroupSpecs"][0]
    changes = 0
    while run.state not in {"succeeded", "failed"} or train.pods():
        time.sleep(0.5)
        changes += 1
        maximum = {"op": "add", "path": f"{groups}/0/maxReplicas", "value": changes}
        train.client.patch_ray_cluster(train.name, [maximum])
    listed = train.client.ray_cluster(train.name)["spec"]["workerGroupSpecs"]
    train.client.patch_ray_cluster(train.name, [{"op": "remove", "path": f"{groups}/0"}])

    assert run.state == "succeeded", run.error
    assert listed[0] == {**theirs, "maxReplicas": changes}


def preview(train: JobCluster, resources: rayml.Resources) -> Spec:
    place = {"cluster": str(train.name), "store": train.store}
    spec = rayml.submit(where, resources=resources, dry_run=True, **place)  # type: ignore[arg-type]
    assert isinstance(spec, Spec)
    return spec


def test_a_dry_run_shows_the_exact_change_and_does_nothing(train: JobCluster) -> None:
    def spec() -> dict[str, Any]:
        cluster: dict[str, Any] = train.client.ray_cluster(train.name)["spec"]
        return cluster

    # Groups go a moment after their last pods.
    wait_for(lambda: not spec()["workerGroupSpecs"], "the end of what jobs before have left")
    before = spec()
    added = [op["value"] for op in preview(train, PAIR).changes if op["path"].endswith("/-")]
    assert [group["replicas"] for group in added] == [2]
    assert spec() == before


def test_what_can_never_fit_is_refused_at_once(train: JobCluster) -> None:
    before = set(train.pods())
    with pytest.raises(CapacityError, match=r"asks for 5 workers and the cluster's limit is 4"):
        train.submit(where, resources=rayml.Resources(workers=5))
    with pytest.raises(CapacityError, match="CPU"):
        train.submit(where, resources=rayml.Resources(cpus=64))
    with pytest.raises(SpecError, match=r"gpus=0\.5"):
        train.submit(where, resources=rayml.Resources(gpus=0.5))
    assert set(train.pods()) <= before


def test_nodes_are_no_limit_where_an_autoscaler_adds_some(train: JobCluster) -> None:
    maps = "/api/v1/namespaces/kube-system/configmaps"
    large, status = rayml.Resources(cpus=64), {"metadata": {"name": "cluster-autoscaler-status"}}
    train.plane.api.create(maps, status)
    try:
        preview(train, large)
    finally:
        train.plane.api.delete(f"{maps}/cluster-autoscaler-status")
    with pytest.raises(CapacityError, match="CPU"):
        preview(train, large)


WRONG = {"name": "data", "mount_path": "/data", "persistentVolumeClaim": {"claim_name": "d"}}


def test_a_pod_that_kubernetes_refuses_is_refused_at_once(train: JobCluster) -> None:
    resources = rayml.Resources(cpus=1, memory="512Mi", volumes=[WRONG])
    with pytest.raises(SpecError, match=r"unknown field .*claim_name"):
        train.submit(where, resources=resources)


@pytest.mark.thorough
def test_a_pod_that_kubernetes_refuses_holds_up_no_other_job(train: JobCluster) -> None:
    def outer(store: str, wrong: dict[str, Any]) -> tuple[str, str]:
        import rayml

        # Submitted inside of the cluster, it is not tried before: who does may have no right to.
        refused: Any = rayml.submit(
            where, store=store, resources=rayml.Resources(cpus=1, volumes=[wrong])
        )
        inner: Any = rayml.submit(where, store=store, resources=rayml.Resources(cpus=2))
        host = inner.wait(120).result
        try:
            refused.wait(30)
        except rayml.JobFailed as exc:
            return host, str(exc)
        return host, "it was not refused"

    run = train.submit(outer, params={"store": train.store, "wrong": WRONG}, resources=SMALL)
    wait_for_state(run, "succeeded", "failed", patience_s=240)
    result: Any = run.result
    assert result[0].startswith("train-rayml-")
    assert "claim_name" in result[1]


def test_a_folder_of_this_machine_is_no_store(train: JobCluster, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot see it"):
        rayml.submit(where, cluster=str(train.name), store=tmp_path)


class TestWaiting:
    def test_for_a_node_says_what_the_scheduler_says(self, train: JobCluster) -> None:
        odd = rayml.Resources(cpus=1, tolerations=[], node_selector={"disk": "none-has-it"})
        train.plane.add_node("node-x", cpu=1, memory="1Gi", labels={"disk": "none-has-it"})
        train.plane.remove_node("node-x")
        run = _submit_unchecked(train, odd)
        wait_for(lambda: "didn't match Pod's node affinity/selector" in run.reason, "the reason")
        assert re.search(r"pod train-rayml-\S+ ", run.reason)

        run.cancel()
        with pytest.raises(JobCancelled):
            run.wait(60)
        wait_for(lambda: not train.pods(), "the pod's departure")

    def test_for_an_image_says_which(self, train: JobCluster) -> None:
        run = train.submit(where, image="nobody/has:this-py311", resources=SMALL)
        wait_for(lambda: "nobody/has:this-py311" in run.reason, "the reason")
        assert "ImagePullBackOff" in run.reason or "ErrImagePull" in run.reason
        run.cancel()
        wait_for_state(run, "cancelled")

    def test_for_too_long_ends_the_run_with_the_reason(self, train: JobCluster) -> None:
        run = train.submit(
            where, image="nobody/has:that-py311", start_timeout_s=8, resources=SMALL
        )
        with pytest.raises(JobTimeout, match=r"start_timeout_s=8 \(.*nobody/has:that"):
            run.wait(120)

    def test_for_a_quota_says_so(self, train: JobCluster) -> None:
        path = f"/api/v1/namespaces/{train.name.namespace}/resourcequotas"
        # The workers of the test before would make room when they go.
        wait_for(lambda: len(train.client.pods(train.name)) == 1, "the end of all workers")
        quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "2"}}}
        train.plane.api.create(path, quota)
        try:
            run = train.submit(sleep, params={"seconds": 0}, resources=PAIR)
            wait_for(lambda: "ResourceQuota 'few'" in run.reason, "the reason")
            assert len(train.client.pods(train.name)) == 1  # one worker would have had room
        finally:
            train.plane.api.delete(f"{path}/few")
        run.wait(180)


@pytest.fixture
def rule(train: JobCluster) -> Iterator[str]:
    """A rule of Kubernetes' own by which a worker group has at most two workers."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    words = "at most 2 workers a group"
    of_groups = "!has(object.spec.workerGroupSpecs) || object.spec.workerGroupSpecs.all"
    where = {"apiGroups": ["ray.io"], "apiVersions": ["v1"], "resources": ["rayclusters"]}
    policy = {
        "metadata": {"name": "few"},
        "spec": {
            "matchConstraints": {"resourceRules": [{**where, "operations": ["UPDATE"]}]},
            "validations": [{"expression": f"{of_groups}(g, g.replicas <= 2)", "message": words}],
        },
    }
    bound = {"policyName": "few", "validationActions": ["Deny"]}
    train.plane.api.create(f"{path}ies", policy)
    train.plane.api.create(f"{path}ybindings", {"metadata": {"name": "few"}, "spec": bound})
    try:
        wait_for(lambda: _is_refused(train), "the rule")
        yield words
    finally:
        train.plane.api.delete(f"{path}ybindings/few")
        train.plane.api.delete(f"{path}ies/few")


def _is_refused(train: JobCluster) -> bool:
    shape = shape_of(TRIO, None, Base.read(train.client.ray_cluster(train.name)))
    group = {"op": "add", "path": "/spec/workerGroupSpecs/-", "value": shape.group_spec(3)}
    try:
        train.client.patch_ray_cluster(train.name, [group], is_trial=True)
    except Refused:
        return True
    return False


@pytest.mark.thorough
def test_a_rule_that_one_run_breaks_holds_no_other_back(train: JobCluster, rule: str) -> None:
    run = train.submit(where, resources=TRIO)
    other = train.submit(where, resources=SMALL)
    with pytest.raises(rayml.RaymlError, match=rule):
        run.wait(120)
    other.wait(180)


def _submit_unchecked(train: JobCluster, resources: rayml.Resources) -> rayml.Run:
    """Submit what no node can hold now, by an identity that may not see the nodes."""
    rules = [
        {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["secrets", "resourcequotas"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["services/proxy"], "verbs": ["*"]},
    ]
    namespace, before = train.name.namespace, os.environ["KUBECONFIG"]
    account = f"submitter-{uuid.uuid4().hex[:8]}"
    token = train.plane.service_account_token(namespace, account, rules)
    os.environ["KUBECONFIG"] = str(train.plane.token_kubeconfig(token, namespace))
    try:
        return train.submit(where, resources=resources)
    finally:
        os.environ["KUBECONFIG"] = before


@pytest.mark.thorough
def test_a_priority_that_may_not_be_seen_is_said_to_count_for_nothing(
    train: JobCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    train.plane.api.create(classes, {"metadata": {"name": "rayml-high"}, "value": 7})
    try:
        run = _submit_unchecked(train, rayml.Resources(cpus=1, priority_class="rayml-high"))
        wait_for_state(run, "succeeded", "failed", patience_s=180)
    finally:
        train.plane.api.delete(f"{classes}/rayml-high")
    assert run.state == "succeeded", run.error
    assert "priority class 'rayml-high' counts as 0 in the queue" in capsys.readouterr().err


class TestRaysOwnTools:
    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        ray = Path(sysconfig.get_path("scripts")) / "ray"
        return subprocess.run(
            [str(ray), "job", *words], capture_output=True, text=True, timeout=120, check=False
        )

    def test_submit_to_the_cluster_by_its_name(self, train: JobCluster) -> None:
        address = f"rayml://{train.name.namespace}/{train.name.name}"
        code = "import socket; print('on', socket.gethostname())"
        done = self.call("submit", "--address", address, "--", "python", "-c", code)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"on {train.head()}" in done.stdout

    @pytest.mark.thorough
    def test_list_and_stop_a_run(self, train: JobCluster) -> None:
        run = train.submit(sleep, resources=SMALL)
        wait_for_state(run, "running")
        address = f"rayml://{train.name.namespace}/{train.name.name}"
        assert run.id in self.call("list", "--address", address).stdout
        self.call("stop", "--address", address, run.id)
        wait_for_state(run, "cancelled")


def test_a_job_that_is_submitted_inside_the_cluster_gets_workers_too(train: JobCluster) -> None:
    def outer(store: str) -> Any:
        import rayml

        # No assert here: pytest rewrites those into calls of itself, which pods do not have.
        inner: Any = rayml.submit(where, store=store, resources=rayml.Resources(cpus=2))
        return inner.wait(120).result

    run = train.submit(outer, params={"store": train.store}, resources=SMALL)
    wait_for_state(run, "succeeded", "failed", patience_s=180)
    assert str(run.result).startswith("train-rayml-")


def test_what_can_never_fit_ends_when_it_is_submitted_inside_the_cluster(
    train: JobCluster,
) -> None:
    def outer(store: str) -> str:
        import rayml

        inner: Any = rayml.submit(where, store=store, resources=rayml.Resources(workers=5))
        try:
            inner.wait(60)
        except rayml.RaymlError as exc:
            return str(exc)
        return "it was not refused"

    run = train.submit(outer, params={"store": train.store}, resources=SMALL)
    wait_for_state(run, "succeeded", "failed", patience_s=180)
    assert "asks for 5 workers and the cluster's limit is 4" in str(run.result)


def test_the_command_line_runs_a_job_there(train: JobCluster, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("def train(n: int = 1):\n    print('n is', n)\n")
    words = ["-m", "rayml.cli", "run", "job.py:train", "-p", "n=7", "--cpus", "1"]
    words += ["--cluster", str(train.name), "--store", train.store]
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True, text=True, cwd=tmp_path, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "n is 7" in done.stdout


@pytest.mark.thorough
def test_a_cluster_that_somebody_else_made_serves_jobs_once_it_is_adopted(
    plane: Plane, ray_image: str, environment: dict[str, str]
) -> None:
    with foreign_cluster(plane, ray_image, environment) as cluster:
        with pytest.raises(SpecError, match="--adopt"):
            cluster.submit(where, resources=SMALL)
        before = cluster.client.ray_cluster(cluster.name)["spec"]
        cluster.adopt()
        run = cluster.submit(where, resources=SMALL)
        wait_for_state(run, "succeeded", "failed", patience_s=180)
        assert str(run.result).startswith("theirs-rayml-"), run.error
        after = cluster.client.ray_cluster(cluster.name)["spec"]
        assert after["headGroupSpec"] == before["headGroupSpec"]
        assert after["workerGroupSpecs"][0] == before["workerGroupSpecs"][0]


@pytest.mark.thorough
def test_in_a_cluster_that_is_not_ours_jobs_run_as_on_any_ray(
    plane: Plane, environment: dict[str, str]
) -> None:
    program = """
import os, rayml

def where():
    return os.uname().nodename

run = rayml.submit(where, store="/tmp/store", resources=rayml.Resources(cpus=0))
print(run.wait().result)
"""
    plane.add_image(FULL_IMAGE, Path(sys.executable).parent)
    with foreign_cluster(plane, FULL_IMAGE, environment) as cluster:
        words = ["python", "-c", program]
        code, said = plane.exec(cluster.name.namespace, cluster.head(), words, timeout_s=120)
        assert (code, said.split()[-1:]) == (0, [cluster.head()]), said


@pytest.mark.thorough
def test_beside_ray_s_own_autoscaler_workers_come_and_go_too(
    plane: Plane, ray_image: str, environment: dict[str, str]
) -> None:
    options = {"idleTimeoutSeconds": 5}
    with foreign_cluster(
        plane, ray_image, environment, enableInTreeAutoscaling=True, autoscalerOptions=options
    ) as cluster:
        cluster.adopt()
        run = cluster.submit(all_workers, resources=PAIR)
        wait_for_state(run, "succeeded", "failed", patience_s=240)
        assert len(set(run.result)) == 2, run.error  # type: ignore[call-overload]
        wait_for(lambda: not cluster.pods(), "the workers' departure", 180)
