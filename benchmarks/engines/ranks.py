"""What does a Torch job cost, beside Ray Train's own TorchTrainer with the same function?

Two ranks train a small network on data of their own, in the same Ray, in turns. The function tells
when its first line was run and how many samples a second its first rank has trained on.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from timing import compare, report, scratch, take_turns  # noqa: E402

import rayml  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION = "What does a Torch job on two workers cost, beside Ray Train's own TorchTrainer?"
WORKERS, ROUNDS = 2, 5


def train() -> tuple[float, float]:
    """Return when it began, in seconds of Unix time, and samples a second."""
    import time

    began = time.time()
    import torch
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    batch, steps, warm_ups = 256, 300, 20
    layers = [torch.nn.Linear(64, 512), torch.nn.ReLU(), torch.nn.Linear(512, 1)]
    model = DistributedDataParallel(torch.nn.Sequential(*layers))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    rows, targets = torch.randn(batch, 64), torch.randn(batch, 1)
    started = began
    for step in range(warm_ups + steps):
        if step == warm_ups:
            started = time.perf_counter()
        optimizer.zero_grad()
        (model(rows) - targets).square().mean().backward()
        optimizer.step()
    return began, batch * steps / (time.perf_counter() - started)


def run_bare(folder: Path) -> tuple[float, float]:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    scaling = ScalingConfig(num_workers=WORKERS, resources_per_worker={"CPU": 1})
    config = RunConfig(storage_path=str(folder))
    trainer: Any = TorchTrainer  # its annotations are not those of the one that it is
    result = trainer(train, scaling_config=scaling, run_config=config).fit().return_value
    return result[0], result[1]


def run_ours(folder: Path) -> tuple[float, float]:
    run = rayml.submit(train, engine=rayml.Torch(workers=WORKERS), store=folder)
    assert isinstance(run, rayml.Run)
    result: Any = run.wait().result
    return result[0], result[1]


def main() -> None:
    speeds: dict[str, list[float]] = {"bare": [], "ours": []}

    def start(run: Callable[[Path], tuple[float, float]], name: str, folder: Path) -> float:
        """Return the seconds from the call to the function's first line."""
        called = time.time()
        began, speed = run(folder)
        speeds[name].append(speed)
        return began - called

    with scratch() as folder:
        # Ours goes first in the round that does not count: it starts the Ray that both use.
        ours, bare = take_turns(
            lambda: start(run_ours, "ours", folder / "store"),
            lambda: start(run_bare, "bare", folder / "results"),
            n=ROUNDS,
            rest_s=3,
        )
    counted = [speeds[name][-ROUNDS:] for name in ("bare", "ours")]
    report(
        QUESTION,
        [
            compare("submit → first line, 2 ranks", bare, ours, "difference", limit=1.0),
            compare(
                "samples a second, 2 ranks",
                counted[0],
                counted[1],
                "gain",
                limit=0.98,
                unit="samples/s",
            ),
        ],
        slowest_start_s={"bare": max(bare), "rayml": max(ours)},
    )


if __name__ == "__main__":
    main()
