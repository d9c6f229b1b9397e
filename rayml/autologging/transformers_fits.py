"""What is logged of a training by Hugging Face's Trainer.

Its metrics have the names that TensorBoard and Weights & Biases show for them: `train/loss`,
`eval/loss`, and so on by `global_step`. Each rank logs them; all else is the first one's.
"""

from __future__ import annotations

import dataclasses
import time
from enum import Enum
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from rayml.artifacts.flavours import transformers
from rayml.artifacts.flavours.torch import unwrap
from rayml.autologging import torch_models
from rayml.autologging.calls import spared, warn
from rayml.autologging.copies import NotCopied
from rayml.autologging.curves import OwnNames
from rayml.autologging.fits import keep_files
from rayml.autologging.params import shown
from rayml.autologging.torch_copies import size_of
from rayml.autologging.torch_loops import leave_out, scheduler_settings, settings_of, take_back
from rayml.autologging.written import TooLarge, keep_path, write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rayml.autologging.fits import Fit
    from rayml.run_context import Context

# Of the arguments, what is told even where it is as always; and what is no setting of a training.
_USUAL = frozenset(
    [
        *("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim", "seed"),
        *("num_train_epochs", "max_steps", "per_device_train_batch_size", "max_grad_norm"),
        "gradient_accumulation_steps",
    ]
)
_OTHERS = frozenset(
    ["output_dir", "disable_tqdm", "gradient_checkpointing", "hub_token", "report_to"]
)
_STOPPING = "early_stopping_"


class Told:
    """What is told of one trainer in one run: of a training, and of looks at what it trains.

    Args:
        context: The run.
        fit: Which of its fits it is.

    Attributes:
        is_trained: A training has begun.
    """

    def __init__(self, context: Context, fit: Fit) -> None:
        self.is_trained = False
        self._context = ref(context)
        self._fit = fit
        self._own = OwnNames()
        self._epoch: float | None = None
        self._optimizers: list[Any] = []
        self._began = 0.0
        self._saved: Path | None = None

    @property
    def context(self) -> Context | None:
        """The run, while it is there."""
        return self._context()

    def begin(self) -> None:
        """Begin a training."""
        self.is_trained = True
        self._began = time.perf_counter()

    def begin_steps(self, args: Any, parts: Mapping[str, Any], callbacks: list[Any]) -> None:  # noqa: ANN401
        """Log how it is trained, and leave its optimizer's steps to what the trainer logs.

        A trainer that looks for its batch size begins several times.
        """
        if (context := self.context) is None:
            return
        self._release()
        self._optimizers += _optimizers(parts["optimizer"])
        for optimizer in self._optimizers:
            leave_out(context, optimizer)
        if context.rank == 0:
            self._log_arguments(context, args, callbacks)
            self._log_parts(context, parts)

    def _log_arguments(self, context: Context, args: Any, callbacks: list[Any]) -> None:  # noqa: ANN401
        with spared("the arguments of a trainer", context):
            told = {**_arguments(args), **_stopping(callbacks)}
            context.log_params(_named(f"trainer{self._fit.suffix}", told))

    def _log_parts(self, context: Context, parts: Mapping[str, Any]) -> None:
        name, model = f"model{self._fit.suffix}", unwrap(parts["model"])
        with spared("the configuration of a model", context):
            if transformers.fits(model):
                config = model.config.to_diff_dict()
                config.pop("transformers_version", None)
                context.log_params(_named(f"{name}/config", config))
        with spared("the settings of an optimizer", context):
            context.log_params(settings_of(f"{name}/optimizer", self._optimizers[-1]))
            if (scheduler := parts["lr_scheduler"]) is not None:
                context.log_params(scheduler_settings(f"{name}/scheduler", scheduler))
        with spared("the layers of a model", context):
            torch_models.log_structure(context, self._fit, model)

    def add(self, logs: Mapping[str, Any], step: int, prefix: str = "") -> None:
        """Log what the trainer has logged at a step; a name that is there is the user's own."""
        if (context := self.context) is None:
            return
        epoch, self._epoch = self._epoch, logs.get("epoch", self._epoch)
        for name, value in logs.items():
            called = self._name(name, prefix)
            is_told = name == "epoch" and value == epoch  # it comes with all the others
            if isinstance(value, Real) and not is_told and self._own.take(context, called):
                context.log_metric(called, float(value), step)

    def _name(self, name: str, prefix: str) -> str:
        for group in ("eval", "test", prefix):
            if group and name.startswith(f"{group}_"):
                return f"{group}{self._fit.suffix}/{name.removeprefix(f'{group}_')}"
        return f"train{self._fit.suffix}/{name}"

    def saved(self, args: Any, step: int) -> None:  # noqa: ANN401
        """Know the newest checkpoint."""
        path = Path(args.output_dir, f"checkpoint-{step}")
        self._saved = path if path.is_dir() else None  # a trial's is somewhere else

    def end(self, trainer: Any, *, failed: bool) -> None:  # noqa: ANN401
        """Log what has come of a training that has begun; each part that fails is one warning."""
        has_begun = bool(self._optimizers)
        self._release()
        if not has_begun or (context := self.context) is None or context.rank > 0:
            return
        with spared("the end of a training", context):
            context.log_metrics(dict(self._outcome(trainer, failed=failed)))
        with spared("the checkpoints of a trainer", context):
            self._keep_checkpoints(context, trainer.state.best_model_checkpoint)
        if self._fit.is_kept and not failed:
            with spared("the model of a trainer", context):
                self._keep_model(context, trainer)

    def _release(self) -> None:
        while self._optimizers:
            take_back(self._optimizers.pop())

    def _outcome(self, trainer: Any, *, failed: bool) -> Iterator[tuple[str, float]]:  # noqa: ANN401
        state, args, train = trainer.state, trainer.args, f"train{self._fit.suffix}"
        yield f"{train}/steps", state.global_step
        if trainer.control.should_training_stop and state.global_step < state.max_steps:
            yield f"{train}/stopped_step", state.global_step
        if state.best_metric is not None:
            metric = str(args.metric_for_best_model).removeprefix("eval_")
            yield f"eval{self._fit.suffix}/best_{metric}", state.best_metric
        if state.best_global_step is not None:
            yield f"{train}/best_step", state.best_global_step
            if args.load_best_model_at_end and state.best_model_checkpoint and not failed:
                yield f"{train}/restored_step", state.best_global_step

    def _keep_checkpoints(self, context: Context, best: str | None) -> None:
        kept = {"best": Path(best) if best else None, "last": self._saved}
        if kept["best"] == kept["last"]:
            del kept["last"]
        for which, path in kept.items():
            if path is not None:
                keep_path(context, f"{which}_checkpoint{self._fit.suffix}", path)

    def _keep_model(self, context: Context, trainer: Any) -> None:  # noqa: ANN401
        fit = dataclasses.replace(self._fit, seconds=time.perf_counter() - self._began)
        model = unwrap(trainer.model)
        if not transformers.fits(model):
            torch_models.keep_model(context, fit, model)
            return
        try:
            files = write(model, _size_of(trainer, model), fit)
        except (NotCopied, TooLarge) as exc:
            warn(f"left out the model {type(model).__qualname__}: {exc}; log it yourself", context)
            return
        if (beside := _processing(trainer)) is not None:
            beside.save_pretrained(files.model.folder)
        keep_files(context, fit, type(model).__qualname__, files)


