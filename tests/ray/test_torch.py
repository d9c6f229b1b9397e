"""The Torch engine: several workers train one model, on one process group."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from ray.util import placement_group_table

import rayml
from rayml.logs import capture_path
from tests.ray.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ray.conftest import Gate, Submit

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PAIR = rayml.Torch(workers=2, timeout_s=60)
HALF = rayml.Resources(cpus=0.5)
AGAIN = rayml.Retry(attempts=3, backoff_s=0.01)


@pytest.fixture(autouse=True)
def nothing_left(ray_address: str) -> Iterator[None]:
    """Whatever happens to a run, its ranks and what held them are gone after it."""
    yield

    def is_clean() -> bool:
        groups = placement_group_table().values()
        return not ranks_of(ray_address) and {g["state"] for g in groups} <= {"REMOVED"}

    eventually(is_clean, 20)
    eventually(lambda: not list(Path(tempfile.gettempdir()).glob("rayml-train-*")), 20)


_RANKS = ("ray::_Director", "ray::RayTrain", "ray::Synchronization", "ray::_Member")


def ranks_of(address: str) -> list[str]:
    """Return the names of a Ray's processes that train, or see others train."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            name, parent = "".join(process.cmdline()), process.parent()
            is_one = name.startswith(_RANKS)
            if is_one and parent is not None and f"={address}" in " ".join(parent.cmdline()):
                found.append(name)
    return found


def train(context: rayml.Context, steps: int = 3) -> list[float]:
    """Train on every rank with a row of its own, from the last checkpoint on."""
    import io

    import torch
    from torch.nn.parallel import DistributedDataParallel

    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = 0
    if (saved := context.restore()) is not None:
        model.load_state_dict(torch.load(io.BytesIO(saved.load())))
        first = saved.meta["step"] + 1
    row = torch.tensor([[1.0, float(context.rank)]])
    for step in range(first, steps):
        learn(model, optimizer, row, step, context)
        context.log_metric("rows", 1, step, reduce="sum")
        keep(model.state_dict(), step, context, dies=step == steps - 3)
    print("rank", context.rank, "of", context.world_size, "local", context.local_rank)
    return [number.item() for part in model.parameters() for number in part.flatten()]


def learn(model: Any, optimizer: Any, row: Any, step: int, context: rayml.Context) -> None:
    """Do one step towards what this rank's row is."""
    loss = (model(row) - context.rank).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    context.log_metric("loss", loss.item(), step)


