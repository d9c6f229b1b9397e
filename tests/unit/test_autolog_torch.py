"""Automatic logging of training loops with PyTorch."""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import random
import sys
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import pytest

import rayml
from rayml import autologging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rayml import Run

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from torch import nn  # noqa: E402 - an extra
from torch.nn.utils import get_total_norm  # noqa: E402
from torch.optim.lr_scheduler import (  # noqa: E402
    LinearLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from rayml.autologging.curves import Curve  # noqa: E402

pytestmark = pytest.mark.usefixtures("autolog")
X = torch.arange(96.0).reshape(32, 3) / 96
Y = X.sum(1, keepdim=True)


def mse_loss(predicted: Any, target: Any) -> Any:
    """Return what is minimised."""
    return nn.functional.mse_loss(predicted, target)


class Net(nn.Module):
    """Has what changes when it is called: statistics of batches, and random numbers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.2))
        self.head = nn.Linear(width, 1)
        self.act: Any = torch.relu

    def forward(self, x: Any) -> Any:
        return self.head(self.act(self.layers(x)))


class Loop:
    """A user's own loop, and what it has seen itself."""

    def __init__(self, model: Any = None, lr: float = 0.1, **options: Any) -> None:
        self.model = Net() if model is None else model
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, **options)
        self.losses: list[float] = []

    def step(self) -> None:
        self.optimizer.zero_grad()
        loss = mse_loss(self.model(X), Y)
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())

    def train(self, steps: int = 5) -> Loop:
        for _ in range(steps):
            self.step()
        return self


def values(run: Run, name: str) -> list[float]:
    return list(run.history(name)["value"])


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what rayml has said; PyTorch's compiler has a log of its own."""
    return [one.getMessage() for one in caplog.records if one.name == "rayml"]


def same(one: Any, other: Any) -> bool:
    """Tell whether two state dicts are the same to the bit."""
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def gradients(loop: Loop) -> list[Any]:
    """Return those of a model as they are now."""
    return [one.grad.clone() for one in loop.model.parameters() if one.grad is not None]


# What is logged


def test_a_loop(track: Any) -> None:
    loop = Loop(momentum=0.5)
    run = track(lambda: loop.train(6))
    assert values(run, "train/loss") == loop.losses
    assert list(run.history("train/loss")["step"]) == [0, 1, 2, 3, 4, 5]
    assert values(run, "train/learning_rate") == [0.1]
    assert run.metrics["train/steps"] == 6
    assert run.params["model/optimizer/class"] == "SGD"
    assert (run.params["model/optimizer/lr"], run.params["model/optimizer/momentum"]) == (0.1, 0.5)
    assert run.params["model/class"] == "Net"
    assert run.params["model/parameters"] == run.params["model/trainable_parameters"] == 57
    assert run.params["train/batch_shape"] == [32, 3]
    layers = run.artifact("train/layers").to_pandas().set_index("layer")
    assert layers.loc["layers.0", "shapes"] == "weight 8×3, bias 8"
    assert layers.loc["head"].tolist() == ["Linear", "weight 1×8, bias 1", 9, 9]
    assert layers["class"].tolist() == ["Linear", "BatchNorm1d", "Dropout", "Linear"]


def test_the_model_is_stored_as_it_is_when_the_run_ends(track: Any) -> None:
    loop = Loop()

    def job() -> None:
        loop.train()
        with torch.no_grad():
            loop.model.head.bias.fill_(7.0)

    stored = track(job).artifact("model")
    assert same(stored.load(), loop.model.state_dict())
    assert stored.meta["class"].endswith("Net")


def test_a_model_that_is_gone_by_then_is_stored_as_it_was(track: Any) -> None:
    kept: list[Any] = []

    def job() -> None:
        loop = Loop().train()
        kept.append(copy.deepcopy(loop.model.state_dict()))

    assert same(track(job).artifact("model").load(), kept[0])


