"""The one entry point in which every attempt executes, on this machine or on a cluster.

It runs inside a Ray task. A function runs in the task's own process, so that what it starts on Ray
counts as the job's; a script runs as a process of its own, so that it really is unchanged.
"""

from __future__ import annotations

import inspect
import linecache
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
import msgspec

from rayml import processes
from rayml.code import unpack_folder
from rayml.errors import JournalFenced, RaymlError, SpecError, StoreError
from rayml.function import call, callable_signature, load_function
from rayml.inputs import Input, convert
from rayml.logs import Capture, LogShipper, capture_path
from rayml.mlflow_uri import tracking_uri
from rayml.redaction import Redactor
from rayml.result import encode_result, result_metrics
from rayml.run_context import Context, enter, leave
from rayml.tracker.client import Client, Producer
from rayml.tracker.reader import find_artifact
from rayml.tracker.records import Problem, Result, Started
from rayml.tracker.relay import VARIABLE, Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rayml.artifacts import Artifact
    from rayml.spec import Spec
    from rayml.store import Store
    from rayml.tracker.client import Transport

_FLUSH_S = 60.0
# What another process of the job has logged just before the function returned is on its way.
_LINGER_S = 0.25
_MLFLOW_VARIABLE = "MLFLOW_TRACKING_URI"
_PACKAGE = str(Path(__file__).parent)
_OWN_MODULES = frozenset(
    [
        *("rayml", "ray", "msgspec", "obstore", "pyarrow", "numpy", "pandas", "psutil"),
        *("cloudpickle", "google", "grpc", "yaml", "dateutil", "pytz", "six", "_cyutility"),
    ]
)


