"""`submit()`, and `Run`: the handle of what was submitted."""

from __future__ import annotations

import atexit
import linecache
import os
import sys
import time
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
import msgspec

from rayml.config import Resources, Retry, cluster_address, setting, switch
from rayml.diff import keep_diff, look
from rayml.engine import check_engine, resize_for
from rayml.engines.led import end_with_session, resources_to_borrow
from rayml.engines.tables import carry, settle
from rayml.errors import RaymlError, SpecError
from rayml.function import check_values, find_target, read_signature
from rayml.hubs.needs import needs_of
from rayml.inputs import describe_input
from rayml.origin import new_run_id, read_origin
from rayml.redaction import Redactor, redact_strings
from rayml.registry import pin
from rayml.run import Run
from rayml.run_context import find_context
from rayml.runner import Payload
from rayml.spec import Spec, describe_params, has_jobs_api, is_exact, plain_value
from rayml.store import Store, open_store
from rayml.tracker.long_params import keep_long

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from rayml.engine import Engine
    from rayml.spec import InputRecord, Origin, Target

_MIN_SECRET = 4
_unfinished: dict[str, Run] = {}
_announced: set[str] = set()
_tidied: set[str] = set()


@dataclass(frozen=True)
class Job:
    """A validated job and what travels with it.

    Attributes:
        code_folder: What another machine needs to run it; None for a callable that brings its own.
        code: Digest of that folder if the store has it packed already.
    """

    spec: Spec
    payload: Payload
    secrets: dict[str, str] = field(repr=False)
    store: Store
    code_folder: Path | None
    code: str | None = None


@dataclass(frozen=True)
class Again:
    """What a rerun runs: it goes the way of a function through `submit`.

    Attributes:
        function: As `submit` takes it; or the target of a callable that only `payload` has.
        run: The id of the run that is repeated; None if nothing is.
        payload: That run's, packed, if some of its values are nowhere else.
        params: Those parameters, as they were recorded.
        inputs: Those inputs, as they were recorded.
        code: Digest of its packed folder, which is unpacked in `working_dir`.
        commit: What that folder was made of.
    """

    function: Callable[..., object] | str | Path | Target
    run: str | None = None
    payload: bytes | None = field(default=None, repr=False)
    params: Mapping[str, object] = field(default_factory=dict)
    inputs: Mapping[str, InputRecord] = field(default_factory=dict)
    code: str | None = None
    commit: str | None = None