def _named(prefix: str, params: Mapping[str, object]) -> dict[str, object]:
    return {f"{prefix}/{name}": value for name, value in shown(params).items()}


def _optimizers(optimizer: Any) -> Iterator[Any]:  # noqa: ANN401
    """Return an optimizer, and what it is around: accelerate's are."""
    while optimizer is not None:
        yield optimizer
        optimizer = vars(optimizer).get("optimizer")


def _arguments(args: Any) -> dict[str, object]:  # noqa: ANN401
    """Return the usual arguments, and those that differ from their defaults."""
    told: dict[str, object] = {"world_size": args.world_size}
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        differs = field.init and field.name not in _OTHERS and _differs(field, value)
        if field.name in _USUAL or differs:
            told[field.name] = value.value if isinstance(value, Enum) else value
    return told


def _differs(field: dataclasses.Field[Any], value: Any) -> bool:  # noqa: ANN401
    """Tell whether a value is another than its default, or what that becomes in the arguments."""
    make = field.default_factory
    default = field.default if make is dataclasses.MISSING else make()
    if default is None and dataclasses.is_dataclass(value) and not isinstance(value, type):
        default = type(value)()
    return bool(value or default) and value != default


def _stopping(callbacks: list[Any]) -> dict[str, object]:
    """Return the settings of the first callback that stops early."""
    for callback in callbacks:
        told = {name: one for name, one in vars(callback).items() if name.startswith(_STOPPING)}
        if told:
            told.pop("early_stopping_patience_counter", None)
            return {name.replace(_STOPPING, "early_stopping/"): v for name, v in told.items()}
    return {}


def _size_of(trainer: Any, model: Any) -> int:  # noqa: ANN401
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise NotCopied("its weights are spread over processes")
    return size_of(model)


def _processing(trainer: Any) -> Any:  # noqa: ANN401
    """Return the tokenizer or whatever else makes a model's inputs, as the trainer saves it."""
    collating = getattr(trainer.data_collator, "tokenizer", None)
    return collating if trainer.processing_class is None else trainer.processing_class
