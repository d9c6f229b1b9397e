"""The one entry point in which every attempt executes, on this machine or on a cluster.

It runs inside a Ray task. A function runs in the task's own process, so that what it starts on Ray
counts as the job's; a script runs as a process of its own, so that it really is unchanged. With an
engine the task only has that start the ranks, each of which executes the attempt in its own way.
"""

from __future__ import annotations

import inspect
import linecache
import logging
import os
import random
import socket
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
import msgspec

from rayml import engines, processes
from rayml.autologging import autolog, watching
from rayml.autologging.ending import finish
from rayml.code import unpack_folder
from rayml.engine import has_ranks
from rayml.engines.led import name_secrets, open_given
from rayml.errors import JournalFenced, RaymlError, SpecError, StoreError
from rayml.function import call, callable_signature, load_function
from rayml.inputs import Input, convert
from rayml.installed import keep_installed
from rayml.launch import AUTOLOG, GROUP
from rayml.logs import Capture, LogShipper, capture_path
from rayml.mlflow_uri import tracking_uri
from rayml.problem import describe_exception, redacted
from rayml.ranks import Rank, RankFailed
from rayml.redaction import Redactor
from rayml.result import encode_result, result_metrics
from rayml.run_context import Context, enter, leave
from rayml.sampling import Usage, sampling
from rayml.script import ScriptFailed, run_script
from rayml.tracker.client import Client, Producer
from rayml.tracker.reader import find_artifact
from rayml.tracker.records import Problem, Result, Started, Used
from rayml.tracker.relay import VARIABLE, Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from rayml.artifacts import Artifact
    from rayml.engine import Engine
    from rayml.spec import Spec
    from rayml.store import Store
    from rayml.tracker.client import Transport

_FLUSH_S = 60.0
# What another process of the job has logged just before the function returned is on its way.
_LINGER_S = 0.25
_LONE_HOROVOD = (
    "rayml: hvd.init() found no other worker, and one alone did the work: give the job "
    "engine=rayml.Horovod()\n"
)
# Ray makes it the number of CPUs that a task takes, or 1.
_THREADS = "OMP_NUM_THREADS"
_MLFLOW_VARIABLE = "MLFLOW_TRACKING_URI"
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
        base: The packed payload of the run that is repeated: what this one lacks comes from
            there. Nobody unpacks it before the job does.
        kept: The parameters among that.
    """

    function: Callable[..., object] | None = None
    params: dict[str, object] = field(default_factory=dict)
    inputs: dict[str, object] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    base: bytes | None = None
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """One attempt to execute: all that the runner needs, and nothing that it has to look up.

    Attributes:
        path: The submitter's module search path; what is missing here is added behind.
        code: Digest of the packed folder that it runs in, if that came from another machine.
        share: What it takes of a worker, under Ray's names: with an engine each rank does.
        group: The placement group for what the code starts on Ray, as `held_together` takes it;
            empty where Ray has CPUs left for that, and with an engine.
    """

    spec: Spec
    attempt: int
    transport: Transport
    store: Store
    secrets: dict[str, str]
    ray_address: str = ""
    path: tuple[str, ...] = ()
    code: str | None = None
    share: Mapping[str, float] = field(default_factory=dict)
    group: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended.

    Attributes:
        used: What it took; a rank records that itself.
    """

    problem: Problem | None = None
    result: Result | None = None
    used: Used | None = None


def execute(order: Order, payload: bytes, node: str = "") -> tuple[bytes, bool]:
    """Run an attempt to its end; return its `Outcome`, and whether the process is as before.

    Everything that the job logged and printed is durable when this returns; if it could not be
    made so, the outcome is a failure. Never raises for what user code does.
    """
    if (engine := order.spec.engine) is not None:
        return _spread(engine, order, payload), False
    before = set(sys.modules), threading.active_count(), _log_settings()
    attempt = _Attempt(order, Rank(node=node))
    outcome = attempt.run(payload)
    is_clean = outcome.problem is None and not attempt.killed_children
    return msgspec.json.encode(outcome), is_clean and _is_unchanged(*before)


