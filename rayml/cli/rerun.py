"""`rayml rerun`: submits the job of a run again, and watches the new one as `rayml run` does."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    RunArgument,
    SecretOption,
    StoreOption,
    TimeoutOption,
    WordsArgument,
    WorkersOption,
    WorkingDirOption,
    given_of,
    read_pairs,
)
from rayml.cli.run import see_through

if TYPE_CHECKING:
    from rayml.run import Run


def rerun(  # noqa: PLR0913 - one for each option
    run: RunArgument,
    args: WordsArgument = None,
    *,
    param: ParamOption = None,
    given: InputOption = None,
    packages: Annotated[
        bool, typer.Option("--packages", help="Install the versions that the run has found.")
    ] = False,
    function: Annotated[
        str | None, typer.Option(metavar="TARGET", help="Another function, as rayml run takes it.")
    ] = None,
    cpus: CpusOption = None,
    memory: MemoryOption = None,
    gpus: GpusOption = None,
    workers: WorkersOption = None,
    name: NameOption = None,
    experiment: ExperimentOption = None,
    label: LabelOption = None,
    requirement: RequirementOption = None,
    working_dir: WorkingDirOption = None,
    env: EnvOption = None,
    secret: SecretOption = None,
    timeout_s: TimeoutOption = None,
    cluster: ClusterOption = None,
    store: StoreOption = None,
    detach: DetachOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> int:
    """Submit the job of a run again; what is not said is as that run had it.

    Values of -p, -i, --label, --env and --secret are laid over that run's by name. Code that was
    packed for a cluster runs as it was packed, other code as it is now.
    """
    run_id, recorded = _look_up(run, store)
    options = given_of(
        args=args or None,
        inputs=read_pairs("-i", given) or None,
        function=function,
        name=name,
        experiment=experiment,
        labels=read_pairs("--label", label) or None,
        requirements=requirement or None,
        working_dir=working_dir,
        env=read_pairs("--env", env) or None,
        secrets=secret or None,
        timeout_s=timeout_s,
        cluster=cluster,
    )
    asked = given_of(cpus=cpus, memory=memory, gpus=gpus, workers=workers)
    words = read_pairs("-p", param)
    submit = partial(_submit, run_id, store, words, asked, {**options, "packages": packages})
    if dry_run:
        print(submit(dry_run=True))
        return 0
    where = cluster or recorded or None
    return see_through(submit, store, where, detach=detach, as_json=as_json)


def _look_up(name: str, location: str | None) -> tuple[str, str]:
    """Return a run's id and its cluster.

    A child reads them: a process that has spoken to a bucket has threads, and cannot fork any
    more, as the one that submits may have to.
    """
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=fork) as child:
        return child.submit(_read, name, location).result()


def _read(name: str, location: str | None) -> tuple[str, str]:
    from rayml.listing import get_run  # noqa: PLC0415 - in the child

    run = get_run(name, store=location)
    return run.id, run.spec.cluster


def _submit(
    run_id: str,
    location: str | None,
    words: dict[str, str],
    asked: dict[str, Any],
    options: dict[str, Any],
    *,
    dry_run: bool = False,
) -> Any:  # noqa: ANN401 - as `Run.rerun`
    from rayml.listing import get_run  # noqa: PLC0415 - after the fork

    run = get_run(run_id, store=location)
    params = _params(run, words, options)
    return run.rerun(**options, **_workers(run, asked), params=params, dry_run=dry_run)


def _params(run: Run, words: dict[str, str], options: dict[str, Any]) -> dict[str, object]:
    from rayml.function import parse_word  # noqa: PLC0415 - after the fork
    from rayml.rerun import find_signature  # noqa: PLC0415

    given = {name: value for name, value in options.items() if name != "packages"}
    signature = find_signature(run, given) if words else None
    return {name: parse_word(name, word, signature) for name, word in words.items()}


def _workers(run: Run, asked: dict[str, Any]) -> dict[str, Any]:
    """Return resources in which only what was asked for is new, and an engine that heeds it."""
    from rayml.engine import leave_to_resources  # noqa: PLC0415 - after the fork

    if not asked:
        return {}
    changed: dict[str, Any] = {"resources": replace(run.spec.resources, **asked)}
    if (engine := run.spec.engine) is not None:
        changed["engine"] = leave_to_resources(engine, asked)
    return changed
