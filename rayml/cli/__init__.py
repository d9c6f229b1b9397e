"""The command line `rayml`: every verb of the Python interface as a command.

    run.py         submits a job and watches it: here, or in a child that can outlive the command
    rerun.py       the same for the job of a run that there is
    watch.py       what happens to a run on its way, and how it is shown in a pipe
    worker.py      the child
    live.py        how it is shown on a terminal
    runs.py        list, show, history, logs, cancel
    questions.py   compare, lineage, experiments, sql
    edits.py       archive, unarchive, delete, undelete, label, note
    artifacts.py   artifact list, show, get
    models.py      model list, show, register, alias, tag
    exchange.py    import mlflow, export mlflow
    stores.py      store verify, copy, gc, retain
    cluster.py     cluster up, status, manifest, down
    doctor.py      doctor

Exit codes: 0 succeeded, 1 the job failed or was cancelled, 2 the call was wrong, 3 the cluster or
the store could not be reached. Help loads neither Ray nor pandas.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from rayml import __version__
from rayml.cli import artifacts, cluster, edits, exchange, hub, models, questions, runs, stores
from rayml.cli.doctor import doctor
from rayml.cli.exits import INTERRUPTED, exit_code, report, say
from rayml.cli.rerun import rerun
from rayml.cli.run import run
from rayml.errors import RaymlError

app = typer.Typer(
    name="rayml",
    help="Run training functions and scripts on Ray, and read back what they recorded.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
artifact = typer.Typer(help="What runs have left: models, datasets, plots, tables, files.")

app.command("run")(run)
app.command("rerun")(rerun)
app.command("list")(runs.list_runs)
app.command("show")(runs.show)
app.command("logs")(runs.logs)
app.command("cancel")(runs.cancel)
app.command("history")(runs.history)
app.command("compare")(questions.compare)
app.command("lineage")(questions.lineage)
app.command("experiments")(questions.experiments)
app.command("sql")(questions.sql)
app.command("label")(edits.label)
app.command("note")(edits.note)
app.command("archive")(edits.archive)
app.command("unarchive")(edits.unarchive)
app.command("delete")(edits.delete)
app.command("undelete")(edits.undelete)
app.command("doctor")(doctor)
artifact.command("list")(artifacts.list_artifacts)
artifact.command("show")(artifacts.show)
artifact.command("get")(artifacts.get)
app.add_typer(artifact, name="artifact")
model = typer.Typer(help="Registered models: names for what others are to use.")
model.command("list")(models.list_models)
model.command("show")(models.show)
model.command("register")(models.register)
model.command("alias")(models.alias)
model.command("tag")(models.tag)
app.add_typer(model, name="model")
functions = typer.Typer(help="Reusable functions: preparation, analysis, training, deployment.")
functions.command("list")(hub.list_functions)
functions.command("search")(hub.search)
functions.command("show")(hub.show)
functions.command(
    "run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)(hub.run)
functions.command("new")(hub.new)
functions.command("check")(hub.check)
functions.command("publish")(hub.publish)
app.add_typer(functions, name="hub")
app.add_typer(functions, name="marketplace", hidden=True)
imports = typer.Typer(help="Take runs from elsewhere.")
imports.command("mlflow")(exchange.import_mlflow)
app.add_typer(imports, name="import")
exports = typer.Typer(help="Give runs to others.")
exports.command("mlflow")(exchange.export_mlflow)
app.add_typer(exports, name="export")
store = typer.Typer(help="What a store needs over the years: checks, copies, tidying.")
store.command("verify")(stores.verify)
store.command("copy")(stores.copy)
store.command("gc")(stores.gc)
store.command("retain")(stores.retain)
app.add_typer(store, name="store")
clusters = typer.Typer(help="Ray clusters on Kubernetes that are resized for each job.")
clusters.command("up")(cluster.up)
clusters.command("status")(cluster.status)
clusters.command("manifest")(cluster.manifest)
clusters.command("down")(cluster.down)
app.add_typer(clusters, name="cluster")


@app.callback(invoke_without_command=True)
def rayml(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> int:
    """Run training functions and scripts on Ray, and read back what they recorded."""
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())
    return 0


def main() -> int:
    """Execute the command line of this process and return its exit code."""
    _print_anything()
    try:
        return int(app(prog_name="rayml", standalone_mode=False) or 0)
    except RaymlError as exc:
        report(exc)
        return exit_code(exc)
    except TyperException as exc:
        say(_one_line(exc))
        return exc.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def _print_anything() -> None:
    """Let no character that a terminal lacks end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _one_line(exc: TyperException) -> str:
    context = getattr(exc, "ctx", None)
    command = context.command_path if context is not None else "rayml"
    return f"{' '.join(exc.format_message().split()).rstrip('.')}; see {command} --help"