def submit(  # noqa: PLR0913 - the contract: a job has many sides, all of them optional
    function: Callable[..., object] | str | Path,
    *,
    params: Mapping[str, object] | None = None,
    inputs: Mapping[str, object] | None = None,
    args: Sequence[str] = (),
    name: str | None = None,
    experiment: str | None = None,
    labels: Mapping[str, str] | None = None,
    resources: Resources | None = None,
    engine: Engine | None = None,
    requirements: Sequence[str] | str | Path | None = None,
    working_dir: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | Sequence[str] | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    start_timeout_s: float | None = None,
    autolog: bool | None = None,
    cluster: str | None = None,
    image: str | None = None,
    store: str | Path | Store | None = None,
    borrow: bool = False,
    dry_run: bool = False,
) -> Run | Spec:
    """Submit a job and return its run, once that is durably recorded; the job goes on by itself.

    Args:
        function: A callable, `"file.py:function"`, `"file.py"` (a script, run unchanged),
            `"package.module:function"`, or a hub function: `"hub://name"`, `"hub://name@1.0"`,
            what `rayml.hub.get` gives, or the path of its folder.
        params: Plain values for the function's parameters, by name; they arrive as they are.
        inputs: Data for them: a path, a URI, an artifact or its URI, a registered version, a
            DataFrame or Table, what the run around was given. A model's URI is resolved now: an
            alias that moves later does not change it. A parameter annotated `pandas.DataFrame`,
            `pyarrow.Table`, `ray.data.Dataset` or `pathlib.Path` gets its input in that form.
        args: The command line of a script.
        name: For people; the function's name by default.
        experiment: What the run belongs to; `"default"` by default.
        labels: Words to find the run by.
        resources: What each worker needs; one CPU by default, or what a hub function says.
        engine: How the job spreads over its workers, such as `rayml.Torch(workers=4)`; by default
            it runs on the first of them, or as a hub function says.
        requirements: Packages for this job alone, on top of the environment: a list, or the path
            of
            a requirements.txt. uv installs them once and keeps them.
        working_dir: The folder that the job runs in; by default the current one.
        env: Environment variables. They are recorded; secrets do not belong here.
        secrets: Environment variables that are never written down: a mapping, or names to take
            from
            this process's environment.
        retry: What to do when an attempt fails; by default there is only one.
        timeout_s: Seconds that one attempt may run.
        start_timeout_s: Seconds that it may wait for a place to run.
        autolog: Log what training code does that never mentions rayml, see `rayml.autolog`; True
            unless `RAYML_AUTOLOG` or the project says otherwise.
        cluster: None for the Ray we are in, that `RAY_ADDRESS` names, or that runs on this
            machine,
            else a new one; `"local"` always starts one; `"ray://host:port"`; `"http://host:8265"`
            for any cluster's Jobs API; `"kuberay://namespace/name"` for a RayCluster that grows
            for the job.
        image: Of the job's workers on Kubernetes; by default that of the cluster's head.
        store: A folder, or an `s3:// gs:// az:// file://` URI; by default `.rayml` in the
            project, or inside of a run its store.
        borrow: Run on the workers of the run that this call is part of, whose engine is Dask or
            Spark, instead of on others; all of them by default. A Dask, Spark or Ray table among
            the inputs stays on the workers.
        dry_run: Validate only, and return the job as it would be submitted: on Kubernetes with
            the exact change to the RayCluster.

    Raises:
        SpecError: The call is wrong; nothing was started or recorded.
        CapacityError: The cluster can never give what the job asks for.
        ClusterUnreachable: No cluster answers.
        StoreError: The submission could not be recorded.
    """
    needs = needs_of(function)
    engine = engine or needs.engine
    resources = resources or needs.resources
    check_engine(engine)
    job = prepare(
        needs.function,
        params=dict(params or {}),
        cluster=_cluster_of(cluster, borrow=borrow),
        inputs=_borrowable(inputs) if borrow else dict(inputs or {}),
        args=[str(word) for word in args],
        name=name,
        experiment=setting("experiment", experiment) or "default",
        labels={str(k): str(v) for k, v in (labels or {}).items()},
        resources=resources_to_borrow(resources, engine) if borrow else resources or Resources(),
        engine=engine,
        requirements=[
            *needs.packages(cluster_address(cluster), image),
            *read_requirements(requirements),
        ],
        working_dir=None if working_dir is None else Path(working_dir),
        env={str(k): str(v) for k, v in (env or {}).items()},
        secrets=_read_secrets(secrets),
        retry=retry,
        timeout_s=_check_time("timeout_s", timeout_s),
        start_timeout_s=_check_time("start_timeout_s", start_timeout_s),
        autolog=switch("autolog", autolog, default=True),
        image=image,
        borrows=borrow,
        store=_store_of(store),
    )
    if dry_run:
        return _previewed(job.spec)
    _note_idle_workers(job.spec)
    job = _keep_long_params(job)
    address = cluster_address(job.spec.cluster or None)
    if has_jobs_api(address) and not borrow:
        return _submit_there(job, address)
    return _submit_here(job)


def _store_of(store: str | Path | Store | None) -> Store:
    """Return the store that is meant; a run that another one submits belongs beside that."""
    context = find_context() if store is None else None
    return context.store if context is not None else open_store(store)


def _cluster_of(given: str | None, *, borrow: bool) -> str | None:
    """Return where the job is to run; one that borrows workers stays where they are."""
    if not borrow:
        return setting("cluster", given)
    if given is not None:
        raise SpecError(
            "with borrow=True a job runs on the workers of the run around it; leave out cluster"
        )
    return None


