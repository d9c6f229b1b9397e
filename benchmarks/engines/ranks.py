"""What does a job on two workers cost, beside the engines' own ways to start the same function?

Two ranks train a small network on data of their own, in the same Ray, in turns: a Torch job beside
Ray Train's TorchTrainer, a Horovod job beside Horovod's RayExecutor. The function tells when its
first line was run and how many samples a second its first rank has trained on.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from timing import compare, report, scratch, take_turns  # noqa: E402

import rayml  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION = "What does a job on two workers cost, beside the engines' own ways to start it?"
WORKERS = 2
# A thread of Horovod's waits without a pause beside each rank's own: on as many CPUs as ranks, one
# run is faster or slower than the next by some percent.
ROUNDS = {"torch": 5, "horovod": 11}


def train(engine: str) -> tuple[float, float]:
    """Return when it began, in seconds of Unix time, and samples a second."""
    import time

    began = time.time()
    import torch
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    batch, steps, warm_ups = 256, 6000, 20
    layers = [torch.nn.Linear(64, 512), torch.nn.ReLU(), torch.nn.Linear(512, 1)]
    model: Any = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    if engine == "torch":
        model = DistributedDataParallel(model)
    else:
        import horovod.torch as hvd

        hvd.init()
        optimizer = hvd.DistributedOptimizer(optimizer, model.named_parameters())
    rows, targets = torch.randn(batch, 64), torch.randn(batch, 1)
    started = began
    for step in range(warm_ups + steps):
        if step == warm_ups:
            started = time.perf_counter()
        optimizer.zero_grad()
        (model(rows) - targets).square().mean().backward()
        optimizer.step()
    return began, batch * steps / (time.perf_counter() - started)


def run_torch_trainer(folder: Path) -> tuple[float, float]:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    scaling = ScalingConfig(num_workers=WORKERS, resources_per_worker={"CPU": 1})
    config = RunConfig(storage_path=str(folder))
    trainer: Any = TorchTrainer  # its annotations are not those of the one that it is
    called = partial(train, "torch")
    result = trainer(called, scaling_config=scaling, run_config=config).fit().return_value
    return result[0], result[1]


def run_ray_executor(_: Path) -> tuple[float, float]:
    from horovod.ray import RayExecutor

    executor = RayExecutor(RayExecutor.create_settings(timeout_s=30), num_workers=WORKERS)
    executor.start()
    try:
        first = executor.run(train, args=["horovod"])[0]
    finally:
        executor.shutdown()
    return first[0], first[1]


def run_ours(engine: str, folder: Path) -> tuple[float, float]:
    kinds = {"torch": rayml.Torch, "horovod": rayml.Horovod}
    run = rayml.submit(
        train, params={"engine": engine}, engine=kinds[engine](workers=WORKERS), store=folder
    )
    assert isinstance(run, rayml.Run)
    result: Any = run.wait().result
    return result[0], result[1]


def main() -> None:
    speeds: dict[str, list[float]] = {}

    def start(run: Callable[[Path], tuple[float, float]], name: str, folder: Path) -> float:
        """Return the seconds from the call to the function's first line."""
        called = time.time()
        began, speed = run(folder)
        speeds.setdefault(name, []).append(speed)
        return began - called

    rows = []
    slowest: dict[str, float] = {}
    with scratch() as folder:
        for engine, bare_run in (("torch", run_torch_trainer), ("horovod", run_ray_executor)):
            # Ours goes first in the round that does not count: it starts the Ray that both use.
            ours, bare = take_turns(
                partial(start, partial(run_ours, engine), engine, folder / "store"),
                partial(start, bare_run, f"bare {engine}", folder / "results"),
                n=ROUNDS[engine],
                rest_s=3,
            )
            slowest |= {f"bare {engine}": max(bare), engine: max(ours)}
            what = f"{engine}, 2 ranks"
            counted = [speeds[name][-ROUNDS[engine] :] for name in (f"bare {engine}", engine)]
            rows += [
                compare(f"submit → first line, {what}", bare, ours, "difference", limit=1.0),
                compare(
                    f"samples a second, {what}",
                    counted[0],
                    counted[1],
                    "gain",
                    limit=0.98,
                    unit="samples/s",
                ),
            ]
    rows.append(
        compare(
            "samples a second: torch (baseline) and horovod",
            speeds["torch"][-ROUNDS["torch"] :],
            speeds["horovod"][-ROUNDS["torch"] :],
            "gain",
            limit=None,
            unit="samples/s",
        )
    )
    report(QUESTION, rows, slowest_start_s=slowest)


if __name__ == "__main__":
    main()
