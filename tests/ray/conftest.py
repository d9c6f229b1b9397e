"""A real Ray for each file of tests, and a fresh store for each test."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import ray

import rayml
from rayml import _ray
from rayml._ray import trackers
from rayml.run import Run
from rayml.store import open_store
from tests.ray.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rayml.store import Store

ROOT = Path(__file__).parents[2]


class Submit(Protocol):
    """`rayml.submit`, with the test's store and an empty working folder unless given."""

    def __call__(self, function: Callable[..., object] | str | Path, **options: object) -> Run: ...


@dataclass(frozen=True)
class Gate:
    """A place where a job stands still until its test lets it go on: `open(str(gate)).read()`."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def open(self, timeout_s: float = 60.0) -> None:
        """Let one job through; it must come within `timeout_s` seconds."""
        descriptor = eventually(self._try_open, timeout_s)
        os.close(descriptor)

    @contextmanager
    def held(self, timeout_s: float = 60.0) -> Iterator[None]:
        """Wait until a job stands there, and let it go on after the block."""
        descriptor = eventually(self._try_open, timeout_s)
        try:
            yield
        finally:
            os.close(descriptor)

    def _try_open(self) -> int | None:
        try:
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads it yet
            return None


@pytest.fixture(scope="session", autouse=True)
def fair_share() -> Iterator[None]:
    """Let jobs have as much of the CPUs as the tests that wait for them: Ray gives them least."""
    with pytest.MonkeyPatch.context() as env:
        env.setenv("RAY_worker_niceness", "0")
        yield


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """The address of a Ray with two CPUs that this process is connected to."""
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        namespace=_ray.NAMESPACE,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield ray.get_runtime_context().gcs_address
    _ray.leave()
    # Ray leaves open sockets to the collector, which would warn in another test, and on a busy
    # machine processes that it has killed and not seen end.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        ray.shutdown()
        gc.collect()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store in a folder; its tracker ends with the test."""
    opened = open_store(tmp_path / "store")
    yield opened
    end_tracker(opened)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def submit(ray_address: str, store: Store, work: Path) -> Iterator[Submit]:
    """Submit to the file's Ray and the test's store; no run outlives its test."""
    runs: list[Run] = []

    def call(function: Callable[..., object] | str | Path, **options: object) -> Run:
        run = rayml.submit(function, **{"store": store, "working_dir": work, **options})  # type: ignore[arg-type]
        assert isinstance(run, Run)
        runs.append(run)
        return run

    yield call
    for run in runs:
        if not run.is_over:  # it would take CPUs from the next test
            with suppress(rayml.RaymlError, TimeoutError):
                run.cancel(grace_s=0)
                run.wait(30)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """A gate for one job at a time."""
    return make_gate(tmp_path / "gate")


def make_gate(path: Path) -> Gate:
    """Return a new closed gate."""
    os.mkfifo(path)
    return Gate(path)


def end_tracker(store: Store) -> None:
    """End the tracker of a store, if the Ray that we are connected to has one."""
    if ray.is_initialized():
        key = (ray.get_runtime_context().gcs_address, store.uri)
        trackers._trackers.pop(key, None)  # noqa: SLF001 - a handle of an actor that is gone
        if (actor := _ray.find_tracker(store)) is not None:
            ray.kill(actor)


def tracker_pid(store: Store) -> int:
    """Return the process of a store's tracker; waits until it is there again."""
    actor: Any = _ray.find_tracker(store)
    return int(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())))


@contextmanager
def started_script(
    folder: Path, text: str, *args: object, ray_address: str | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a Python script in a process of its own, which is killed after the block.

    Args:
        folder: Where the script lies and runs.
        text: Its source; indentation that all lines share is removed.
        args: Its command line.
        ray_address: The Ray that it shares; without one it has to start its own.
    """
    script = folder / "main.py"
    script.write_text(textwrap.dedent(text), "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
    environment.pop("RAY_ADDRESS", None)
    if ray_address is not None:
        environment["RAY_ADDRESS"] = ray_address
    process = subprocess.Popen(
        [sys.executable, str(script), *map(str, args)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str], timeout_s: float = 120) -> tuple[str, str]:
    """Return what a script printed, on stdout and on stderr, once it has ended well."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # it tells where it stands
        out, err = process.communicate()
    assert process.returncode == 0, f"{out}\n{err}"
    return out, err


def run_script(
    folder: Path, text: str, *args: object, ray_address: str | None = None
) -> tuple[str, str]:
    """Run a script to its end, which must be a good one; return what it printed."""
    with started_script(folder, text, *args, ray_address=ray_address) as process:
        return finish(process)
