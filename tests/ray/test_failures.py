"""What goes wrong: code that fails in every way, wrong calls, full disks, kill -9 everywhere."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

import rayml
from rayml import _ray
from rayml.job import pack
from rayml.runner import Payload
from rayml.store import open_store
from rayml.supervisor import Supervisor
from tests.ray.conftest import (
    end_tracker,
    finish,
    make_gate,
    run_script,
    started_script,
    tracker_pid,
)
from tests.ray.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rayml.store import Store
    from tests.ray.conftest import Gate, Submit

pytestmark = pytest.mark.ray

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
HALF = rayml.Resources(cpus=0.5)


class TestCodeThatFails:
    def test_its_own_traceback_comes_first_without_our_frames(
        self, submit: Submit, work: Path
    ) -> None:
        (work / "train.py").write_text(
            dedent("""
                def inner(x):
                    return 1 / x

                def train(x):
                    try:
                        inner(x)
                    except ZeroDivisionError as exc:
                        raise RuntimeError(f"no x: {x}") from exc
            """)
        )
        run = submit("train.py:train", params={"x": 0})
        with pytest.raises(rayml.JobFailed) as caught:
            run.wait()
        error = caught.value
        assert (error.run_id, error.attempt, error.kind) == (run.id, 1, "error")
        assert error.message == "RuntimeError: no x: 0"
        assert str(error).startswith("Traceback (most recent call last):\n")
        lines = error.traceback.splitlines()
        files = [line for line in lines if line.startswith("  File ")]
        assert len(files) == 3
        assert all(str(work / "train.py") in line for line in files)
        assert "    return 1 / x" in lines
        assert "ZeroDivisionError: division by zero" in lines
        assert any("direct cause of the following exception" in line for line in lines)
        assert lines[-1] == "RuntimeError: no x: 0"
        assert f"rayml logs {run.id}" in str(error)
        assert run.state == "failed"

    def test_an_error_class_of_its_own_and_a_long_message_come_through(
        self, submit: Submit
    ) -> None:
        class Odd(Exception):
            def __init__(self, one: int, two: int) -> None:
                super().__init__("x" * 100_000)

            def __reduce__(self) -> str:
                raise TypeError("cannot be pickled")

        def job() -> None:
            raise Odd(1, 2)

        with pytest.raises(rayml.JobFailed, match=r"Odd: x+… \(.* characters in all\)") as caught:
            submit(job).wait()
        assert len(caught.value.message) < 3000

    @pytest.mark.parametrize(("code", "shown"), [(3, "code 3"), ("no data", "'no data'")])
    def test_exiting_with_a_code_is_a_failure(
        self, submit: Submit, code: object, shown: str
    ) -> None:
        def job() -> None:
            print("before")
            sys.exit(code)  # type: ignore[arg-type]

        run = submit(job)
        with pytest.raises(rayml.JobFailed, match=f"exited with {shown}") as caught:
            run.wait()
        assert caught.value.kind == "exit"
        assert run.logs() == "before\n"

    @pytest.mark.parametrize("code", [0, None])
    def test_exiting_without_a_code_is_an_end(self, submit: Submit, code: int | None) -> None:
        run = submit(lambda: sys.exit(code)).wait()
        assert (run.state, run.result) == ("succeeded", None)

    @pytest.mark.parametrize(
        "die",
        [
            lambda: os._exit(3),
            lambda: os._exit(0),
            lambda: os.kill(os.getpid(), signal.SIGKILL),
            lambda: os.kill(os.getpid(), signal.SIGSEGV),
        ],
        ids=["exit 3", "exit 0", "kill -9", "crash"],
    )
    def test_a_process_that_dies_is_a_failure_and_leaves_its_words(
        self, submit: Submit, die: Callable[[], None]
    ) -> None:
        def job(context: rayml.Context) -> None:
            context.log_metric("loss", 0.5)
            context.flush()
            child = subprocess.Popen(["sleep", "600"])
            print("child", child.pid, flush=True)
            die()

        run = submit(job)
        with pytest.raises(
            rayml.JobFailed, match=r"called os\._exit, crashed, or was killed"
        ) as caught:
            run.wait(60)
        assert caught.value.kind == "killed"
        assert run.metrics == {"loss": 0.5}
        text = run.logs()
        assert isinstance(text, str)
        first = text.splitlines()[0]
        assert first.startswith("child ")
        assert is_gone(int(first.split()[1]))
        assert submit(lambda: 1).wait().result == 1

    def test_a_script_fails_by_its_exit_code(self, submit: Submit, work: Path) -> None:
        (work / "exits.py").write_text("import sys; print('out'); sys.exit(3)\n")
        (work / "dies.py").write_text(
            "import os; print('out', flush=True); os.kill(os.getpid(), 9)\n"
        )
        run = submit("exits.py")
        with pytest.raises(rayml.JobFailed, match=r"exits\.py exited with code 3") as caught:
            run.wait()
        assert (caught.value.kind, run.logs()) == ("exit", "out\n")
        (work / "says.py").write_text("import sys; sys.exit('no table')\n")
        with pytest.raises(rayml.JobFailed, match=r"says\.py exited with 'no table'") as caught:
            submit("says.py").wait()
        assert caught.value.kind == "exit"
        with pytest.raises(rayml.JobFailed, match=r"dies\.py was killed by SIGKILL") as caught:
            submit("dies.py").wait()
        assert caught.value.kind == "killed"

    def test_a_script_s_error_is_told_as_a_function_s(self, submit: Submit, work: Path) -> None:
        source = dedent("""
            import atexit, pickle, sys

            class Rows: pass

            def read():
                try:
                    return {}["x"]
                except KeyError:
                    raise ValueError("no x")

            atexit.register(lambda: print(type(pickle.loads(pickle.dumps(Rows()))).__module__))
            if len(sys.argv) > 1:
                sys.excepthook = lambda kind, exc, trace: print("own", kind.__name__)
            read()
        """)
        (work / "raises.py").write_text(source)
        run = submit("raises.py")
        with pytest.raises(rayml.JobFailed, match="ValueError: no x") as caught:
            run.wait()
        assert (caught.value.kind, "rayml" in caught.value.traceback) == ("error", False)
        assert run.logs() == f"{caught.value.traceback}__main__\n"
        own = submit("raises.py", args=["own"])
        with pytest.raises(rayml.JobFailed, match="ValueError: no x"):
            own.wait()
        assert own.logs() == "own ValueError\n__main__\n"

    def test_a_script_that_shows_its_error_and_exits_shows_it(
        self, submit: Submit, work: Path
    ) -> None:
        (work / "shows.py").write_text(
            dedent("""
                import sys, traceback
                try:
                    1 / 0
                except ZeroDivisionError:
                    traceback.print_exc()
                    sys.exit(3)
            """)
        )
        with pytest.raises(rayml.JobFailed, match=r"shows\.py exited with code 3") as caught:
            submit("shows.py").wait()
        assert caught.value.kind == "error"
        assert caught.value.traceback.splitlines()[-1] == "ZeroDivisionError: division by zero"

    def test_an_error_that_a_script_went_on_after_is_not_its_end(
        self, submit: Submit, work: Path
    ) -> None:
        (work / "goes_on.py").write_text(
            dedent("""
                import sys, traceback
                try:
                    1 / 0
                except ZeroDivisionError:
                    traceback.print_exc()
                print("goes on")
                sys.exit(3)
            """)
        )
        with pytest.raises(rayml.JobFailed, match=r"goes_on\.py exited with code 3") as caught:
            submit("goes_on.py").wait()
        assert (caught.value.kind, caught.value.traceback) == ("exit", "")

    def test_a_forked_child_does_not_speak_for_its_script(
        self, submit: Submit, work: Path
    ) -> None:
        (work / "forks.py").write_text(
            dedent("""
                import os, sys
                if os.fork() == 0:
                    raise ValueError("of the child")
                os.wait()
                sys.exit(3)
            """)
        )
        with pytest.raises(rayml.JobFailed, match=r"forks\.py exited with code 3"):
            submit("forks.py").wait()

    def test_a_result_that_cannot_be_stored_is_a_failure(self, submit: Submit) -> None:
        run = submit(threading.Lock)
        with pytest.raises(rayml.JobFailed, match="the returned lock cannot be stored") as caught:
            run.wait()
        assert caught.value.kind == "result"
        with pytest.raises(rayml.JobFailed, match="the returned generator cannot be stored"):
            submit(lambda: (i for i in range(3))).wait()

    def test_a_bad_metric_is_refused_where_it_is_logged(self, submit: Submit) -> None:
        def job(context: rayml.Context) -> list[str]:
            messages = []
            values: list[tuple[object, object, object]] = [
                ("loss", "high", None), ("loss", None, None), ("loss", [1, 2], None),
                ("loss", 1, "x"), ("", 1, None), (5, 1, None), ("x" * 251, 1, None),
                ("loss", 1, 2**70),
            ]  # fmt: skip
            for name, value, step in values:
                try:
                    context.log_metric(name, value, step)  # type: ignore[arg-type]
                except rayml.SpecError as exc:
                    messages.append(str(exc))
            context.log_metric("loss", 1.0)
            return messages

        run = submit(job).wait()
        messages = run.result
        assert isinstance(messages, list)
        assert len(messages) == 8
        assert messages[0].startswith("metric 'loss' got the value 'high'")
        assert run.metrics == {"loss": 1.0}

    def test_an_artifact_cannot_leave_its_place(self, submit: Submit, store: Store) -> None:
        def job(context: rayml.Context) -> None:
            context.log_artifact("../../outside", b"x")

        with pytest.raises(rayml.JobFailed, match=r"'\.\./\.\./outside' is not plain"):
            submit(job).wait()
        assert list(Path(store.uri).parent.rglob("outside*")) == []

    def test_a_huge_parameter_is_refused_where_it_is_logged(self, submit: Submit) -> None:
        def job(context: rayml.Context) -> None:
            context.log_param("huge", bytes(2**30))

        with pytest.raises(rayml.JobFailed, match="may have 268,435,456; write it to a file"):
            submit(job).wait()


class TestOddNames:
    def test_metric_names_may_be_any_text_and_values_any_float(self, submit: Submit) -> None:
        names = ["with spaces", "żółw 🐢", "a/b/c", 'quo"te\\', "new\nline", "x" * 250]

        def job(context: rayml.Context) -> None:
            for i, name in enumerate(names):
                context.log_metric(name, i)
            for i, value in enumerate([0.5, float("nan"), float("inf"), -float("inf"), 1e308]):
                context.log_metric("odd", value, step=i)
            for number in (np.float32(0.5), True, 2**60, "0.25"):
                context.log_metric("kinds", number)  # type: ignore[arg-type]

        run = submit(job).wait()
        assert {name: run.metrics[name] for name in names} == {n: i for i, n in enumerate(names)}
        np.testing.assert_equal(
            run.history("odd").value.to_numpy(), np.array([0.5, np.nan, np.inf, -np.inf, 1e308])
        )
        assert run.history("kinds").value.tolist() == [0.5, 1.0, 2.0**60, 0.25]


class TestCallsThatAreWrong:
    """Each is refused before anything is started or recorded."""

    def test_what_cannot_be_pickled_is_named(self, submit: Submit, store: Store) -> None:
        lock = threading.Lock()
        with pytest.raises(rayml.SpecError, match=r"cannot be sent to a worker: .*lock"):
            submit(lambda: lock)
        with pytest.raises(rayml.SpecError, match=r"cannot be sent to a worker: .*lock"):
            submit(lambda given: given, params={"given": lock})
        assert store.list("shards/") == []

    def test_a_syntax_error_is_shown_with_its_line(
        self, submit: Submit, work: Path, store: Store
    ) -> None:
        (work / "broken.py").write_text("x = 1\ndef train(:\n    pass\n")
        for target in ("broken.py", "broken.py:train", "broken:train"):
            with pytest.raises(
                rayml.SpecError, match=r"broken\.py:2 is not valid Python: .*def train"
            ):
                submit(target)
        assert store.list("shards/") == []

    def test_what_is_missing_is_named_with_what_is_near(
        self, submit: Submit, work: Path, store: Store
    ) -> None:
        (work / "train.py").write_text("def train(data): ...\n")
        (work / "data.csv").write_text("a\n1\n")
        wrong: list[tuple[str, dict[str, object], str]] = [
            ("tran.py", {}, r"no file .*tran\.py; did you mean 'train\.py'"),
            ("train.py:tain", {}, r"no function 'tain'; did you mean 'train'"),
            ("forest.fit:train", {}, r"no module 'forest\.fit'"),
            ("not a function", {}, "not a function that rayml can run"),
            ("train.py:train", {"inputs": {"data": "date.csv"}}, r"did you mean 'data\.csv'"),
            ("train.py:train", {"inputs": {"data": "ftp://x/y"}}, "cannot read from 'ftp'"),
            ("train.py", {"working_dir": work / "gone"}, "is not a folder"),
            ("train.py", {"timeout_s": -1}, "timeout_s=-1 is not a time"),
            ("train.py", {"timeout_s": float("nan")}, "timeout_s=nan is not a time"),
            ("train.py", {"requirements": "gone.txt"}, "'gone.txt' is not a file"),
        ]
        for target, options, message in wrong:
            with pytest.raises(rayml.SpecError, match=message):
                submit(target, **options)
        assert store.list("shards/") == []

    def test_a_parameter_of_a_gigabyte_is_refused_at_once(
        self, submit: Submit, store: Store
    ) -> None:
        def train(huge: object) -> None:
            raise AssertionError("never runs")

        started = time.monotonic()
        for huge in (bytes(2**30), np.zeros(2**27), ["x" * 2**25] * 32):
            with pytest.raises(rayml.SpecError, match=r"parameter 'huge' has 1,073,741,824 bytes"):
                submit(train, params={"huge": huge})
        assert time.monotonic() - started < 10
        assert store.list("shards/") == []

    def test_a_store_that_cannot_be_written_is_named(self, submit: Submit, tmp_path: Path) -> None:
        started = tmp_path / "started"
        file = tmp_path / "file"
        file.write_text("in the way")
        for place in (file, file / "below"):
            with pytest.raises(rayml.StoreError, match="part of that path is a file"):
                submit(started.touch, store=place)
        assert submit(started.exists).wait().result is False

    def test_a_run_id_is_taken_once(self, submit: Submit, store: Store, ray_address: str) -> None:
        run = submit(lambda: 1).wait()
        packed = pack(Payload(lambda: 2))
        with pytest.raises(rayml.SpecError, match=f"run {run.id} exists already"):
            Supervisor(run.spec, packed, {}, store, _ray.connect(None))
        assert rayml.get_run(run.id, store=store).result == 1


class TestBlobsThatChanged:
    def test_loading_one_says_so(self, submit: Submit, store: Store) -> None:
        big = "x" * 100_000

        def job(context: rayml.Context) -> str:
            context.log_artifact("notes.txt", b"kept")
            return big

        run = submit(job).wait()
        blobs = [p for p in Path(store.uri, "blobs").rglob("*") if p.is_file()]
        assert len(blobs) == 3  # the third one is the list of packages
        for blob in blobs:
            data = bytearray(blob.read_bytes())
            data[0] ^= 1
            blob.write_bytes(data)
        with pytest.raises(rayml.ArtifactCorrupt, match="holds other bytes than were logged"):
            run.artifact("notes.txt").load()
        with pytest.raises(rayml.ArtifactCorrupt):
            _ = run.result
        for blob in blobs:
            blob.unlink()
        with pytest.raises(rayml.NotFound):
            run.artifact("notes.txt").load()


class TestTimeouts:
    @pytest.mark.slow
    def test_all_code_ends_in_time(self, submit: Submit) -> None:
        def sleeps() -> None:
            try:
                time.sleep(600)
            finally:
                print("cleaned up")

        def swallows() -> None:
            while True:
                try:
                    time.sleep(600)
                except KeyboardInterrupt:
                    print("swallowed", flush=True)

        def computes() -> None:
            sum(itertools.repeat(1))

        runs = [submit(job, timeout_s=1, resources=HALF) for job in (sleeps, swallows, computes)]
        for run in runs:
            with pytest.raises(rayml.JobTimeout, match="ran longer than timeout_s=1; give it"):
                run.wait(60)
            assert run.state == "failed"
            assert is_gone(pid_of(run))
        assert runs[0].logs() == "cleaned up\n"
        assert runs[1].logs() == "swallowed\n"

    def test_an_end_in_time_is_no_timeout(self, submit: Submit) -> None:
        assert submit(lambda: 5, timeout_s=30).wait().result == 5


class TestCancelling:
    def test_all_processes_of_the_job_end(self, submit: Submit, gate: Gate) -> None:
        path = str(gate)

        def job(context: rayml.Context) -> None:
            stubborn = (
                "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
                "signal.signal(signal.SIGINT, signal.SIG_IGN);"
                "print('pid', os.getpid(), flush=True); signal.pause()"
            )
            daemon = (
                "import os, signal, sys\n"
                "if os.fork(): os._exit(0)\n"
                "os.setsid()\n"
                "if os.fork(): os._exit(0)\n"
                "print('pid', os.getpid(), flush=True); signal.pause()"
            )
            for code in (stubborn, daemon):
                subprocess.Popen([sys.executable, "-c", code])
            try:
                Path(path).read_bytes()
            finally:
                context.log_metric("cleaned", 1)
                print("bye")

        run = submit(job)
        printed = eventually(lambda: pids_in(run.logs(), 2))
        with gate.held():
            run.cancel(grace_s=5)
            with pytest.raises(rayml.JobCancelled, match="cancelled by its user"):
                run.wait(60)
        assert run.state == "cancelled"
        assert run.metrics == {"cleaned": 1}
        assert "bye\n" in run.logs()
        assert all(map(is_gone, printed))
        assert is_gone(pid_of(run))

    def test_a_waiting_run_never_starts(self, submit: Submit, gate: Gate, tmp_path: Path) -> None:
        path, started = str(gate), tmp_path / "started"
        first = submit(lambda: Path(path).read_bytes(), resources=rayml.Resources(cpus=2))
        with gate.held():
            second = submit(started.touch, resources=rayml.Resources(cpus=2))
            eventually(lambda: second.state == "waiting")
            second.cancel()
            with pytest.raises(rayml.JobCancelled):
                second.wait(30)
        first.wait()
        assert submit(lambda: 1, resources=rayml.Resources(cpus=2)).wait().result == 1
        assert not started.exists()

    def test_again_and_afterwards_it_changes_nothing(self, submit: Submit, gate: Gate) -> None:
        path = str(gate)
        run = submit(lambda: Path(path).read_bytes())
        with gate.held():
            run.cancel()
            run.cancel(grace_s=1)
            with pytest.raises(rayml.JobCancelled):
                run.wait(30)
        run.cancel()
        assert run.state == "cancelled"
        done = submit(lambda: 1).wait()
        done.cancel()
        assert (done.state, done.result) == ("succeeded", 1)

    def test_another_process_can_ask_for_it(
        self, submit: Submit, gate: Gate, work: Path, store: Store
    ) -> None:
        path = str(gate)
        run = submit(lambda: Path(path).read_bytes())
        source = """
            import sys, rayml
            rayml.get_run(sys.argv[1], store=sys.argv[2]).cancel()
        """
        with gate.held():
            run_script(work, source, run.id, store.uri)
            with pytest.raises(rayml.JobCancelled):
                run.wait(30)

    def test_a_script_and_its_children_end(self, submit: Submit, work: Path) -> None:
        (work / "waits.py").write_text(
            dedent("""
                import subprocess, signal
                try:
                    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
                    print("pid", child.pid)
                    signal.pause()
                except KeyboardInterrupt:
                    print("interrupted")
                    signal.pause()
            """)
        )
        run = submit("waits.py")
        [child] = eventually(lambda: pids_in(run.logs(), 1))
        run.cancel(grace_s=3)  # it hears of it after a quarter of a second
        with pytest.raises(rayml.JobCancelled):
            run.wait(30)
        assert "interrupted\n" in run.logs()
        assert is_gone(child)


class TestRetries:
    def test_attempts_are_counted_and_later_points_take_the_place_of_earlier(
        self, submit: Submit, tmp_path: Path
    ) -> None:
        marks = tmp_path / "marks"
        marks.mkdir()

        def job(context: rayml.Context) -> int:
            (marks / f"{context.attempt} {time.time()}").touch()
            print("attempt", context.attempt)
            for step in range(3 * (context.attempt - 1), 6):
                context.log_metric("loss", step + 100 * context.attempt, step)
            if context.attempt < 3:
                raise ValueError("not yet")
            return context.attempt

        run = submit(job, retry=rayml.Retry(attempts=3, backoff_s=0.2)).wait()
        assert (run.result, run.attempt, run.state) == (3, 3, "succeeded")
        assert run.logs() == "attempt 1\nattempt 2\nattempt 3\n"
        values = run.history("loss").value.tolist()
        assert values == [100, 101, 102, 203, 204, 205]
        times = [float(p.name.split()[1]) for p in sorted(marks.iterdir())]
        assert times[1] - times[0] >= 0.2
        assert times[2] - times[1] >= 0.4

    def test_only_the_failures_asked_for_are_tried_again(self, submit: Submit) -> None:
        def raises() -> None:
            raise ValueError("no")

        retries = {
            2: rayml.Retry(attempts=2, backoff_s=0.01, on=("error",)),
            1: rayml.Retry(attempts=2, backoff_s=0.01, on=("oom", "node_lost")),
        }
        for attempts, retry in retries.items():
            run = submit(raises, retry=retry)
            with pytest.raises(rayml.JobFailed, match=rf"\(attempt {attempts}\)") as caught:
                run.wait()
            assert caught.value.attempt == attempts

    def test_a_killed_process_is_tried_again_but_a_timeout_is_not(self, submit: Submit) -> None:
        def job(context: rayml.Context) -> int:
            if context.attempt == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return context.attempt

        retry = rayml.Retry(attempts=2, backoff_s=0.01)
        assert submit(job, retry=retry).wait().result == 2
        run = submit(lambda: time.sleep(600), retry=retry, timeout_s=0.5)
        with pytest.raises(rayml.JobTimeout):
            run.wait(60)
        assert run.attempt == 1

    def test_between_attempts_it_says_why_and_can_be_cancelled(self, submit: Submit) -> None:
        def job() -> None:
            raise ValueError("first")

        run = submit(job, retry=rayml.Retry(attempts=3, backoff_s=500))
        eventually(lambda: run.state == "retrying")
        assert run.reason == "attempt 1 of 3 ended with error; the next one starts in 500 s"
        run.cancel()
        with pytest.raises(rayml.JobCancelled, match="between attempts"):
            run.wait(30)


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this root may not mount a tmpfs: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@needs_root
class TestAFullStore:
    @pytest.mark.slow
    def test_a_run_that_could_not_store_all_has_not_succeeded(
        self, submit: Submit, tmp_path: Path, gate: Gate
    ) -> None:
        path = str(gate)

        def job(context: rayml.Context) -> None:
            context.log_metric("loss", 0.5)
            context.log_artifact("early", b"kept")
            context.flush()
            Path(path).read_bytes()
            context.log_metric("loss", 0.25)

        with tmpfs(tmp_path / "disk", "size=4m") as disk:
            store = open_store(disk / "store")
            try:
                run = submit(job, store=store)
                with gate.held():
                    fill(disk / "filler")
                with pytest.raises(rayml.StoreError, match="its disk is full; free some space"):
                    run.wait(150)
                assert run.state != "succeeded"
                assert run.metrics == {"loss": 0.5}
                assert run.artifact("early").load() == b"kept"
                (disk / "filler").unlink()
                assert submit(lambda: 1, store=store).wait().result == 1
            finally:
                end_tracker(store)

    def test_space_that_is_freed_in_time_saves_the_run(
        self, submit: Submit, tmp_path: Path, gate: Gate
    ) -> None:
        freed = make_gate(tmp_path / "freed")
        path, other = str(gate), str(freed)

        def job(context: rayml.Context) -> str:
            Path(path).read_bytes()
            for step in range(1000):
                context.log_metric("loss", step)
            message = ""
            try:
                context.log_artifact("late", b"x" * 10_000)
            except rayml.StoreError as exc:
                message = str(exc)
            Path(other).read_bytes()
            return message

        with tmpfs(tmp_path / "disk", "size=4m") as disk:
            store = open_store(disk / "store")
            try:
                run = submit(job, store=store)
                with gate.held():
                    fill(disk / "filler")
                with freed.held():
                    (disk / "filler").unlink()
                assert "its disk is full" in str(run.wait().result)
                assert run.history("loss").value.tolist() == list(range(1000))
                assert run.artifacts == {}
            finally:
                end_tracker(store)


class TestKilling:
    def test_the_tracker_under_load_loses_nothing_and_doubles_nothing(
        self, submit: Submit, store: Store, gate: Gate, tmp_path: Path
    ) -> None:
        ready = tmp_path / "ready"
        ready.mkdir()
        go = tmp_path / "go"

        def job(number: int, context: rayml.Context) -> None:
            step = 0
            while step < 20_000 or not go.exists():
                context.log_metric("a", step * number)
                context.log_metric("b", -step)
                step += 1
                if step % 1000 == 0:
                    context.flush()
                    (ready / f"{number} {step}").touch()
            context.log_param("steps", step)

        runs = [submit(job, params={"number": n}, resources=HALF) for n in range(1, 5)]
        for kills in range(1, 4):
            eventually(lambda: len(list(ready.iterdir())) >= 8 * kills)  # noqa: B023
            os.kill(tracker_pid(store), signal.SIGKILL)
        go.touch()
        for number, run in enumerate(runs, 1):
            run.wait(120)
            steps = int(str(run.params["steps"]))
            assert run.history("a").value.tolist() == [s * number for s in range(steps)]
            assert run.history("b").step.tolist() == list(range(steps))

    @pytest.mark.slow
    def test_the_whole_ray_keeps_what_was_acknowledged_and_ends_the_run(
        self, work: Path, store: Store
    ) -> None:
        source = """
            import sys, psutil, rayml

            def train(context):
                step = 0
                while True:
                    for _ in range(100):
                        context.log_metric("step", step)
                        step += 1
                    context.flush()
                    print(step, flush=True)
                    with open("acknowledged", "a") as file:
                        file.write(f"{step}\\n")

            retry = rayml.Retry(attempts=3, backoff_s=0.1)
            run = rayml.submit(train, store=sys.argv[1], cluster="local", retry=retry)
            names = ("raylet", "gcs_server")
            found = [p.pid for p in psutil.Process().children(recursive=True) if p.name() in names]
            print(run.id, *found, flush=True)
            try:
                run.wait()
            except rayml.JobFailed as error:
                print(error.kind, run.state)
        """
        acknowledged = work / "acknowledged"
        with started_script(work, source, store.uri) as process:
            run_id, *pids = first_words(process)
            assert len(pids) == 2
            eventually(lambda: acknowledged.exists() and acknowledged.read_text().count("\n") > 5)
            for pid in pids:
                os.kill(int(pid), signal.SIGKILL)
            printed, _ = finish(process, 60)
        assert printed == "node_lost failed\n"
        steps_acknowledged = int(acknowledged.read_text().split()[-1])
        run = rayml.get_run(run_id, store=store)
        steps = run.history("step").step.tolist()
        assert len(steps) >= steps_acknowledged
        assert steps == list(range(len(steps)))
        assert (run.state, getattr(run.error, "kind", "")) == ("failed", "node_lost")
        assert run.logs() != ""

    @pytest.mark.thorough
    @pytest.mark.slow
    def test_shutting_ray_down_ends_the_runs_on_it_and_a_new_one_is_used(
        self, work: Path, store: Store
    ) -> None:
        source = """
            import signal, subprocess, sys, ray, rayml

            def train(context):
                child = subprocess.Popen(["sleep", "600"], start_new_session=True)
                print("pid", child.pid, flush=True)
                signal.pause()

            for _ in range(3):  # a thread that waits inside Ray hangs now and then
                ray.init(address="local", include_dashboard=False)
                run = rayml.submit(train, store=sys.argv[1])
                lines = run.logs(follow=True)
                pid = int(next(lines).split()[1])
                ray.shutdown()
                try:
                    run.wait(30)
                except rayml.JobFailed as error:
                    print(pid, error.kind, run.state, ray.is_initialized())
            ray.init(address="local", include_dashboard=False)
            print(rayml.submit(lambda: "again", store=sys.argv[1]).wait().result)
        """
        printed, said = run_script(work, source, store.uri)
        *rounds, last = printed.splitlines()
        assert len(rounds) == 3
        assert last == "again"
        for line in rounds:
            pid, *words = line.split()
            assert words == ["node_lost", "failed", "False"]
            assert is_gone(int(pid))
        assert "Traceback" not in said

    @pytest.mark.slow
    def test_the_submitting_process_ends_its_run_at_the_next_start(
        self, work: Path, store: Store
    ) -> None:
        source = """
            import os, signal, sys, rayml

            def train(context):
                context.log_metric("loss", 0.5)
                context.flush()
                print("pid", os.getpid(), flush=True)
                signal.pause()

            run = rayml.submit(train, store=sys.argv[1], cluster="local")
            print(run.id, flush=True)
            run.wait()
        """
        with started_script(work, source, store.uri) as process:
            [run_id] = first_words(process)
            run = rayml.get_run(run_id, store=store)
            [worker] = eventually(lambda: pids_in(run.logs(), 1), 60)
            process.kill()
        eventually(lambda: is_gone(worker), 60)
        with rayml.start_run(store=store) as context:
            context.log_metric("next", 1)
        assert (run.state, getattr(run.error, "kind", "")) == ("failed", "node_lost")
        assert run.metrics == {"loss": 0.5}

    @pytest.mark.thorough
    @pytest.mark.slow
    def test_a_run_whose_submitter_to_a_shared_ray_was_killed_ends_as_lost(
        self, submit: Submit, work: Path, store: Store, ray_address: str
    ) -> None:
        source = """
            import os, signal, sys, rayml

            def train(context):
                print("pid", os.getpid(), flush=True)
                signal.pause()

            run = rayml.submit(train, store=sys.argv[1])
            print(run.id, flush=True)
            run.wait()
        """
        with started_script(work, source, store.uri, ray_address=ray_address) as process:
            [run_id] = first_words(process)
            run = rayml.get_run(run_id, store=store)
            [worker] = eventually(lambda: pids_in(run.logs(), 1), 60)
            process.kill()
        eventually(lambda: is_gone(worker), 60)
        submit(lambda: 1).wait()
        eventually(lambda: run.state == "failed", 90)
        assert getattr(run.error, "kind", "") == "lost"
        assert "gone or silent" in str(run.error)

    @pytest.mark.thorough
    @pytest.mark.slow
    def test_two_processes_share_a_store(self, work: Path, store: Store) -> None:
        source = """
            import sys, rayml

            def train(i, context):
                for step in range(100):
                    context.log_metric("i", i, step)
                return i

            runs = [rayml.submit(train, params={"i": i}, store=sys.argv[1], cluster="local",
                                 experiment=sys.argv[2]) for i in range(5)]
            print([run.wait().result for run in runs])
        """
        with ExitStack() as stack:
            processes = []
            for name in ("one", "two"):
                (work / name).mkdir()
                script = started_script(work / name, source, store.uri, name)
                processes.append(stack.enter_context(script))
            for process in processes:
                assert finish(process)[0] == "[0, 1, 2, 3, 4]\n"
        for name in ("one", "two"):
            found = rayml.runs(name, store=store)
            assert sorted(int(str(run.result)) for run in found) == [0, 1, 2, 3, 4]
            assert all(len(run.history("i")) == 100 for run in found)

    def test_an_interpreter_that_exits_waits_for_its_runs_and_says_so(
        self, work: Path, store: Store, ray_address: str
    ) -> None:
        source = """
            import sys, rayml

            def train(context):
                context.log_metric("loss", 0.5)
                print("done")

            def broken():
                raise ValueError("at the end")

            run = rayml.submit(train, store=sys.argv[1], name="late")
            other = rayml.submit(broken, store=sys.argv[1], name="other")
            print(run.id, other.id)
        """
        printed, said = run_script(work, source, store.uri, ray_address=ray_address)
        run_id, other_id = printed.split()
        waiting = [line for line in said.splitlines() if "unfinished" in line]
        assert len(waiting) == 1
        assert f"late ({run_id})" in waiting[0]
        assert "ValueError: at the end" in said
        run = rayml.get_run(run_id, store=store)
        assert (run.state, run.metrics) == ("succeeded", {"loss": 0.5})
        assert rayml.get_run(other_id, store=store).state == "failed"


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended, within a moment."""

    def ended() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return eventually(ended, 5)


def first_words(process: subprocess.Popen[str]) -> list[str]:
    """Return the words of the first line that a script prints."""
    assert process.stdout is not None
    words = process.stdout.readline().split()
    assert words, process.communicate(timeout=30)
    return words


def pid_of(run: rayml.Run) -> int:
    """Return the process that the newest attempt ran in."""
    started = run._record().started  # noqa: SLF001 - the record has it, users do not need it
    assert started is not None
    return started.pid


def pids_in(logs: object, count: int) -> list[int]:
    """Return the numbers of the lines `pid N`, once there are so many."""
    lines = str(logs).splitlines()
    found = [int(line.split()[1]) for line in lines if line.startswith("pid ")]
    return found if len(found) >= count else []


def fill(path: Path) -> None:
    """Fill a disk to its last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (64 * 1024, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