def _borrowable(inputs: Mapping[str, object] | None) -> dict[str, object]:
    return {name: settle(value) for name, value in (inputs or {}).items()}


def _previewed(spec: Spec) -> Spec:
    """Return a job with what it would change, without that it changes anything."""
    if not spec.cluster.startswith("kuberay://"):
        return spec
    from rayml.kuberay import KubeCluster  # noqa: PLC0415 - only for Kubernetes

    return msgspec.structs.replace(spec, changes=KubeCluster(spec.cluster).preview(spec))


def prepare(  # noqa: PLR0913 - as `submit`
    function: Callable[..., object] | str | Path | Again,
    *,
    params: dict[str, object],
    inputs: dict[str, object],
    working_dir: Path | None,
    secrets: dict[str, str],
    cluster: str | None,
    store: Store,
    name: str | None,
    resources: Resources,
    engine: Engine | None,
    **rest: object,
) -> Job:
    """Validate a job and return it with all that it needs to travel.

    Raises:
        SpecError: Something about it is wrong.
    """
    folder = (working_dir or Path.cwd()).resolve()
    if not folder.is_dir():
        raise SpecError(f"working_dir {folder} is not a folder; check its path")
    again = function if isinstance(function, Again) else Again(function)
    target = find_target(again.function, folder)
    signature = read_signature(target, again.function)
    if signature is not None:
        check_values(signature, params, {**inputs, **again.params, **again.inputs})
    inputs = {key: pin(value, store) for key, value in inputs.items()}
    records = {key: describe_input(key, value, folder) for key, value in inputs.items()}
    spec = Spec(
        run=new_run_id(),
        name=name or _default_name(target),
        target=target,
        origin=_origin(folder, again.commit),
        submitted_at=time.time(),
        store=store.uri,
        cluster=cluster or "",
        working_dir=str(folder),
        params={**again.params, **describe_params(params)},
        described=sorted({*again.params, *_described(params, secrets)}),
        inputs={**records, **again.inputs},
        rerun_of=again.run,
        secrets=sorted(secrets),
        parent=context.run_id if (context := find_context()) is not None else None,
        resources=resources if engine is None else resize_for(engine, resources),
        engine=engine,
        **rest,  # type: ignore[arg-type]
    )
    spec = _recordable(spec, secrets)
    carried = {
        key: carry(inputs[key]) for key, record in records.items() if record.kind == "memory"
    }
    live = again.function if callable(again.function) else None
    kept = again.payload, tuple(again.params)
    payload = Payload(live, params, carried, _sources(target), *kept)
    is_alone = target.kind == "callable" and working_dir is None
    code_folder = None if is_alone else _code_folder(folder, target)
    return Job(spec, payload, secrets, store, code_folder, again.code)


def _origin(folder: Path, commit: str | None) -> Origin:
    """Return who submits from where; a folder that was packed has no repository to ask."""
    origin = read_origin(folder)
    return origin if commit is None else msgspec.structs.replace(origin, commit=commit)


def _described(params: Mapping[str, object], secrets: Mapping[str, str]) -> list[str]:
    """Return which parameters could not be given again from what is recorded of them."""
    redact = Redactor(secrets.values()).redact
    plain = {name: plain_value(value) for name, value in params.items() if is_exact(value)}
    return [n for n in params if n not in plain or redact_strings(plain[n], redact) != plain[n]]


def _recordable(spec: Spec, secrets: Mapping[str, str]) -> Spec:
    """Return a spec in which no secret's value stands, wherever the user put it.

    Raises:
        SpecError: One stands where the job needs it as it is, or some text is not Unicode.
    """
    try:
        msgspec.json.encode(spec)
    except UnicodeEncodeError as exc:
        raise SpecError(f"{exc.object!r} cannot be recorded; give valid Unicode text") from exc
    redactor = Redactor(secrets.values())
    clean = redact_strings(spec, redactor.redact)
    for name in ("env", "args", "requirements", "target", "inputs"):
        if getattr(clean, name) != getattr(spec, name):
            raise SpecError(
                f"{name} holds the value of a secret and would be recorded; let the job read the "
                "secret from its environment instead"
            )
    return clean