@dataclass(frozen=True)
class Payload:
    """What a job carries that JSON cannot: objects, and the source of code that is in no file.

    Attributes:
        function: The callable itself, or None where the target names a file or module.
        params: The values as they were given.
        inputs: Those that were handed over as objects, by name.
        sources: Source text by file name, so that tracebacks show notebook cells.
    """

    function: Callable[..., object] | None = None
    params: dict[str, object] = field(default_factory=dict)
    inputs: dict[str, object] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """One attempt to execute: all that the runner needs, and nothing that it has to look up.

    Attributes:
        path: The submitter's module search path; what is missing here is added behind.
        code: Digest of the packed folder that it runs in, if that came from another machine.
    """

    spec: Spec
    attempt: int
    transport: Transport
    store: Store
    secrets: dict[str, str]
    ray_address: str = ""
    path: tuple[str, ...] = ()
    code: str | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended."""

    problem: Problem | None = None
    result: Result | None = None


def execute(order: Order, payload: bytes, node: str = "") -> tuple[bytes, bool]:
    """Run an attempt to its end; return its `Outcome`, and whether the process is as before.

    Everything that the job logged and printed is durable when this returns; if it could not be
    made so, the outcome is a failure. Never raises for what user code does.
    """
    before = set(sys.modules), threading.active_count(), _log_settings()
    attempt = _Attempt(order, node)
    outcome = attempt.run(payload)
    is_clean = outcome.problem is None and not attempt.killed_children
    return msgspec.json.encode(outcome), is_clean and _is_unchanged(*before)


def _is_unchanged(
    modules: set[str], threads: int, log_settings: tuple[int, list[logging.Handler]]
) -> bool:
    # Compiled packages bring a module that is named after the version of their compiler.
    names = (name for name in sys.modules.keys() - modules if not name.startswith("_cython_"))
    new = {name.partition(".")[0] for name in names}
    is_known = new <= _OWN_MODULES | sys.stdlib_module_names
    return is_known and threading.active_count() <= threads and _log_settings() == log_settings


def _log_settings() -> tuple[int, list[logging.Handler]]:
    return logging.root.level, list(logging.root.handlers)


class _Attempt:
    def __init__(self, order: Order, node: str) -> None:
        self._order = order
        self._node = node
        self._spec = order.spec
        self._redactor = Redactor(order.secrets.values())
        self._producer = Producer(
            order.transport,
            order.spec.run,
            order.attempt,
            self._redactor if order.secrets else None,
        )
        self._client = Client(self._producer)
        self.killed_children = 0

    def run(self, payload: bytes) -> Outcome:
        order, spec = self._order, self._spec
        path = capture_path(spec.run, order.attempt)
        capture = Capture(LogShipper(order.store, spec.run, order.attempt, self._redactor), path)
        capture.start()
        try:
            self._client.add(self._started(), urgent=True)
            outcome = self._run_user_code(payload)
        finally:
            self.killed_children = processes.kill_children()
            capture.stop()
        return self._make_durable(outcome, capture)

    def _started(self) -> Started:
        return Started(
            run=self._spec.run,
            time=time.time(),
            attempt=self._order.attempt,
            node=self._node,
            host=socket.gethostname(),
            pid=os.getpid(),
        )

    def _run_user_code(self, payload: bytes) -> Outcome:
        try:
            value = self._call(payload)
        except _ScriptFailed as exc:
            return Outcome(problem=redacted(exc.problem, self._redactor))
        except SystemExit as exc:
            return _exit_outcome(exc, self._redactor)
        except BaseException as exc:  # noqa: BLE001 - whatever user code raises ends the attempt
            return Outcome(problem=redacted(describe_exception(exc), self._redactor))
        return self._keep(value)

    def _keep(self, value: object) -> Outcome:
        for name, number in result_metrics(value):
            self._client.point(name, number, None)
        try:
            result = encode_result(value, self._order.store, self._redactor.redact)
        except RaymlError as exc:
            kind = "result" if isinstance(exc, SpecError) else "store"
            return Outcome(problem=redacted(Problem(kind=kind, message=str(exc)), self._redactor))
        return Outcome(result=result)

    def _call(self, payload: bytes) -> object:
        order = _arrived(self._order)
        spec = order.spec
        with ExitStack() as stack:
            stack.enter_context(_process_state(order))
            loaded = _load_payload(payload)
            context = self._context(loaded)
            stack.callback(leave, context)
            enter(context)
            relay = Relay(self._order.transport, context.for_children())
            stack.callback(relay.close)
            os.environ[VARIABLE] = relay.address
            _point_mlflow_here(self._order.store)
            # Whoever watches must know this process before user code can take it down.
            self._client.flush(_FLUSH_S)
            if spec.target.kind == "script":
                _run_script(order)
                return None
            function = loaded.function or load_function(spec.target, Path(spec.working_dir))
            values = _values(function, context)
            value = call(function, values, context)
            if relay.has_children or context.is_shared:
                time.sleep(_LINGER_S)
            return value

    def _context(self, payload: Payload) -> Context:
        order = self._order
        inputs = {
            name: Input(record, payload.inputs.get(name), self._find_artifact)
            for name, record in order.spec.inputs.items()
        }
        return Context(self._client, self._producer, order.store, payload.params, inputs)

    def _find_artifact(self, uri: str) -> Artifact:
        return find_artifact(self._order.store, uri)

    def _make_durable(self, outcome: Outcome, capture: Capture) -> Outcome:
        try:
            self._client.close(_FLUSH_S)
            capture.finish()
        except (StoreError, JournalFenced, SpecError) as exc:
            message = f"the code ended, but not all that it logged could be stored: {exc}"
            return Outcome(problem=outcome.problem or Problem(kind="store", message=message))
        return outcome


def _arrived(order: Order) -> Order:
    """Return the order with the job's folder as it is called on this machine."""
    spec = order.spec
    if order.code is not None:
        folder = str(unpack_folder(order.store, order.code))
    elif spec.working_dir:
        return order
    else:
        folder = str(Path.cwd())
    return replace(order, spec=msgspec.structs.replace(spec, working_dir=folder))


def _values(function: Callable[..., object], context: Context) -> dict[str, object]:
    """Return the arguments: parameters as they are, inputs as the annotations ask for them."""
    signature = callable_signature(function)
    annotations = signature.named if signature else {}
    values = dict(context.params)
    for name, given in context.inputs.items():
        parameter = annotations.get(name)
        values[name] = convert(given, parameter.annotation if parameter else None)
    _log_defaults(context, {p.name: p.default for p in annotations.values()}, values)
    return values


def _log_defaults(
    context: Context, defaults: dict[str, object], given: Mapping[str, object]
) -> None:
    """Make the values that the function takes by itself parameters of the run as well."""
    taken = {
        name: value
        for name, value in defaults.items()
        if name not in given and value is not inspect.Parameter.empty
    }
    if taken:
        context.params |= taken
        context.log_params(taken)


def _load_payload(payload: bytes) -> Payload:
    try:
        loaded: Payload = cloudpickle.loads(payload)
    except Exception as exc:
        raise SpecError(
            f"the function or its values could not be unpickled where they run: {exc!r}; is "
            "everything they use installed there?"
        ) from exc
    for name, text in loaded.sources.items():
        lines = text.splitlines(keepends=True)
        linecache.cache[name] = (len(text), None, lines, name)
    return loaded


