"""Scripts written for MLflow, as jobs: what they log lands in the job's run."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pytest

import rayml

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.store import Store
    from tests.ray.conftest import Submit

mlflow = pytest.importorskip("mlflow")

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]

UNCHANGED = """
    import mlflow
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    mlflow.set_experiment("churn")
    mlflow.autolog()
    X = np.arange(40.0).reshape(-1, 1)
    y = (X[:, 0] > 20).astype(int)
    with mlflow.start_run(run_name="fit", description="see #12"):
        model = LogisticRegression(C=0.5).fit(X, y)
        mlflow.log_metric("own", model.score(X, y), step=3)
        with mlflow.start_run(nested=True, run_name="inner"):
            mlflow.log_metric("inner", 1.0)
    with mlflow.start_run(run_name="second"):
        mlflow.log_param("n", 2)
    found = mlflow.search_runs()
    print("found", *sorted(found["tags.mlflow.runName"]))
"""


def write(work: Path, text: str) -> Path:
    script = work / "train.py"
    script.write_text(textwrap.dedent(text))
    return script


@pytest.mark.slow
def test_an_unchanged_script_with_autolog_lands_in_the_run(
    submit: Submit, store: Store, work: Path
) -> None:
    write(work, UNCHANGED)
    run = submit("train.py", experiment="mine").wait()
    assert "found fit inner second" in run.logs()
    assert (run.experiment, run.state, run.notes) == ("mine", "succeeded", "see #12")
    assert run.params["C"] == 0.5
    assert run.metrics["own"] == 1.0
    assert run.metrics["training_accuracy_score"] == 1.0
    assert list(run.history("own")["step"]) == [3]
    assert run.artifact("model").load(trusted=True).predict([[40.0]]) == [1]
    assert {child.name for child in run.children()} == {"inner", "second"}
    assert {child.state for child in run.children()} == {"succeeded"}

    client = mlflow.MlflowClient(f"rayml://{store.uri}")
    shown = client.get_run(run.id)
    assert client.get_experiment(shown.info.experiment_id).name == "churn"
    assert (shown.info.status, shown.info.run_name) == ("FINISHED", "fit")
    (output,) = shown.outputs.model_outputs
    assert client.get_logged_model(output.model_id).source_run_id == run.id
    (dataset,) = {found.dataset.digest for found in shown.inputs.dataset_inputs}
    assert dataset


def log_through_mlflow(depth: int, context: rayml.Context) -> float:
    import mlflow as inner

    inner.log_metric("loss", 0.5)
    inner.log_params({"depth": depth, "seed": 1})
    inner.set_tag("team", "red")
    with inner.start_run(nested=True) as child:
        inner.log_text("the word is s3cret-word", "word.txt")
        inner.set_tag("word", "s3cret-word")
    context.log_label("child", child.info.run_id)
    return float(inner.get_run(context.run_id).data.metrics["loss"])


def test_a_function_logs_into_its_run_and_no_secret_gets_out(
    submit: Submit, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORD", "s3cret-word")
    run = submit(log_through_mlflow, params={"depth": 4}, secrets=["WORD"]).wait()
    assert run.result == 0.5
    assert run.params == {"depth": 4, "seed": 1}
    assert run.metrics["loss"] == 0.5
    assert run.labels["team"] == "red"
    child = rayml.get_run(run.labels["child"], store=store)
    assert child.parent is not None
    assert child.parent.id == run.id
    assert (child.state, child.labels["word"]) == ("succeeded", "***")


def tracking_uri_of_job() -> Any:
    import mlflow as inner

    return inner.get_tracking_uri()


@pytest.mark.thorough
def test_mlflow_is_left_alone_if_it_was_told_where_to_log(
    submit: Submit, store: Store, work: Path
) -> None:
    own = f"sqlite:///{work}/own.db"
    assert submit(tracking_uri_of_job, env={"MLFLOW_TRACKING_URI": own}).wait().result == own
    assert submit(tracking_uri_of_job).wait().result == f"rayml://{store.uri}"
    script = f"""
        import mlflow
        mlflow.set_tracking_uri({own!r})
        mlflow.log_metric("loss", 0.5)
    """
    write(work, script)
    run = submit("train.py").wait()
    assert run.metrics == {}
    found = mlflow.MlflowClient(own).search_runs(["0"])
    assert [one.data.metrics for one in found] == [{"loss": 0.5}]