def _keep_long_params(job: Job) -> Job:
    long = keep_long(job.payload.params, job.store, Redactor(job.secrets.values()))
    return replace(job, spec=msgspec.structs.replace(job.spec, long_params=long))


def _code_folder(folder: Path, target: Target) -> Path:
    if target.digest:
        return Path(target.file).parent
    is_elsewhere = target.kind in ("file", "script") and not Path(target.file).is_relative_to(
        folder
    )
    return Path(target.file).parent if is_elsewhere else folder


def pack(payload: Payload, *, by_value: bool = False) -> bytes:
    """Return a payload as bytes.

    Args:
        payload: What travels.
        by_value: Carry the module of the function along, for a machine that does not have it.

    Raises:
        SpecError: Something in it cannot be sent to another process.
    """
    module = sys.modules.get(getattr(payload.function, "__module__", None) or "")
    travels = module is not None and _is_of_user(module) and (by_value or not _is_found(module))
    carried = module if travels else None
    try:
        if carried is not None:
            cloudpickle.register_pickle_by_value(carried)
        return bytes(cloudpickle.dumps(payload))
    except Exception as exc:  # any object's own pickling code may raise anything
        raise SpecError(
            f"the function or one of its values cannot be sent to a worker: {exc}; make the "
            "object inside the function instead of outside of it"
        ) from exc
    finally:
        if carried is not None:
            cloudpickle.unregister_pickle_by_value(carried)


def _is_of_user(module: ModuleType) -> bool:
    """Tell whether a module is the user's own rather than an installed one."""
    file = Path(getattr(module, "__file__", None) or sys.prefix)
    installed = (sys.prefix, sys.base_prefix, str(Path(__file__).parent))
    return module.__name__ != "__main__" and not any(file.is_relative_to(p) for p in installed)


def _is_found(module: ModuleType) -> bool:
    """Tell whether another process with our search path would find the module by its name."""
    return PathFinder.find_spec(module.__name__.partition(".")[0]) is not None


def _submit_there(job: Job, address: str) -> Run:
    from rayml.delivery import Delivery, checked  # noqa: PLC0415 - only for clusters

    payload = pack(job.payload, by_value=True)
    patch = look(Path(job.spec.working_dir))
    delivery = Delivery(
        job.spec, payload, job.secrets, job.store, job.code_folder, patch, code=job.code
    )
    _announce(f"the Ray cluster behind {address}")
    delivery = checked(delivery, address)
    from rayml.remote import submit_remotely  # noqa: PLC0415 - loads Ray, which takes its time

    spec, driver = submit_remotely(delivery, address)
    return Run(spec, job.store, driver=driver)


def _submit_here(job: Job) -> Run:
    packed = pack(job.payload)
    from rayml import _ray  # noqa: PLC0415 - Ray loads here, not with rayml
    from rayml.engines import check_installed  # noqa: PLC0415
    from rayml.supervisor import Supervisor  # noqa: PLC0415
    from rayml.tracker.abandoned import close_abandoned  # noqa: PLC0415

    connection = _ray.connect(job.spec.cluster or None)
    _announce(connection.description)
    if job.store.uri not in _tidied:
        close_abandoned(job.store)
        _tidied.add(job.store.uri)
    if not (_ray.is_resized() or job.spec.borrows):
        _ray.check_capacity(job.spec.resources)
        if job.spec.engine is not None and not job.spec.requirements:
            check_installed(job.spec.engine)
    supervisor = Supervisor(
        job.spec, packed, job.secrets, job.store, connection, diff=partial(_keep_diff, job)
    )
    run = Run(job.spec, job.store, driver=supervisor)
    supervisor.start()
    if job.spec.borrows:
        end_with_session(supervisor)
    _await_at_exit(run)
    return run


def _keep_diff(job: Job) -> str:
    patch = look(Path(job.spec.working_dir))
    return keep_diff(patch, job.store, Redactor(job.secrets.values()))


