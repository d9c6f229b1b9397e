"""The sandbox that holds a control plane and its pods: whatever runs in it ends with it."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ANSWER_S = 30.0
START_S = 15.0


class SandboxError(Exception):
    """The sandbox could not do what it was told, or is gone."""


class Sandbox:
    """Namespaces of their own for processes, network and mounts, and the processes in them.

    They end, by the kernel's hand, when `close` is called, and also when this process dies.
    """

    def __init__(self, program: Path, folder: Path) -> None:
        self._lock = threading.Lock()
        self._answers: dict[int, Future[dict[str, Any]]] = {}
        self._running: dict[str, threading.Event] = {}
        self._last_id = 0
        self._errors = (folder / "sandbox.log").open("wb")
        self._process = subprocess.Popen(
            [program, "plane", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, name="sandbox", daemon=True)
        self._listener.start()
        self.address, self.host_address = self._addresses(folder)
        self.order("prepare", {"hostname": "plane", "address": self.address})

    def _addresses(self, folder: Path) -> tuple[str, str]:
        file = folder / "addresses"
        deadline = time.monotonic() + START_S
        while not file.exists() or len(file.read_text().split()) < 2:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise SandboxError((folder / "sandbox.log").read_text() or "it does not start")
            time.sleep(0.01)
        bridge, host = file.read_text().split()
        return bridge, host

    def start(self, name: str, argv: Sequence[object], log: Path, env: Mapping[str, str]) -> None:
        """Start a process; `running` says whether it still is one."""
        with self._lock:
            self._running[name] = threading.Event()
        words = [str(word) for word in argv]
        pairs = [f"{key}={value}" for key, value in env.items()]
        process = {"name": name, "argv": words, "env": pairs, "dir": "/", "log": str(log)}
        try:
            self.order("start", process)
        except SandboxError:
            self._running[name].set()
            raise

    def signal(self, name: str, number: int) -> None:
        """Send a signal to the process that was started under a name."""
        self.order("signal", {"name": name, "number": number})

    def running(self, name: str) -> bool:
        """Whether the process of that name has been started and has not ended."""
        with self._lock:
            ended = self._running.get(name)
        return ended is not None and not ended.is_set()

    def wait(self, name: str, timeout_s: float) -> bool:
        """Wait for the end of a process; False if it has not come by then."""
        with self._lock:
            ended = self._running.get(name)
        return ended is None or ended.wait(timeout_s)

    def order(self, kind: str, what: dict[str, Any]) -> dict[str, Any]:
        """Give an order and return the report on it.

        Raises:
            SandboxError: it could not be done.
        """
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            self._last_id += 1
            self._answers[self._last_id] = answer
            line = json.dumps({"id": self._last_id, kind: what}).encode() + b"\n"
            self._write(line)
        report = answer.result(ANSWER_S)
        if report.get("error"):
            raise SandboxError(f"{kind} {what.get('name', '')}: {report['error']}")
        return report

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError as exc:
            raise SandboxError("the sandbox is gone") from exc

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._take(json.loads(line))
        with self._lock:
            answers, self._answers = self._answers, {}
            for ended in self._running.values():
                ended.set()
        for answer in answers.values():
            answer.set_exception(SandboxError("the sandbox is gone"))

    def _take(self, report: dict[str, Any]) -> None:
        with self._lock:
            if ended := report.get("ended"):
                self._running[ended["name"]].set()
                return
            answer = self._answers.pop(report["id"], None)
        if answer is not None:
            answer.set_result(report)

    def close(self) -> None:
        """End everything in the sandbox, and wait until it has ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(ANSWER_S)
        self._listener.join(ANSWER_S)
        self._errors.close()
