"""`start_run()`: a run for code that was not submitted, such as a notebook."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil

from rayml.autologging.ending import finish
from rayml.config import setting
from rayml.diff import keep_diff, look, telling
from rayml.inputs import Input, describe_input
from rayml.installed import keep_installed
from rayml.origin import new_run_id, read_origin
from rayml.problem import describe_exception
from rayml.registry import pin
from rayml.run_context import Context, enter, find_context_around, leave
from rayml.sampling import Usage, sampling
from rayml.spec import Spec, Target, describe_params
from rayml.store import open_store
from rayml.tracker.client import Client, Producer
from rayml.tracker.edits import find_edited
from rayml.tracker.long_params import keep_long
from rayml.tracker.own import own_transport
from rayml.tracker.reader import find_artifact
from rayml.tracker.records import Differed, Ended, Problem, Started, Submitted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rayml.store import Store
    from rayml.tracker.records import Record

_FLUSH_S = 60.0


@contextmanager
def start_run(
    name: str = "notebook",
    *,
    experiment: str | None = None,
    params: Mapping[str, object] | None = None,
    inputs: Mapping[str, object] | None = None,
    labels: Mapping[str, str] | None = None,
    parent: str | None = None,
    store: str | Path | Store | None = None,
) -> Iterator[Context]:
    """Track a block of code as a run; it needs no Ray, and what it prints is not captured.

    Inside a run that was submitted, it gives that run's context and ends nothing: the same script
    works both ways; with a `parent`, it is always a run of its own. So are blocks of several
    threads beside each other. An exception fails the run and goes on its way.

    Args:
        name: What people call the run.
        experiment: What it belongs to; `"default"` by default.
        params: Its parameters.
        inputs: What it reads, as `submit` takes them; `context.inputs` has them, and lineage.
        labels: Words to find it by.
        parent: The id of the run that this one is a part of.
        store: Where; the project's own by default.

    Raises:
        NotFound: The store has no such parent.
        SpecError: An input is not there.
        StoreError: The store cannot be written, or at the end: not all was durable, and the run
            failed.
    """
    if parent is None and (current := find_context_around()) is not None:
        yield current
        return
    opened = open_store(store)
    spec = _spec(name, setting("experiment", experiment) or "default", params, labels, opened)
    given = {key: pin(value, opened) for key, value in (inputs or {}).items()}
    records = {key: describe_input(key, value, Path.cwd()) for key, value in given.items()}
    spec = msgspec.structs.replace(spec, inputs=records)
    if parent is not None:
        spec = msgspec.structs.replace(spec, parent=find_edited(opened, parent).spec.run)
    with own_transport(opened) as transport:
        producer = Producer(transport, spec.run, 1)
        _begin(producer, spec, opened)
        read = {
            key: Input(record, given[key], partial(find_artifact, opened))
            for key, record in records.items()
        }
        context = Context(Client(producer), producer, opened, params or {}, read)
        yield from _track(context, producer, spec)


def _begin(producer: Producer, spec: Spec, store: Store) -> None:
    process = psutil.Process()
    now = time.time()
    producer.record(
        Submitted(run=spec.run, time=now, spec=spec),
        Started(
            run=spec.run,
            time=now,
            attempt=1,
            node="",
            host=socket.gethostname(),
            pid=process.pid,
            packages=keep_installed(store),
        ),
    )


def _track(context: Context, producer: Producer, spec: Spec) -> Iterator[Context]:
    enter(context, is_block=True)
    usage = Usage.begin()
    problem = None
    diff = partial(_keep_diff, spec, context.store), partial(_differ, context)
    try:
        with sampling(context.client, spec.submitted_at), telling(*diff):
            yield context
    except BaseException as exc:
        problem = None if _is_success(exc) else describe_exception(exc)
        raise
    finally:
        try:
            finish(context, failed=problem is not None)
        finally:  # it may be interrupted
            leave(context)
            _finish(context, producer, usage, problem)


def _keep_diff(spec: Spec, store: Store) -> str:
    return keep_diff(look(Path(spec.working_dir)), store)


def _differ(context: Context, digest: str) -> None:
    context.client.add(Differed(run=context.run_id, time=time.time(), digest=digest))


def _is_success(exc: BaseException) -> bool:
    return isinstance(exc, SystemExit) and exc.code in (None, 0)


def _finish(context: Context, producer: Producer, usage: Usage, problem: Problem | None) -> None:
    used = usage.used(context.run_id, context.attempt)
    try:
        context.close(_FLUSH_S)
    except Exception as exc:
        message = f"the code ended, but not all that it logged could be stored: {exc}"
        stored = problem or Problem(kind="store", message=message)
        producer.record(used, _ended(context, stored))
        raise
    producer.record(used, _ended(context, problem))


def _ended(context: Context, problem: Problem | None) -> Record:
    is_cancelled = problem is not None and problem.kind == "cancelled"
    failed = "cancelled" if is_cancelled else "failed"
    return Ended(
        run=context.run_id,
        time=time.time(),
        attempt=context.attempt,
        state="succeeded" if problem is None else failed,
        problem=problem,
    )


def _spec(
    name: str,
    experiment: str,
    params: Mapping[str, object] | None,
    labels: Mapping[str, str] | None,
    store: Store,
) -> Spec:
    return Spec(
        run=new_run_id(),
        name=name,
        experiment=experiment,
        target=Target(kind="block", text=name),
        origin=read_origin(Path.cwd()),
        submitted_at=time.time(),
        store=store.uri,
        cluster="",
        working_dir=str(Path.cwd()),
        params=describe_params(params or {}),
        long_params=keep_long(params or {}, store),
        labels={str(k): str(v) for k, v in (labels or {}).items()},
    )
