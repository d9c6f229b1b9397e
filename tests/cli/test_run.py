"""`rayml run` and what goes with it, on a real Ray, in pipes and on terminals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

import rayml
from tests.cli.terminal import START_S, Terminal, call, end, environment, started
from tests.ray.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.ray

JOBS = '''
import os, time
import rayml

def train(context, depth: int = 3, rate=0.1):
    print("tiefe", depth, type(rate).__name__, "☃")
    for step in range(3):
        context.log_metric("loss", 1 / (step + 1), step=step)
    context.log_metric("härte", float("nan"))
    context.log_model("model", {"depth": depth}, format="pickle")
    return {"auc": 0.75, "gap": float("inf"), "note": "ok"}

def fail(context):
    context.log_metric("loss", 1)
    print("so far", end="")
    return helper()

def helper():
    raise KeyError("label")

def wait(context, gate: str, says: str = "waiting for the gate"):
    """Stand still until a file is there."""
    print(says)
    context.log_metric("loss", 0.5, step=7)
    try:
        while not os.path.exists(gate):
            time.sleep(0.05)
    except KeyboardInterrupt:
        print("interrupted")
        raise
    print("gate is open")
'''
SHARED_RAY = """
import logging, sys, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def shared_ray() -> Iterator[dict[str, str]]:
    """The environment in which commands use one Ray with two CPUs."""
    with subprocess.Popen(
        [sys.executable, "-c", SHARED_RAY],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        address = process.stdout.readline().strip()
        # Ray has switched its token on, and whoever names an address has to do so as well.
        yield {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token"}
        process.stdin.close()
        process.wait(timeout=60)


@dataclass
class Place:
    """A folder with jobs, and a store, in which every command is started."""

    folder: Path
    store: Path

    def call(self, *words: object, env: dict[str, str] | None = None) -> Done:
        return Done(call(*words, "--store", self.store, cwd=self.folder, env=env))

    def run(self, *words: object, env: dict[str, str] | None = None) -> Done:
        return self.call("run", *words, env=env)

    @contextmanager
    def started(
        self, *words: object, env: dict[str, str] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        words = ("run", *words, "--store", self.store)
        with started(*words, cwd=self.folder, env=env) as process:
            yield process

    @contextmanager
    def terminal(self, *words: object, env: dict[str, str] | None = None) -> Iterator[Terminal]:
        terminal = Terminal("run", *words, "--store", self.store, cwd=self.folder, env=env)
        try:
            yield terminal
        finally:
            terminal.close()

    def newest(self) -> rayml.Run:
        return rayml.get_run("latest", store=self.store)


class Done:
    """A command that has ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def run_id(self) -> str:
        found = re.search(r"^rayml: run (\S+) \(.+\) submitted$", self.err, re.MULTILINE)
        assert found, self.err
        return found[1]


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all tests on the shared Ray, so that this has one tracker."""
    return tmp_path_factory.mktemp("runs") / "store"


def make_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "jobs.py").write_text(JOBS, "utf-8")
    return folder


@pytest.fixture
def place(tmp_path: Path, shared_store: Path) -> Iterator[Place]:
    """A folder of its own, and the shared store."""
    yield Place(make_folder(tmp_path), shared_store)
    end_those_in(tmp_path)


@pytest.fixture
def own_place(tmp_path: Path) -> Iterator[Place]:
    """A folder and a store of its own, for a run on a Ray of its own."""
    yield Place(make_folder(tmp_path), tmp_path / "store")
    end_those_in(tmp_path)


def end_those_in(folder: Path) -> None:
    """Kill what a test has left running: it works in the test's folder."""
    for process in psutil.process_iter():
        try:
            is_ours = process.cwd().startswith(f"{folder}/") and process.pid != os.getpid()
        except psutil.Error:
            continue
        if is_ours:
            end(process.pid)


def is_over(run: rayml.Run) -> bool:
    return run.state in ("succeeded", "failed", "cancelled")


def first_line_with(text: str, process: subprocess.Popen[str]) -> str:
    assert process.stdout
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError(f"no {text!r} in:\n{''.join(seen)}")


def test_a_function_in_a_pipe(place: Place, shared_ray: dict[str, str]) -> None:
    words = ["jobs.py:train", "-p", "depth=4", "-p", "rate=fast", "--name", "fit"]
    done = place.run(*words, env=shared_ray)

    assert done.code == 0, done.err
    log, *summary = done.out.splitlines()
    assert log == "tiefe 4 str ☃"
    facts = dict(re.findall(r"^ *(\w+) {2,}(.+)$", "\n".join(summary), re.MULTILINE))
    assert facts["run"] == done.run_id
    assert (facts["name"], facts["state"]) == ("fit", "succeeded")
    assert (facts["depth"], facts["rate"]) == ("4", "fast")
    assert (facts["loss"], facts["härte"], facts["auc"]) == ("0.333333", "nan", "0.75")
    assert facts["model"].endswith(f"rayml://runs/{done.run_id}/model")
    assert re.search(r"^rayml: running on ", done.err, re.MULTILINE)
    assert all(line.startswith("rayml: ") for line in done.err.splitlines())


def test_a_run_is_run_again(place: Place, shared_ray: dict[str, str]) -> None:
    run_id = place.run("jobs.py:train", "-p", "rate=fast", env=shared_ray).run_id
    words = ["rerun", run_id, "-p", "depth=5", "--label", "team=red", "--store", place.store]
    done = call(*words, "--detach", cwd=place.store, env=shared_ray)

    assert done.returncode == 0, done.stderr
    run = rayml.get_run(done.stdout.splitlines()[0], store=place.store)
    assert run.wait(60).logs() == "tiefe 5 str ☃\n"
    assert run.labels == {"team": "red"}
    shown = place.call("show", run.id).out
    assert re.search(rf"^rerun of +{run_id}$", shown, re.MULTILINE)


def test_the_two_lines_that_come_next_work(place: Place, shared_ray: dict[str, str]) -> None:
    done = place.run("jobs.py:train", env=shared_ray)
    show, load = done.out.splitlines()[-2:]
    python = environment({"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    loaded = subprocess.run(
        ["bash", "-c", load],
        cwd=place.folder,
        env=python,
        capture_output=True,
        text=True,
        check=False,
    )

    assert show == f"rayml show {done.run_id} --store {place.store}"
    assert loaded.stdout == "{'depth': 3}\n", loaded.stderr
    assert place.call("show", done.run_id).code == 0


def test_an_engine_gets_its_settings(place: Place, shared_ray: dict[str, str]) -> None:
    (place.folder / "script.py").write_text(
        "import dask\n"
        "from distributed import Client\n"
        "print(dask.delayed(sum)([1, 2]).compute(), len(Client().scheduler_info()['workers']))\n"
    )
    words = ["script.py", "--engine", "dask", "--cpus", "0.5", "-e", "workers=2", "-e"]
    done = place.run(*words, "client=true", env=shared_ray)
    wrong = place.run(*words, "clients=true", env=shared_ray)
    without = place.run("script.py", "-e", "client=true", env=shared_ray)

    assert done.code == 0, done.err
    assert done.out.startswith("3 2\n")
    assert (wrong.code, without.code) == (2, 2)
    assert "engine 'dask' has no setting 'clients'; did you mean 'client'?" in wrong.err
    assert without.err.startswith(
        "rayml: -e client= is a setting of no engine; give --engine NAME"
    )


def test_a_script_gets_its_words_and_folder(place: Place, shared_ray: dict[str, str]) -> None:
    (place.folder / "script.py").write_text("import os, sys; print(sys.argv[1:], os.getcwd())")
    done = place.run("script.py", "--", "-x", "y", env=shared_ray)
    wrong = call("run", "script.py", "-x", cwd=place.folder)

    assert done.code == 0, done.err
    # The option after the words belongs to them: the whole of what follows the dashes does.
    assert done.out.startswith(f"['-x', 'y', '--store', '{place.store}'] {place.folder}\n")
    assert wrong.returncode == 2


def test_a_failing_function_shows_its_own_traceback(
    place: Place, shared_ray: dict[str, str]
) -> None:
    done = place.run("jobs.py:fail", env=shared_ray)
    *_, last = done.err.splitlines()

    assert done.code == 1
    assert done.out == "so far\n"
    assert "Traceback (most recent call last):\n" in done.err
    assert "in helper\n" in done.err
    assert "/rayml/" not in done.err
    assert last.startswith(f"rayml: run {done.run_id}: KeyError: 'label' (attempt 1); ")


def test_a_failing_script_shows_its_traceback_once(
    place: Place, shared_ray: dict[str, str]
) -> None:
    (place.folder / "script.py").write_text("raise SystemError('no')")
    done = place.run("script.py", env=shared_ray)

    assert done.code == 1
    assert done.out.count("SystemError: no") == 1
    assert "Traceback" not in done.err
    assert "SystemError: no (attempt 1)" in done.err


def test_json_is_all_that_is_on_stdout(place: Place, shared_ray: dict[str, str]) -> None:
    done = place.run("jobs.py:train", "--json", env=shared_ray)
    data = json.loads(done.out, parse_constant=pytest.fail)

    assert done.code == 0, done.err
    assert data["state"] == "succeeded"
    assert data["result"] == {"auc": 0.75, "gap": "inf", "note": "ok"}
    assert data["metrics"]["härte"] == "nan"
    assert data["artifacts"]["model"]["format"] == "pickle"
    assert "tiefe 3 float ☃" in done.err


def test_json_of_a_failed_run(place: Place, shared_ray: dict[str, str]) -> None:
    done = place.run("jobs.py:fail", "--json", env=shared_ray)
    data = json.loads(done.out)

    assert done.code == 1
    assert (data["state"], data["error"]["kind"]) == ("failed", "error")
    assert "in helper" in data["error"]["traceback"]


def test_a_cluster_that_does_not_answer_is_3(place: Place) -> None:
    done = place.run("jobs.py:train", "--cluster", "http://127.0.0.1:1")

    assert (done.code, done.out) == (3, "")
    assert "http://127.0.0.1:1" in done.err
    assert "Traceback" not in done.err


def test_a_waiting_run_says_why(place: Place, shared_ray: dict[str, str]) -> None:
    gate = place.folder / "gate"
    with place.started("jobs.py:wait", "-p", f"gate={gate}", env=shared_ray) as first:
        first_line_with("waiting for the gate", first)
        with place.started("jobs.py:train", "--cpus", "2", env=shared_ray) as second:
            line = first_line_with("2 CPUs", second)
            gate.touch()
            rest, _ = second.communicate(timeout=START_S)
        first.communicate(timeout=START_S)

    assert line.startswith("rayml: waiting: the cluster is busy")
    assert "rayml: running on " in rest
    assert (first.returncode, second.returncode) == (0, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_pipe_cancels(
    place: Place, shared_ray: dict[str, str], number: signal.Signals
) -> None:
    with place.started("jobs.py:wait", "-p", "gate=none", env=shared_ray) as process:
        first_line_with("waiting for the gate", process)
        process.send_signal(number)
        rest, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "interrupted" in rest
    assert "it was cancelled by its user; what it had logged is kept" in rest
    run = place.newest()
    assert (run.state, run.metrics) == ("cancelled", {"loss": 0.5})


def test_a_signal_while_the_run_is_starting_cancels_it(
    place: Place, shared_ray: dict[str, str]
) -> None:
    words = ["jobs.py:wait", "-p", "gate=none", "--name", "early"]
    with place.started(*words, env=shared_ray) as process:
        first_line_with("rayml: using the Ray cluster", process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)

    assert process.returncode == 1
    assert (place.newest().name, place.newest().state) == ("early", "cancelled")


def test_a_run_goes_on_when_nobody_reads_its_output(
    place: Place, shared_ray: dict[str, str]
) -> None:
    gate = place.folder / "gate"
    with place.started("jobs.py:wait", "-p", f"gate={gate}", env=shared_ray) as process:
        first_line_with("waiting for the gate", process)
        assert process.stdout
        process.stdout.close()
        gate.touch()
        process.wait(timeout=60)

    assert place.newest().state == "succeeded"


def test_cancel_from_elsewhere(place: Place, shared_ray: dict[str, str]) -> None:
    with place.started("jobs.py:wait", "-p", "gate=none", env=shared_ray) as process:
        first_line_with("waiting for the gate", process)
        run = place.newest()
        cancelled = place.call("cancel", run.id, env=shared_ray)
        rest, _ = process.communicate(timeout=60)

    assert (cancelled.code, cancelled.err) == (0, f"rayml: run {run.id} cancelled\n")
    assert process.returncode == 1
    assert "interrupted" in rest


def test_a_terminal_shows_the_run_while_it_goes_on(
    place: Place, shared_ray: dict[str, str]
) -> None:
    gate = place.folder / "gate"
    words = ["-p", f"gate={gate}", "-p", "says=[bold]größe[/bold] ☃"]
    with place.terminal("jobs.py:wait", *words, env=shared_ray) as terminal:
        terminal.expect(re.escape("[bold]größe[/bold] ☃"))
        terminal.expect(r"running  wait  \S+  step 7")
        terminal.expect(r"loss +0\.5")
        gate.touch()
        terminal.expect("gate is open")
        terminal.expect(r"state +succeeded")
        terminal.expect(r"rayml show \S+ --store ")
        assert terminal.wait() == 0


def test_ctrl_c_on_a_terminal_asks_and_a_second_one_cancels(
    place: Place, shared_ray: dict[str, str]
) -> None:
    with place.terminal("jobs.py:wait", "-p", "gate=none", env=shared_ray) as terminal:
        terminal.expect("waiting for the gate")
        terminal.expect("running")
        terminal.type("\x03")
        terminal.expect(r"detach or cancel\? \[d/c\]")
        terminal.type("\n")
        terminal.expect("running")
        terminal.type("\x03")
        terminal.expect(r"detach or cancel\? \[d/c\]")
        terminal.type("\x03")
        terminal.expect("cancelling")
        terminal.expect("interrupted")
        terminal.expect("it was cancelled by its user")
        assert terminal.wait() == 1
    assert place.newest().state == "cancelled"


def test_cancel_is_one_of_the_answers(place: Place, shared_ray: dict[str, str]) -> None:
    with place.terminal("jobs.py:wait", "-p", "gate=none", env=shared_ray) as terminal:
        terminal.expect("waiting for the gate")
        terminal.type("\x03")
        terminal.expect(r"detach or cancel\?")
        terminal.type("c\n")
        assert terminal.wait() == 1
    assert place.newest().state == "cancelled"


def test_a_failure_on_a_terminal(place: Place, shared_ray: dict[str, str]) -> None:
    with place.terminal("jobs.py:fail", env=shared_ray) as terminal:
        terminal.expect("so far")
        terminal.expect("Traceback")
        terminal.expect("KeyError: 'label'")
        assert terminal.wait() == 1


def test_a_wrong_call_on_a_terminal(place: Place) -> None:
    with place.terminal("jobs.py:trian") as terminal:
        terminal.expect("rayml: .*has no function 'trian'; did you mean 'train'")
        assert terminal.wait() == 2


def test_a_local_run_goes_on_after_detaching(own_place: Place) -> None:
    gate = own_place.folder / "gate"
    with own_place.terminal("jobs.py:wait", "-p", f"gate={gate}") as terminal:
        terminal.expect("waiting for the gate")
        terminal.type("\x03")
        terminal.expect(r"detach or cancel\?")
        terminal.type("d\n")
        run_id = terminal.expect(r"rayml logs -f (\S+) --store")[1]
        terminal.expect(f"rayml cancel {run_id}")
        assert terminal.wait() == 0
    assert own_place.newest().state == "running"
    words = ["logs", "-f", run_id, "--store", own_place.store]
    with started(*words, cwd=own_place.folder) as follower:
        assert follower.stdout
        assert follower.stdout.readline() == "waiting for the gate\n"
        gate.touch()
        rest = follower.stdout.read()
    assert rest == f"gate is open\nrayml: run {run_id} succeeded\n"
    assert own_place.newest().state == "succeeded"


def test_detach_returns_when_the_run_is_recorded(own_place: Place) -> None:
    gate = own_place.folder / "gate"
    done = own_place.run("jobs.py:wait", "-p", f"gate={gate}", "--detach")
    assert done.code == 0, done.err
    run_id, *lines = done.out.splitlines()
    run = own_place.newest()

    assert run_id == run.id
    assert lines == [
        f"rayml logs -f {run_id} --store {own_place.store}",
        f"rayml cancel {run_id} --store {own_place.store}",
    ]
    assert not is_over(run)
    cancelled = own_place.call("cancel", run_id, "--grace-s", "2")
    assert (cancelled.code, run.state) == (0, "cancelled")


def test_a_run_does_not_outlive_a_command_that_was_killed(own_place: Place) -> None:
    with own_place.terminal("jobs.py:wait", "-p", "gate=none") as terminal:
        terminal.expect("waiting for the gate")
        terminal.process.kill()
        terminal.wait()
        run = own_place.newest()
        eventually(lambda: is_over(run), 60)

    assert run.state == "cancelled"
    assert "interrupted" in run.logs()


def test_a_run_does_not_outlive_its_terminal(own_place: Place) -> None:
    with own_place.terminal("jobs.py:wait", "-p", "gate=none") as terminal:
        terminal.expect("waiting for the gate")
        terminal.hang_up()
        run = own_place.newest()
        eventually(lambda: is_over(run), 60)

    assert run.state == "cancelled"


def test_a_run_whose_keeper_is_killed_fails(own_place: Place) -> None:
    with own_place.terminal("jobs.py:wait", "-p", "gate=none") as terminal:
        terminal.expect("waiting for the gate")
        (keeper,) = psutil.Process(terminal.process.pid).children()
        end(keeper.pid)
        terminal.expect("rayml: run ")
        assert terminal.wait() == 1

    assert own_place.newest().state == "failed"
