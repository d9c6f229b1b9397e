"""Automatic logging in jobs: it is on where the call, the environment or the project says so."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import rayml

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ray.conftest import Submit

pytest.importorskip("sklearn")

pytestmark = pytest.mark.ray

SCRIPT = """
    import sys
    assert "rayml" not in sys.modules
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score

    rows = np.arange(40.0).reshape(-1, 1)
    labels = (rows[:, 0] > 20).astype(int)
    model = LogisticRegression(C=0.5).fit(rows, labels)
    accuracy_score(labels, model.predict(rows))
"""
AUTOLOG = "import rayml; rayml.autolog()"


def train(c: float) -> None:
    from sklearn.linear_model import LogisticRegression

    rows = np.arange(40.0).reshape(-1, 1)
    LogisticRegression(C=c).fit(rows, rows[:, 0] > 20)


def test_a_function_that_never_mentions_rayml(submit: Submit) -> None:
    run = submit(train, params={"c": 0.5}).wait()
    assert run.params["c"] == run.params["model/C"] == 0.5
    assert run.metrics["train/accuracy"] == 1.0
    assert run.artifact("model").predict(np.array([[40.0]])) == [True]


def test_a_script_that_never_mentions_rayml(submit: Submit, work: Path) -> None:
    (work / "train.py").write_text(textwrap.dedent(SCRIPT))
    run = submit("train.py").wait()
    assert run.params["model/C"] == 0.5
    assert run.metrics["train/accuracy"] == run.metrics["labels/accuracy_score"] == 1.0
    assert "train/roc_curve" in run.artifacts
    assert run.artifact("model").load().C == 0.5


BOOSTING = """
    import xgboost
    import numpy as np

    rows = np.arange(40.0).reshape(-1, 1)
    matrix = xgboost.DMatrix(rows, label=(rows[:, 0] > 20).astype(int))
    xgboost.train({"objective": "binary:logistic"}, matrix, 3)
"""


def test_a_script_of_a_library_that_imports_scikit_learn_itself(
    submit: Submit, work: Path
) -> None:
    pytest.importorskip("xgboost")
    (work / "train.py").write_text(textwrap.dedent(BOOSTING))
    run = submit("train.py").wait()
    assert run.params["model/class"] == "xgboost.Booster"
    assert run.metrics["train/iterations"] == 3
    assert "left out" not in str(run.logs())


KERAS = """
    import os
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import numpy as np

    rows = np.arange(40, dtype="float32").reshape(-1, 1) / 40
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(rows, rows, epochs=2, validation_split=0.5, verbose=0)
    model.evaluate(rows, rows, verbose=0)
"""


# Keras's tensors on torch take no `copy`, of which numpy 2 complains.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_script_that_trains_by_keras(
    submit: Submit, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    (work / "train.py").write_text(textwrap.dedent(KERAS))
    run = submit("train.py").wait()
    assert list(run.history("valid/loss")["step"]) == [0, 1]
    assert run.params["model/optimizer/class"] == "SGD"
    assert "rows/loss" in run.metrics
    assert run.artifact("model").predict(np.zeros((3, 1), "float32")).shape == (3, 1)
    assert "left out" not in str(run.logs())


def test_a_script_whose_plots_are_drawn_when_its_process_ends(submit: Submit, work: Path) -> None:
    pytest.importorskip("matplotlib")
    (work / "train.py").write_text(textwrap.dedent(SCRIPT))
    assert "train/plots/roc_curve" in submit("train.py").wait().artifacts


def test_it_can_be_turned_off(submit: Submit, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "train.py").write_text(textwrap.dedent(SCRIPT))
    runs = [submit(train, params={"c": 0.5}, autolog=False), submit("train.py", autolog=False)]
    monkeypatch.setenv("RAYML_AUTOLOG", "off")
    runs.append(submit(train, params={"c": 0.5}))
    for run in runs:
        assert (run.wait().metrics, run.artifacts) == ({}, {})
        assert "model/C" not in run.params


def test_a_function_can_turn_it_on_for_itself_alone(submit: Submit) -> None:
    def train_with_it() -> None:
        rayml.autolog("sklearn")
        train(2.0)

    assert submit(train_with_it, autolog=False).wait().params["model/C"] == 2.0
    run = submit(train, params={"c": 0.5}, autolog=False).wait()
    assert run.metrics == {}


def test_a_class_that_travels_with_its_function(submit: Submit) -> None:
    from sklearn.linear_model import Ridge

    class Own(Ridge):  # type: ignore[misc]
        def fit(self, X: object, y: object) -> object:
            return super().fit(X, y)

    def train_own() -> None:
        Own(alpha=3.0).fit([[0.0], [1.0]], [0.0, 1.0])

    run = submit(train_own).wait()
    assert (run.params["model/alpha"], "model-2/alpha" in run.params) == (3.0, False)
    assert str(run.params["model/class"]).endswith("Own")


def test_a_script_that_turns_it_on_itself(submit: Submit, work: Path) -> None:
    code = textwrap.dedent(SCRIPT).replace('assert "rayml" not in sys.modules', AUTOLOG)
    (work / "train.py").write_text(code)
    assert submit("train.py").wait().params["model/C"] == 0.5


@pytest.mark.thorough
def test_of_ranks_that_all_fit_the_first_one_logs(submit: Submit) -> None:
    pytest.importorskip("torch")
    half = rayml.Resources(cpus=0.5)
    engine = rayml.Torch(workers=2)
    options: dict[str, Any] = {"engine": engine, "resources": half}
    run = submit(train, params={"c": 0.5}, **options).wait()
    assert len(run.history("train/accuracy")) == 1
    assert "model-2" not in run.artifacts


LOOP = """
    import sys
    import torch
    from torch import nn

    assert "rayml" not in vars()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rows = torch.rand(16, 3)
    for step in range(5):
        optimizer.zero_grad()
        loss = model(rows).pow(2).mean()
        loss.backward()
        optimizer.step()
        print("loss", step, loss.item())
