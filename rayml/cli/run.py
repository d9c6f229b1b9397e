"""`rayml run`: submits a job and watches its run."""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from rayml.cli.exits import exit_code, report
from rayml.cli.options import (
    ClusterOption,
    CpusOption,
    DetachOption,
    DryRunOption,
    EnvOption,
    ExperimentOption,
    GpusOption,
    InputOption,
    JsonOption,
    LabelOption,
    MemoryOption,
    NameOption,
    ParamOption,
    RequirementOption,
    SecretOption,
    StoreOption,
    TimeoutOption,
    WordsArgument,
    WorkersOption,
    WorkingDirOption,
    given_of,
    is_terminal,
    read_pairs,
)
from rayml.cli.output import (
    emit_json,
    print_artifacts,
    print_facts,
    print_values,
    run_data,
    run_facts,
)
from rayml.cli.watch import Here, Plain, Watch, signals_as_events
from rayml.cli.worker import Worker
from rayml.config import Resources, Retry, cluster_address
from rayml.errors import RaymlError, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rayml.cli.watch import Ended, Event, Keeper, View
    from rayml.engine import Engine
    from rayml.run import Run
    from rayml.store import Store
    from rayml.tracker.runs import RunRecord


def run(  # noqa: PLR0913 - one for each option
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="file.py:function, file.py (a script), package.module:function or hub://name.",
        ),
    ],
    args: WordsArgument = None,
    *,
    param: ParamOption = None,
    given: InputOption = None,
    cpus: CpusOption = 1,
    memory: MemoryOption = None,
    gpus: GpusOption = 0,
    gpu_type: Annotated[
        str | None,
        typer.Option(help="A100: Ray's accelerator type. On KubeRay, what the nodes' label says."),
    ] = None,
    workers: WorkersOption = 1,
    engine: Annotated[
        str | None, typer.Option(metavar="NAME", help="torch, horovod, dask or spark.")
    ] = None,
    engine_setting: Annotated[
        list[str] | None,
        typer.Option(
            "--engine-setting",
            "-e",
            metavar="NAME=VALUE",
            help="One of the engine's: timeout_s=60, dynamic=1,2 or spark.ui.enabled=true.",
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Of the workers, on Kubernetes; else the cluster's own.")
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option("--node-selector", metavar="LABEL=VALUE", help="Kubernetes nodes to run on."),
    ] = None,
    priority_class: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the pods, on Kubernetes.")
    ] = None,
    spot: Annotated[
        bool | None,
        typer.Option("--spot/--no-spot", help="Interruptible nodes only, or none of them."),
    ] = None,
    service_account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the pods, on Kubernetes.")
    ] = None,
    name: NameOption = None,
    experiment: ExperimentOption = None,
    label: LabelOption = None,
    requirement: RequirementOption = None,
    requirements: Annotated[
        str | None, typer.Option(metavar="FILE", help="The packages of a file.")
    ] = None,
    working_dir: WorkingDirOption = None,
    env: EnvOption = None,
    secret: SecretOption = None,
    attempts: Annotated[int, typer.Option(help="Tries in all.")] = 1,
    timeout_s: TimeoutOption = None,
    start_timeout_s: Annotated[
        float | None, typer.Option(help="Seconds it may wait for a place to run.")
    ] = None,
    autolog: Annotated[
        bool | None,
        typer.Option("--autolog/--no-autolog", help="Log what training code does by itself."),
    ] = None,
    cluster: ClusterOption = None,
    store: StoreOption = None,
    detach: DetachOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> int:
    """Run a function or a script once, to completion, and record what it does."""
    options: dict[str, Any] = {
        "inputs": read_pairs("-i", given),
        "args": args or [],
        "name": name,
        "experiment": experiment,
        "labels": read_pairs("--label", label),
        "resources": _resources(
            cpus=cpus,
            memory=memory,
            gpus=gpus,
            gpu_type=gpu_type,
            workers=workers,
            node_selector=read_pairs("--node-selector", node) or None,
            priority_class=priority_class,
            spot=spot,
            service_account=service_account,
        ),
        "engine": _engine(engine, read_pairs("-e", engine_setting)),
        "image": image,
        "requirements": _requirements(requirement, requirements),
        "working_dir": working_dir,
        "env": read_pairs("--env", env),
        "secrets": secret,
        "retry": Retry(attempts=attempts) if attempts != 1 else None,
        "timeout_s": timeout_s,
        "start_timeout_s": start_timeout_s,
        "autolog": autolog,
        "cluster": cluster,
        "store": store,
    }
    submit = partial(_submit, target, read_pairs("-p", param), options)
    if dry_run:
        print(submit(dry_run=True))
        return 0
    return see_through(submit, store, cluster, detach=detach, as_json=as_json)


def see_through(
    submit: Callable[[], Run],
    location: str | None,
    cluster: str | None,
    *,
    detach: bool,
    as_json: bool,
) -> int:
    """Submit a job, show its run until it ends, and return the exit code.

    Args:
        submit: Submits it: perhaps in a child of this process, which no bucket or Ray may have
            been spoken to in until then.
        location: Its store, as it was given.
        cluster: Where it goes, as `submit` takes it.
        detach: Only until it is recorded.
        as_json: For a program instead of a person.
    """
    if as_json and not detach:
        return _run_for_json(submit, location)
    events: SimpleQueue[Event] = SimpleQueue()
    worker = None
    # Only what somebody may want to leave alone needs a process of its own; in a pipe, whoever
    # stops this process must stop the run.
    if (is_terminal() or detach) and not _is_remote(cluster):
        worker = Worker(events, submit)
    with signals_as_events(events) as watch_signals:
        keeper = worker or Here(events, submit)
        watch_signals()
        watch = _watch(keeper, events, location, detach=detach)
        ended = watch.until_end()
        code = _tell_end(watch, ended, location, as_json=as_json)
        if worker is not None and ended is not None:
            worker.join()
    return code


