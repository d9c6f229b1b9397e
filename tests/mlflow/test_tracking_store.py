"""MLflow's own client over a store of rayml: what it logs, finds and changes; what rayml sees."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import rayml
from rayml.mlflow_uri import tracking_uri
from rayml.store import open_store
from tests.mlflow_server import mlflow_server, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.store import Store

mlflow = pytest.importorskip("mlflow")
entities = pytest.importorskip("mlflow.entities")
MlflowException = pytest.importorskip("mlflow.exceptions").MlflowException

# MLflow and what it loads warn of each other.
pytestmark = pytest.mark.filterwarnings("default")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def uri(store: Store) -> str:
    return tracking_uri(store.uri)


@pytest.fixture
def client(uri: str) -> Any:
    return mlflow.MlflowClient(uri)


@pytest.fixture
def fluent(uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module `mlflow`, which logs to the store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    mlflow.set_tracking_uri(uri)
    yield mlflow
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    mlflow.tracking.fluent._active_experiment_id = None  # noqa: SLF001 - MLflow has no other way


def start(client: Any, **options: Any) -> str:
    return str(client.create_run("0", **options).info.run_id)


# Runs


def test_a_run_of_mlflow_is_a_run_of_rayml(fluent: Any, store: Store) -> None:
    with fluent.start_run(run_name="fit", description="see **#12**") as started:
        fluent.log_params({"depth": 4, "rate": 0.1, "solver": "adam", "early": True})
        for step, loss in enumerate((0.5, math.nan, math.inf, 0.25)):
            fluent.log_metric("train/loss", loss, step=step)
        fluent.set_tag("team", "red")
    run = rayml.get_run(started.info.run_id, store=store)
    assert (run.name, run.state, run.notes) == ("fit", "succeeded", "see **#12**")
    assert run.params == {"depth": 4, "rate": 0.1, "solver": "adam", "early": True}
    assert run.labels["team"] == "red"
    assert repr(list(run.history("train/loss")["value"])) == "[0.5, nan, inf, 0.25]"
    assert [r.id for r in rayml.runs(where="params.depth > 3", store=store)] == [run.id]


def test_a_run_of_rayml_is_a_run_of_mlflow(client: Any, store: Store) -> None:
    with rayml.start_run(
        "fit", experiment="churn", params={"tree": {"depth": 4}, "seed": 1}, store=store
    ) as context:
        context.log_metrics({"auc": 0.5}, step=1)
        context.log_metrics({"auc": 0.75}, step=2)
        context.log_label("team", "red")
        context.log_artifact("notes", b"hello")
    found = client.get_run(context.run_id)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "fit")
    assert client.get_experiment(found.info.experiment_id).name == "churn"
    assert found.data.params == {"tree": "{'depth': 4}", "seed": "1"}
    assert found.data.metrics == {"auc": 0.75}
    assert found.data.tags["team"] == "red"
    assert [(m.step, m.value) for m in client.get_metric_history(context.run_id, "auc")] == [
        (1, 0.5), (2, 0.75),
    ]  # fmt: skip
    assert Path(client.download_artifacts(context.run_id, "notes")).read_bytes() == b"hello"


def test_what_is_logged_can_be_read_at_once(client: Any) -> None:
    run = start(client)
    client.log_metric(run, "loss", 1.5, timestamp=1234567890123, step=7)
    client.log_param(run, "depth", 4)
    client.set_tag(run, "team", "red")
    found = client.get_run(run)
    assert (found.info.status, found.data.metrics) == ("RUNNING", {"loss": 1.5})
    (point,) = client.get_metric_history(run, "loss")
    assert (point.timestamp, point.step, point.value) == (1234567890123, 7, 1.5)
    client.set_terminated(run)


@pytest.mark.parametrize(
    ("status", "state"), [("FINISHED", "succeeded"), ("FAILED", "failed"), ("KILLED", "cancelled")]
)
def test_a_status_becomes_a_state_and_stays_that_status(
    client: Any, store: Store, status: str, state: str
) -> None:
    run = start(client, start_time=1_700_000_000_000)
    client.set_terminated(run, status, end_time=1_700_000_001_500)
    assert rayml.get_run(run, store=store).state == state
    info = client.get_run(run).info
    assert (info.status, info.start_time, info.end_time) == (
        status, 1_700_000_000_000, 1_700_000_001_500,
    )  # fmt: skip


def test_long_params_are_kept_whole_and_the_last_value_counts(client: Any) -> None:
    run = start(client)
    client.log_param(run, "prompt", "x" * 6000)
    client.log_param(run, "depth", 4)
    client.log_param(run, "depth", 8)
    assert client.get_run(run).data.params == {"prompt": "x" * 6000, "depth": "8"}
    client.set_terminated(run)


def test_a_nested_run_is_a_child(fluent: Any, store: Store) -> None:
    with fluent.start_run() as parent, fluent.start_run(nested=True) as child:
        pass
    children = rayml.get_run(parent.info.run_id, store=store).children()
    assert [run.id for run in children] == [child.info.run_id]
    tags = fluent.get_run(child.info.run_id).data.tags
    assert tags["mlflow.parentRunId"] == parent.info.run_id


def test_an_exception_fails_the_run(fluent: Any, store: Store) -> None:
    with pytest.raises(KeyError), fluent.start_run() as run:
        raise KeyError("label")
    assert rayml.get_run(run.info.run_id, store=store).state == "failed"


def test_a_block_of_rayml_takes_what_mlflow_logs(fluent: Any, store: Store) -> None:
    with rayml.start_run("block", params={"depth": 4}, store=store) as context:
        with fluent.start_run(run_name="mine") as first:
            fluent.log_metric("auc", 0.5)
            fluent.log_param("depth", 4)
        with fluent.start_run() as second:
            fluent.log_metric("auc", 0.75)
    assert first.info.run_id == context.run_id
    run = rayml.get_run(context.run_id, store=store)
    assert (run.state, run.params, run.metrics) == ("succeeded", {"depth": 4}, {"auc": 0.5})
    assert [child.id for child in run.children()] == [second.info.run_id]
    assert fluent.get_run(run.id).info.run_name == "mine"


def test_what_has_ended_is_final_but_for_tags(client: Any, store: Store) -> None:
    run = start(client)
    client.set_terminated(run)
    final = "has ended, and what has ended is final"
    with pytest.raises(MlflowException, match=final):
        client.log_metric(run, "loss", 1)
    with pytest.raises(MlflowException, match=final):
        client.log_param(run, "depth", 1)
    with pytest.raises(MlflowException, match=final):
        client.log_text(run, "text", "a.txt")
    with pytest.raises(MlflowException, match=final):
        client.update_run(run, status="RUNNING")
    client.set_tag(run, "late", "yes")
    client.set_tag(run, "mlflow.note.content", "afterwards")
    client.update_run(run, name="renamed")
    assert rayml.get_run(run, store=store).notes == "afterwards"
    found = client.get_run(run)
    assert (found.data.tags["late"], found.info.run_name) == ("yes", "renamed")
    client.delete_tag(run, "late")
    assert "late" not in client.get_run(run).data.tags
    with pytest.raises(MlflowException, match="no tag with name: late"):
        client.delete_tag(run, "late")


def test_a_deleted_tag_can_be_set_again_while_the_run_goes_on(client: Any) -> None:
    run = start(client)
    client.set_tag(run, "team", "red")
    client.delete_tag(run, "team")
    client.set_tag(run, "team", "blue")
    assert client.get_run(run).data.tags["team"] == "blue"
    client.set_terminated(run)


def test_a_deleted_run_comes_back(client: Any, store: Store) -> None:
    run = start(client)
    with pytest.raises(MlflowException, match="end it before you delete it"):
        client.delete_run(run)
    client.set_terminated(run)
    client.delete_run(run)
    assert list(rayml.runs(store=store)) == []
    assert client.get_run(run).info.lifecycle_stage == "deleted"
    assert [r.info.run_id for r in client.search_runs(["0"], run_view_type=2)] == [run]
    client.restore_run(run)
    assert [r.info.run_id for r in client.search_runs(["0"])] == [run]


def test_a_run_ends_with_its_process(store: Store, uri: str) -> None:
    code = f"""
