"""What the README shows of finding runs and registering models; no Ray is needed for it."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import rayml
from rayml import autologging

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def block(beginning: str) -> str:
    """Return the first Python block behind a heading."""
    section = README.partition(f"\n## {beginning}\n")[2]
    found = re.search(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two runs in the project's own store; the id of one that has logged a model."""
    monkeypatch.chdir(tmp_path)
    with rayml.start_run(params={"depth": 8}) as context:
        context.log_metric("auc", 0.85)
    with rayml.start_run(params={"depth": 4}) as context:
        context.log_metric("auc", 0.9)
        sklearn = pytest.importorskip("sklearn.dummy")
        context.log_model("model", sklearn.DummyClassifier().fit([[0]], [1]))
    return context.run_id


def test_runs_are_found_and_compared_as_shown(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("duckdb")
    exec(block("Finding and comparing runs"), {})  # noqa: S102 - our own README
    shown = capsys.readouterr().out
    assert re.search(r"params\.depth +4 +8\nmetrics\.auc +0\.9 +0\.85\n", shown)
    assert rayml.get_run(run).labels == {"team": "red"}


def test_a_model_is_logged_and_predicts_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("xgboost")
    monkeypatch.chdir(tmp_path)
    exec(block("Models of any library"), {})  # noqa: S102 - our own README
    shown = capsys.readouterr().out.splitlines()[-2:]
    assert "{'name': 'distance', 'dtype': 'int64', 'shape': [None]}" in shown[0]
    assert re.fullmatch(r"\[[01]( [01]){3}\]", shown[1])


def test_training_code_is_tracked_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    try:
        (tmp_path / "shown.py").write_text(block("What it logs"))  # names are read in the source
        runpy.run_path(str(tmp_path / "shown.py"))
    finally:
        autologging.stop()
    assert re.fullmatch(r"2\.0 (\d\.\d+) \1\n", capsys.readouterr().out)


# Keras's tensors on torch take no `copy`, of which numpy 2 complains.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_loop_of_keras_is_tracked_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("torch")
    pytest.importorskip("keras")
    monkeypatch.chdir(tmp_path)
    found = re.search(r"^```python\n(import keras\n.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert found is not None
    exec(found[1], {})  # noqa: S102 - our own README
    (run,) = rayml.runs()
    assert len(run.history("train/loss")) == 3
    assert "model" in run.artifacts


def test_a_model_is_registered_and_loaded_as_shown(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: dict[str, object] = {}
    exec(block("Models, and where they come from").replace("RUN", run), shown)  # noqa: S102
    assert type(shown["model"]).__name__ == "DummyClassifier"
    assert "= churn@1 @candidate @production\nfrom\n  run " in capsys.readouterr().out


def test_mlflow_logs_as_shown(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_TRACKING")}
    done = subprocess.run(  # MLflow keeps settings that the other tests must not meet
        [sys.executable, "-c", block("With MLflow")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert re.search(r"0 +FINISHED +4\n", done.stdout), done.stderr
    (run,) = rayml.runs("churn", store=tmp_path / ".rayml")
    assert (run.name, run.params, run.metrics) == ("by MLflow", {"depth": 4}, {"auc": 0.9})


def test_a_hub_function_is_called_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("scipy")
    monkeypatch.chdir(tmp_path)
    exec(block("The hub: functions that are there already"), {})  # noqa: S102 - our own README
    assert "too few to learn from and to test by" in capsys.readouterr().out
    assert [run.name for run in rayml.runs()] == ["describe"]