def test_a_model_in_a_cycle_too(track: Any) -> None:
    kept: list[Any] = []

    def job() -> None:
        loop = Loop().train()
        loop.model.owner = [loop]
        kept.append(copy.deepcopy(loop.model.state_dict()))
        del loop
        gc.collect()

    assert same(track(job).artifact("model").load(), kept[0])


def test_a_program_of_a_long_training(track: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayml.autologging.torch_models._SHARE", 1e6)
    loop = Loop()
    before = []

    def job() -> None:
        loop.train()
        before.append(torch.get_rng_state())

    stored = track(job).artifact("model")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert stored.meta["exported"] is True
    assert stored.meta["signature"]["inputs"][0]["shape"] == [None, 3]
    assert len(stored.meta["input_example"]) == 5
    loop.model.eval()
    assert torch.allclose(stored.load(trusted=True)(X), loop.model(X))


def test_a_model_that_takes_no_example_alone_keeps_its_weights(
    track: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Whole(Net):
        def forward(self, x: Any) -> Any:
            return super().forward(x.reshape(32, 3))

    monkeypatch.setattr("rayml.autologging.torch_models._SHARE", 1e6)
    run = track(lambda: Loop(Whole()).train())
    assert "head.weight" in run.artifact("model").load()
    (line,) = set(said(caplog))
    assert "keeps the weights of 'model' alone" in line


def test_a_model_that_plain_data_does_not_make_is_not_run(
    track: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(Net):
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.words = (word for word in "ab")

        def forward(self, x: Any) -> Any:
            Odd.calls += 1
            return super().forward(x)

    monkeypatch.setattr("rayml.autologging.torch_models._SHARE", 1e6)
    loop = Loop(Odd())
    assert same(track(loop.train).artifact("model").load(), loop.model.state_dict())
    assert Odd.calls == 5


def test_learning_rates_and_their_schedule(track: Any) -> None:
    def train(schedule: Callable[[Any], Any]) -> Run:
        loop = Loop()
        scheduler = schedule(loop.optimizer)

        def job() -> None:
            for _ in range(4):
                loop.step()
                scheduler.step(*([1.0] if isinstance(scheduler, ReduceLROnPlateau) else []))

        run: Run = track(job)
        return run

    run = train(lambda optimizer: StepLR(optimizer, 2, gamma=0.5))
    assert values(run, "train/learning_rate") == [0.1, 0.05]
    assert list(run.history("train/learning_rate")["step"]) == [0, 2]
    assert run.params["model/optimizer/lr"] == 0.1
    assert run.params["model/scheduler/class"] == "StepLR"
    assert (run.params["model/scheduler/step_size"], run.params["model/scheduler/gamma"]) == (
        2,
        0.5,
    )

    run = train(lambda optimizer: ReduceLROnPlateau(optimizer, patience=0, factor=0.5))
    assert values(run, "train/learning_rate")[:2] == [0.1, 0.05]
    assert run.params["model/scheduler/factor"] == 0.5

    run = train(
        lambda optimizer: SequentialLR(
            optimizer, [LinearLR(optimizer), StepLR(optimizer, 2)], milestones=[2]
        )
    )
    assert run.params["model/scheduler/class"] == "SequentialLR"
    assert run.params["model/scheduler/schedulers"] == ["LinearLR", "StepLR"]


def test_groups_of_parameters(track: Any) -> None:
    model = Net()
    groups = [
        {"params": model.layers.parameters()},
        {"params": model.head.parameters(), "lr": 0.01, "weight_decay": 0.1},
    ]
    loop = Loop(model)
    loop.optimizer = torch.optim.SGD(groups, lr=0.1)
    run = track(loop.train)
    assert (values(run, "train/learning_rate"), values(run, "train/learning_rate-2")) == (
        [0.1],
        [0.01],
    )
    assert run.params["model/optimizer/groups"] == 2
    assert run.params["model/optimizer/group-2/weight_decay"] == 0.1
    assert "model/optimizer/group-2/momentum" not in run.params
    assert run.params["model/class"] == "Net"


def test_a_loss_of_several_backward_calls_is_their_mean(track: Any) -> None:
    loop, told = Loop(), []

    def job() -> None:
        for _ in range(3):
            loop.optimizer.zero_grad()
            parts = [mse_loss(loop.model(X[half]), Y[half]) for half in (slice(16), slice(16, 32))]
            for part in parts:
                part.backward()
            loop.optimizer.step()
            told.append(sum(part.item() for part in parts) / 2)

    assert values(track(job), "train/loss") == pytest.approx(told)


def test_a_loss_that_is_changed_in_place_afterwards(track: Any) -> None:
    loop, told = Loop(), []

    def job() -> None:
        loss = mse_loss(loop.model(X), Y)
        loss.backward()
        told.append(loss.item())
        loss.detach().mul_(100)
        loop.optimizer.step()

    assert values(track(job), "train/loss") == told


def test_the_loss_is_what_a_scaler_has_scaled(track: Any) -> None:
    loop, told = Loop(), []
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def job() -> None:
        for _ in range(3):
            loop.optimizer.zero_grad()
            loss = mse_loss(loop.model(X), Y)
            scaler.scale(loss).backward()
            scaler.step(loop.optimizer)
            scaler.update()
            told.append(loss.item())

    assert values(track(job), "train/loss") == told


def test_an_optimizer_that_calls_a_closure_often(track: Any) -> None:
    model, told = nn.Linear(3, 1), list[float]()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = mse_loss(model(X), Y)
        loss.backward()
        return loss

    def job() -> None:
        told.extend(optimizer.step(closure).item() for _ in range(3))

    run = track(job)
    assert values(run, "train/loss") == told
    assert run.metrics["train/steps"] == 3


def test_what_is_no_loss(track: Any) -> None:
    loop = Loop()

    def job() -> None:
        loop.model(X).backward(torch.ones(32, 1))
        loop.optimizer.step()

    run = track(job)
    assert run.metrics["train/steps"] == 1
    assert "train/loss" not in run.metrics


def test_the_norm_of_gradients_is_logged_where_it_is_asked_for(track: Any) -> None:
    loop, told = Loop(), []

    def job() -> None:
        for _ in range(3):
            loop.step()
            told.append(get_total_norm(gradients(loop)).item())

    assert "train/gradient_norm" not in track(job).metrics
    told.clear()
    rayml.autolog("torch", gradient_norm=True)
    rayml.autolog()  # as a job does, too
    assert values(track(job), "train/gradient_norm") == told


def test_the_speed_of_a_training_of_seconds(track: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayml.autologging.torch_loops._EVERY_S", 0.0)
    loop = Loop()
    run = track(loop.train)
    assert values(run, "train/loss") == loop.losses
    assert min(values(run, "train/steps_per_s")) > 0


def test_a_metric_of_the_users_own_stays_theirs(track: Any) -> None:
    loop = Loop()

    def job() -> None:
        for epoch in range(2):
            loop.train(3)
            rayml.context().log_metric("train/loss", 7.0, epoch)

    run = track(job)
    assert values(run, "train/loss") == [7.0, 7.0]
    assert values(run, "train/learning_rate") == [0.1]


def test_a_learning_rate_in_a_tensor(track: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayml.autologging.torch_loops._EVERY_S", 0.0)
    loop = Loop()
    loop.optimizer = torch.optim.Adam(loop.model.parameters(), lr=torch.tensor(0.5))
    scheduler = StepLR(loop.optimizer, 1, gamma=0.5)

    def job() -> None:
        for _ in range(3):
            loop.step()
            scheduler.step()

    assert values(track(job), "train/learning_rate") == [0.5, 0.25, 0.125]


def test_an_optimizer_that_has_no_hash(track: Any) -> None:
    class Odd(torch.optim.SGD):  # type: ignore[misc, name-defined]
        __hash__ = None  # type: ignore[assignment]

    loop = Loop()
    loop.optimizer = Odd(loop.model.parameters(), lr=0.1)
    assert "train/loss" not in track(loop.train).metrics
    assert len(loop.losses) == 5


def test_values_of_another_device_are_read_later(track: Any) -> None:
    def job() -> None:
        curve = Curve("c")
        curve.add(0, 1.0, [torch.tensor(1.0), 2.0, torch.tensor(6.0, dtype=torch.float64)])
        curve.add(1, 2.0, [torch.tensor(4.0)])
        curve.log(rayml.context())

    assert values(track(job), "c") == [3.0, 4.0]


def test_a_long_curve_has_means(track: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayml.autologging.curves._POINTS", 4)

    def job() -> None:
        curve, context = Curve("c"), rayml.context()
        for step in range(17):
            curve.add(step, float(step), [float(step), float(step)])
            if step % 3 == 0:
                curve.log(context)
        curve.end(context)

    told = track(job).history("c")
    assert list(told["step"]) == [0, 1, 2, 3, 5, 7, 9, 11, 15, 16]
    assert list(told["value"]) == [0, 1, 2, 3, 4.5, 6.5, 8.5, 10.5, 13.5, 16]


# Which model it is


def test_two_models_at_once(track: Any) -> None:
    one, two = Loop(Net(4)), Loop(Net(6), lr=0.2)

    def job() -> None:
        for _ in range(3):
            one.step()
            two.step()

    run = track(job)
    assert values(run, "train/loss") == one.losses
    assert values(run, "train-2/loss") == two.losses
    assert (run.params["model/optimizer/lr"], run.params["model-2/optimizer/lr"]) == (0.1, 0.2)
    assert same(run.artifact("model").load(), one.model.state_dict())
    assert same(run.artifact("model-2").load(), two.model.state_dict())


def test_two_optimizers_of_one_model(track: Any) -> None:
    model = Net()
    first, second = Loop(model), Loop(model)
    run = track(lambda: (first.train(), second.train()))
    assert values(run, "train-2/loss") == second.losses
    assert [name for name in run.artifacts if name.startswith("model")] == ["model"]


def test_the_outermost_module_is_the_model(track: Any) -> None:
    model = Net()
    model.layers.requires_grad_(requires_grad=False)
    loop = Loop(model)
    loop.optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    run = track(loop.train)
    assert run.params["model/class"] == "Net"
    assert (run.params["model/parameters"], run.params["model/trainable_parameters"]) == (57, 9)


def test_a_model_that_came_without_being_seen(track: Any) -> None:
    loop = Loop(copy.deepcopy(Net()))
    assert same(track(loop.train).artifact("model").load(), loop.model.state_dict())
    autologging.stop()
    loop = Loop()
    rayml.autolog()
    assert same(track(loop.train).artifact("model").load(), loop.model.state_dict())


def test_parameters_of_no_module(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    image = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([image])

    def job() -> None:
        loss: Any = (image - 1).pow(2).sum()
        loss.backward()
        optimizer.step()

    run = track(job)
    assert values(run, "train/loss") == [3.0]
    assert "model" not in run.artifacts
    assert not said(caplog)


def test_of_several_models_of_one_optimizer_the_largest_is_kept(
    track: Any, caplog: pytest.LogCaptureFixture
) -> None:
    small: Any = nn.Linear(3, 3)
    large: Any = Net()
    loop = Loop(nn.Sequential(small, large))
    parameters = [*small.parameters(), *large.parameters()]
    del loop.model
    gc.collect()

    def job() -> None:
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        mse_loss(large(small(X)), Y).backward()
        optimizer.step()

    assert same(track(job).artifact("model").load(), large.state_dict())
    assert "keeps one model of an optimizer" in caplog.text


def test_a_module_that_replaces_another_with_the_same_parameters(
    track: Any, caplog: pytest.LogCaptureFixture
) -> None:
    inner = nn.Linear(3, 1)
    other = nn.Linear(3, 1)
    other.weight, other.bias = inner.weight, inner.bias
    loop = Loop(nn.Sequential(other))
    assert track(loop.train).params["model/class"] == "Sequential"
    assert not said(caplog)


def test_wrappers_are_taken_off(track: Any) -> None:
    model = Net()
    loop = Loop(nn.DataParallel(model))
    stored = track(loop.train).artifact("model")
    assert same(stored.load(), model.state_dict())
    assert stored.meta["class"].endswith("Net")


def test_several_kinds_of_layers(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4, batch_first=True)
            self.attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
            self.norm = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
            self.head = nn.Linear(4, 1)
            self.tied = nn.Linear(1, 4, bias=False)
            self.tied.weight = nn.Parameter(self.head.weight.T)
            self.parts = nn.ParameterList([nn.Parameter(torch.ones(1))])
            vars(self)["owner"] = [self]

        def forward(self, x: Any) -> Any:
            hidden = self.norm(self.attention(self.rnn(x.unsqueeze(1))[0]))[:, 0]
            return self.head(hidden) * next(iter(self.parts))

    loop = Loop(Many())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rayml.autologging.torch_models._SHARE", 1e6)
        stored = track(loop.train).artifact("model")
    weights = loop.model.state_dict()
    assert stored.meta.get("exported") is True, stored.meta
    assert not said(caplog)
    loop.model.eval()
    assert torch.allclose(stored.load(trusted=True)(X), loop.model(X), atol=1e-6)
    assert "tied.weight" in weights


def test_a_large_model_is_left_out(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    model: Any = nn.Linear(3, 5_000_000)
    model.weight.requires_grad = False
    loop = Loop(model)
    loop.optimizer = torch.optim.SGD([model.bias], lr=0.1)

    def job() -> None:
        model.bias.sum().backward()
        loop.optimizer.step()

    run = track(job)
    assert "model" not in run.artifacts
    assert run.params["model/parameters"] == 20_000_000
    assert "left out the model Linear" in caplog.text


def test_a_model_of_the_users_own_stays(track: Any) -> None:
    def job() -> None:
        loop = Loop().train()
        rayml.context().log_model("model", nn.Linear(1, 1))
        loop.train()

    assert list(track(job).artifact("model").load()) == ["bias", "weight"]


# Left as it is


@pytest.fixture
def compiler() -> Iterator[None]:
    """Let go of what a test has compiled."""
    yield
    torch.compiler.reset()
    gc.collect()


def bits(loop: Loop) -> Any:
    state = [copy.deepcopy(part.state_dict()) for part in (loop.model, loop.optimizer)]
    shared: Any = np.random.get_state()  # noqa: NPY002 - the one that is shared
    return (*state, gradients(loop), torch.get_rng_state(), random.getstate(), shared[1])


@pytest.mark.parametrize("share", [0.0, 1e6])
def test_results_are_the_same_to_the_bit(
    track: Any, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayml.autologging.torch_models._SHARE", share)
    rayml.autolog(gradient_norm=True)

    def train() -> Loop:
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002 - the one that is shared
        return Loop(momentum=0.9).train(20)

    kept: list[Loop] = []
    track(lambda: kept.append(train()))
    logged = bits(kept[0])
    is_training = kept[0].model.training
    autologging.stop()
    plain = bits(train())
    assert is_training
    assert same(logged[0], plain[0])
    assert str(logged[1]) == str(plain[1])
    assert all(torch.equal(*pair) for pair in zip(logged[2], plain[2], strict=True))
    assert torch.equal(logged[3], plain[3])
    assert logged[4] == plain[4]
    assert (logged[5] == plain[5]).all()


def test_nothing_is_kept_alive(track: Any) -> None:
    dead: list[Any] = []

    def job() -> None:
        loop = Loop().train()
        dead.extend(map(weakref.ref, [loop.model, loop.optimizer, loop.model.head.weight]))
        del loop
        assert [one() for one in dead] == [None] * 3

    run = track(job)
    assert "model" in run.artifacts
    loop = Loop()
    track(loop.train)
    alive = weakref.ref(loop.model)
    del loop
    assert alive() is None


def test_a_run_is_not_kept_alive(tmp_path: Path) -> None:
    loop = Loop()
    with rayml.start_run(store=tmp_path / "store") as context:
        loop.train()
    gone = weakref.ref(context)
    del context
    gc.collect()
    assert gone() is None


def test_models_are_copied_and_pickled_as_before(track: Any) -> None:
    def job() -> None:
        loop = Loop().train(1)  # while its next call would be looked at
        told = cloudpickle.dumps([loop.model, loop.optimizer])
        assert b"rayml" not in told
        assert b"rayml" not in pickle.dumps(nn.Sequential(nn.Linear(1, 1)))
        assert not vars(copy.deepcopy(loop.model))["_forward_pre_hooks"]
        torch.save(loop.model.state_dict(), file := io.BytesIO())
        assert b"rayml" not in file.getvalue()

    track(job)


def test_everything_is_undone(track: Any) -> None:
    modules, optimizers = (
        sys.modules["torch.nn.modules.module"],
        sys.modules["torch.optim.optimizer"],
    )
    backward = torch.autograd.backward
    track(lambda: Loop().train(1))
    autologging.stop()
    assert torch.autograd.backward is backward.__wrapped__
    assert "rayml" not in torch.amp.GradScaler.scale.__code__.co_filename
    assert not hasattr(nn.Module, "__del__")
    of_all = {name: hooks for name, hooks in vars(modules).items() if name.startswith("_global_")}
    assert "_global_module_registration_hooks" in of_all
    assert not any(hooks for hooks in of_all.values() if isinstance(hooks, dict))
    assert not vars(optimizers)["_global_optimizer_post_hooks"]
    assert track(lambda: Loop().train()).metrics == {}


def test_outside_of_a_run_nothing_is_logged(track: Any, caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop().train()
    mse_loss(loop.model(X), Y).backward()
    assert not said(caplog)
    run = track(loop.train)
    assert values(run, "train/loss") == loop.losses[5:]


def test_runs_one_after_the_other(track: Any) -> None:
    loop = Loop()
    first, second = track(lambda: loop.train(2)), track(lambda: loop.train(3))
    assert values(first, "train/loss") == loop.losses[:2]
    assert values(second, "train/loss") == loop.losses[2:]
    assert first.artifact("model").meta["class"] == second.artifact("model").meta["class"]


def test_a_run_inside_of_another(track: Any) -> None:
    loop, inside = Loop(), []

    def job() -> None:
        context = rayml.context()
        loop.train(2)
        with rayml.start_run(parent=context.run_id, store=context.store) as inner:
            loop.train(3)
        inside.append(rayml.get_run(inner.run_id, store=context.store))
        loop.train(1)

    run = track(job)
    assert values(inside[0], "train/loss") == loop.losses[2:5]
    assert values(run, "train/loss") == [*loop.losses[:2], *loop.losses[5:]]
    assert run.metrics["train/steps"] == 3


def test_runs_in_threads(tmp_path: Path) -> None:
    together = Barrier(2)

    def one(width: int) -> tuple[str, list[float]]:
        with rayml.start_run(store=tmp_path / "store") as context:
            together.wait()
            loop = Loop(Net(width)).train(20)
        return context.run_id, loop.losses

    with ThreadPoolExecutor(2) as pool:
        for run_id, losses in pool.map(one, (4, 6)):
            run = rayml.get_run(run_id, store=tmp_path / "store")
            assert values(run, "train/loss") == losses
            assert "train-2/loss" not in run.metrics


def test_trainings_in_threads_of_a_run(track: Any) -> None:
    together, loops = Barrier(2), [Loop(), Loop()]

    def one(loop: Loop) -> None:
        together.wait()
        loop.train(20)

    def both() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, loops))

    run = track(both)
    told = sorted([values(run, "train/loss"), values(run, "train-2/loss")])
    assert told == sorted(loop.losses for loop in loops)


def test_a_fork_logs_nothing(track: Any) -> None:
    loop = Loop()

    def job() -> None:
        loop.train(2)
        if (child := os.fork()) == 0:
            loop.optimizer.step()
            os._exit(0)
        os.waitpid(child, 0)

    assert track(job).metrics["train/steps"] == 2


def test_an_error_inside_is_one_warning(
    track: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(torch.optim.SGD):  # type: ignore[misc, name-defined]
        @property
        def param_groups(self) -> Any:
            if "rayml" in traceback.extract_stack(limit=2)[0].filename:
                raise ZeroDivisionError("no groups")
            return self._groups

        @param_groups.setter
        def param_groups(self, groups: Any) -> None:
            self._groups = groups

    loop = Loop()
    loop.optimizer = Odd(loop.model.parameters(), lr=0.1)
    run = track(loop.train)
    assert len(loop.losses) == 5
    assert len([line for line in said(caplog) if "no groups" in line]) == 1
    assert run.state == "succeeded"


def test_an_error_of_a_training_is_the_users_own(track: Any) -> None:
    def job() -> None:
        loop = Loop().train(2)
        loss = mse_loss(loop.model(X), Y)
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()
        with pytest.raises(TypeError):
            torch.autograd.backward()

    assert track(job).metrics["train/steps"] == 2


def test_a_loop_without_an_optimizer_logs_nothing(track: Any) -> None:
    model = Net()

    def job() -> None:
        for _ in range(2000):
            model.head(torch.ones(1, 8)).sum().backward()

    assert track(job).metrics == {}


def test_a_step_that_is_a_part_of_another_counts_once(track: Any) -> None:
    class Outer(torch.optim.SGD):  # type: ignore[misc, name-defined]
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    loop = Loop()
    loop.optimizer = Outer(loop.model.parameters(), lr=0.1)
    run = track(loop.train)
    assert run.metrics["train/steps"] == 5
    assert run.params["model/optimizer/class"].endswith("Outer")


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("in_place", [False, True])
def test_a_model_that_is_compiled(
    track: Any, caplog: pytest.LogCaptureFixture, *, in_place: bool
) -> None:
    model = Net()
    loop = Loop(model if in_place else torch.compile(model, backend="eager"))
    if in_place:
        model.compile(backend="eager")
    run = track(loop.train)
    assert values(run, "train/loss") == loop.losses
    assert same(run.artifact("model").load(), model.state_dict())
    assert not said(caplog)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of what the compiler looks at
@pytest.mark.usefixtures("compiler")
def test_a_whole_step_that_is_compiled(track: Any) -> None:
    kept = []

    def train() -> Any:
        torch.manual_seed(0)
        loop = Loop()

        def step() -> Any:
            loop.optimizer.zero_grad()
            loss = mse_loss(loop.model(X), Y)
            loss.backward()
            loop.optimizer.step()
            return loss

        step = torch.compile(step, backend="eager")
        kept.append([step().item() for _ in range(4)])

    track(train)
    autologging.stop()
    torch.compiler.reset()
    train()
    assert kept[0] == kept[1]


def test_a_moved_part_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    autologging.stop()
    monkeypatch.delattr(torch.autograd, "backward")
    rayml.autolog()
    (line,) = set(said(caplog))
    assert "what torch does" in line
    assert "backward" in line