def keep(state: Any, step: int, context: rayml.Context, *, dies: bool) -> None:
    """Checkpoint what all ranks have reached; one that dies does so in the first attempt."""
    import io

    import torch

    if context.rank == 0:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        context.checkpoint(buffer.getvalue(), step, sync=True)
    torch.distributed.barrier()
    if dies and (context.attempt, context.rank) == (1, 1):
        context.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def train_alone(steps: int) -> list[float]:
    """Return the weights that the two ranks' training must end with."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rows, targets = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0], [1.0]])
    for _ in range(steps):
        optimizer.zero_grad()
        (model(rows) - targets).square().mean().backward()
        optimizer.step()
    return [number.item() for part in model.parameters() for number in part.flatten()]


def test_all_workers_train_one_model_and_each_one_logs(submit: Submit) -> None:
    run = submit(train, params={"steps": 2}, engine=PAIR, resources=HALF).wait()
    assert run.result == pytest.approx(train_alone(2))

    ranks = [run.history("loss", rank=rank).value for rank in (0, 1)]
    assert run.history("loss").value.tolist() == pytest.approx(sum(ranks) / 2)
    assert run.history("rows").value.tolist() == [2, 2]
    assert run.metrics["loss"] == pytest.approx(sum(part.iloc[-1] for part in ranks) / 2)
    assert str(run.logs()).splitlines() == [
        "[rank 0] rank 0 of 2 local 0",
        "[rank 1] rank 1 of 2 local 1",
    ]
    assert run.logs(rank=1) == "rank 1 of 2 local 1\n"
    with pytest.raises(rayml.SpecError, match="has no rank 2; it has 2"):
        run.logs(rank=2)


def train_sharded(steps: int, *, context: rayml.Context) -> list[float]:
    """Train a model of which each rank has a part; what is checkpointed is the whole one."""
    import io

    import torch
    from torch.distributed.checkpoint import state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    whole = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
    torch.manual_seed(0)
    mesh = init_device_mesh("cpu", (context.world_size,))
    model: Any = fully_shard(torch.nn.Linear(2, 1), mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = 0
    if (saved := context.restore()) is not None:
        state_dict.set_model_state_dict(model, torch.load(io.BytesIO(saved.load())), options=whole)
        first = saved.meta["step"] + 1
    row = torch.tensor([[1.0, float(context.rank)]])
    for step in range(first, steps):
        learn(model, optimizer, row, step, context)
        state = state_dict.get_model_state_dict(model, options=whole)  # all ranks gather it
        keep(state, step, context, dies=step == steps - 2)
    parts = [part.full_tensor().flatten() for part in model.parameters()]
    return [number.item() for part in parts for number in part]


@pytest.mark.thorough
def test_a_sharded_model_trains_as_a_whole_one_does_through_a_restart(submit: Submit) -> None:
    params = {"steps": 4}
    run = submit(train_sharded, params=params, engine=PAIR, resources=HALF, retry=AGAIN).wait()
    assert run.attempt == 2
    assert run.result == pytest.approx(train_alone(4))
    assert run.history("loss", rank=1).step.tolist() == [0, 1, 2, 3]


def test_a_killed_rank_costs_one_step_and_the_end_is_the_same(submit: Submit) -> None:
    run = submit(train, params={"steps": 5}, engine=PAIR, resources=HALF, retry=AGAIN).wait()
    assert run.attempt == 2
    assert run.result == pytest.approx(train_alone(5))
    assert run.history("loss", rank=1).step.tolist() == [0, 1, 2, 3, 4]


def test_the_rank_that_fails_is_the_one_that_is_shown(submit: Submit) -> None:
    def job(context: rayml.Context) -> None:
        import torch

        print("rank", context.rank, "is here")
        if context.rank == 1:
            raise ValueError("row 7 has no label")
        with suppress(RuntimeError):
            torch.distributed.all_reduce(torch.ones(1))
        print("and goes on")
        time.sleep(600)

    run = submit(job, engine=PAIR, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="rank 1: ValueError: row 7") as caught:
        run.wait()
    assert (caught.value.rank, caught.value.kind) == (1, "error")
    assert 'raise ValueError("row 7 has no label")' in caught.value.traceback
    assert run.logs(rank=0) == "rank 0 is here\nand goes on\n"
    assert not list(capture_path(run.id, 1).parent.glob(f"{run.id}-*"))


@pytest.mark.parametrize("is_subgroup", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_a_rank_that_hangs_is_named(submit: Submit, is_subgroup: bool) -> None:
    def job(is_subgroup: bool, *, context: rayml.Context) -> None:
        import torch

        group: Any = torch.distributed.new_group([0, 1]) if is_subgroup else None
        if context.rank == 1:
            time.sleep(600)
        torch.distributed.all_reduce(torch.ones(1), group=group)

    engine = rayml.Torch(workers=2, timeout_s=5)
    params = {"is_subgroup": is_subgroup}
    with pytest.raises(rayml.JobFailed, match="rank 1 did not come for 5 s") as caught:
        submit(job, params=params, engine=engine, resources=HALF).wait()
    assert caught.value.rank == 1
    assert "all_reduce(torch.ones(1), group=group)" in caught.value.traceback


def stand(context: rayml.Context, gate: str, stubborn: bool) -> None:
    """Wait to be cancelled; a stubborn one does not listen."""
    with Path(f"{gate}.{context.rank}").open("w") as file:
        file.write(str(os.getpid()))
    if context.rank == 0:
        Path(gate).open().close()
    try:
        while True:
            time.sleep(600 if stubborn else 0.05)
    except KeyboardInterrupt:
        print("rank", context.rank, "heard")
        raise


@pytest.mark.parametrize("stubborn", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_cancel_ends_all_ranks(submit: Submit, gate: Gate, stubborn: bool) -> None:
    params = {"gate": str(gate), "stubborn": stubborn}
    run = submit(stand, params=params, engine=PAIR, resources=HALF)
    gate.open()
    pids = eventually(lambda: _pids(gate), 20)
    run.cancel(grace_s=2 if stubborn else 20)
    with pytest.raises(rayml.JobCancelled):
        run.wait()
    if not stubborn:
        assert run.logs() == "[rank 0] rank 0 heard\n[rank 1] rank 1 heard\n"
    eventually(lambda: not any(map(psutil.pid_exists, pids)), 20)


def _pids(gate: Gate) -> list[int]:
    texts = [path.read_text() for path in gate.path.parent.glob(f"{gate.path.name}.*")]
    return [int(text) for text in texts] if len(texts) == 2 and all(texts) else []


@pytest.mark.thorough
def test_a_timeout_ends_all_ranks(submit: Submit) -> None:
    def job() -> None:
        while True:
            time.sleep(0.05)

    run = submit(job, engine=PAIR, resources=HALF, timeout_s=1)
    with pytest.raises(rayml.JobTimeout, match="longer than timeout_s=1"):
        run.wait()


SCRIPT = """
import os
import torch
import torch.distributed as dist
import rayml