def _spread(engine: Engine, order: Order, payload: bytes) -> bytes:
    main = partial(execute_rank, order, payload)
    try:
        if order.code is not None and not has_ranks(engine):
            engines.led.bring_code(order.spec.resources.workers, order.store, order.code)
        return engines.run(engine, order.spec, order.share, main)
    except RankFailed as exc:
        problem = exc.problem
    except RaymlError as exc:
        problem = Problem(kind="requirements", message=str(exc))
    return msgspec.json.encode(Outcome(problem=problem))


def execute_rank(order: Order, payload: bytes, rank: Rank) -> bytes:
    """Run one rank of an attempt to its end; return its `Outcome`.

    Raises:
        RankFailed: What it runs has failed.
    """
    outcome = _Attempt(order, rank).run(payload)
    if outcome.problem is not None:
        raise RankFailed(msgspec.structs.replace(outcome.problem, rank=rank.rank), time.time())
    return msgspec.json.encode(outcome)


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
    def __init__(self, order: Order, rank: Rank) -> None:
        self._order = order
        self._rank = rank
        self._spec = order.spec
        self._redactor = Redactor(order.secrets.values())
        self._producer = Producer(
            order.transport,
            order.spec.run,
            order.attempt,
            self._redactor if order.secrets else None,
        )
        self._client = Client(self._producer, rank=rank.rank)
        self._output = capture_path(order.spec.run, order.attempt, rank.rank)
        self.killed_children = 0

    def run(self, payload: bytes) -> Outcome:
        order, run, rank = self._order, self._spec.run, self._rank.rank
        shipper = LogShipper(order.store, run, order.attempt, self._redactor, rank)
        capture = Capture(shipper, self._output)
        usage = Usage.begin(forget_peak=True)
        capture.start()
        try:
            self._tell_of_loss()
            self._client.add(self._started(), urgent=True)
            with sampling(self._client, self._spec.submitted_at):
                outcome = self._run_user_code(payload)
        finally:
            self.killed_children = processes.kill_children()
            capture.stop()
        return self._make_durable(self._with_used(outcome, usage), capture)

    def _with_used(self, outcome: Outcome, usage: Usage) -> Outcome:
        used = usage.used(self._spec.run, self._order.attempt, self._rank.now().rank)
        if self._spec.engine is None:  # recorded with the end: a write of its own would take time
            return msgspec.structs.replace(outcome, used=used)
        self._client.add(used)
        return outcome

    def _tell_of_loss(self) -> None:
        if lost := self._rank.lost:
            number = self._rank.rank
            sys.stderr.write(f"rayml: rank {number} was lost and is made up for: {lost}\n")

    def _started(self) -> Started:
        return Started(
            run=self._spec.run,
            time=time.time(),
            attempt=self._order.attempt,
            rank=self._rank.rank,
            node=self._rank.node,
            host=socket.gethostname(),
            pid=os.getpid(),
            packages=keep_installed(self._order.store),
        )

    def _run_user_code(self, payload: bytes) -> Outcome:
        try:
            value = self._call(payload)
        except (ScriptFailed, RankFailed) as exc:  # the latter: the engine has, under the code
            return Outcome(problem=redacted(exc.problem, self._redactor))
        except BaseException as exc:  # noqa: BLE001 - whatever user code raises ends the attempt
            if isinstance(exc, SystemExit) and exc.code in (None, 0):
                return self._keep(None)
            return Outcome(problem=redacted(describe_exception(exc), self._redactor))
        return self._keep(value)

    def _keep(self, value: object) -> Outcome:
        for name, number in result_metrics(value):
            self._client.point(name, number, None)
        if self._rank.now().rank > 0:  # what the first one returns is the run's result
            return Outcome()
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
            stack.enter_context(watching(wanted=spec.autolog))
            loaded = _load_payload(payload)
            if spec.autolog:  # classes in the payload got their methods after they were made
                autolog()
            context = self._context(loaded)
            stack.callback(leave, context)
            enter(context)
            stack.push(lambda _kind, exc, _trace: finish(context, failed=exc is not None))
            relay = Relay(self._order.transport, context.for_children())
            stack.callback(relay.close)
            os.environ[VARIABLE] = relay.address
            _point_mlflow_here(self._order.store)
            # Whoever watches must know this process before user code can take it down.
            self._client.flush(_FLUSH_S)
            if spec.target.kind == "script":
                run_script(spec, _script_environment(order), self._output)
                return None
            stack.enter_context(_own_tasks(order))
            stack.enter_context(open_given())
            function = loaded.function or load_function(spec.target, Path(spec.working_dir))
            values = _values(function, context)
            value = call(function, values, context)
            if engines.is_lone_horovod(spec):
                sys.stderr.write(_LONE_HOROVOD)
            if relay.has_children or context.is_shared:
                time.sleep(_LINGER_S)
            return value

    def _context(self, payload: Payload) -> Context:
        order = self._order
        inputs = {
            name: Input(record, payload.inputs.get(name), self._find_artifact, self._rank)
            for name, record in order.spec.inputs.items()
        }
        rest = (order.store, payload.params, inputs)
        return Context(self._client, self._producer, *rest, self._rank)

    def _find_artifact(self, uri: str) -> Artifact:
        return find_artifact(self._order.store, uri)

    def _make_durable(self, outcome: Outcome, capture: Capture) -> Outcome:
        try:
            self._client.close(_FLUSH_S)
            capture.finish()
        except (StoreError, JournalFenced, SpecError) as exc:
            message = f"the code ended, but not all that it logged could be stored: {exc}"
            problem = outcome.problem or Problem(kind="store", message=message)
            return Outcome(problem=problem, used=outcome.used)
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
    return loaded if loaded.base is None else _joined(loaded, _load_payload(loaded.base))


