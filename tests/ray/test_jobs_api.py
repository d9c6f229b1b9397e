"""Runs through a cluster's Jobs API, against a real `ray start --head` with its token left on."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

import rayml
from rayml import driver
from rayml._ray.jobs_api import job_client
from rayml.code import unpack_folder
from rayml.remote import JobDriver, find_driver
from rayml.store import open_store
from rayml.tracker.journal import Journal
from rayml.tracker.live import STALE_S, LiveMark
from rayml.tracker.reader import read_runs
from rayml.tracker.records import Submission
from rayml.tracker.shards import ShardFold
from rayml.tracker.submissions import create_submission, read_submission
from tests.git import commit_all
from tests.hub.functions import make_squares
from tests.ray.heads import BIN, Head, free_port, started_head
from tests.unit.journals import OWNER, encode, make_spec, submitted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rayml.store import Store

pytestmark = pytest.mark.ray

_TRAIN = """
import os, subprocess, sys, time

def train(depth: int = 3, *, context):
    print("Grüße from", depth, "in", os.path.basename(os.getcwd()))
    for step in range(3):
        context.log_metric("loss", 1 / (step + 1), step=step)
    return {"auc": 0.75}

def hang(context):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    context.log_metric("child", child.pid)
    context.flush()
    print("hanging", flush=True)
    time.sleep(600)

def hang_once(context):
    print("this is attempt", context.attempt, flush=True)
    context.log_metric("attempt", context.attempt, sync=True)
    if context.attempt == 1:
        time.sleep(600)
    return "second"

def show(context):
    import helper
    print(helper.WORD, os.environ["TOKEN"], repr(os.environ))

def crash():
    os._exit(3)
"""

_SCRIPT = """
import subprocess, sys

subprocess.run([sys.executable, "child.py", *sys.argv[1:]], check=True)
"""

_CHILD = """
import fcntl, pathlib, sys, time

folder = pathlib.Path(sys.argv[1])
lock = open(folder / "lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of two that live, the second one fails
if not (folder / "first").exists():
    (folder / "first").touch()
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with started_head(lambda _: ["--num-cpus=2"]) as own:
        yield own


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "train.py").write_text(_TRAIN)
    (tmp_path / "helper.py").write_text("WORD = 'helped'\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _submit(head: Head, target: object, **given: object) -> rayml.Run:
    run = rayml.submit(target, cluster=head.jobs, store="store", **given)  # type: ignore[arg-type]
    assert isinstance(run, rayml.Run)
    return run


def _await_state(run: rayml.Run, state: str) -> None:
    deadline = time.monotonic() + 60
    while run.state != state:
        assert time.monotonic() < deadline, f"{run} is not {state}"
        time.sleep(0.1)


def _ray(head: Head, *words: str) -> str:
    env = head.env | {"RAY_AUTH_MODE": "token"}
    command = [str(BIN / "ray"), "job", *words, "--address", head.jobs]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_the_address_that_is_said_counts_whatever_variables_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "http://127.0.0.1:2")
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1\b"):
        job_client("http://127.0.0.1:1")
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:2"