"""


def test_a_loop_of_pytorch_in_a_script(submit: Submit, work: Path) -> None:
    pytest.importorskip("safetensors")
    (work / "train.py").write_text(textwrap.dedent(LOOP))
    run = submit("train.py").wait()
    said = [float(line.split()[2]) for line in str(run.logs()).splitlines() if "loss" in line]
    assert list(run.history("train/loss")["value"]) == said
    assert run.params["model/optimizer/lr"] == 0.1
    assert set(run.artifact("model").load()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert "left out" not in str(run.logs())


@pytest.mark.thorough
def test_each_rank_has_the_losses_of_its_own(submit: Submit) -> None:
    pytest.importorskip("safetensors")

    def train_part() -> list[float]:
        import torch
        from torch import nn

        rank = rayml.context().rank
        torch.manual_seed(rank)
        model = nn.parallel.DistributedDataParallel(nn.Linear(3, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(torch.rand(8, 3)).pow(2).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        rayml.context().log_table(f"losses-{rank}", {"loss": losses})
        return losses

    half = rayml.Resources(cpus=0.5)
    run = submit(train_part, engine=rayml.Torch(workers=2), resources=half).wait()
    told = [run.artifact(f"losses-{rank}").to_pandas()["loss"].tolist() for rank in range(2)]
    for rank in range(2):
        assert list(run.history("train/loss", rank=rank)["value"]) == told[rank]
    means = [sum(pair) / 2 for pair in zip(*told, strict=True)]
    assert list(run.history("train/loss")["value"]) == pytest.approx(means)
    assert run.params["model/class"] == "Linear"
    assert "model-2" not in run.artifacts
    assert set(run.artifact("model").load()) == {"weight", "bias"}


LIGHTNING = """
    import lightning
    import torch

    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def training_step(self, batch, place):
            loss = self.layer(batch).pow(2).mean()
            self.log("seen", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = {"enable_progress_bar": False, "logger": False}
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", devices=1, **quiet)
    trainer.fit(Net(), torch.utils.data.DataLoader(torch.rand(8, 3), batch_size=4))
"""


def test_a_script_of_lightning(submit: Submit, work: Path) -> None:
    pytest.importorskip("lightning")
    (work / "train.py").write_text(textwrap.dedent(LIGHTNING))
    run = submit("train.py").wait()
    assert run.metrics["train/steps"] == 4
    assert list(run.history("seen")["step"]) == [1, 3]
    assert run.params["trainer/max_epochs"] == 2
    assert {"model", "best_checkpoint"} <= set(run.artifacts)
    assert "left out" not in str(run.logs())


def test_ranks_of_a_trainer_of_the_code_s_own(submit: Submit, work: Path) -> None:
    pytest.importorskip("safetensors")

    def train_parts() -> bool:
        import ray.train
        from ray.train.torch import TorchTrainer

        def train_part(settings: dict[str, float]) -> None:
            import torch

            rank = ray.train.get_context().get_world_rank()
            torch.manual_seed(0)
            model = ray.train.torch.prepare_model(torch.nn.Linear(3, 1))
            optimizer = torch.optim.SGD(model.parameters(), lr=settings["rate"])
            for step in range(3):
                optimizer.zero_grad()
                loss = (model(torch.ones(4, 3) * (rank + 1)) - 1).pow(2).mean()
                loss.backward()
                optimizer.step()
                ray.train.report({"seen": loss.item(), "of": f"rank {rank}", "step": step})

        trainer: Any = TorchTrainer(
            train_part,
            train_loop_config={"rate": 0.01},
            scaling_config=ray.train.ScalingConfig(
                num_workers=2, resources_per_worker={"CPU": 0.5}
            ),
            run_config=ray.train.RunConfig(storage_path=str(work)),
        )
        trainer.fit()
        return trainer.train_loop_per_worker is train_part

    half = rayml.Resources(cpus=0.5, workers=2)
    run = submit(train_parts, resources=half, autolog=True).wait(120)
    assert run.result is True
    parts = [list(run.history("train/loss", rank=rank)["value"]) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == 3
    assert parts[0] != parts[1]
    means = [sum(pair) / 2 for pair in zip(*parts, strict=True)]
    assert list(run.history("train/loss")["value"]) == pytest.approx(means)
    for rank, losses in enumerate(parts):
        assert list(run.history("seen", rank=rank)["value"]) == losses
    assert run.params["model/optimizer/lr"] == 0.01
    assert set(run.artifacts) == {"model", "train/layers"}
    assert set(run.artifact("model").load()) == {"weight", "bias"}