def _submit(
    target: str, words: dict[str, str], options: dict[str, Any], *, dry_run: bool = False
) -> Any:  # noqa: ANN401 - a Spec if it is a dry run, else a Run, as `submit` itself
    from pathlib import Path  # noqa: PLC0415 - with the rest

    from rayml.function import find_target, parse_word, read_signature  # noqa: PLC0415
    from rayml.hubs.needs import needs_of  # noqa: PLC0415
    from rayml.job import submit  # noqa: PLC0415 - not for --help

    folder = Path(options["working_dir"] or Path.cwd()).resolve()
    signature = read_signature(find_target(needs_of(target).function, folder), None)
    params = {name: parse_word(name, word, signature) for name, word in words.items()}
    return submit(target, params=params, dry_run=dry_run, **options)


def _resources(**options: object) -> Resources | None:
    """Return what was asked for; None for the usual, which is what a hub function says."""
    asked = Resources(**given_of(**options))
    return None if asked == Resources() else asked


def _engine(name: str | None, settings: dict[str, str]) -> Engine | None:
    from rayml.engine import parse_engine  # noqa: PLC0415 - not for --help

    if name is not None:
        return parse_engine(name, settings)
    if settings:
        raise SpecError(f"-e {min(settings)}= is a setting of no engine; give --engine NAME too")
    return None


def _requirements(packages: list[str] | None, file: str | None) -> list[str] | str | None:
    if packages and file:
        raise SpecError(f"requirements are given by -r and by --requirements {file}; choose one")
    return packages or file


def _is_remote(cluster: str | None) -> bool:
    from rayml.spec import has_jobs_api  # noqa: PLC0415 - not for --help

    return has_jobs_api(cluster_address(cluster))


def _watch(
    keeper: Keeper, events: SimpleQueue[Event], location: str | None, *, detach: bool
) -> Watch:
    from rayml.store import open_store  # noqa: PLC0415 - after the fork

    view: View = Plain()
    if is_terminal() and not detach:
        from rayml.cli.live import LiveView  # noqa: PLC0415 - rich loads while Ray starts

        view = LiveView(can_ask=sys.stdin.isatty())
    return Watch(keeper, events, open_store(location), view, is_leaving=detach)


def _tell_end(watch: Watch, ended: Ended | None, location: str | None, *, as_json: bool) -> int:
    if not watch.run:
        error = ended.error if ended else None
        if error is not None:
            report(error)
        return exit_code(error)
    if ended is None:
        _print_detached(watch.run, location, as_json=as_json)
        return 0
    record = _record(watch.store, watch.run)
    if ended.error is None:
        _print_summary(record, watch.store, location)
    else:
        _report(ended.error, record)
    return exit_code(ended.error)


def _run_for_json(submit: Callable[[], Run], location: str | None) -> int:
    """Run a job for a program: one document on stdout, and all else on stderr."""
    from rayml.store import open_store  # noqa: PLC0415 - not for --help

    with _only_stdout() as out:
        events: SimpleQueue[Event] = SimpleQueue()
        with signals_as_events(events) as watch_signals:
            keeper = Here(events, submit)
            watch_signals()
            watch = Watch(keeper, events, open_store(location), Plain(log_to_stderr=True))
            ended = watch.until_end()
        record = _record(watch.store, watch.run)
        emit_json(run_data(record, watch.store), out)
    error = ended.error if ended else None
    if error is not None:
        _report(error, record)
    return exit_code(error)


def _only_stdout() -> TextIO:
    """Return stdout, and point everything else that writes to it, Ray included, to stderr."""
    sys.stdout.flush()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def _record(store: Store, run_id: str) -> RunRecord:
    from rayml.tracker.reader import read_runs  # noqa: PLC0415 - not for --help

    return read_runs(store).find(run_id)


def _report(error: RaymlError, record: RunRecord) -> None:
    # A script has printed its own traceback, which is in the log above.
    report(error, with_traceback=record.spec.target.kind != "script")


def _print_summary(record: RunRecord, store: Store, location: str | None) -> None:
    from rayml.tracker.reader import artifact_of  # noqa: PLC0415 - not for --help

    print()
    print_facts(run_facts(record))
    print_values(record)
    artifacts = [artifact_of(record, name, store) for name in record.artifacts]
    if artifacts:
        print("artifacts")
        print_artifacts(artifacts)
    print(f"\nrayml show {record.spec.run}{_store_words(location)}")
    print(_second_line(record, location))


def _second_line(record: RunRecord, location: str | None) -> str:
    """Return what a user types who wants to use what the run has made."""
    models = [a for a in record.artifacts.values() if a.kind == "model"]
    if not models:
        return f"rayml logs {record.spec.run}{_store_words(location)}"
    model = max(models, key=lambda artifact: artifact.created_at)
    store = f", store={_python_text(location)}" if location else ""
    trusted = "trusted=True" if model.needs_trust else ""
    run = f"rayml.get_run({_python_text(record.spec.run)}{store})"
    code = f"import rayml; print({run}.artifact({_python_text(model.name)}).load({trusted}))"
    return f"python -c {shlex.quote(code)}"


def _python_text(text: str) -> str:
    """Return text as Python reads it, in double quotes: the shell's are single ones."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _store_words(location: str | None) -> str:
    return f" --store {shlex.quote(location)}" if location else ""


def _print_detached(run_id: str, location: str | None, *, as_json: bool) -> None:
    if as_json:
        emit_json({"id": run_id})
        return
    print(run_id)
    print(f"rayml logs -f {run_id}{_store_words(location)}")
    print(f"rayml cancel {run_id}{_store_words(location)}")