def test_a_submitted_run_is_a_ray_job_and_comes_back_whole(
    head: Head, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYML_DIFF", "on")
    commit_all(project)
    (project / "helper.py").write_text("WORD = 'changed'\n")
    run = _submit(head, "train.py:train", params={"depth": 5})
    lines = list(run.logs(follow=True))
    run.wait(timeout_s=60)
    assert run.result == {"auc": 0.75}
    assert run.metrics == {"loss": pytest.approx(1 / 3), "auc": 0.75}
    assert any("Grüße from 5" in line for line in lines)
    assert run.id in _ray(head, "list")
    assert "Grüße from 5" in _ray(head, "logs", run.id)
    assert "-WORD = 'helped'\n+WORD = 'changed'\n" in run.diff


def test_a_closure_travels_by_value(head: Head, project: Path) -> None:
    offset = 40
    run = _submit(head, lambda x: x + offset, params={"x": 2})
    assert run.wait(timeout_s=60).result == 42


@pytest.mark.thorough
def test_a_rerun_uses_what_was_packed(head: Head, project: Path) -> None:
    def join(words: list[str], pair: tuple[int, int], last: str = "!") -> str:
        import helper  # type: ignore[import-not-found]

        return " ".join([helper.WORD, *words, str(pair), last])

    values = {"params": {"pair": (1, 2)}, "inputs": {"words": ["a", "b"]}}
    run = _submit(head, join, working_dir=project, **values)
    assert run.wait(timeout_s=60).result == "helped a b (1, 2) !"
    (project / "helper.py").write_text("WORD = 'changed'\n")

    again = rayml.get_run(run.id, store="store").rerun(params={"last": "?"})
    assert isinstance(again, rayml.Run)
    assert again.wait(timeout_s=60).result == "helped a b (1, 2) ?"
    assert (again.spec.rerun_of, again.spec.cluster) == (run.id, head.jobs)


def test_a_hub_function_travels_alone_with_its_modules_and_is_run_again_without_its_folder(
    head: Head, project: Path
) -> None:
    folder = make_squares(project / "hub")

    run = _submit(head, folder, params={"count": 4})
    run.wait(timeout_s=60)
    shutil.rmtree(folder)
    again = rayml.get_run(run.id, store="store").rerun(params={"count": 5})

    assert isinstance(again, rayml.Run)
    again.wait(timeout_s=60)
    assert (run.result, again.result) == (14, 30)
    assert run.spec.target.text == "hub://hub/squares@1.0.0"
    assert run.spec.target.digest == again.spec.target.digest
    code = read_submission(open_store(project / "store"), run.id).code
    assert code is not None
    packed = unpack_folder(open_store(project / "store"), code)
    assert sorted(path.name for path in packed.iterdir() if path.is_file()) == [
        "_steps.py",
        "example.py",
        "function.py",
        "hub.toml",
    ]


def test_the_users_traceback_comes_back(head: Head, project: Path) -> None:
    run = _submit(head, "train.py:crash")
    with pytest.raises(rayml.JobFailed, match=r"ended before the function returned"):
        run.wait(timeout_s=60)
    assert isinstance(run.error, rayml.JobFailed)
    assert run.error.kind == "killed"


def test_what_the_cluster_can_never_hold_ends_at_once(head: Head, project: Path) -> None:
    run = _submit(head, lambda: 1, resources=rayml.Resources(workers=50))
    with pytest.raises(rayml.JobFailed, match="the cluster can hold 2") as caught:
        run.wait(timeout_s=60)
    assert caught.value.kind == "capacity"


def test_secrets_reach_the_job_and_nothing_else(head: Head, project: Path) -> None:
    secret = "tok-5e8f0cZq"
    run = _submit(head, "train.py:show", secrets={"TOKEN": secret})
    run.wait(timeout_s=60)
    assert "helped ***" in run.logs()
    told = _ray(head, "list") + _ray(head, "logs", run.id)
    assert secret not in told
    assert _files_with(secret, project / "store") == []
    assert _files_with(secret, head.temp) == []


def _files_with(text: str, folder: Path) -> list[Path]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return [path for path in files if text.encode() in path.read_bytes()]


def test_cancel_ends_the_job_and_its_children(head: Head, project: Path) -> None:
    run = _submit(head, "train.py:hang")
    _await_state(run, "running")
    while "child" not in run.metrics:
        time.sleep(0.1)
    child = int(run.metrics["child"])
    run.cancel(grace_s=5)
    with pytest.raises(rayml.JobCancelled, match="by its user"):
        run.wait(timeout_s=60)
    assert not psutil.pid_exists(child)


def test_cancel_before_the_driver_has_begun_keeps_it_from_beginning(
    head: Head, project: Path
) -> None:
    run = _submit(head, "train.py:hang")
    run.cancel()
    with pytest.raises(rayml.JobCancelled, match="by its user"):
        run.wait(timeout_s=60)
    assert run.started_at is None


def test_ray_job_stop_cancels_the_run(head: Head, project: Path) -> None:
    run = _submit(head, "train.py:hang")
    _await_state(run, "running")
    _ray(head, "stop", run.id)
    with pytest.raises(rayml.JobCancelled, match="ray job stop"):
        run.wait(timeout_s=60)


def test_a_run_whose_driver_was_killed_is_lost(head: Head, project: Path) -> None:
    run = _submit(head, "train.py:hang")
    _await_state(run, "running")
    _kill_driver(run.id)
    with pytest.raises(
        rayml.JobFailed, match=r"gone or silent \(Ray says about its driver: FAILED"
    ):
        run.wait(timeout_s=90)
    assert getattr(run.error, "kind", "") == "lost"


@pytest.mark.thorough
def test_a_run_whose_driver_was_killed_is_tried_again_if_its_policy_says_so(
    head: Head, project: Path
) -> None:
    retry = rayml.Retry(attempts=2, backoff_s=0.1)
    run = _submit(head, "train.py:hang_once", retry=retry)
    _await_state(run, "running")
    _kill_driver(run.id)
    run.wait(timeout_s=120)

    assert (run.attempt, run.result) == (2, "second")
    assert run.metrics == {"attempt": 2}
    assert run.id in _ray(head, "list")
    assert "this is attempt 2" in _ray(head, "logs", run.id)


@pytest.mark.thorough
def test_a_script_whose_driver_was_killed_never_lives_beside_its_next_attempt(
    head: Head, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (project / "script.py").write_text(_SCRIPT)
    (project / "child.py").write_text(_CHILD)
    folder = tmp_path_factory.mktemp("alive")
    retry = rayml.Retry(attempts=2, backoff_s=0.1, on=("node_lost",))
    run = _submit(head, "script.py", args=[str(folder)], retry=retry)
    deadline = time.monotonic() + 60
    while not (folder / "first").exists():
        assert time.monotonic() < deadline, run.logs()
        time.sleep(0.1)
    _kill_driver(run.id)
    run.wait(timeout_s=120)
    assert run.attempt == 2


@pytest.mark.thorough
def test_a_run_can_be_cancelled_while_its_driver_is_gone(head: Head, project: Path) -> None:
    retry = rayml.Retry(attempts=2, backoff_s=5)
    run = _submit(head, "train.py:hang", retry=retry)
    _await_state(run, "running")
    _kill_driver(run.id)
    _await_state(run, "retrying")
    run.cancel()
    with pytest.raises(rayml.JobCancelled, match="by its user"):
        run.wait(timeout_s=120)


def _kill_driver(run: str) -> None:
    mine = [p for p in psutil.process_iter(["cmdline"]) if run in (p.info["cmdline"] or ())]
    drivers = [p for p in mine if "rayml.driver" in p.info["cmdline"]]
    assert drivers
    for process in drivers:
        process.send_signal(signal.SIGKILL)


def _job_driver(head: Head, store: Store, run: str) -> JobDriver:
    found = find_driver(make_spec(run, cluster=head.jobs), store)
    assert isinstance(found, JobDriver)
    return found


def test_a_run_that_a_new_head_knows_nothing_of_ends_with_its_tracker(
    head: Head, project: Path
) -> None:
    store = open_store(project / "store")
    journal = Journal(store, "s")
    journal.open(OWNER, ShardFold())
    journal.append([encode(submitted("unknown"))])
    LiveMark(store, "s").set(OWNER)
    driver = _job_driver(head, store, "unknown")
    driver.look(1.0)
    driver.look(100.0)
    assert driver.is_alive()  # the tracker's mark is young

    old = time.time() - STALE_S - 5
    os.utime(project / "store" / "live" / "s.json", (old, old))
    driver.look(101.0)
    assert not driver.is_alive()
    found = read_runs(store).find("unknown")
    assert (found.state, getattr(found.problem, "kind", "")) == ("failed", "node_lost")


def test_a_run_whose_driver_went_with_the_head_before_it_began_ends(
    head: Head, project: Path
) -> None:
    store = open_store(project / "store")
    spec = make_spec("unbegun", cluster=head.jobs)
    assert create_submission(store, Submission(spec=spec, payload="", code=None))
    driver = _job_driver(head, store, "unbegun")
    driver.look(1.0)
    driver.look(50.0)
    assert driver.is_alive()
    driver.look(61.0)
    problem = read_runs(store).find("unbegun").problem
    assert problem is not None
    assert "head was replaced" in problem.message


def test_a_run_that_a_new_head_knows_nothing_of_can_be_cancelled(
    head: Head, project: Path
) -> None:
    store = open_store(project / "store")
    spec = make_spec("unheard", cluster=head.jobs)
    assert create_submission(store, Submission(spec=spec, payload="", code=None))
    _job_driver(head, store, "unheard").cancel(1.0, "its user")
    assert read_runs(store).find("unheard").state == "cancelled"


def test_a_submission_is_executed_once(head: Head, project: Path) -> None:
    run = _submit(head, "train.py:train")
    run.wait(timeout_s=60)
    again = subprocess.run(
        [sys.executable, "-m", driver.__name__, run.id, "--store", str(project / "store")],
        env=head.env | {"RAY_ADDRESS": head.gcs, "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 2
    assert "executed by another driver already" in again.stderr


def test_rayml_run_works_as_a_ray_job(head: Head, project: Path) -> None:
    store = project / "store"
    told = _ray_submit(head, project, "rayml", "run", "train.py:train", "--store", str(store))
    assert "succeeded" in told
    run = rayml.get_run("latest", store=store)
    assert run.state == "succeeded"
    assert run.metrics["auc"] == 0.75


def _ray_submit(head: Head, folder: Path, *words: str) -> str:
    env = head.env | {"RAY_AUTH_MODE": "token"}
    command = [str(BIN / "ray"), "job", "submit", "--address", head.jobs]
    command += ["--working-dir", str(folder), "--", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return re.sub(r"\x1b\[\d+m", "", done.stdout + done.stderr)


@pytest.mark.thorough
def test_stopping_a_ray_job_of_rayml_run_cancels_its_run(head: Head, project: Path) -> None:
    store = project / "store"
    env = head.env | {"RAY_AUTH_MODE": "token"}
    command = [str(BIN / "ray"), "job", "submit", "--address", head.jobs, "--no-wait"]
    command += ["--submission-id", "stopme", "--working-dir", str(project)]
    command += ["--", "rayml", "run", "train.py:hang", "--store", str(store)]
    subprocess.run(command, env=env, check=True, capture_output=True)
    deadline = time.monotonic() + 60
    while not (found := rayml.runs(store=store)) or found[0].state != "running":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    _ray(head, "stop", "stopme")
    while found[0].state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert found[0].state == "cancelled"


def test_a_store_that_the_cluster_cannot_see_is_refused(project: Path) -> None:
    with pytest.raises(rayml.SpecError, match="cannot see it"):
        rayml.submit("train.py:train", cluster="http://192.0.2.77:8265", store="store")
    assert not (project / "store").exists()


def test_a_silent_cluster_is_told(project: Path) -> None:
    port = free_port()
    with pytest.raises(rayml.ClusterUnreachable, match=str(port)):
        rayml.submit("train.py:train", cluster=f"http://127.0.0.1:{port}", store="store")


def test_a_submission_reads_back_as_it_was_written(head: Head, project: Path) -> None:
    run = _submit(head, "train.py:train")
    stored = read_submission(open_store(project / "store"), run.id)
    assert stored.spec == run.spec
    assert stored.code is not None
    run.wait(timeout_s=60)
