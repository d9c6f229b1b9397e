"""Automatic logging of trainings with Lightning."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import TYPE_CHECKING, Any

import pytest

from rayml import autologging

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rayml import Run

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning: Any = pytest.importorskip("lightning.pytorch")

from torch import nn  # noqa: E402 - an extra

pytestmark = [
    pytest.mark.usefixtures("autolog"),
    pytest.mark.filterwarnings("ignore"),  # Lightning has much to say
]
X = torch.arange(96.0).reshape(32, 3) / 96


class Net(lightning.LightningModule):  # type: ignore[misc]
    """Remembers the losses that it has seen."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 1))
        self.losses: list[float] = []
        self.validated: list[float] = []

    def training_step(self, batch: Any, _: int) -> Any:
        loss = self.layers(batch).pow(2).mean()
        self.log("train_loss", loss)
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        value = self.layers(batch).abs().mean()
        self.log("val_loss", value)
        if not self.trainer.sanity_checking:
            self.validated.append(value.item())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Any]:
    """Return what makes one that writes to the test's folder."""

    def make(**options: Any) -> Any:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        place = {"accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path}
        return lightning.Trainer(**{"max_epochs": 3, **quiet, **place, **options})

    return make


def fit(trainer: Any, model: Any) -> Any:
    train = torch.utils.data.DataLoader(X, batch_size=8)
    trainer.fit(model, train, torch.utils.data.DataLoader(X, batch_size=32))
    return model


def values(run: Run, name: str) -> list[float]:
    return list(run.history(name)["value"])


def test_a_training(track: Any, trainer: Any) -> None:
    kept = lightning.callbacks.ModelCheckpoint(monitor="val_loss", save_last=True)
    made, model = trainer(callbacks=[kept]), Net()
    run = track(lambda: fit(made, model))
    assert values(run, "train/loss") == model.losses
    assert len(model.losses) == run.metrics["train/steps"] == 12
    assert values(run, "val_loss") == model.validated
    assert list(run.history("val_loss")["step"]) == [3, 7, 11]
    assert values(run, "train_loss") == [model.losses[step] for step in (3, 7, 11)]
    assert list(run.history("val_loss", axis="epoch")["axis"]) == [0, 1, 2]
    assert run.metrics["best_val_loss"] == pytest.approx(min(model.validated))
    assert (run.params["trainer/max_epochs"], run.params["hparams/width"]) == (3, 4)
    assert (run.params["model/class"], run.params["model/optimizer/class"]) == ("Net", "SGD")
    assert {"model", "best_checkpoint", "last_checkpoint"} <= set(run.artifacts)
    assert set(run.artifact("model").load()) == set(model.state_dict())


def test_a_name_that_the_loop_has_too(track: Any, trainer: Any) -> None:
    class Named(Net):
        def training_step(self, batch: Any, place: int) -> Any:
            loss = super().training_step(batch, place)
            self.log("train/loss", loss)
            return loss

    model = Named()
    run = track(lambda: fit(trainer(), model))
    assert values(run, "train/loss") in (model.losses, values(run, "train_loss"))


def test_gradients_of_several_batches(track: Any, trainer: Any) -> None:
    model = Net()
    run = track(lambda: fit(trainer(max_epochs=1, accumulate_grad_batches=2), model))
    parts = [loss / 2 for loss in model.losses]  # so Lightning does
    means = [sum(parts[place : place + 2]) / 2 for place in (0, 2)]
    assert values(run, "train/loss") == pytest.approx(means)


def test_two_trainings(track: Any, trainer: Any) -> None:
    first, second = Net(), Net(2)
    run = track(lambda: (fit(trainer(), first), fit(trainer(max_epochs=2), second)))
    assert values(run, "val_loss") == first.validated
    assert values(run, "val_loss-2") == second.validated
    assert values(run, "train-2/loss") == second.losses
    assert (run.params["hparams-2/width"], run.params["trainer-2/max_epochs"]) == (2, 2)


def test_results_are_the_same_to_the_bit(track: Any, trainer: Any) -> None:
    def train() -> Any:
        lightning.seed_everything(3, verbose=False)
        return fit(trainer(), Net())

    kept: list[Any] = []
    track(lambda: kept.append((train(), torch.get_rng_state())))
    autologging.stop()
    kept.append((train(), torch.get_rng_state()))
    one, other = (made.state_dict() for made, _ in kept)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert torch.equal(kept[0][1], kept[1][1])


def test_callbacks_are_the_users_own_afterwards(track: Any, trainer: Any) -> None:
    seen: list[Any] = []

    class Look(lightning.Callback):  # type: ignore[misc]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            told = pickle.dumps(trainer.callbacks[-1])
            seen.append((told, copy.deepcopy(trainer.callbacks[-1])))

    made = trainer(callbacks=[Look()], enable_checkpointing=False)
    before = list(made.callbacks)
    track(lambda: fit(made, Net()))
    assert made.callbacks == before
    assert b"rayml" not in seen[0][0]
    assert type(seen[0][1]) is lightning.Callback


def test_an_error_of_a_training_is_the_users_own(track: Any, trainer: Any) -> None:
    class Broken(Net):
        def training_step(self, batch: Any, place: int) -> Any:
            if len(self.losses) > 1:
                raise ZeroDivisionError
            return super().training_step(batch, place)

    made = trainer()
    count = len(made.callbacks)

    def job() -> None:
        with pytest.raises(ZeroDivisionError):
            fit(made, Broken())

    run = track(job)
    assert len(values(run, "train/loss")) == 2
    assert len(made.callbacks) == count


def test_everything_is_undone() -> None:
    hooked = lightning.Trainer.fit
    autologging.stop()
    assert lightning.Trainer.fit is hooked.__wrapped__
    assert "rayml" not in sys.modules["lightning.pytorch"].Trainer.fit.__code__.co_filename


def test_outside_of_a_run_nothing_is_logged(trainer: Any) -> None:
    made = trainer(max_epochs=1, enable_checkpointing=False)
    assert len(fit(made, Net()).losses) == 4
