"""Does a job end as if nothing had happened when one of its two workers is killed?

Ten rounds for each engine: at a random step a random rank gets SIGKILL, once. A Torch job is tried
again from its last checkpoint, an elastic Horovod job goes on from its last commit, with fewer
ranks while one is away. Each rank trains on its share of the same rows, so that the gradient, and
the loss after the last step, do not depend on how many there are.
"""

from __future__ import annotations

import io
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from timing import alone, report, scratch  # noqa: E402

import rayml  # noqa: E402

QUESTION = "Does a job end as if nothing had happened when one of its two workers is killed?"
ROUNDS, STEPS, INTERVAL = 10, 60, 10
HALF = rayml.Resources(cpus=0.5)
numbers = random.Random(0)


class Training:
    """A small network, the share of a rank in its data, and the moment at which a rank dies."""

    def __init__(self, context: Any, kill_step: int, victim: int, mark: str) -> None:
        import torch

        torch.manual_seed(0)
        self.context = context
        self.kill_step, self.victim, self.mark = kill_step, victim, Path(mark)
        self.rows = torch.randn(256, 8)
        self.targets = self.rows.square().sum(1, keepdim=True)
        layers = [torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)]
        self.model: Any = torch.nn.Sequential(*layers)
        self.optimizer: Any = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.lost = 0

    def begin(self, step: int) -> None:
        """Note from where it goes on after the kill."""
        if self.mark.exists():
            self.lost = max(self.lost, self.kill_step - step)

    def take_step(self, step: int) -> None:
        """Train on this rank's share; or die, if this is the moment."""
        if (step, self.context.rank) == (self.kill_step, self.victim) and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        own = slice(self.context.rank, None, self.context.world_size)
        self.optimizer.zero_grad()
        (self.model(self.rows[own]) - self.targets[own]).square().mean().backward()
        self.optimizer.step()

    def end(self) -> tuple[float, int]:
        """Return the loss over all rows, and how many steps were done twice."""
        return (self.model(self.rows) - self.targets).square().mean().item(), self.lost


def train_torch(kill_step: int, victim: int, mark: str, *, context: Any) -> tuple[float, int]:
    import torch
    from torch.nn.parallel import DistributedDataParallel

    training = Training(context, kill_step, victim, mark)
    plain, first = training.model, 0
    if (saved := context.restore()) is not None:
        plain.load_state_dict(torch.load(io.BytesIO(saved.load())))
        first = saved.meta["step"] + 1
    training.begin(first)
    training.model = DistributedDataParallel(plain)
    for step in range(first, STEPS):
        training.take_step(step)
        if (step + 1) % INTERVAL == 0:
            if context.rank == 0:
                buffer = io.BytesIO()
                torch.save(plain.state_dict(), buffer)
                context.checkpoint(buffer.getvalue(), step, sync=True)
            torch.distributed.barrier()
    return training.end()


def train_horovod(kill_step: int, victim: int, mark: str, *, context: Any) -> tuple[float, int]:
    import horovod.torch as hvd

    hvd.init()
    training = Training(context, kill_step, victim, mark)
    model = training.model
    training.optimizer = hvd.DistributedOptimizer(training.optimizer, model.named_parameters())

    @hvd.elastic.run  # type: ignore[untyped-decorator]
    def go_on(state: Any) -> None:
        training.begin(state.step)
        while state.step < STEPS:
            training.take_step(state.step)
            state.step += 1
            if state.step % INTERVAL == 0:
                state.commit()

    go_on(hvd.elastic.TorchState(model, training.optimizer, step=0))
    return training.end()


JOBS: dict[str, tuple[Any, rayml.Torch | rayml.Horovod]] = {
    "torch": (train_torch, rayml.Torch(workers=2)),
    "horovod": (train_horovod, rayml.Horovod(elastic=(1, 2))),
}


def play(engine: str, folder: Path, kill_step: int) -> tuple[float, int]:
    mark = folder / f"{engine}-{kill_step}-{numbers.random()}"
    params = {"kill_step": kill_step, "victim": numbers.randrange(2), "mark": str(mark)}
    train, settings = JOBS[engine]
    retry = rayml.Retry(attempts=2, backoff_s=0.01)
    run = rayml.submit(
        train, params=params, engine=settings, resources=HALF, retry=retry,
        store=folder / "store",
    )  # fmt: skip
    assert isinstance(run, rayml.Run)
    result: Any = run.wait().result
    assert mark.exists() == (kill_step >= 0)
    return result[0], result[1]


def main() -> None:
    rows = []
    with scratch() as folder:
        for engine in JOBS:
            undisturbed, _ = play(engine, folder, -1)
            played = [play(engine, folder, numbers.randrange(STEPS)) for _ in range(ROUNDS)]
            off = [abs(loss - undisturbed) / undisturbed for loss, _ in played]
            rows += [
                alone(
                    f"{engine}: the final loss, off the undisturbed one at most, of {ROUNDS}",
                    [max(off)], limit=1e-4, unit="",
                ),
                alone(
                    f"{engine}: steps done twice at most, at {INTERVAL} steps an interval",
                    [max(lost for _, lost in played)], limit=INTERVAL, unit="",
                ),
            ]  # fmt: skip
    report(QUESTION, rows)


if __name__ == "__main__":
    main()
