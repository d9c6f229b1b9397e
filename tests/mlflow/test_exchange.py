"""Runs from a real MLflow into a store and back: they show the same, and come only once."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import rayml
from tests.mlflow_server import mlflow_server

if TYPE_CHECKING:
    from rayml.store import Store

mlflow = pytest.importorskip("mlflow")
entities = pytest.importorskip("mlflow.entities")
linear = pytest.importorskip("sklearn.linear_model")

# MLflow and what it loads warn of each other.
pytestmark = pytest.mark.filterwarnings("default")

ROOT = Path(__file__).parents[2]


def call(*words: object, store: Store) -> subprocess.CompletedProcess[str]:
    """Run a command of rayml's on the store, in a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "rayml.cli", *map(str, words), "--store", store.uri],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def done(*words: object, store: Store) -> str:
    """Run a command that must end well; return what it said."""
    found = call(*words, store=store)
    assert found.returncode == 0, found.stderr
    return found.stderr


def new_database(folder: Path) -> Any:
    """Return a client of a new database of MLflow's, with artifacts beside it."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder.mkdir()
    uri = f"sqlite:///{folder}/mlflow.db"
    SqlAlchemyStore(uri, (folder / "artifacts").as_uri())
    return mlflow.MlflowClient(uri)


def fill(client: Any, folder: Path) -> dict[str, str]:
    """Log runs of every kind, and return their ids by their names."""
    churn = client.create_experiment("churn", artifact_location=(folder / "churn").as_uri())
    fit = client.create_run(
        churn,
        start_time=1_700_000_000_123,
        run_name="fit",
        tags={"team": "red", "mlflow.user": "ada", "mlflow.note.content": "as *told*"},
    ).info.run_id
    params = {"depth": "4", "rate": "1e-3", "prompt": "x" * 5000, "none": "None"}
    for name, text in params.items():
        client.log_param(fit, name, text)
    for step, value in ((0, 0.5), (5, math.nan), (-3, 2.5), (7, 0.25), (7, 0.125)):
        client.log_metric(fit, "train/loss", value, timestamp=1_700_000_001_000 + step, step=step)
    client.log_metric(fit, "big", 1e308, timestamp=1_700_000_001_000, step=2**40)
    client.log_text(fit, "hello", "notes/a.txt")
    client.log_dict(fit, {"x": 1}, "d.json")
    dataset = entities.Dataset("flights", "abc123", "local", '{"uri": "flights.csv"}', '{"s": 1}')
    tag = entities.InputTag("mlflow.data.context", "training")
    client.log_inputs(fit, datasets=[entities.DatasetInput(dataset, [tag])])
    client.set_terminated(fit, "FINISHED", end_time=1_700_000_009_876)
    runs = {"fit": fit}
    for name, status in (("inner", "FAILED"), ("killed", "KILLED"), ("open", None)):
        tags = {"mlflow.parentRunId": fit} if name == "inner" else {}
        run = client.create_run(churn, run_name=name, tags=tags).info.run_id
        client.log_metric(run, "auc", 0.5)
        if status is not None:
            client.set_terminated(run, status)
        runs[name] = run
    runs["default"] = client.create_run("0", run_name="default").info.run_id
    client.set_terminated(runs["default"])
    return runs


def shown(client: Any, run: str, names: dict[str, str]) -> dict[str, Any]:
    """Return all that a client shows of a run, without what has to differ elsewhere.

    Args:
        client: An MLflow's.
        run: The run there.
        names: The runs' names by their ids there.
    """
    found = client.get_run(run)
    tags = {
        name: names.get(text, text)
        for name, text in found.data.tags.items()
        if not name.startswith("rayml.") and name != "mlflow.run_id"
    }
    folder = Path(client.download_artifacts(run, "")) if client.list_artifacts(run) else None
    files = [path for path in folder.rglob("*") if path.is_file()] if folder else []
    assert folder is not None or not files
    return {
        "experiment": client.get_experiment(found.info.experiment_id).name,
        "name": found.info.run_name,
        "status": found.info.status,
        "user": tags.get("mlflow.user"),
        "times": (found.info.start_time, found.info.end_time),
        "params": found.data.params,
        "tags": tags,
        "metrics": {
            name: sorted(
                (m.step, m.timestamp, repr(m.value)) for m in client.get_metric_history(run, name)
            )
            for name in found.data.metrics
        },
        "last": {name: repr(value) for name, value in found.data.metrics.items()},
        "datasets": [
            (
                one.dataset.name, one.dataset.digest, one.dataset.source_type,
                one.dataset.source, one.dataset.schema, one.dataset.profile,
                [(tag.key, tag.value) for tag in one.tags],
            )
            for one in found.inputs.dataset_inputs
        ],
        "files": {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in files if folder
        },
    }  # fmt: skip


def by_name(client: Any) -> dict[str, str]:
    """Return the runs of an MLflow by their names."""
    numbers = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.run_name: run.info.run_id for run in client.search_runs(numbers)}


def same(first: Any, second: Any, names: list[str]) -> None:
    """Compare what two clients show of runs of these names."""
    here, there = by_name(first), by_name(second)
    for name in names:
        one = shown(first, here[name], {run: n for n, run in here.items()})
        assert one == shown(second, there[name], {run: n for n, run in there.items()})


ENDED = ["fit", "inner", "killed", "default"]


def test_runs_come_in_whole_and_go_out_the_same(store: Store, tmp_path: Path) -> None:
    source = new_database(tmp_path / "source")
    runs = fill(source, tmp_path / "source")
    told = done("import", "mlflow", tmp_path / "source" / "mlflow.db", store=store)
    assert "4 runs imported from" in told
    assert "1 have not ended and are left out; --open takes them as lost" in told

    (fit,) = rayml.runs(where="name = 'fit'", store=store)
    assert (fit.experiment, fit.state, fit.notes) == ("churn", "succeeded", "as *told*")
    assert fit.params == {"depth": 4, "rate": "1e-3", "prompt": "x" * 5000, "none": None}
    assert fit.labels["mlflow.run_id"] == runs["fit"]
    assert fit.spec.origin.user == "ada"
    assert fit.metrics["train/loss"] == source.get_run(runs["fit"]).data.metrics["train/loss"]
    assert fit.submitted_at.timestamp() == 1_700_000_000.123
    assert fit.inputs["flights"].uri == "flights.csv"
    assert fit.artifact("d.json").load() == b'{\n  "x": 1\n}'
    assert [child.name for child in fit.children()] == ["inner"]
    plugin = mlflow.MlflowClient(f"rayml://{store.uri}")
    same(source, plugin, ENDED)

    assert "0 runs imported" in done("import", "mlflow", tmp_path / "source", store=store)
    assert len(rayml.runs(store=store)) == 4

    target = tmp_path / "target.db"
    told = done("export", "mlflow", target, store=store)
    assert "4 runs exported" in told
    same(source, mlflow.MlflowClient(f"sqlite:///{target}"), ENDED)
    told = done("export", "mlflow", target, store=store)
    assert "0 runs exported" in told
    assert "4 were there already" in told
    told = done("export", "mlflow", tmp_path / "source", store=store)  # where they came from
    assert "4 were there already" in told
    told = done("import", "mlflow", target, store=store)  # where they went
    assert "4 were there already" in told


def test_a_run_of_rayml_shows_the_same_in_mlflow(store: Store, tmp_path: Path) -> None:
    with rayml.start_run(
        "fit", experiment="churn", params={"tree": {"depth": 4}, "seed": 1}, store=store
    ) as context:
        for step in range(2500):
            context.log_metric("loss", 1 / (step + 1), step=step)
        context.log_metric("härte 🎈", math.nan)
        context.log_label("team", "red")
        context.log_artifact("notes", b"hello")
        context.log_table("scores", [{"x": 1}])
    with pytest.raises(KeyError), rayml.start_run("broken", store=store):
        raise KeyError("label")
    rayml.get_run(context.run_id, store=store).set_notes("see #12")
    target = tmp_path / "mlflow.db"
    done("export", "mlflow", target, "--where", "name = 'fit'", store=store)
    client = mlflow.MlflowClient(f"sqlite:///{target}")
    run = client.get_run(by_name(client)["fit"])
    assert list(by_name(client)) == ["fit"]
    assert run.data.params == {"tree": "{'depth': 4}", "seed": "1"}
    assert run.data.metrics["loss"] == 1 / 2500
    assert math.isnan(run.data.metrics["härte _"])
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 2500
    assert run.data.tags["rayml.run_id"] == context.run_id
    assert (run.data.tags["team"], run.data.tags["mlflow.note.content"]) == ("red", "see #12")
    assert Path(client.download_artifacts(run.info.run_id, "notes")).read_bytes() == b"hello"
    assert [f.path for f in client.list_artifacts(run.info.run_id, "scores")] == [
        "scores/data.parquet"
    ]


@pytest.mark.thorough
def test_models_come_in_and_go_out_with_versions_and_aliases(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new_database(tmp_path / "source")
    uri = f"sqlite:///{tmp_path}/source/mlflow.db"
    model = linear.LinearRegression().fit(np.array([[0.0], [1.0]]), [0.0, 2.0])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(run_name="fit"):
        mlflow.log_metric("mse", 0.5)
        for _ in range(2):
            mlflow.sklearn.log_model(
                model, name="model", pip_requirements=["scikit-learn"],
                registered_model_name="churn",
            )  # fmt: skip
    source.set_registered_model_alias("churn", "production", "1")
    source.set_model_version_tag("churn", "2", "checked", "yes")
    source.update_registered_model("churn", "who leaves")
    mlflow.set_tracking_uri(None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    told = done("import", "mlflow", tmp_path / "source", store=store)
    assert "2 versions of models are registered" in told
    churn = rayml.model("churn", store=store)
    assert churn.aliases == {"production": 1}
    assert churn.tags["mlflow.description"] == "who leaves"
    assert churn.version(2).tags["checked"] == "yes"
    loaded = rayml.load_model("rayml://models/churn@production", trusted=True, store=store)
    assert loaded.predict([[3.0]]) == pytest.approx([6.0])
    done("import", "mlflow", tmp_path / "source", store=store)
    assert len(churn.versions) == 2

    target = tmp_path / "target.db"
    told = done("export", "mlflow", target, store=store)
    assert "2 versions of models are registered" in told
    client = mlflow.MlflowClient(f"sqlite:///{target}", registry_uri=f"sqlite:///{target}")
    assert client.get_registered_model("churn").description == "who leaves"
    assert client.get_model_version_by_alias("churn", "production").version == 1
    assert client.get_model_version("churn", "2").tags["checked"] == "yes"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{target}")
    again = mlflow.sklearn.load_model("models:/churn@production")
    assert again.predict([[3.0]]) == pytest.approx([6.0])
    (found, _) = client.search_logged_models(
        [client.get_run(by_name(client)["fit"]).info.experiment_id]
    )
    assert {m.key: m.value for m in found.metrics} == {"mse": 0.5}
    told = done("export", "mlflow", target, store=store)
    assert "versions" not in told


@pytest.mark.thorough
def test_a_server_is_a_source_and_a_target(store: Store, tmp_path: Path) -> None:
    source = new_database(tmp_path / "source")
    fill(source, tmp_path / "source")
    with mlflow_server(f"sqlite:///{tmp_path}/source/mlflow.db", tmp_path, workers=1) as url:
        told = done("import", "mlflow", url, "--experiment", "churn", "--open", store=store)
        assert "4 runs imported" in told
        (left,) = rayml.runs(where="name = 'open'", store=store)
        assert left.state == "failed"
        with rayml.start_run("own", store=store) as context:
            context.log_artifact("notes", b"hello")
        told = done("export", "mlflow", url, store=store)
        assert "1 runs exported" in told
        client = mlflow.MlflowClient(url)
        run = by_name(client)["own"]
        assert Path(client.download_artifacts(run, "notes")).read_bytes() == b"hello"


@pytest.mark.thorough
def test_a_folder_of_an_older_mlflow_is_a_source(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    run = client.create_run("0", run_name="old").info.run_id
    for step, value in enumerate((math.nan, math.inf, -math.inf)):
        client.log_metric(run, "odd", value, step=step)
    client.set_terminated(run)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    done("import", "mlflow", tmp_path, store=store)
    (found,) = rayml.runs(store=store)
    assert repr(list(found.history("odd")["value"])) == "[nan, inf, -inf]"


def test_a_dry_run_changes_nothing(store: Store, tmp_path: Path) -> None:
    source = new_database(tmp_path / "source")
    fill(source, tmp_path / "source")
    found = call("import", "mlflow", tmp_path / "source", "--dry-run", "--json", store=store)
    states = [run["state"] for run in json.loads(found.stdout)["runs"]]
    assert sorted(states) == ["done", "done", "done", "done", "open"]
    assert list(rayml.runs(store=store)) == []


def test_an_export_that_was_cut_off_is_done_again(store: Store, tmp_path: Path) -> None:
    with rayml.start_run("fit", store=store) as context:
        context.log_metric("auc", 0.5)
    target = new_database(tmp_path / "target")
    half = target.create_run("0", run_name="fit", tags={"rayml.run_id": context.run_id})
    done("export", "mlflow", tmp_path / "target", store=store)
    assert target.get_run(half.info.run_id).info.lifecycle_stage == "deleted"
    assert target.get_run(by_name(target)["fit"]).data.metrics == {"auc": 0.5}


def test_a_run_that_cannot_come_is_named_and_the_others_come(store: Store, tmp_path: Path) -> None:
    source = new_database(tmp_path / "source")
    runs = fill(source, tmp_path / "source")
    (path,) = (tmp_path / "source").rglob("d.json")
    path.with_name("back\\slash.json").write_text("{}")
    found = call("import", "mlflow", tmp_path / "source", store=store)
    assert found.returncode == 3
    assert f"run {runs['fit']} (fit) failed: artifact name" in found.stderr
    assert {run.name for run in rayml.runs(store=store)} == {"inner", "killed", "default"}
    path.with_name("back\\slash.json").unlink()
    assert "1 runs imported" in done("import", "mlflow", tmp_path / "source", store=store)


@pytest.mark.parametrize(
    ("source", "code", "problem"),
    [
        ("nowhere.db", 2, "there is nothing at"),
        ("foreign.db", 2, "is no database of MLflow's"),
        ("text.txt", 2, "is no database of MLflow's"),
        ("empty", 2, "holds no runs of MLflow's"),
        ("rayml:///tmp/x", 2, "is a store of rayml's"),
        ("http://127.0.0.1:9", 3, "no MLflow answers at http://127.0.0.1:9"),
    ],
)
def test_a_wrong_source_is_one_line(
    store: Store, tmp_path: Path, source: str, code: int, problem: str
) -> None:
    sqlite3.connect(tmp_path / "foreign.db").execute("create table t (x)").connection.close()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    given = source if "://" in source else tmp_path / source
    found = call("import", "mlflow", given, store=store)
    assert (found.returncode, found.stdout) == (code, "")
    assert problem in found.stderr
    assert found.stderr.count("\n") == 1
    with sqlite3.connect(tmp_path / "foreign.db") as database:
        assert database.execute("select name from sqlite_master").fetchall() == [("t",)]


def test_a_new_target_needs_the_name_of_a_database(store: Store, tmp_path: Path) -> None:
    found = call("export", "mlflow", tmp_path / "target", store=store)
    assert found.returncode == 2
    assert "a new database is called .db" in found.stderr
