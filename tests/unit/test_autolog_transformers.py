"""Automatic logging of trainings with Hugging Face's Trainer, and of loops with accelerate."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import rayml
from rayml import autologging

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rayml import Run

torch = pytest.importorskip("torch")
accelerate: Any = pytest.importorskip("accelerate")
transformers: Any = pytest.importorskip("transformers")

from tests.unit.small_models import a_classifier, a_tokenizer  # noqa: E402 - they are extras

pytestmark = [
    pytest.mark.usefixtures("autolog"),
    pytest.mark.filterwarnings("ignore"),  # the library has much to say
]
ROWS = [
    {"input_ids": [2 + n % 4, 4, 3, 2], "attention_mask": [1, 1, 1, 1], "labels": n % 2}
    for n in range(16)
]


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Any]:
    """Return what makes one that writes to the test's folder."""

    def make(model: Any = None, arguments: Any = (), **parts: Any) -> Any:
        quiet = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 3}
        often = {"logging_steps": 2, "eval_strategy": "epoch", "save_strategy": "epoch"}
        sizes = {"per_device_train_batch_size": 4, "num_train_epochs": 2}
        given = {**quiet, **often, **sizes, **dict(arguments)}
        return transformers.Trainer(
            model=a_classifier() if model is None else model,
            args=transformers.TrainingArguments(str(tmp_path / "trained"), **given),
            **{"train_dataset": ROWS, "eval_dataset": ROWS[:8], **parts},
        )

    return make


def values(run: Run, name: str) -> list[float]:
    return list(run.history(name)["value"])


def logged(trainer: Any, name: str) -> dict[int, float]:
    """Return what a trainer has logged itself, by step."""
    return {one["step"]: one[name] for one in trainer.state.log_history if name in one}


def curve(run: Run, name: str) -> dict[int, float]:
    history = run.history(name)
    return dict(zip(history["step"], history["value"], strict=True))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "rayml"]


# The Trainer