def _joined(payload: Payload, base: Payload) -> Payload:
    kept = {name: base.params[name] for name in payload.kept}
    return Payload(
        payload.function or base.function, kept | payload.params, base.inputs | payload.inputs
    )


@contextmanager
def _process_state(order: Order) -> Iterator[None]:
    """Give the process the job's folder, environment and words; put its own back afterwards."""
    spec = order.spec
    environment, home, path, argv = dict(os.environ), Path.cwd(), list(sys.path), sys.argv
    _forget_seeds()
    os.environ |= order.secrets
    name_secrets(order.secrets)
    os.environ[processes.VARIABLE] = spec.run
    if spec.borrows and spec.parent is not None:
        os.environ[processes.LENDER_VARIABLE] = spec.parent
    os.chdir(spec.working_dir)
    sys.path[:0] = [spec.working_dir]
    sys.path += [folder for folder in order.path if folder not in sys.path]
    sys.argv = [spec.target.file or spec.name, *spec.args]
    if order.group and _THREADS not in _first_environment():
        os.environ[_THREADS] = str(max(1, int(order.share.get("CPU", 1))))
    try:
        with processes.interruptible():
            yield
    finally:
        sys.path[:], sys.argv = path, argv
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(home)


def _own_tasks(order: Order) -> AbstractContextManager[None]:
    if not order.group:
        return nullcontext()
    from rayml._ray.own_tasks import held_together  # noqa: PLC0415 - loads Ray

    return held_together(order.group)


def _script_environment(order: Order) -> dict[str, str]:
    address = {"RAY_ADDRESS": order.ray_address} if order.ray_address else {}
    told = {GROUP: order.group, AUTOLOG: "1" if order.spec.autolog else "0"}
    return {**os.environ, **address, **told}


def _first_environment() -> Mapping[str, str]:
    """Return the variables that this process was started with; Ray adds some to each task."""
    pairs = Path("/proc/self/environ").read_bytes().split(b"\0")
    return dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)


def _point_mlflow_here(store: Store) -> None:
    """Let what the job logs through MLflow land in its run, unless MLflow was told otherwise."""
    if _MLFLOW_VARIABLE not in os.environ and find_spec("mlflow") is not None:
        os.environ[_MLFLOW_VARIABLE] = tracking_uri(store.uri)


def _forget_seeds() -> None:
    """Let random numbers start as in a new process, not where the run before has left them."""
    random.seed()
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()
