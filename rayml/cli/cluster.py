"""`rayml cluster up`, `status`, `manifest` and `down`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rayml.cli.exits import say
from rayml.cli.options import JsonOption, read_pairs
from rayml.cli.output import console, duration_text, emit_json, print_facts, table
from rayml.errors import RaymlError

if TYPE_CHECKING:
    from rayml.cluster.summary import Summary
    from rayml.tracker.runs import RunRecord

_ENDED_SHOWN = 10
ClusterArgument = Annotated[
    str, typer.Argument(metavar="CLUSTER", help="kuberay://namespace/name.")
]
ContextOption = Annotated[
    str | None,
    typer.Option("--context", metavar="NAME", help="Of the kubeconfig; by default the current."),
]
ImageOption = Annotated[
    str | None,
    typer.Option(metavar="IMAGE", help="With Ray; by default the public one like this Ray."),
]
RayVersionOption = Annotated[
    str | None, typer.Option(metavar="X.Y.Z", help="Ray's in it, if its tag does not say.")
]
ArchOption = Annotated[
    str | None, typer.Option(metavar="ARCH", help="Of the machines: amd64 (default) or arm64.")
]
HasRaymlOption = Annotated[
    bool | None,
    typer.Option(
        "--image-has-rayml/--image-lacks-rayml",
        help="Whether to mount none of rayml's code; by default it is mounted.",
    ),
]
HeadCpusOption = Annotated[
    float | None, typer.Option(metavar="N", help="Of the head's pod; by default 1.")
]
HeadMemoryOption = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Of the head's pod; by default 4Gi.")
]
HeadNodeOption = Annotated[
    list[str] | None,
    typer.Option("--head-node", metavar="LABEL=VALUE", help="Nodes the head may run on."),
]
ClusterStoreOption = Annotated[
    str | None, typer.Option("--store", metavar="URI", help="Where its runs are recorded.")
]
SecretOption = Annotated[
    str | None,
    typer.Option("--store-secret", metavar="NAME", help="The Secret with the store's variables."),
]
MaxWorkersOption = Annotated[
    int | None, typer.Option(metavar="N", help="Of all jobs together; by default any number.")
]
GraceOption = Annotated[
    float | None,
    typer.Option("--grace-s", metavar="S", help="How long idle workers stay; by default 60."),
]


def up(  # noqa: PLR0913 - each is an option
    cluster: ClusterArgument,
    *,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take in a RayCluster that somebody else made.")
    ] = False,
    image: ImageOption = None,
    ray_version: RayVersionOption = None,
    arch: ArchOption = None,
    has_rayml: HasRaymlOption = None,
    head_cpus: HeadCpusOption = None,
    head_memory: HeadMemoryOption = None,
    head_node: HeadNodeOption = None,
    store: ClusterStoreOption = None,
    store_secret: SecretOption = None,
    max_workers: MaxWorkersOption = None,
    grace_s: GraceOption = None,
    wait_s: Annotated[
        float, typer.Option("--wait-s", metavar="S", help="For the head; 0 does not wait.")
    ] = 300.0,
    context: ContextOption = None,
) -> int:
    """Make a Ray cluster that is resized for each job; the same call again changes it."""
    from rayml.cluster.address import ClusterName  # noqa: PLC0415 - not for --help
    from rayml.cluster.choices import Choices  # noqa: PLC0415
    from rayml.cluster.client import KubeClient  # noqa: PLC0415
    from rayml.cluster.lifecycle import up as make  # noqa: PLC0415

    name = ClusterName.parse(cluster)
    choices = Choices(
        image=image,
        ray_version=ray_version,
        arch=arch,
        has_rayml=has_rayml,
        head_cpus=head_cpus,
        head_memory=head_memory,
        head_nodes=read_pairs("--head-node", head_node),
        store=store,
        store_secret=store_secret,
        max_workers=max_workers,
        grace_s=grace_s,
    )
    make(name, KubeClient.connect(context), choices, adopt=adopt, wait_s=wait_s, tell=say)
    return 0


def manifest(  # noqa: PLR0913 - each is an option
    cluster: ClusterArgument,
    *,
    image: ImageOption = None,
    ray_version: RayVersionOption = None,
    arch: ArchOption = None,
    has_rayml: HasRaymlOption = None,
    head_cpus: HeadCpusOption = None,
    head_memory: HeadMemoryOption = None,
    head_node: HeadNodeOption = None,
    store: ClusterStoreOption = None,
    store_secret: SecretOption = None,
    max_workers: MaxWorkersOption = None,
    grace_s: GraceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Print as YAML what `up` would make: for GitOps, or `kubectl apply --server-side -f -`."""
    from rayml.cluster.address import ClusterName  # noqa: PLC0415 - not for --help
    from rayml.cluster.choices import Choices  # noqa: PLC0415
    from rayml.cluster.lifecycle import plan_objects  # noqa: PLC0415
    from rayml.cluster.manifest import to_yaml  # noqa: PLC0415

    choices = Choices(
        image=image,
        ray_version=ray_version,
        arch=arch,
        has_rayml=has_rayml,
        head_cpus=head_cpus,
        head_memory=head_memory,
        head_nodes=read_pairs("--head-node", head_node),
        store=store,
        store_secret=store_secret,
        max_workers=max_workers,
        grace_s=grace_s,
    )
    items = plan_objects(ClusterName.parse(cluster), choices, say)
    if as_json:
        emit_json(items)
    else:
        print(to_yaml(items), end="")
    return 0