import mlflow, os, signal
client = mlflow.MlflowClient({uri!r})
run = client.create_run("0").info.run_id
client.log_metric(run, "loss", 0.5)
print(run, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    run = done.stdout.strip()
    with rayml.start_run(store=store):  # whoever comes next tidies up
        pass
    found = rayml.get_run(run, store=store)
    assert (found.state, found.metrics) == ("failed", {"loss": 0.5})


def test_a_script_that_forgets_to_end_its_run_ends_it(store: Store, uri: str) -> None:
    code = "import mlflow; mlflow.log_metric('loss', 0.5)"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"MLFLOW_TRACKING_URI": uri},
        check=True,
    )
    (run,) = rayml.runs(store=store)
    assert (run.state, run.metrics) == ("succeeded", {"loss": 0.5})
    assert open_store(store).list("live/") == []


# Searching


@pytest.fixture
def many(store: Store) -> Store:
    for depth in range(1, 8):
        with rayml.start_run(
            f"run-{depth}", experiment="churn", params={"depth": depth}, store=store
        ) as context:
            context.log_metric("auc", 1 - 1 / depth)
            context.log_label("parity", "odd" if depth % 2 else "even")
    return store


def test_runs_are_filtered_sorted_and_paged(many: Store, client: Any) -> None:
    churn = client.get_experiment_by_name("churn").experiment_id
    found = client.search_runs(
        [churn], "metrics.auc > 0.6 and tags.parity = 'odd'", order_by=["metrics.auc DESC"]
    )
    assert [run.data.params["depth"] for run in found] == ["7", "5", "3"]
    pages: list[list[str]] = []
    token = None
    while token is not None or not pages:
        page = client.search_runs(
            [churn], order_by=["params.depth ASC"], max_results=3, page_token=token
        )
        pages.append([run.data.params["depth"] for run in page])
        token = page.token
    assert pages == [["1", "2", "3"], ["4", "5", "6"], ["7"]]
    assert client.search_runs(["0"]) == []
    with pytest.raises(MlflowException, match="Invalid clause"):
        client.search_runs([churn], "nonsense")


