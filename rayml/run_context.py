"""What user code sees inside a run: its parameters and inputs, and where it logs to."""

from __future__ import annotations

import os
import threading
import time
from contextvars import ContextVar
from functools import partial
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, SupportsFloat, SupportsIndex, get_args

import cloudpickle
import msgspec

from rayml.artifacts import Artifact
from rayml.errors import RaymlError, SpecError, suggestion
from rayml.ranks import ALONE, Rank
from rayml.spec import describe_value
from rayml.tracker import relay
from rayml.tracker.client import Client, Producer
from rayml.tracker.long_params import keep_long
from rayml.tracker.records import Labels, Logged, Params
from rayml.tracker.series import Reduction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pyspark.sql import SparkSession

    from rayml.artifacts.record import ArtifactRecord
    from rayml.inputs import Input
    from rayml.redaction import Redactor
    from rayml.store import Store
    from rayml.tracker.client import Transport

_MAX_NAME = 250
_CHECKPOINT = "checkpoint"


class Context:
    """One attempt of a run, as its code sees it.

    The `log_*` methods return at once: values are gathered and made durable in the background,
    about once a second, and all of them before the run may end as `succeeded`. Artifacts are
    uploaded before the call returns. Safe to use from several threads; picklable, so that it can
    be handed to Ray tasks and actors of the same job.

    Attributes:
        run_id: The run's id.
        attempt: Counted from 1.
        params: What the job was given, defaults included where the function is known.
        inputs: What the job was given, by name: `.uri .artifact .path() .to_pandas() .to_arrow()
            .to_ray() .shard()`.
        is_shared: It was handed to another process, which may log too.
    """

    def __init__(
        self,
        client: Client,
        producer: Producer,
        store: Store,
        params: Mapping[str, object],
        inputs: Mapping[str, Input],
        rank: Rank = ALONE,
    ) -> None:
        self.run_id = producer.run
        self.attempt = producer.attempt
        self.params = dict(params)
        self.inputs = dict(inputs)
        self.is_shared = False
        self._place = rank
        self._client = client
        self._producer = producer
        self._store = store
        self._pid = os.getpid()
        self._spark: SparkSession | None = None
        self._names: set[str] = set()

    def __repr__(self) -> str:
        return f"<rayml.Context of run {self.run_id}, attempt {self.attempt}>"

    def __reduce__(self) -> tuple[Callable[..., Context], tuple[object, ...]]:
        self.is_shared = True
        rest = (self._store, self.run_id, self.attempt, self.params, self.inputs)
        return _rebuild, (self._producer.transport, *rest, self._producer.redactor, self._place)

    @property
    def rank(self) -> int:
        """Which of the workers that run the function at once this is, counted from 0."""
        return self._place.now().rank

    @property
    def world_size(self) -> int:
        """How many those are; 1 without an engine."""
        return self._place.now().world_size

    @property
    def local_rank(self) -> int:
        """Which it is of those on the same machine."""
        return self._place.now().local_rank

    @property
    def store(self) -> Store:
        """Where the run is recorded."""
        return self._store

    @property
    def redactor(self) -> Redactor | None:
        """What hides the job's secrets in whatever is written down, if it has any."""
        return self._producer.redactor

    @property
    def transport(self) -> Transport:
        """This process's way to the tracker; for whoever records other runs beside this one."""
        self._sender()  # in a fork it finds a way of its own
        return self._producer.transport

    @property
    def client(self) -> Client:
        """What sends this process's records; not for users, who have the `log_*` methods."""
        return self._sender()

    @property
    def spark(self) -> SparkSession:
        """The job's Spark session.

        Raises:
            SpecError: It has none, or this is another process than the one that has it.
        """
        if self._spark is None:
            raise SpecError(
                f"run {self.run_id} has no Spark session in this process; give the job "
                "engine=rayml.Spark() and use it where its function runs"
            )
        return self._spark

    def lend_spark(self, session: SparkSession) -> None:
        """Let the run's code find its Spark session; for the engine."""
        self._spark = session

    def for_children(self) -> bytes:
        """Return what a `RelayTransport` tells child processes; inputs stay with the parent."""
        inputs: dict[str, Input] = {}
        job = (self._store, self.run_id, self.attempt, self.params, inputs)
        return bytes(cloudpickle.dumps((*job, self._producer.redactor, self._place)))

    def for_ranks(self) -> Callable[[Rank], Context]:
        """Return what makes a context of the same run in another process, which is that rank.

        It can be pickled, as the context can.
        """
        make, given = self.__reduce__()
        return partial(make, *given[:-1])

    def log_metric(
        self,
        name: str,
        value: SupportsFloat,
        step: int | None = None,
        *,
        sync: bool = False,
        reduce: Reduction | None = None,
    ) -> None:
        """Log one number; NaN and infinities are kept.

        Args:
            name: Any text up to 250 characters; `train/loss` groups.
            value: Anything that `float()` takes: a number, a numpy scalar, a tensor of one
                element.
            step: Where on the metric's axis; without it, one after the metric's last. Any order.
            sync: Return when it is durable.
            reduce: How the values that several ranks log at a step become one: `"mean"`, which it
                is if nobody says otherwise, `"sum"`, `"min"` or `"max"`. Each rank's own stay too.

        Raises:
            SpecError: The name, value, step or reduction is not such a thing.
            StoreError: With `sync`: it could not be made durable within 30 s.
        """
        try:
            number, position = float(value), None if step is None else int(step)
        except (TypeError, ValueError, OverflowError) as exc:
            raise SpecError(
                f"metric {name!r} got the value {value!r} at step {step!r}; a value is a number, "
                "a step an integer"
            ) from exc
        if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
            _check_name(name)
        if reduce is not None:
            self._reduce(name, reduce)
        self._sender().point(name, number, position)
        if sync:
            self.flush()

    def log_metrics(
        self, values: Mapping[str, SupportsFloat], step: int | None = None, *, sync: bool = False
    ) -> None:
        """Log several numbers of one step, as `log_metric` does each."""
        for name, value in values.items():
            self.log_metric(name, value, step)
        if sync:
            self.flush()

    def log_param(self, name: str, value: object, *, sync: bool = False) -> None:
        """Record a parameter that was not submitted; a later value takes its place."""
        self.log_params({name: value}, sync=sync)

    def log_params(self, params: Mapping[str, object], *, sync: bool = False) -> None:
        """Record several parameters, as `log_param` does each.

        Args:
            params: By name; they may be nested.
            sync: Return when they are durable.

        Raises:
            SpecError: A value is larger than 256 MiB.
            StoreError: A value longer than 4 KiB could not be stored; nothing was logged.
        """
        described = {_check_name(name): describe_value(name, v) for name, v in params.items()}
        record = Params(
            run=self.run_id,
            time=time.time(),
            attempt=self.attempt,
            params=described,
            long=keep_long(params, self._store, self._producer.redactor),
        )
        self._sender().add(record)
        if sync:
            self.flush()

    def log_label(self, name: str, value: str) -> None:
        """Set a label of the run; a later value takes its place."""
        labels = {_check_name(name): str(value)}
        self._sender().add(
            Labels(run=self.run_id, time=time.time(), attempt=self.attempt, labels=labels)
        )

    def log_model(
        self,
        name: str,
        model: object,
        *,
        format: str | None = None,  # noqa: A002 - the field's word
        input_example: object = None,
    ) -> Artifact:
        """Store a model in its library's own open format, with what it needs to be loaded.

        Args:
            name: Of the artifact.
            model: Of scikit-learn (`"skops"`), XGBoost (`"xgboost"`), LightGBM (`"lightgbm"`; its
                estimators by skops), PyTorch (`"torch"`: weights) or Keras (`"keras"`).
            format: Only to ask for another one: `"pickle"` takes any object. It runs code when it
                is loaded, so it must be asked for by name here and trusted by name there.
            input_example: A few rows, as a DataFrame, a numpy array or a tensor. They are run
                through the model, which gives its signature, and are kept where they are small.
                A PyTorch model gets a program too, which is loaded without its class; one that
                cannot be exported keeps its weights alone, and `meta["not_exported"]` says why.

        Raises:
            SpecError: The model cannot be stored in that format, or fails on its example.
            StoreError: The store refused; nothing was logged.
        """
        from rayml.artifacts.model import save_model  # noqa: PLC0415 - beside the others

        record = save_model(self._store, name, model, format, input_example)
        return self.log_stored(record)

    def log_dataset(self, name: str, data: object) -> Artifact:
        """Store a table as Parquet, with its schema, row count, column statistics and a preview.

        Rows that are spread over workers stay there: whoever has a part of them stores it.

        Args:
            name: Of the artifact.
            data: A pandas, polars, Dask or Spark DataFrame, pyarrow Table, or Ray Dataset; or a
                pyarrow RecordBatchReader, of which a part at a time is held.

        Raises:
            SpecError: It is none of these, or a column has no Parquet type; or workers of Dask or
                Spark do not share the store.
            StoreError: The store refused; nothing was logged.
        """
        from rayml.artifacts.dataset import save_dataset  # noqa: PLC0415 - loads pyarrow

        return self.log_stored(save_dataset(self._store, name, data))

    def log_plot(self, name: str, figure: object) -> Artifact:
        """Store a plot as data and picture.

        A matplotlib figure, seaborn's too, is kept as PNG, SVG and the numbers in `data.json`; a
        plotly figure or altair chart as its JSON, and a page for browsers.

        Raises:
            SpecError: It is none of these.
            StoreError: The store refused; nothing was logged.
        """
        from rayml.artifacts.plot import save_plot  # noqa: PLC0415 - loads matplotlib

        return self.log_stored(save_plot(self._store, name, figure))

    def log_table(self, name: str, rows: object) -> Artifact:
        """Store a small table: a DataFrame, a list of dicts, or a dict of columns.

        Raises:
            SpecError: It is no such table.
            StoreError: The store refused; nothing was logged.
        """
        from rayml.artifacts.table import save_table  # noqa: PLC0415 - loads pyarrow

        return self.log_stored(save_table(self._store, name, rows))

    def log_artifact(self, name: str, source: str | Path | bytes) -> Artifact:
        """Store a file, a folder with all that is in it, or bytes.

        Raises:
            SpecError: There is no such file, or the name is not a plain relative one.
            StoreError: The store refused; nothing was logged.
        """
        from rayml.artifacts.file import save_file  # noqa: PLC0415 - beside the others

        return self.log_stored(save_file(self._store, name, source))

    def checkpoint(
        self, source: str | Path | bytes, step: SupportsIndex | None = None, *, sync: bool = False
    ) -> Artifact:
        """Store what a later attempt goes on from: the newest one counts.

        Its bytes are stored when this returns; that it is there is durable a moment later.

        Args:
            source: A file, a folder with all that is in it, or bytes.
            step: How far training has come; the later attempt finds it in `meta["step"]`.
            sync: Return when it is durable.

        Raises:
            SpecError: There is no such file, or the step is no integer.
            StoreError: The store refused; the checkpoint before stays the newest.
        """
        from rayml.artifacts.file import save_file  # noqa: PLC0415 - beside the others

        if step is not None and not isinstance(step, SupportsIndex):
            raise SpecError(f"step={step!r} is not a step; give an integer, or None")
        saved = save_file(self._store, _CHECKPOINT, source)
        meta = saved.meta if step is None else {**saved.meta, "step": step.__index__()}
        artifact = self.log_stored(msgspec.structs.replace(saved, kind=_CHECKPOINT, meta=meta))
        if sync:
            self.flush()
        return artifact

    def restore(self) -> Artifact | None:
        """Return the newest checkpoint of the attempts before this one; None if there is none.

        `path()` is a local copy of the file or folder, `load()` the bytes, and `meta["step"]` the
        step, if one was given. In a run's first attempt there never is one.

        Raises:
            StoreError: The store cannot be read.
        """
        from rayml.tracker.reader import artifact_of, read_runs  # noqa: PLC0415 - only here

        if self.attempt == 1:
            return None
        run = read_runs(self._store).find(self.run_id)
        return artifact_of(run, _CHECKPOINT, self._store) if _CHECKPOINT in run.artifacts else None

    def log_reference(self, name: str, uri: str | Path) -> Artifact:
        """Refer to data that stays where it is: its URI, digest and size are kept, no copy.

        It is read once, here. Whoever reads the artifact later reads it from there, and is told
        if it is not the same any more.

        Args:
            name: Of the artifact.
            uri: A file or folder; an object or prefix in a bucket; or one file on the web.

        Raises:
            SpecError: There is no such data, or the URI is none that can be read or kept.
            StoreUnreachable: Whatever holds it does not answer.
        """
        from rayml.artifacts.file import refer_to  # noqa: PLC0415 - beside the others

        return self.log_stored(refer_to(name, uri))

    def log_stored(self, saved: ArtifactRecord) -> Artifact:
        """Record an artifact whose bytes are in the store; for whoever has put them there."""
        now = time.time()
        record = msgspec.structs.replace(saved, run=self.run_id, created_at=now)
        logged = Logged(run=self.run_id, time=now, attempt=self.attempt, artifact=record)
        self._sender().add(logged)
        self._names.add(record.name)
        return Artifact(record, self._store)

    def has_logged(self, name: str) -> bool:
        """Tell whether this process has logged an artifact of that name to the run."""
        return name in self._names

    def flush(self, timeout_s: float = 30.0) -> None:
        """Return once everything that was logged so far is durable.

        Raises:
            StoreError: It is not, `timeout_s` seconds later.
        """
        self._sender().flush(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Flush, and log nothing any more; for whoever made this context.

        Raises:
            StoreError: Not all was durable in time; the rest is lost.
        """
        self._client.close(timeout_s)

    def _reduce(self, name: str, how: Reduction) -> None:
        if how not in get_args(Reduction):
            raise SpecError(
                f"metric {name!r} got reduce={how!r}; {suggestion(str(how), get_args(Reduction))}"
            )
        self._sender().reduce(name, how)

    def _sender(self) -> Client:
        if self._pid != os.getpid():
            self._rejoin()
        return self._client

    def _rejoin(self) -> None:
        """Get a client of its own to a forked child: it has the parent's, but not its thread."""
        address = os.environ.get(relay.VARIABLE)
        if address is None:
            raise SpecError(
                f"run {self.run_id} was started in process {self._pid} and this is a fork of it; "
                "log from there, or submit the job"
            )
        parent = self._producer
        transport = relay.RelayTransport(address)
        self._producer = Producer(transport, parent.run, parent.attempt, parent.redactor)
        self._client = _child_client(self._producer, self._place)
        self._pid = os.getpid()


def _check_name(name: object) -> str:
    if isinstance(name, str) and 0 < len(name) <= _MAX_NAME:
        return name
    raise SpecError(f"{name!r} is not a name; give text of 1 to {_MAX_NAME} characters")


def _rebuild(
    transport: Transport,
    store: Store,
    run_id: str,
    attempt: int,
    params: Mapping[str, object],
    inputs: Mapping[str, Input],
    redactor: Redactor | None,
    rank: Rank,
) -> Context:
    """Make a context in another process of a job; it is flushed when that exits."""
    producer = Producer(transport, run_id, attempt, redactor)
    return Context(_child_client(producer, rank), producer, store, params, inputs, rank)


def _child_client(producer: Producer, rank: Rank) -> Client:
    client = Client(producer, rank=rank.rank, eager=True)
    # Unlike atexit, this is also called in the children that multiprocessing forks.
    Finalize(None, _flush_quietly, (client,), exitpriority=10)
    return client


def _flush_quietly(client: Client) -> None:
    try:
        client.close(10)
    except RaymlError as exc:
        os.write(2, f"rayml: {exc}\n".encode())


_of_task: ContextVar[Context | None] = ContextVar("rayml_context", default=None)
_of_process: list[Context] = []
_of_blocks: set[Context] = set()
_lock = threading.Lock()


def enter(context: Context, *, is_block: bool = False) -> None:
    """Make a context the current one: in this thread, and in all that have none of their own.

    Args:
        context: What `leave` takes back.
        is_block: Another thread's block is no part of it.
    """
    _of_task.set(context)
    with _lock:
        _of_process.append(context)
        if is_block:
            _of_blocks.add(context)


def leave(context: Context) -> None:
    """Undo `enter`."""
    _of_task.set(None)
    with _lock:
        _of_process.remove(context)
        _of_blocks.discard(context)


def find_context() -> Context | None:
    """Return the current context, or None outside of a run.

    A thread that entered none uses the process's newest; a child process, its parent's.
    """
    return _find_context(set())


def only_context() -> Context | None:
    """Return the context of this process if it has no other; asking costs next to nothing."""
    return _of_process[0] if len(_of_process) == 1 else None


def find_context_around() -> Context | None:
    """Return the context that a block begun here is part of: this thread's own, or the job's.

    Threads that each track a block have a run each.
    """
    return _find_context(_of_blocks)


def _find_context(others: set[Context]) -> Context | None:
    if (own := _of_task.get()) is not None and own in _of_process:
        return own
    with _lock:
        found = next((c for c in reversed(_of_process) if c not in others), None)
        if found is None and (address := os.environ.get(relay.VARIABLE)) is not None:
            found = _join(address)
            _of_process.append(found)
        return found


def _join(address: str) -> Context:
    transport = relay.RelayTransport(address)
    return _rebuild(transport, *cloudpickle.loads(transport.job()))


def current_context() -> Context:
    """Return the context of the run that this code is part of, from any thread or child process.

    Raises:
        SpecError: This code is not part of a run.
    """
    context = find_context()
    if context is None:
        raise SpecError(
            "this code is not part of a run; submit it, or wrap it in `with rayml.start_run():`"
        )
    return context