dist.init_process_group("gloo")
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
rayml.context().log_metric("total", total.item())
print("rank", dist.get_rank(), "of", dist.get_world_size(), "sees", total.item())
dist.destroy_process_group()
if os.environ.get("FAILS") == os.environ["RANK"]:
    raise SystemExit(3)
"""


@pytest.mark.thorough
def test_a_script_for_torchrun_runs_unchanged(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    options: dict[str, Any] = {"engine": PAIR, "resources": HALF, "working_dir": tmp_path}
    run = submit("train.py", **options).wait()
    assert str(run.logs()).splitlines() == [
        "[rank 0] rank 0 of 2 sees 3.0",
        "[rank 1] rank 1 of 2 sees 3.0",
    ]
    assert run.history("total").value.tolist() == [3.0]

    failed = submit("train.py", env={"FAILS": "1"}, **options)
    with pytest.raises(rayml.JobFailed, match=r"rank 1: train\.py exited with code 3"):
        failed.wait()


ABSENT = """
import os, sys, time
assert "torch" not in sys.modules  # what it reads when it is loaded can still be set
import torch
import torch.distributed as dist

if os.environ["RANK"] == "1" and os.environ["COMES"] == "never":
    time.sleep(600)
dist.init_process_group("gloo")
if os.environ["RANK"] == "1":
    if os.environ["COMES"] == "fails":
        raise ValueError("row 7 has no label")
    time.sleep(600)
dist.all_reduce(torch.ones(1))
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("comes", "where"),
    [
        ("never", "init_process_group"),
        ("once", "all_reduce(torch.ones(1))"),
    ],
)
def test_a_script_s_rank_that_hangs_is_named(
    submit: Submit, work: Path, comes: str, where: str
) -> None:
    (work / "train.py").write_text(ABSENT)
    engine = rayml.Torch(workers=2, timeout_s=5)
    run = submit("train.py", engine=engine, resources=HALF, env={"COMES": comes})
    with pytest.raises(rayml.JobFailed, match="rank 1 did not come for 5 s") as caught:
        run.wait()
    assert caught.value.rank == 1
    assert where in caught.value.traceback


@pytest.mark.thorough
def test_a_script_s_rank_that_fails_is_the_one_that_is_shown(submit: Submit, work: Path) -> None:
    (work / "train.py").write_text(ABSENT)
    run = submit("train.py", engine=PAIR, resources=HALF, env={"COMES": "fails"})
    with pytest.raises(rayml.JobFailed, match="rank 1: ValueError: row 7 has no label") as caught:
        run.wait()
    assert (caught.value.rank, caught.value.kind) == (1, "error")
    assert caught.value.traceback.startswith("Traceback (most recent call last):")


def test_all_ranks_have_the_packages_of_their_job(submit: Submit) -> None:
    def job() -> None:
        import emoji  # type: ignore[import-not-found]
        import torch

        torch.distributed.barrier()
        print(emoji.__version__)

    run = submit(job, engine=PAIR, resources=HALF, requirements=["emoji==2.14.0"]).wait(200)
    assert run.logs() == "[rank 0] 2.14.0\n[rank 1] 2.14.0\n"


@pytest.mark.thorough
def test_ray_train_s_own_helpers_work(submit: Submit) -> None:
    def job(context: rayml.Context) -> tuple[str, int]:
        import ray.train.torch
        import torch

        model = ray.train.torch.prepare_model(torch.nn.Linear(1, 1))
        return type(model).__name__, ray.train.get_context().get_world_size()

    assert submit(job, engine=PAIR, resources=HALF).wait().result == (
        "DistributedDataParallel",
        2,
    )


def test_more_workers_than_fit_are_refused_at_once(submit: Submit) -> None:
    with pytest.raises(rayml.CapacityError, match="asks for 500 workers"):
        submit(train, engine=rayml.Torch(workers=500), resources=HALF)


# Ends the processes of ranks, and is PyTorch to the one that directs them.
BROKEN = """
import os, pathlib, sys
if b"RayTrain" in pathlib.Path("/proc/self/cmdline").read_bytes():
    os._exit(1)
sys.path.remove(os.path.dirname(__file__))
del sys.modules["torch"]
import torch
"""


@pytest.mark.thorough
def test_ranks_that_end_before_they_begin_end_the_run(submit: Submit, work: Path) -> None:
    (work / "torch.py").write_text(BROKEN)
    run = submit(train, engine=PAIR, resources=HALF, env={"PYTHONPATH": str(work)})
    with pytest.raises(rayml.JobFailed, match="ended before the function returned") as caught:
        run.wait(timeout_s=150)
    assert caught.value.kind == "killed"


def test_what_is_not_installed_is_named(submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(rayml.SpecError, match=r"needs torch, .* 'rayml\[torch\]'"):
        submit(train, engine=PAIR, resources=HALF)