def _announce(place: str) -> None:
    """Say once where jobs of this process run."""
    if place not in _announced:
        _announced.add(place)
        print(f"rayml: using {place}", file=sys.stderr)  # noqa: T201 - nothing runs unseen elsewhere


def _note_idle_workers(spec: Spec) -> None:
    """Say what several workers do for a script that no engine spreads over them."""
    if spec.target.kind == "script" and spec.engine is None and spec.resources.workers > 1:
        print(  # noqa: T201 - the others would be paid for and idle
            f"rayml: a script without an engine runs on the first of its {spec.resources.workers} "
            "workers; the others are for what it starts on Ray by itself",
            file=sys.stderr,
        )


def _await_at_exit(run: Run) -> None:
    if not _unfinished:
        atexit.unregister(wait_for_unfinished)
        # Registered after Ray's own handler, so that it is called before Ray goes away.
        atexit.register(wait_for_unfinished)
    for ended in [run_id for run_id, other in _unfinished.items() if other.is_over]:
        del _unfinished[ended]
    _unfinished[run.id] = run


def wait_for_unfinished() -> None:
    """Wait for the runs that end with this process, and say so; Ctrl-C cancels them."""
    waiting = [run for run in _unfinished.values() if not run.is_over]
    if waiting:
        names = ", ".join(f"{run.name} ({run.id})" for run in waiting)
        print(  # noqa: T201 - the process would seem to hang
            f"rayml: waiting for {len(waiting)} unfinished run(s): {names}; Ctrl-C cancels",
            file=sys.stderr,
        )
    try:
        _join(waiting)
    except KeyboardInterrupt:
        for run in waiting:
            run.cancel(grace_s=2)
        _join(waiting)
    _unfinished.clear()

    from rayml import _ray  # noqa: PLC0415 - it is loaded if anything was submitted

    if _ray.is_connected():
        _ray.leave()


def _join(runs: list[Run]) -> None:
    for run in runs:
        try:
            run.wait()
        except RaymlError as exc:
            print(f"rayml: {exc}", file=sys.stderr)  # noqa: T201 - nobody else will report it


def _default_name(target: Target) -> str:
    return target.function.strip("<>") or Path(target.file).stem or "run"


def read_requirements(requirements: Sequence[str] | str | Path | None) -> list[str]:
    """Return requirements as a list, from one or from a file.

    Raises:
        SpecError: There is no such file.
    """
    if requirements is None:
        return []
    if not isinstance(requirements, str | Path):
        return [str(line) for line in requirements]
    try:
        lines = Path(requirements).read_text("utf-8").splitlines()
    except OSError as exc:
        raise SpecError(
            f"requirements {str(requirements)!r} is not a file that can be read; give a list of "
            "packages, or the path of a requirements.txt"
        ) from exc
    stripped = (line.partition(" #")[0].strip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]


def _read_secrets(secrets: Mapping[str, str] | Sequence[str] | None) -> dict[str, str]:
    if isinstance(secrets, str):
        raise SpecError(f"secrets={secrets!r} is text; give a list of names or a mapping")
    values = (
        {n: os.environ.get(n) for n in secrets or ()} if not hasattr(secrets, "items") else secrets
    )
    for name, value in dict(values).items():  # type: ignore[arg-type]
        if value is None:
            raise SpecError(
                f"secret {name!r} is not in the environment; export it, or give its value"
            )
        if len(value) < _MIN_SECRET:
            raise SpecError(
                f"secret {name!r} has {len(value)} characters and rayml can hide those with "
                f"{_MIN_SECRET} or more; use a longer one, or pass it in env="
            )
    return {str(n): str(v) for n, v in dict(values).items()}  # type: ignore[arg-type]


def _check_time(name: str, seconds: float | None) -> float | None:
    if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
        raise SpecError(f"{name}={seconds!r} is not a time; give seconds above 0, or None")
    return seconds


def _sources(target: Target) -> dict[str, str]:
    """Return the source of a function that no file holds, such as a notebook cell's."""
    if target.kind != "callable" or not target.file or Path(target.file).exists():
        return {}
    lines = linecache.getlines(target.file)
    return {target.file: "".join(lines)} if lines else {}