@contextmanager
def _process_state(order: Order) -> Iterator[None]:
    """Give the process the job's folder, environment and words; put its own back afterwards."""
    spec = order.spec
    environment, home, path, argv = dict(os.environ), Path.cwd(), list(sys.path), sys.argv
    # Ray's own way to cancel a task does not end a sleep or a read, and SIGINT is blocked in its
    # workers, rightly: Ctrl-C in the terminal is not for them.
    signal.signal(processes.INTERRUPT, signal.default_int_handler)
    _forget_seeds()
    os.environ |= order.secrets
    os.environ[processes.VARIABLE] = spec.run
    os.chdir(spec.working_dir)
    sys.path[:0] = [spec.working_dir]
    sys.path += [folder for folder in order.path if folder not in sys.path]
    sys.argv = [spec.target.file or spec.name, *spec.args]
    try:
        yield
    finally:
        signal.signal(processes.INTERRUPT, signal.SIG_IGN)
        sys.path[:], sys.argv = path, argv
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(home)


def _point_mlflow_here(store: Store) -> None:
    """Let what the job logs through MLflow land in its run, unless MLflow was told otherwise."""
    if _MLFLOW_VARIABLE not in os.environ and find_spec("mlflow") is not None:
        os.environ[_MLFLOW_VARIABLE] = tracking_uri(store.uri)


def _forget_seeds() -> None:
    """Let random numbers start as in a new process, not where the run before has left them."""
    random.seed()
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


class _ScriptFailed(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem


def _run_script(order: Order) -> None:
    """Run a script as `python script.py args` would, and wait for it.

    Raises:
        _ScriptFailed: It exited with another code than 0, or was killed.
    """
    spec = order.spec
    script = str(Path(spec.working_dir, spec.target.file))
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    if order.ray_address:
        environment["RAY_ADDRESS"] = order.ray_address
    # A child inherits which signals are blocked, and a script wants its Ctrl-C.
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    child = subprocess.Popen(
        [sys.executable, script, *spec.args],
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        os.killpg(child.pid, signal.SIGINT)
        child.wait()
        raise
    if code != 0:
        raise _ScriptFailed(_script_problem(spec, code, order.attempt))


def _script_problem(spec: Spec, code: int, attempt: int) -> Problem:
    name = Path(spec.target.file).name
    if code < 0:
        reason = signal.Signals(-code).name
        return Problem(kind="killed", message=f"{name} was killed by {reason}")
    shown = last_traceback(capture_path(spec.run, attempt))
    kind = "error" if shown else "exit"
    return Problem(kind=kind, message=f"{name} exited with code {code}", traceback=shown)


def last_traceback(path: Path) -> str:
    """Return the traceback that ends a script's output, or nothing."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64 * 1024))
        text = file.read().decode(errors="replace")
    _, found, tail = text.rpartition("Traceback (most recent call last):\n")
    return found + tail.rstrip() if found else ""


def _exit_outcome(exc: SystemExit, redactor: Redactor) -> Outcome:
    if exc.code in (None, 0):
        return Outcome(result=Result(format="json", inline=b"null"))
    shown = f"code {exc.code}" if isinstance(exc.code, int) else repr(exc.code)
    problem = Problem(kind="exit", message=f"the function exited with {shown}")
    return Outcome(problem=redacted(problem, redactor))


def describe_exception(exc: BaseException) -> Problem:
    """Return what user code raised as a problem, with the traceback as its author would see it."""
    if isinstance(exc, KeyboardInterrupt):
        return Problem(kind="cancelled", message="it was interrupted")
    text = "".join(_user_traceback(exc).format())
    summary = _short(traceback.format_exception_only(exc)[-1].strip())
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        package = exc.name.partition(".")[0]
        summary += f"; give requirements=[{package!r}], or an image that has it"
    return Problem(kind="error", message=summary, traceback=text)


def redacted(problem: Problem, redactor: Redactor) -> Problem:
    """Return a problem without secrets in its words."""
    return msgspec.structs.replace(
        problem,
        message=redactor.redact_text(problem.message),
        traceback=redactor.redact_text(problem.traceback),
    )


def _user_traceback(exc: BaseException) -> traceback.TracebackException:
    """Return an exception's traceback, causes included, with the user's own frames only."""
    whole = traceback.TracebackException.from_exception(exc)
    pending = [whole]
    while pending:
        part = pending.pop()
        part.stack[:] = [frame for frame in part.stack if not _is_ours(frame.filename)]
        pending += [p for p in (part.__cause__, part.__context__) if p is not None]
        pending += part.exceptions or []
    return whole


def _is_ours(filename: str) -> bool:
    return filename.startswith((_PACKAGE, "<frozen importlib", "<frozen runpy"))


def _short(text: str) -> str:
    limit = 2000
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters in all)"