def test_a_training(
    track: Any, trainer: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    made = trainer(arguments={"metric_for_best_model": "loss", "warmup_steps": 1})
    run = track(made.train)
    assert curve(run, "train/loss") == logged(made, "loss")
    assert curve(run, "train/grad_norm") == logged(made, "grad_norm")
    assert curve(run, "train/learning_rate") == logged(made, "learning_rate")
    assert curve(run, "eval/loss") == logged(made, "eval_loss")
    assert list(curve(run, "train/loss")) == [2, 4, 6, 8]
    assert list(run.history("eval/loss", axis="train/epoch")["axis"]) == [1, 2]
    assert run.metrics["train/steps"] == 8
    assert run.metrics["eval/best_loss"] == min(logged(made, "eval_loss").values())
    assert run.metrics["train/best_step"] == made.state.best_global_step
    assert "train/stopped_step" not in run.metrics
    assert said(caplog) == []


def test_settings(track: Any, trainer: Callable[..., Any]) -> None:
    run = track(trainer(arguments={"learning_rate": 0.01, "label_smoothing_factor": 0.1}).train)
    told = {
        name.removeprefix("trainer/"): v for name, v in run.params.items() if "trainer" in name
    }
    assert (told["learning_rate"], told["label_smoothing_factor"]) == (0.01, 0.1)
    assert (told["optim"], told["lr_scheduler_type"], told["weight_decay"]) == (
        "adamw_torch_fused",
        "linear",
        0.0,
    )
    assert (told["seed"], told["num_train_epochs"], told["eval_strategy"]) == (3, 2, "epoch")
    assert not {"output_dir", "adam_beta1", "accelerator_config", "hub_token"} & told.keys()
    assert run.params["model/config/hidden_size"] == 8
    assert run.params["model/class"] == "BertForSequenceClassification"
    assert run.params["model/optimizer/class"] == "AdamW"
    assert run.params["model/optimizer/lr"] == 0.01
    assert run.params["model/scheduler/class"] == "LambdaLR"
    layers = run.artifact("train/layers").to_pandas().set_index("layer")
    assert layers.loc["classifier", "shapes"] == "weight 2×8, bias 2"


def test_the_model_comes_back_with_its_tokenizer(track: Any, trainer: Callable[..., Any]) -> None:
    made = trainer(processing_class=a_tokenizer())
    stored = track(made.train).artifact("model")
    assert (stored.format, stored.needs_trust) == ("transformers", False)
    back = stored.load()
    assert type(back) is transformers.BertForSequenceClassification
    assert same(back.state_dict(), made.model.state_dict())
    words = transformers.AutoTokenizer.from_pretrained(stored.path())
    assert words("rain late")["input_ids"] == [4, 2]


def test_checkpoints(track: Any, trainer: Callable[..., Any]) -> None:
    made = trainer(arguments={"metric_for_best_model": "loss", "greater_is_better": True})
    run = track(made.train)
    names = {"best_checkpoint": made.state.best_global_step, "last_checkpoint": 8}
    if names["best_checkpoint"] == 8:
        del names["last_checkpoint"]
    assert {name for name in run.artifacts if "checkpoint" in name} == set(names)
    for name, step in names.items():
        folder = run.artifact(name).path()
        state = transformers.TrainerState.load_from_json(folder / "trainer_state.json")
        assert state.global_step == step
        assert (folder / "optimizer.pt").is_file()


def test_checkpoints_that_are_large_stay_where_they_are(
    track: Any,
    trainer: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rayml.autologging.fits.KEPT_BYTES", 0)
    made = trainer()
    run = track(made.train)
    assert set(run.artifacts) == {"model", "train/layers"}
    (line,) = said(caplog)
    assert "leaves last_checkpoint where it is: " in line
    assert line.endswith("/trained/checkpoint-8")


def test_a_training_that_stops_early(track: Any, trainer: Callable[..., Any]) -> None:
    stopping = transformers.EarlyStoppingCallback(early_stopping_patience=1)
    best = {"metric_for_best_model": "loss", "load_best_model_at_end": True}
    never = {"greater_is_better": True, "learning_rate": 0.1, "num_train_epochs": 6}
    made = trainer(arguments={**best, **never}, callbacks=[stopping])
    run = track(made.train)
    assert run.params["trainer/early_stopping/patience"] == 1
    assert run.metrics["train/stopped_step"] == run.metrics["train/steps"] < 24
    best_step = made.state.best_global_step
    assert run.metrics["train/best_step"] == run.metrics["train/restored_step"] == best_step
    assert run.metrics["eval/best_loss"] == logged(made, "eval_loss")[best_step]
    assert same(run.artifact("model").load().state_dict(), made.model.state_dict())


def test_looks_before_and_after_a_training(track: Any, trainer: Callable[..., Any]) -> None:
    def accuracy(told: Any) -> dict[str, float]:
        return {"accuracy": float((told.predictions.argmax(1) == told.label_ids).mean())}

    made = trainer(arguments={"eval_strategy": "no"}, compute_metrics=accuracy)
    kept: list[Any] = []

    def job() -> None:
        kept.append(made.evaluate())
        made.train()
        kept.append(made.evaluate())
        kept.append(made.evaluate(ROWS[:4], metric_key_prefix="sunny"))
        kept.append(made.predict(ROWS[:4]).metrics)

    run = track(job)
    assert curve(run, "eval/loss") == {0: kept[0]["eval_loss"], 8: kept[1]["eval_loss"]}
    assert run.metrics["eval/accuracy"] == kept[1]["eval_accuracy"]
    assert run.metrics["sunny/loss"] == kept[2]["sunny_loss"]
    assert run.metrics["test/accuracy"] == kept[3]["test_accuracy"]
    assert "train-2/loss" not in run.metrics


def test_two_trainings(track: Any, trainer: Callable[..., Any]) -> None:
    first, second = trainer(), trainer(a_classifier(hidden_size=4))

    def job() -> None:
        first.train()
        second.train()
        second.evaluate()
        first.train()

    run = track(job)
    assert curve(run, "train-2/loss") == logged(second, "loss")
    assert run.params["model-2/config/hidden_size"] == 4
    assert curve(run, "train-3/loss") == logged(first, "loss")
    assert {"model", "model-2", "model-3"} <= set(run.artifacts)


def test_a_loop_beside_it_is_a_fit_of_its_own(track: Any, trainer: Callable[..., Any]) -> None:
    made = trainer()
    layer = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)

    class Beside(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            step(layer, optimizer)

    made.add_callback(Beside())
    run = track(lambda: (made.train(), step(layer, optimizer)))
    assert run.metrics["train-2/steps"] == 9
    assert len(run.history("train-2/loss")) == 9
    assert curve(run, "train/loss") == logged(made, "loss")


def test_an_optimizer_that_goes_on_in_a_loop(track: Any, trainer: Callable[..., Any]) -> None:
    model = a_classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    made = trainer(model, optimizers=(optimizer, None))
    batch = {name: torch.tensor([row[name] for row in ROWS]) for name in ROWS[0]}

    def job() -> None:
        made.train()
        model(**batch).loss.backward()
        optimizer.step()

    run = track(job)
    assert run.metrics["train/steps"] == 8
    assert run.metrics["train-2/steps"] == 1
    assert run.params["model/optimizer/class"] == "SGD"


def test_a_name_that_the_code_logs_itself(track: Any, trainer: Callable[..., Any]) -> None:
    def job() -> None:
        rayml.context().log_metric("eval/loss", 7.0, step=0)
        trainer().train()

    assert values(track(job), "eval/loss") == [7.0]


def test_a_module_of_another_kind_keeps_its_weights(
    track: Any, trainer: Callable[..., Any]
) -> None:
    class Net(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, input_ids: Any, labels: Any, **_: Any) -> Any:
            scores = self.layer(input_ids.float())
            return {"loss": torch.nn.functional.cross_entropy(scores, labels), "logits": scores}

    net = Net()
    run = track(trainer(net).train)
    assert run.artifact("model").format == "torch"
    assert same(run.artifact("model").load(), net.state_dict())
    assert run.params["model/class"].endswith("Net")


def same(one: Any, other: Any) -> bool:
    """Tell whether two state dicts are the same to the bit."""
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def step(model: Any, optimizer: Any) -> float:
    """Train a layer of three inputs by one step."""
    optimizer.zero_grad()
    loss = model(torch.rand(4, 3)).pow(2).mean()
    loss.backward()
    optimizer.step()
    return float(loss.item())


# What it leaves as it is


def test_results_are_the_same_to_the_bit(track: Any, trainer: Callable[..., Any]) -> None:
    def train() -> tuple[Any, ...]:
        made = trainer(arguments={"metric_for_best_model": "loss"})
        made.train()
        config = dict(vars(made.model.config))
        return made.model.state_dict(), torch.get_rng_state(), made.state.log_history, config

    kept: list[Any] = []
    track(lambda: kept.append(train()))
    autologging.stop()
    (one, numbers, history, config), (other, *others) = kept[0], train()
    assert same(one, other)
    assert torch.equal(numbers, others[0])
    assert [a.get("loss") for a in history] == [b.get("loss") for b in others[1]]
    assert config == others[2]


def test_the_configuration_is_not_written_to(track: Any, trainer: Callable[..., Any]) -> None:
    model = a_classifier()
    track(trainer(model, arguments={"save_strategy": "no"}).train)
    assert (model.config.architectures, model.config.dtype) == (None, None)


def test_callbacks_are_the_users_own_afterwards(track: Any, trainer: Callable[..., Any]) -> None:
    seen: list[Any] = []

    class Look(transformers.TrainerCallback):  # type: ignore[misc]
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            last = made.callback_handler.callbacks[-1]
            seen.append((pickle.dumps(last), copy.deepcopy(last)))

    made = trainer(callbacks=[Look()])
    before = list(made.callback_handler.callbacks)
    track(lambda: (made.train(), made.evaluate()))
    assert made.callback_handler.callbacks == before
    assert b"rayml" not in seen[0][0]
    assert type(seen[0][1]) is transformers.TrainerCallback


def test_nothing_is_kept_alive(track: Any, trainer: Callable[..., Any]) -> None:
    watched: list[Any] = []

    def job() -> None:
        made = trainer()
        made.train()
        watched.extend(map(weakref.ref, (made, made.model, rayml.context())))
        del made
        gc.collect()
        assert [one() for one in watched[:2]] == [None, None]

    run = track(job)
    assert "model" in run.artifacts
    gc.collect()
    assert watched[2]() is None


def test_an_error_of_a_training_is_the_users_own(track: Any, trainer: Callable[..., Any]) -> None:
    class Broken(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 5:
                raise ZeroDivisionError

    made = trainer(callbacks=[Broken()])
    count = len(made.callback_handler.callbacks)

    def job() -> None:
        with pytest.raises(ZeroDivisionError):
            made.train()

    run = track(job)
    assert list(curve(run, "train/loss")) == [2, 4]
    assert run.metrics["train/steps"] == 5
    assert set(run.artifacts) == {"train/layers", "last_checkpoint"}
    assert len(made.callback_handler.callbacks) == count


def test_a_model_that_cannot_be_written_is_one_line(
    track: Any, trainer: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(transformers.BertForSequenceClassification):  # type: ignore[misc]
        def save_pretrained(self, *_: Any, **__: Any) -> None:
            raise OSError("the disk is full")

    made = trainer(Odd(a_classifier().config), arguments={"save_strategy": "no"})
    run = track(made.train)
    assert "model" not in run.artifacts
    (line,) = said(caplog)
    assert "left out the model of a trainer" in line
    assert "the disk is full" in line


def test_everything_is_undone() -> None:
    names = ("train", "evaluate", "predict")
    hooked = {name: getattr(transformers.Trainer, name) for name in names}
    backward = accelerate.Accelerator.backward
    autologging.stop()
    for name, call in hooked.items():
        assert getattr(transformers.Trainer, name) is call.__wrapped__
    assert accelerate.Accelerator.backward is backward.__wrapped__


def test_outside_of_a_run_nothing_is_logged(trainer: Callable[..., Any]) -> None:
    made = trainer(arguments={"save_strategy": "no"})
    assert made.train().global_step == 8


def test_it_can_be_asked_for_alone(track: Any, trainer: Callable[..., Any]) -> None:
    autologging.stop()
    rayml.autolog("transformers")
    made = trainer()
    run = track(made.train)
    assert curve(run, "train/loss") == logged(made, "loss")
    assert "model" in run.artifacts


def test_other_places_that_it_reports_to_stay(
    track: Any, trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    made = trainer(arguments={"report_to": ["mlflow"]})
    run = track(made.train)
    (told,) = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["0"])
    assert told.data.metrics["eval_loss"] == run.metrics["eval/loss"]


# accelerate


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_loop_with_accelerate(track: Any, precision: str) -> None:
    accelerate.state.AcceleratorState._reset_state(True)  # noqa: SLF001 - a process has one
    accelerator = accelerate.Accelerator(
        cpu=True, gradient_accumulation_steps=2, mixed_precision=precision
    )
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    rows = torch.utils.data.DataLoader(torch.rand(32, 3), batch_size=4)
    model, optimizer, rows, scheduler = accelerator.prepare(layer, optimizer, rows, scheduler)
    losses: list[float] = []

    def job() -> None:
        for batch in rows:
            with accelerator.accumulate(model):
                loss = model(batch).float().pow(2).mean()
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                losses.append(loss.item())

    run = track(job)
    means = [sum(losses[place : place + 2]) / 2 for place in range(0, 8, 2)]
    assert values(run, "train/loss") == pytest.approx(means)
    assert run.metrics["train/steps"] == 4
    assert values(run, "train/learning_rate")[:1] == [0.1]
    assert run.params["model/optimizer/class"] == "SGD"
    assert run.params["model/scheduler/class"] == "StepLR"
    assert run.params["model/class"] == "Sequential"
    assert same(run.artifact("model").load(), layer.state_dict())
    assert "train-2/loss" not in run.metrics


def test_a_loop_that_trains_a_model_of_transformers(track: Any) -> None:
    model = a_classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    batch = {name: torch.tensor([row[name] for row in ROWS]) for name in ROWS[0]}
    kept: list[Any] = []

    def job() -> None:
        nonlocal model
        for _ in range(2):
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
        kept.append(copy.deepcopy(model.state_dict()))
        del model

    stored = track(job).artifact("model")
    assert stored.format == "transformers"
    assert same(stored.load().state_dict(), kept[0])


def test_a_model_that_writes_text_has_its_settings(track: Any) -> None:
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8, "vocab_size": 6}
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **ends))
    model.generation_config.max_new_tokens = 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    rows = torch.tensor([[2, 3, 4]])

    def job() -> None:
        model(rows, labels=rows).loss.backward()
        optimizer.step()

    back = track(job).artifact("model").load()
    assert back.generation_config.max_new_tokens == 3
    assert same(back.state_dict(), model.state_dict())
