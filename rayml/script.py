"""A plain script as a job: run as `python script.py args` would, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rayml import launch
from rayml.engines import scripts
from rayml.memory import OUT_OF_MEMORY, oom_kills
from rayml.tracker.records import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rayml.spec import Spec

_TAIL_BYTES = 64 * 1024
_WAIT_S = 1.0


class ScriptFailed(Exception):
    """It exited with another code than 0, or was killed."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem


def run_script(spec: Spec, environment: Mapping[str, str], output: Path) -> None:
    """Run a script and wait for it; KeyboardInterrupt is raised there too.

    Args:
        spec: The job.
        environment: What its variables are.
        output: Where what it prints is caught.

    Raises:
        ScriptFailed: It exited with another code than 0, or was killed.
    """
    script = str(Path(spec.working_dir, spec.target.file))
    before = oom_kills()
    # In memory, so that nothing of it is left, and opened by name, so that no child inherits it.
    with open(os.memfd_create("rayml-problem"), "rb") as told:  # noqa: PTH123 - it has no path
        file = f"/proc/{os.getpid()}/fd/{told.fileno()}"
        code = _run_child([*_launcher(), file, script, *spec.args], environment)
        problem = told.read()
    if code == -signal.SIGKILL and oom_kills() > before:
        raise ScriptFailed(Problem(kind="oom", message=OUT_OF_MEMORY))
    if code != 0:
        raise ScriptFailed(_problem(Path(script).name, code, problem, output))


def _launcher() -> list[str]:
    return ["-m", "rayml.engines"] if scripts.is_engine_s() else [launch.__file__]


def _run_child(arguments: list[str], environment: Mapping[str, str]) -> int:
    # A child inherits which signals are blocked, and a script wants its Ctrl-C.
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    child = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    try:
        return _wait(child)
    except KeyboardInterrupt:
        os.killpg(child.pid, signal.SIGINT)
        child.wait()
        raise


def _wait(child: subprocess.Popen[bytes]) -> int:
    while True:  # a thread hears of an interruption between two waits only
        with suppress(subprocess.TimeoutExpired):
            return child.wait(_WAIT_S)


def _problem(name: str, code: int, told: bytes, output: Path) -> Problem:
    """Return why a script failed: as it told, or as far as its code and output show it."""
    if code < 0:
        reason = signal.Signals(-code).name
        return Problem(kind="killed", message=f"{name} was killed by {reason}")
    if told and (problem := msgspec.json.decode(told, type=Problem)).kind != "exit":
        return problem
    message = problem.message if told else f"{name} exited with code {code}"
    shown = last_traceback(output)  # of an error that the script has seen to itself
    return Problem(kind="error" if shown else "exit", message=message, traceback=shown)


def last_traceback(path: Path) -> str:
    """Return the traceback that ends a script's output, or nothing."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    _, found, tail = text.rpartition("Traceback (most recent call last):\n")
    unindented = [line for line in tail.splitlines() if line.strip() and line[0] != " "]
    # More than the line that names the error: the script went on after it.
    return found + tail.rstrip() if found and len(unindented) == 1 else ""
