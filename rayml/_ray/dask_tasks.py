"""Dask's graphs as Ray tasks on workers that a job holds already.

Dask's own loop decides which task is next, depth first, and only as many are with Ray as its
workers can begin soon. So intermediate results are few and freed early, a failed task ends the
rest, and somebody knows how far it is. What a task returns stays in Ray's object store: the loop
handles references.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import cloudpickle
import dask
import ray
from dask._task_spec import Alias, DataNode, Task
from dask.callbacks import Callback
from dask.local import get_async
from dask.multiprocessing import pack_exception, reraise
from ray.exceptions import RayError, RayTaskError, TaskCancelledError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rayml import processes
from rayml._ray.deaths import rank_failure
from rayml._ray.members import find_group
from rayml._ray.progress import told
from rayml.logs import output_to
from rayml.memory import oom_kills

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

# While a worker computes one task, it gets what the next one needs.
_AHEAD = 2


class Scheduler:
    """A scheduler for `dask.config.set(scheduler=scheduler.get)`.

    Args:
        group: The id of the placement group that holds the workers.
        cpus: Of each worker.
        count: How many workers there are.
        secrets: Variables that tasks find in their environment, and Ray does not write down.
        tell: Is told now and then how far a graph is, and nothing when it is done.
    """

    def __init__(
        self,
        group: str,
        cpus: float,
        count: int,
        secrets: Mapping[str, str],
        tell: Callable[[str], None],
    ) -> None:
        slots = max(1, int(cpus))
        self._tell = tell
        self._secrets = ray.put(secrets) if secrets else None
        self._limit = slots * count * _AHEAD
        self._options = {
            "num_cpus": cpus / slots,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(find_group(group)),
        }

    def get(self, dsk: object, keys: object, **options: object) -> object:
        """Compute a graph and return the values of some keys of it, as Dask calls it."""
        return fetch(self._compute(dsk, keys, **options))

    def persist(self, collections: Iterable[object], **options: object) -> object:
        """Compute collections and leave them on the workers; `dask.persist` looks for this."""
        return _call(dask.persist, collections, scheduler=partial(self._compute), **options)

    def leave(self, collections: Iterable[object]) -> list[ray.ObjectRef[Any]]:
        """Compute collections of one key each; return references to what came out."""
        held: Any = _call(dask.compute, collections, scheduler=partial(self._compute))
        return list(held)

    def _compute(self, dsk: object, keys: object, **options: object) -> object:
        submitter, progress = _Submitter(self._options, self._secrets), _Progress()
        given: Any = options.pop("callbacks", None)
        others = given or Callback.active  # such as Dask's ProgressBar
        options |= {"chunksize": 1, "callbacks": [progress.callbacks(), *others]}
        try:
            with told(progress.text, self._tell):
                found: object = get_async(
                    submitter.submit, self._limit, dsk, keys, raise_exception=reraise, **options
                )
            return found
        finally:
            submitter.cancel()


def _call(function: Any, collections: Iterable[object], **options: object) -> object:  # noqa: ANN401
    return function(*collections, **options)


class _Submitter:
    """Submits the tasks of one graph, in the manner of an executor."""

    def __init__(self, options: Mapping[str, object], secrets: object) -> None:
        self._options = options
        self._secrets = secrets
        self._pending: set[ray.ObjectRef[Any]] = set()
        self._oom_kills = oom_kills()

    def submit(self, _: object, batch: Sequence[tuple[Any, ...]]) -> Future[Any]:
        """Start the one task of a batch; what the future returns is Dask's matter."""
        key, (task, data), *_ = batch[0]
        answer: Future[Any] = Future()
        if isinstance(task, Alias):
            answer.set_result([(key, (data[task.target], None), False)])
            return answer
        start: Any = _execute.options(**self._options, name=f"dask:{_name_of(key)}")
        value, end = start.remote(self._secrets, task, list(data), *data.values())
        self._pending.add(end)
        end.future().add_done_callback(partial(self._pass_on, answer, key, value, end))
        return answer

    def cancel(self) -> None:
        """Let no task of the graph go on: it is done, or has failed."""
        for end in list(self._pending):
            ray.cancel(end)

    def _pass_on(
        self, answer: Future[Any], key: Hashable, value: object, end: object, done: Future[Any]
    ) -> None:
        self._pending.discard(cast("ray.ObjectRef[Any]", end))
        try:
            answer.set_result([(key, *self._end_of(value, done))])
        except BaseException as exc:  # noqa: BLE001 - whatever it is, Dask waits for an answer
            answer.set_exception(exc)

    def _end_of(self, value: object, done: Future[Any]) -> tuple[object, bool]:
        """Return what a task has ended with, as Dask takes it, and whether it has failed."""
        try:
            packed, printed = done.result()
        except RayTaskError as exc:  # what goes in or comes out cannot be pickled
            return (exc.cause, None), True
        except TaskCancelledError:
            raise
        except RayError as exc:
            raise rank_failure(exc, self._oom_kills) from exc
        _print(printed)
        return ((value, None), False) if packed is None else (cloudpickle.loads(packed), True)