def test_archived_runs_are_left_out_as_in_rayml(many: Store, client: Any) -> None:
    churn = client.get_experiment_by_name("churn").experiment_id
    rayml.get_run("latest", store=many).archive()
    assert len(client.search_runs([churn])) == 6
    assert len(client.search_runs([churn], run_view_type=3)) == 7


def test_experiments_are_created_tagged_deleted_and_restored(client: Any, store: Store) -> None:
    number = client.create_experiment("churn", tags={"team": "red"})
    with pytest.raises(MlflowException, match="already exists"):
        client.create_experiment("churn")
    client.set_experiment_tag(number, "tier", "gold")
    client.delete_experiment_tag(number, "team")
    assert client.get_experiment(number).tags == {"tier": "gold"}
    assert {e.name for e in client.search_experiments()} == {"Default", "churn"}
    assert [e.name for e in client.search_experiments(filter_string="name LIKE 'ch%'")] == [
        "churn"
    ]
    run = client.create_run(number).info.run_id
    client.set_terminated(run)
    client.delete_experiment(number)
    assert {e.name for e in client.search_experiments()} == {"Default"}
    assert client.get_run(run).info.lifecycle_stage == "deleted"
    with pytest.raises(MlflowException, match="is deleted"):
        client.create_run(number)
    client.restore_experiment(number)
    assert rayml.get_run(run, store=store).experiment == "churn"
    with pytest.raises(MlflowException, match="keeps the experiment"):
        client.rename_experiment(number, "leave")
    with pytest.raises(MlflowException, match="No Experiment with id=77"):
        client.get_experiment("77")


# Artifacts, datasets and models


