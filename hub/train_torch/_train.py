"""The loop: epochs on every worker, judged on the rows kept for that, stopped when it is time."""

from __future__ import annotations

import io
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import rayml

if TYPE_CHECKING:
    from collections.abc import Iterator

_JUDGED = 8192  # rows at a time
_SCHEDULES = ("cosine", "plateau", "constant")
_PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Settings:
    """How to train: what `train_torch` says of each."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    schedule: str
    patience: int
    precision: str
    checkpoint_every: int
    seed: int

    def check(self, workers: int) -> None:
        """Refuse numbers that no training can have, before anything is read.

        Raises:
            SpecError: One of them is such a number.
        """
        for name in ("epochs", "batch_size", "patience", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise rayml.SpecError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.batch_size < workers:
            raise rayml.SpecError(
                f"batch_size is {self.batch_size} for {workers} workers; give each at least a row"
            )
        for name, known in (("schedule", _SCHEDULES), ("precision", _PRECISIONS)):
            if getattr(self, name) not in known:
                raise rayml.SpecError(
                    f"{name} is {getattr(self, name)!r}; say one of {', '.join(known)}"
                )
        if not self.learning_rate > 0:
            raise rayml.SpecError(f"learning_rate is {self.learning_rate}; give one above 0")


@dataclass(frozen=True)
class Epoch:
    """The losses of one epoch."""

    train: float
    valid: float


@dataclass(frozen=True)
class Rows:
    """Encoded rows, and what is to be told of each."""

    inputs: torch.Tensor
    targets: torch.Tensor


class Training:
    """One network being trained, on this worker and the others."""

    def __init__(
        self, context: rayml.Context, network: nn.Module, loss: nn.Module, settings: Settings
    ) -> None:
        self._context, self._settings, self._loss = context, settings, loss
        has_gpu = torch.cuda.is_available()
        self._device = torch.device("cuda", context.local_rank) if has_gpu else torch.device("cpu")
        self.network = network.to(self._device)
        self._model: nn.Module = self.network
        if distributed.is_initialized():
            self._model = DistributedDataParallel(self.network)
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._schedule = _schedule(self._optimizer, settings)
        self._cast = _precision(settings.precision, self._device)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._cast is torch.float16)
        self.course: list[Epoch] = []
        self.best, self.best_epoch, self.waited = float("inf"), 0, 0
        self._best_weights = _copied(self.network)

    def run(self, train: Rows, valid: Rows) -> None:
        """Train until the epochs are over or nothing gets better; end with the best weights."""
        self._restore()
        train, valid = self._near(train), self._near(valid)
        while self.epoch < self._settings.epochs and self.waited < self._settings.patience:
            told = Epoch(self._show(train), self._judge(valid))
            self._log(told)
            self._note(told.valid)
            self.course.append(told)
            if self.epoch % self._settings.checkpoint_every == 0:
                self._checkpoint()
        self.network.load_state_dict(self._best_weights)
        self.network.cpu().eval()

    @property
    def epoch(self) -> int:
        """How many epochs are over."""
        return len(self.course)

    def _show(self, rows: Rows) -> float:
        """Show the network this worker's share of the rows once; return the mean loss of all."""
        self._model.train()
        total, share = torch.zeros((), device=self._device), 0
        for places in self._order(len(rows.inputs)):
            loss = self._step(rows.inputs[places], rows.targets[places])
            total += loss * len(places)
            share += len(places)
        return _mean_over_workers(total / share)

    def _order(self, rows: int) -> Iterator[torch.Tensor]:
        """Yield the places of the rows of each step, as many as on any other worker.

        They, and what dropout leaves out, follow from seed and epoch: a later attempt of the run
        does what the first one would have done.
        """
        workers, rank = self._context.world_size, self._context.rank
        begin = self._settings.seed * 1_000_003 + self.epoch
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(begin))
        share = rows // workers
        torch.manual_seed(begin + rank)
        own = order[rank * share : (rank + 1) * share].to(self._device)
        yield from torch.split(own, self._settings.batch_size // workers)

    def _step(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            loss: torch.Tensor = self._loss(self._model(inputs).float(), targets)
        self._optimizer.zero_grad()
        torch.autograd.backward(self._scaler.scale(loss))
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach()

    def _judge(self, rows: Rows) -> float:
        """Return the loss on rows that are not trained on, as the first worker finds it."""
        self.network.eval()
        total = torch.zeros((), device=self._device)
        with torch.no_grad(), self._autocast():
            for inputs, targets in zip(
                torch.split(rows.inputs, _JUDGED), torch.split(rows.targets, _JUDGED), strict=True
            ):
                total += self._loss(self.network(inputs).float(), targets) * len(inputs)
        total /= len(rows.inputs)
        if distributed.is_initialized():
            distributed.broadcast(total, 0)
        return float(total)

    def _log(self, told: Epoch) -> None:
        if self._context.rank == 0:
            rate = self._optimizer.param_groups[0]["lr"]
            values = {"train/loss": told.train, "valid/loss": told.valid}
            self._context.log_metrics(values | {"train/learning_rate": rate}, step=self.epoch)

    def _note(self, judged: float) -> None:
        """Keep the best weights, and let the schedule go on."""
        if judged < self.best:
            self.best, self.best_epoch, self.waited = judged, self.epoch, 0
            self._best_weights = _copied(self.network)
        else:
            self.waited += 1
        if isinstance(self._schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self._schedule.step(judged)
        else:
            self._schedule.step()

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "best_weights": self._best_weights,
            "course": [(epoch.train, epoch.valid) for epoch in self.course],
            "best": (self.best, self.best_epoch, self.waited),
        }

    def _checkpoint(self) -> None:
        if self._context.rank == 0:
            buffer = io.BytesIO()
            torch.save(self._state(), buffer)
            self._context.checkpoint(buffer.getvalue(), step=self.epoch - 1)

    def _restore(self) -> None:
        """Go on where the attempt before was, if there was one that had come so far."""
        saved = self._context.restore()
        if saved is None:
            return
        state = torch.load(io.BytesIO(saved.load()), map_location=self._device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        self._best_weights = {name: one.cpu() for name, one in state["best_weights"].items()}
        self.course = [Epoch(*losses) for losses in state["course"]]
        self.best, self.best_epoch, self.waited = state["best"]

    def _near(self, rows: Rows) -> Rows:
        return Rows(rows.inputs.to(self._device), rows.targets.to(self._device))

    def _autocast(self) -> Any:  # noqa: ANN401
        return torch.autocast(self._device.type, self._cast) if self._cast else nullcontext()


def _precision(wanted: str, device: torch.device) -> torch.dtype | None:
    """Return the type to compute in where that is another than the weights'."""
    if wanted == "auto":
        if device.type == "cpu":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]


def _schedule(optimizer: torch.optim.Optimizer, settings: Settings) -> Any:  # noqa: ANN401
    schedulers = torch.optim.lr_scheduler
    if settings.schedule == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, settings.epochs)
    if settings.schedule == "plateau":
        patience = max(1, settings.patience // 3)
        return schedulers.ReduceLROnPlateau(optimizer, factor=0.3, patience=patience)
    return schedulers.ConstantLR(optimizer, factor=1.0)


def _copied(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: one.detach().cpu().clone() for name, one in network.state_dict().items()}


def _mean_over_workers(value: torch.Tensor) -> float:
    if distributed.is_initialized():
        distributed.all_reduce(value)
        value /= distributed.get_world_size()
    return float(value)