def status(
    cluster: ClusterArgument, *, context: ContextOption = None, as_json: JsonOption = False
) -> int:
    """Show a cluster's workers, who holds them, and what waiting runs wait for."""
    from dataclasses import asdict  # noqa: PLC0415 - not for --help

    from rayml.cluster.address import ClusterName  # noqa: PLC0415
    from rayml.cluster.client import KubeClient  # noqa: PLC0415
    from rayml.cluster.summary import read_summary  # noqa: PLC0415

    found = read_summary(ClusterName.parse(cluster), KubeClient.connect(context))
    _add_costs(found)
    if as_json:
        emit_json(asdict(found))
    else:
        _show(found)
    return 0


def down(
    cluster: ClusterArgument,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also while runs are live, which end with it.")
    ] = False,
    context: ContextOption = None,
) -> int:
    """Take away what `up` has made, and nothing else; an adopted cluster stays."""
    from rayml.cluster.address import ClusterName  # noqa: PLC0415 - not for --help
    from rayml.cluster.client import KubeClient  # noqa: PLC0415
    from rayml.cluster.lifecycle import down as end  # noqa: PLC0415

    end(ClusterName.parse(cluster), KubeClient.connect(context), force=force, tell=say)
    return 0


def _add_costs(found: Summary) -> None:
    """Add for how long runs have held workers, as the store's journal says; the ended ones too.

    Where the store cannot be read from here, nobody knows.
    """
    if not (location := found.settings["store"]):
        return
    from rayml.store import open_store  # noqa: PLC0415 - not for --help
    from rayml.tracker.reader import read_runs  # noqa: PLC0415

    try:
        runs = read_runs(open_store(str(location))).runs
    except RaymlError as exc:
        say(f"note: what runs have cost cannot be seen: {exc}")
        return
    for line in found.reservations:
        if (run := runs.get(str(line.get("run")))) is not None:
            line["worker_s"] = run.attribute("worker_s")
    ended = [run for run in runs.values() if run.is_terminal and run.spec.cluster == found.cluster]
    ended.sort(key=lambda run: run.ended_at or 0.0, reverse=True)
    found.ended.extend(map(_cost, ended[:_ENDED_SHOWN]))


def _cost(run: RunRecord) -> dict[str, object]:
    names = ("id", "state", "experiment", "ended_at", "worker_s")
    found = {name: run.attribute(name) for name in names}
    return {"run": found.pop("id"), "owner": run.spec.origin.user, **found}


def _show(found: Summary) -> None:
    settings = found.settings
    limit = settings["max_workers"]
    print_facts(
        [
            ("cluster", found.cluster),
            ("state", f"{found.state}: {found.reason}" if found.reason else found.state),
            ("managed", {"up": "by rayml", "adopted": "adopted"}.get(found.managed or "", "no")),
            ("image", found.image),
            ("ray", found.ray_version or ""),
            ("rayml", str(settings["rayml"] or "")),
            ("store", str(settings["store"] or "")),
            ("workers", f"{len(found.workers)}{'' if limit is None else f' of at most {limit}'}"),
            ("grace", f"{settings['grace_s']:g} s"),
            ("autoscaler", "Ray's own" if settings["is_autoscaling"] else ""),
            *(("problem", problem) for problem in found.problems),
        ]
    )
    _print_rows(found.workers, ("name", "state", "run", "words", "node", "age", "reason"))
    _print_rows(
        found.reservations,
        ("run", "state", "workers", "shape", "owner", "experiment", "worker-hours", "reason"),
    )
    if found.more:
        print(f"and {found.more} more")
    _print_rows(found.ended, ("run", "state", "owner", "experiment", "worker-hours"))


def _print_rows(rows: list[dict[str, object]], columns: tuple[str, ...]) -> None:
    """Print a table without the columns that are empty in all rows."""
    cells = [[_cell(row, column) for column in columns] for row in rows]
    used = [at for at in range(len(columns)) if any(row[at] for row in cells)]
    if not used:
        return
    made = table(*(columns[at] for at in used))
    for row in cells:
        made.add_row(*(row[at] for at in used))
    print()
    console().print(made)


def _cell(row: dict[str, object], column: str) -> str:
    if column == "age":
        return duration_text(float(str(row["age_s"])))
    if column == "worker-hours":
        seconds = row.get("worker_s")
        return "" if seconds is None else f"{float(str(seconds)) / 3600:.3f}"
    value = row.get(column)
    return "" if value is None else str(value)