@ray.remote(num_returns=2)
def _execute(
    secrets: Mapping[str, str] | None, task: object, names: Sequence[Hashable], *values: object
) -> tuple[object, tuple[bytes | None, bytes]]:
    """Return what a task returns; and its error, packed, and what it has printed."""
    value = packed = None
    with tempfile.TemporaryFile() as printed:
        # The next task here may be of another job.
        with output_to(printed.fileno()), processes.variables(secrets or {}):
            try:
                compute = cast("Callable[..., object]", _fetch_inside(task))
                value = compute(dict(zip(names, values, strict=True)))
            except Exception as exc:  # noqa: BLE001 - the author of the graph gets it
                packed = _pack(exc)
        printed.seek(0)
        return value, (packed, printed.read())


def _pack(exc: Exception) -> bytes:
    """Return an error as it is, or, of a kind that can be taken apart only, what it says."""
    packed = cast("bytes", pack_exception(exc, cloudpickle.dumps))
    try:
        cloudpickle.loads(packed)
    except Exception:  # noqa: BLE001 - its own code runs there
        try:
            raise RuntimeError(f"{type(exc).__name__}: {exc}").with_traceback(exc.__traceback__)
        except RuntimeError as plain:
            plain.__context__ = None  # it would be packed too
            return cast("bytes", pack_exception(plain, cloudpickle.dumps))
    return packed


def _print(printed: bytes) -> None:
    if printed:
        with suppress(Exception):  # the job has closed its output, or put something else there
            print(printed.decode("utf-8", "backslashreplace"), end="", flush=True)  # noqa: T201


def _fetch_inside(part: object) -> object:
    """Return a task, or a part of one, with values in place of references.

    What was persisted is an argument of what Dask has fused it with, unseen by Ray.
    """
    if isinstance(part, ray.ObjectRef):
        return ray.get(part)
    if isinstance(part, DataNode):
        return DataNode(part.key, _fetch_inside(part.value)) if _is_held(part) else part
    if isinstance(part, Task):
        part.args, part.kwargs = _fetch_inside(part.args), _fetch_inside(part.kwargs)
    elif isinstance(part, list | tuple) and type(part) in (list, tuple):
        return type(part)(map(_fetch_inside, part))
    elif isinstance(part, dict):
        return {name: _fetch_inside(item) for name, item in part.items()}
    return part


def _is_held(node: DataNode) -> bool:
    return isinstance(node.value, ray.ObjectRef)


def fetch(values: object) -> object:
    """Return values, nested in tuples or not, that are references to them so far."""
    if isinstance(values, tuple):
        return tuple(_fetch_all(values))
    return ray.get(values) if isinstance(values, ray.ObjectRef) else values


def _fetch_all(values: tuple[object, ...]) -> Iterable[object]:
    held = [value for value in values if isinstance(value, ray.ObjectRef)]
    found = iter(ray.get(held))
    for value in values:
        yield next(found) if isinstance(value, ray.ObjectRef) else fetch(value)


class _Progress:
    """How far one graph is."""

    def __init__(self) -> None:
        self._done = self._total = 0

    def text(self) -> str:
        return f"dask: {self._done:,} of {self._total:,} tasks" if self._total else ""

    def callbacks(self) -> tuple[Callable[..., None] | None, ...]:
        """Return what Dask calls at the start and after the state, a task, and all are done."""
        return None, self._start, None, self._count, None

    def _start(self, _: object, state: Mapping[str, Any]) -> None:
        self._total = len(state["ready"]) + len(state["waiting"])

    def _count(self, *_: object) -> None:
        self._done += 1


def _name_of(key: object) -> str:
    return str(key[0]) if isinstance(key, tuple) else str(key)