def test_artifacts_land_by_their_paths(client: Any, store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_text("a")
    (folder / "b.txt").write_text("b")
    (folder / "empty").mkdir()
    run = start(client)
    client.log_artifacts(run, str(folder), "out")
    client.log_artifacts(run, str(folder))
    client.log_text(run, "more", "out/c.txt")
    client.log_dict(run, {"x": 1}, "d.json")
    client.log_table(run, {"x": [1, 2]}, "table.json")
    (folder / "b.txt").write_text("changed")
    (folder / "deep" / "a.txt").unlink()
    client.log_artifacts(run, str(folder), "out")  # what was there before and is not now, stays
    client.set_terminated(run)
    listed = [(f.path, f.is_dir, f.file_size) for f in client.list_artifacts(run)]
    assert listed[:3] == [("b.txt", False, 1), ("d.json", False, 12), ("deep", True, None)]
    assert [f.path for f in client.list_artifacts(run, "out")] == [
        "out/b.txt", "out/c.txt", "out/deep",
    ]  # fmt: skip
    assert client.list_artifacts(run, "d.json") == []
    copy = Path(client.download_artifacts(run, "out"))
    assert (copy / "b.txt").read_text() == "changed"
    assert (copy / "deep" / "a.txt").read_text() == "a"
    artifacts = rayml.get_run(run, store=store).artifacts
    assert json.loads(artifacts["d.json"].load()) == {"x": 1}
    assert artifacts["out/c.txt"].load() == b"more"
    with pytest.raises((MlflowException, OSError), match="nothing"):
        client.download_artifacts(run, "nothing.txt")


def test_a_dataset_is_an_input_and_an_artifact(fluent: Any, store: Store) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    with fluent.start_run() as run:
        given = fluent.data.from_pandas(frame, source="s3://bucket/x.csv", name="flights")
        fluent.log_input(given, context="training", tags={"year": "2013"})
    (found,) = fluent.get_run(run.info.run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("flights", given.digest)
    assert json.loads(found.dataset.source) == {"uri": "s3://bucket/x.csv"}
    assert {tag.key: tag.value for tag in found.tags}["year"] == "2013"
    (artifact,) = rayml.get_run(run.info.run_id, store=store).artifacts.values()
    assert json.loads(artifact.load())["source"] == '{"uri": "s3://bucket/x.csv"}'
    assert fluent.MlflowClient().list_artifacts(run.info.run_id) == []


def test_a_model_is_loaded_by_both(fluent: Any, store: Store) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    model = linear.LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    with fluent.start_run() as run:
        fluent.log_metric("mse", 0.5)
        told = fluent.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"])
        again = fluent.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"])
    for uri in (told.model_uri, again.model_uri, f"runs:/{run.info.run_id}/model"):
        assert fluent.sklearn.load_model(uri).predict([[3.0]]) == pytest.approx([6.0])
    artifact = rayml.get_run(run.info.run_id, store=store).artifact("model")
    assert (artifact.kind, artifact.format) == ("model", "mlflow")
    with pytest.raises(rayml.SpecError, match=r"is a model of MLflow's.*trusted=True"):
        artifact.load()
    assert artifact.load(trusted=True).predict([[3.0]]) == pytest.approx([6.0])
    assert {f.path for f in fluent.MlflowClient().list_artifacts(run.info.run_id, "model")} >= {
        "model/MLmodel"
    }
    found = fluent.search_logged_models(output_format="list")
    assert [m.status.value for m in found] == ["READY", "READY"]
    assert {m.key: m.value for m in found[0].metrics} == {"mse": 0.5}
    history = fluent.MlflowClient().get_metric_history(run.info.run_id, "mse")
    assert [point.value for point in history] == [0.5]


def test_a_model_is_registered_by_both(fluent: Any, store: Store) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    model = linear.LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    for _ in range(2):
        with fluent.start_run():
            fluent.sklearn.log_model(
                model, name="model", pip_requirements=["scikit-learn"],
                registered_model_name="churn",
            )  # fmt: skip
    client = fluent.MlflowClient()
    client.set_registered_model_alias("churn", "production", "1")
    client.update_registered_model("churn", "who leaves")
    client.set_model_version_tag("churn", "2", "checked", "yes")
    assert fluent.sklearn.load_model("models:/churn@production").coef_ == pytest.approx([2.0])
    loaded = rayml.load_model("rayml://models/churn@production", trusted=True, store=store)
    assert loaded.coef_ == pytest.approx([2.0])
    churn = rayml.model("churn", store=store)
    assert (churn.aliases, len(churn.versions)) == ({"production": 1}, 2)
    assert churn.version(2).tags == {"checked": "yes"}
    assert client.get_registered_model("churn").description == "who leaves"
    assert [v.version for v in client.search_model_versions("name = 'churn'")] == ["2", "1"]
    assert client.get_model_version_by_alias("churn", "production").version == "1"
    with pytest.raises(MlflowException, match="already exists"):
        client.create_registered_model("churn")
    with pytest.raises(MlflowException, match="set an alias of that name"):
        client.transition_model_version_stage("churn", "1", "Production")
    with pytest.raises(MlflowException, match="stays registered"):
        client.delete_registered_model("churn")
    client.create_registered_model("empty", tags={"team": "red"})
    with pytest.raises(rayml.NotFound, match="has no versions yet"):
        rayml.load_model("rayml://models/empty", store=store)
    assert [m.name for m in client.search_registered_models()] == ["churn", "empty"]


def test_a_model_without_a_run_gets_one_of_its_own(fluent: Any, store: Store) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    model = linear.LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    told = fluent.sklearn.log_model(model, name="alone", pip_requirements=["scikit-learn"])
    assert fluent.sklearn.load_model(told.model_uri).predict([[3.0]]) == pytest.approx([6.0])
    (run,) = rayml.runs(store=store)
    assert (run.name, run.state, list(run.artifacts)) == ("alone", "succeeded", ["alone"])
    client = fluent.MlflowClient()
    client.set_logged_model_tags(told.model_id, {"tier": "gold"})
    assert client.get_logged_model(told.model_id).tags["tier"] == "gold"
    client.delete_logged_model(told.model_id)
    with pytest.raises(MlflowException, match="not found"):
        client.get_logged_model(told.model_id)


# Many at once


def test_threads_and_processes_lose_nothing(client: Any, uri: str, store: Store) -> None:
    run = start(client)
    code = f"""
import mlflow
client = mlflow.MlflowClient({uri!r})
for step in range(20):
    client.log_metric({run!r}, "other", step, step=step)
client.log_text({run!r}, "hello", "from/other.txt")
"""
    other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    threads = [
        threading.Thread(
            target=lambda name=str(number): [
                client.log_metric(run, name, step, step=step) for step in range(20)
            ]
        )
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert other.wait(120) == 0
    client.set_terminated(run)
    found = rayml.get_run(run, store=store)
    for name in ("0", "1", "2", "3", "other"):
        assert list(found.history(name)["value"]) == list(range(20))
    assert found.artifact("from/other.txt").load() == b"hello"


def test_a_run_of_a_process_that_cannot_be_reached_takes_tags_alone(
    client: Any, store: Store
) -> None:
    with rayml.start_run(store=store) as context:
        run = context.run_id
        code = f"""
import mlflow
client = mlflow.MlflowClient({tracking_uri(store.uri)!r})
client.set_tag({run!r}, "seen", "yes")
client.log_metric({run!r}, "loss", 1)
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert "cannot be reached from here" in done.stderr
    assert rayml.get_run(run, store=store).labels["seen"] == "yes"


# Wrong calls


def test_a_wrong_uri_says_what_is_right() -> None:
    with pytest.raises(rayml.SpecError, match="write rayml:///<folder>"):
        mlflow.MlflowClient("rayml://folder")
    with pytest.raises(MlflowException, match="Run with id=nothing not found"):
        mlflow.MlflowClient("rayml:").get_run("nothing")


@pytest.mark.s3
def test_a_bucket_is_a_store_too(s3_store_uri: str) -> None:
    client = mlflow.MlflowClient(f"rayml+{s3_store_uri}")
    run = start(client)
    client.log_metric(run, "loss", 0.5)
    client.log_text(run, "hello", "a.txt")
    client.set_terminated(run)
    assert client.get_run(run).data.metrics == {"loss": 0.5}
    assert Path(client.download_artifacts(run, "a.txt")).read_text() == "hello"
    assert rayml.get_run(run, store=s3_store_uri).state == "succeeded"


# MLflow's server


def test_mlflow_serves_a_store(many: Store, uri: str, tmp_path: Path) -> None:
    with mlflow_server(uri, tmp_path) as url:
        client = mlflow.MlflowClient(url)
        churn = client.get_experiment_by_name("churn").experiment_id
        found = client.search_runs([churn], "params.depth = '7'", order_by=["metrics.auc DESC"])
        assert [run.info.run_name for run in found] == ["run-7"]
        # Each request reaches any of the server's processes.
        run = start(client)
        for step in range(10):
            client.log_metric(run, "loss", 1 / (step + 1), step=step)
        client.log_text(run, "hello", "a.txt")
        client.set_terminated(run)
        asked = {"run_ids": [run], "metric_key": "loss", "max_results": 5}
        query = urllib.parse.urlencode(asked, doseq=True)
        page = "ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"
        sampled = json.loads(read(f"{url}/{page}?{query}"))["metrics"]
        assert sampled[0]["value"] == 1.0
        assert sampled[-1]["step"] == 9
        assert read(f"{url}/get-artifact?path=a.txt&run_uuid={run}") == b"hello"
        with pytest.raises(MlflowException, match="has ended"):
            client.log_metric(run, "loss", 0)
        assert b"<title>MLflow</title>" in read(url)
        assert client.search_registered_models("tag.`mlflow.prompt.is_prompt` != 'true'") == []
    assert rayml.get_run(run, store=many).state == "succeeded"
