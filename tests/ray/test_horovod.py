"""The Horovod engine: several workers train one model, of which some may go and come back."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import rayml
from rayml import processes
from rayml.logs import capture_path
from tests.ray.conftest import finish, started_script
from tests.ray.eventually import eventually
from tests.ray.test_torch import nothing_left, stand, train_alone  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from tests.ray.conftest import Gate, Submit

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PAIR = rayml.Horovod(workers=2, timeout_s=60)
ELASTIC = rayml.Horovod(elastic=(1, 2), timeout_s=60)
HALF = rayml.Resources(cpus=0.5)
AGAIN = rayml.Retry(attempts=3, backoff_s=0.01)


def train(context: rayml.Context, steps: int = 3, dies: bool = False) -> list[float]:
    """Train on every rank with a row of its own, from the last checkpoint on."""
    import io

    import horovod.torch as hvd
    import torch

    hvd.init()
    assert (hvd.rank(), hvd.size()) == (context.rank, context.world_size)
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    first = 0
    if (saved := context.restore()) is not None:
        model.load_state_dict(torch.load(io.BytesIO(saved.load())))
        first = saved.meta["step"] + 1
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters()
    )
    row = torch.tensor([[1.0, float(context.rank)]])
    for step in range(first, steps):
        loss = (model(row) - context.rank).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        context.log_metric("loss", loss.item(), step)
        if context.rank == 0:
            buffer = io.BytesIO()
            torch.save(model.state_dict(), buffer)
            context.checkpoint(buffer.getvalue(), step, sync=True)
        hvd.barrier()
        if dies and (context.attempt, context.rank, step) == (1, 1, 1):
            context.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    print("rank", hvd.rank(), "of", hvd.size(), "local", hvd.local_rank(), hvd.local_size())
    return [number.item() for part in model.parameters() for number in part.flatten()]


def test_all_workers_train_one_model_and_each_one_logs(submit: Submit) -> None:
    run = submit(train, params={"steps": 2}, engine=PAIR, resources=HALF).wait()
    assert run.result == pytest.approx(train_alone(2))
    ranks = [run.history("loss", rank=rank).value for rank in (0, 1)]
    assert run.history("loss").value.tolist() == pytest.approx(sum(ranks) / 2)
    assert str(run.logs()).splitlines() == [
        "[rank 0] rank 0 of 2 local 0 2",
        "[rank 1] rank 1 of 2 local 1 2",
    ]


def test_a_killed_rank_costs_one_step_and_the_end_is_the_same(submit: Submit) -> None:
    params = {"steps": 5, "dies": True}
    run = submit(train, params=params, engine=PAIR, resources=HALF, retry=AGAIN).wait()
    assert run.attempt == 2
    assert run.result == pytest.approx(train_alone(5))
    assert run.history("loss", rank=1).step.tolist() == [0, 1, 2, 3, 4]


def test_the_rank_that_fails_is_the_one_that_is_shown(submit: Submit) -> None:
    def job(context: rayml.Context) -> None:
        import horovod.torch as hvd
        import torch

        hvd.init()
        if context.rank == 1:
            raise ValueError("row 7 has no label")
        hvd.allreduce(torch.ones(1))

    run = submit(job, engine=PAIR, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="rank 1: ValueError: row 7") as caught:
        run.wait()
    assert (caught.value.rank, caught.value.kind) == (1, "error")
    assert 'raise ValueError("row 7 has no label")' in caught.value.traceback


@pytest.mark.thorough
@pytest.mark.parametrize("elastic", [None, (1, 2)])
def test_a_rank_that_never_comes_to_init_is_named(
    submit: Submit, elastic: tuple[int, int] | None
) -> None:
    def job(context: rayml.Context) -> None:
        import horovod.torch as hvd

        if context.rank == 1:
            time.sleep(600)
        hvd.init()

    engine = rayml.Horovod(workers=2, elastic=elastic, timeout_s=4)
    run = submit(job, engine=engine, resources=HALF)
    with pytest.raises(rayml.JobFailed, match=r"rank 1.* did not come for 4 s") as caught:
        run.wait(60)
    assert caught.value.rank == 1


def test_a_rank_that_hangs_is_named(submit: Submit) -> None:
    def job(context: rayml.Context) -> None:
        import horovod.torch as hvd
        import torch

        hvd.init()
        if context.rank == 1:
            time.sleep(600)
        hvd.allreduce(torch.ones(1), name="total")

    engine = rayml.Horovod(workers=2, timeout_s=4)
    run = submit(job, engine=engine, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="rank 1 did not come for 4 s") as caught:
        run.wait()
    assert caught.value.rank == 1


def test_init_without_the_engine_is_told_of(submit: Submit) -> None:
    def job() -> int:
        import horovod.torch as hvd

        hvd.init()
        return int(hvd.size())

    run = submit(job, resources=rayml.Resources(cpus=0.5, workers=2)).wait()
    assert run.result == 1
    assert "give the job engine=rayml.Horovod()" in str(run.logs())
    alone = submit(job, resources=HALF).wait()
    assert str(alone.logs()) == ""


SCRIPT = """
import horovod.torch as hvd
import torch
import rayml

hvd.init()
total = hvd.allreduce(torch.tensor([float(hvd.rank() + 1)]), op=hvd.Sum)
rayml.context().log_metric("total", total.item())
print("rank", hvd.rank(), "of", hvd.size(), "sees", total.item())
"""


@pytest.mark.parametrize("elastic", [None, pytest.param((1, 2), marks=pytest.mark.thorough)])
def test_a_script_for_horovodrun_runs_unchanged(
    submit: Submit, tmp_path: Path, elastic: tuple[int, int] | None
) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    engine = rayml.Horovod(workers=2, elastic=elastic)
    run = submit("train.py", engine=engine, resources=HALF, working_dir=tmp_path).wait()
    assert sorted(str(run.logs()).splitlines()) == [
        "[rank 0] rank 0 of 2 sees 3.0",
        "[rank 1] rank 1 of 2 sees 3.0",
    ]
    assert run.history("total").value.tolist() == [3.0]


ABSENT = """
import os, time
import horovod.torch as hvd
import torch

hvd.init()
if hvd.rank() == 1:
    if os.environ.get("FAILS"):
        raise ValueError("row 7 has no label")
    time.sleep(600)
hvd.allreduce(torch.ones(1), name="total")
"""


@pytest.mark.thorough
def test_a_script_s_rank_that_hangs_is_named(submit: Submit, work: Path) -> None:
    (work / "train.py").write_text(ABSENT)
    engine = rayml.Horovod(workers=2, timeout_s=4)
    run = submit("train.py", engine=engine, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="rank 1 did not come for 4 s") as caught:
        run.wait()
    assert caught.value.rank == 1


HESITANT = """
import os, sys, time
from pathlib import Path
import horovod.torch as hvd
import psutil
import torch

hvd.init()
mark = Path(sys.argv[1])


@hvd.elastic.run
def go_on(state):
    while state.step < 5:
        if hvd.rank() == 1 and not mark.exists():
            mark.write_text(str(os.getpid()))
            time.sleep(600)
        state.step += 1
        state.commit()


go_on(hvd.elastic.TorchState(step=0))
assert not psutil.pid_exists(int(mark.read_text()))
"""


@pytest.mark.thorough
def test_an_elastic_script_s_rank_that_hangs_is_replaced(
    submit: Submit, work: Path, tmp_path: Path
) -> None:
    (work / "train.py").write_text(HESITANT)
    # Horovod, too, waits no longer than this for the one that comes in its place.
    engine = rayml.Horovod(elastic=(2, 2), timeout_s=20)
    mark = tmp_path / "hung"
    submit("train.py", args=[str(mark)], engine=engine, resources=HALF).wait()
    assert mark.exists()


@pytest.mark.thorough
def test_a_script_s_rank_that_fails_is_the_one_that_is_shown(submit: Submit, work: Path) -> None:
    (work / "train.py").write_text(ABSENT)
    run = submit("train.py", engine=PAIR, resources=HALF, env={"FAILS": "1"})
    with pytest.raises(rayml.JobFailed, match="rank 1: ValueError: row 7 has no label") as caught:
        run.wait()
    assert (caught.value.rank, caught.value.kind) == (1, "error")


LONELY = """
import os, time

if os.environ.get("HOROVOD_RANK", os.environ.get("RANK")) == "1":
    time.sleep(1)
    raise SystemExit(3)
time.sleep(600)
"""


@pytest.mark.parametrize(
    "engine", [PAIR, pytest.param(rayml.Torch(workers=2), marks=pytest.mark.thorough)]
)
def test_a_failed_rank_s_end_ends_the_others_scripts_too(
    submit: Submit, tmp_path: Path, engine: rayml.Horovod | rayml.Torch
) -> None:
    (tmp_path / "train.py").write_text(LONELY)
    run = submit("train.py", engine=engine, resources=HALF, working_dir=tmp_path)
    with pytest.raises(rayml.JobFailed, match=r"rank 1: train\.py exited with code 3"):
        run.wait()
    eventually(lambda: not marked(run.id), 10)


@pytest.mark.parametrize("engine", [PAIR, pytest.param(ELASTIC, marks=pytest.mark.thorough)])
def test_cancel_ends_all_ranks(submit: Submit, gate: Gate, engine: rayml.Horovod) -> None:
    params = {"gate": str(gate), "stubborn": False}
    run = submit(stand, params=params, engine=engine, resources=HALF)
    gate.open()
    eventually(lambda: len(list(gate.path.parent.glob("gate.*"))) == 2)
    run.cancel(grace_s=20)
    with pytest.raises(rayml.JobCancelled):
        run.wait()
    assert sorted(str(run.logs()).splitlines()) == [f"[rank {n}] rank {n} heard" for n in (0, 1)]
    eventually(lambda: not marked(run.id), 20)


@pytest.mark.thorough
@pytest.mark.parametrize("engine", [PAIR, ELASTIC])
def test_a_timeout_ends_all_ranks(submit: Submit, tmp_path: Path, engine: rayml.Horovod) -> None:
    def job(folder: str) -> None:
        Path(folder, f"rank-{os.getpid()}").touch()
        while True:
            time.sleep(0.05)

    params = {"folder": str(tmp_path)}
    run = submit(job, params=params, engine=engine, resources=HALF, timeout_s=1)
    with pytest.raises(rayml.JobTimeout, match="longer than timeout_s=1"):
        run.wait()
    assert len(list(tmp_path.glob("rank-*"))) == 2
    eventually(lambda: not marked(run.id), 20)


@pytest.mark.parametrize("engine", [PAIR, pytest.param(ELASTIC, marks=pytest.mark.thorough)])
def test_a_rank_that_exits_ends_the_job(
    submit: Submit, tmp_path: Path, engine: rayml.Horovod
) -> None:
    def job(context: rayml.Context, folder: str) -> None:
        Path(folder, f"rank-{os.getpid()}").touch()
        if context.rank == 1:
            sys.exit(3)
        time.sleep(600)

    run = submit(job, params={"folder": str(tmp_path)}, engine=engine, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="rank 1: the function exited with code 3") as caught:
        run.wait()
    assert (caught.value.rank, caught.value.kind) == (1, "exit")
    assert len(list(tmp_path.glob("rank-*"))) == 2


@pytest.mark.thorough
def test_a_retry_starts_all_ranks_of_an_elastic_job_again(submit: Submit) -> None:
    def job(context: rayml.Context) -> float:
        import horovod.torch as hvd
        import torch

        hvd.init()
        if (context.attempt, context.rank) == (1, 1):
            raise ValueError("row 7 has no label")
        return float(hvd.allreduce(torch.ones(1), op=hvd.Sum).item())

    run = submit(job, engine=ELASTIC, resources=HALF, retry=AGAIN).wait()
    assert (run.attempt, run.result) == (2, 2.0)


def listen(context: rayml.Context, folder: str, stays: bool) -> None:
    """Note the ports on which this rank listens, and where it has met the others."""
    met = os.environ.get("HOROVOD_GLOO_RENDEZVOUS_PORT")
    if met is not None:
        import horovod.torch as hvd

        hvd.init()
    ports = {*ports_of(psutil.Process().net_connections("tcp")), *([int(met)] if met else [])}
    noted = Path(folder, f"unfinished-{context.rank}")
    noted.write_text(" ".join(map(str, ports)))
    noted.rename(Path(folder, f"ports-{context.rank}"))
    while stays:
        time.sleep(0.05)


def ports_of(connections: list[Any]) -> set[int]:
    return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize(
    ("engine", "end", "state"),
    [
        pytest.param(engine, end, state, marks=[] if is_quick else pytest.mark.thorough)
        for engine, end, state, is_quick in [
            (PAIR, "returns", "succeeded", True),
            (PAIR, "is cancelled", "cancelled", False),
            (PAIR, "is late", "failed", False),
            (rayml.Torch(workers=2), "returns", "succeeded", False),
            (rayml.Torch(workers=2), "is cancelled", "cancelled", True),
            (rayml.Torch(workers=2), "is late", "failed", False),
        ]
    ],
)
def test_no_port_stays_open_after_a_job(
    submit: Submit, tmp_path: Path, engine: rayml.Horovod | rayml.Torch, end: str, state: str
) -> None:
    params = {"folder": str(tmp_path), "stays": end != "returns"}
    timeout_s = 20 if end == "is late" else None  # all ranks are there by then
    run = submit(listen, params=params, engine=engine, resources=HALF, timeout_s=timeout_s)
    if end == "is cancelled":
        eventually(lambda: len(list(tmp_path.glob("ports-*"))) == 2, 60)
        run.cancel(grace_s=5)
    with suppress(rayml.JobCancelled, rayml.JobTimeout):
        run.wait(120)
    assert run.state == state
    first, second = (set(path.read_text().split()) for path in tmp_path.glob("ports-*"))
    assert first
    assert second
    ports = set(map(int, first | second))
    eventually(lambda: not ports & ports_of(psutil.net_connections("tcp")), 20)


def marked(run: str) -> list[psutil.Process]:
    """Return a run's processes."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(processes.VARIABLE) == run:
                found.append(process)
    return found


def train_elastically(context: rayml.Context, folder: str, steps: int, lost: int) -> list[object]:
    """Train with a commit after each step; in the third one a worker dies, once."""
    import horovod.torch as hvd
    import torch

    hvd.init()
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters()
    )
    mark = Path(folder, "killed")

    @hvd.elastic.run  # type: ignore[untyped-decorator]
    def go_on(state: Any) -> None:
        while state.step < steps:
            if state.step == 2 and hvd.rank() == lost and not mark.exists():
                mark.touch()
                print("goes", flush=True)
                context.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            row = torch.tensor([[1.0, float(hvd.rank())]])
            loss = (model(row) - hvd.rank()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            context.log_metric("size", context.world_size, state.step)
            assert context.rank == hvd.rank()
            state.step += 1
            state.sizes = [*state.sizes, hvd.size()]
            state.commit()

    state = hvd.elastic.TorchState(model=model, optimizer=optimizer, step=0, sizes=[])
    go_on(state)
    weights = [number.item() for part in model.parameters() for number in part.flatten()]
    return [state.sizes, weights]


@pytest.mark.parametrize("lost", [pytest.param(0, marks=pytest.mark.thorough), 1])
def test_an_elastic_job_goes_on_from_the_last_commit(
    submit: Submit, tmp_path: Path, lost: int
) -> None:
    params = {"folder": str(tmp_path), "steps": 5, "lost": lost}
    engine = rayml.Horovod(elastic=(2, 2), timeout_s=60)
    run = submit(train_elastically, params=params, engine=engine, resources=HALF).wait()
    result: Any = run.result
    sizes, weights = result
    assert run.attempt == 1
    assert sizes == [2] * 5
    assert weights == pytest.approx(train_alone(5))
    assert run.history("size", rank=1).step.tolist() == [0, 1, 2, 3, 4]
    logs = str(run.logs())
    assert re.search(r"^\[rank (\d)\] goes$", logs, re.MULTILINE)
    assert re.search(
        r"^\[rank (\d)\] rayml: rank \1 was lost and is made up for: its process ended",
        logs,
        re.MULTILINE,
    )


MACHINES = """
import os, signal, sys
from pathlib import Path

os.environ["RAY_AUTH_MODE"] = "disabled"
import ray
from ray.cluster_utils import Cluster
import rayml

def job(folder, lost):
    import horovod.torch as hvd

    hvd.init()
    mark = Path(folder, "lost")

    @hvd.elastic.run
    def go_on(state):
        while state.step < 9:
            is_lost = state.step == 3 and os.environ["HOROVOD_HOSTNAME"] == f"worker-{lost}"
            if is_lost and not mark.exists():
                mark.touch()
                os.kill(os.getppid(), signal.SIGKILL)  # Ray's process on its machine
                os._exit(1)
            state.step += 1
            state.commit()

    state = hvd.elastic.TorchState(step=0)
    go_on(state)
    return state.step

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
try:
    for _ in range(3):
        cluster.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = cluster.address
    folder, lost = sys.argv[1:]
    engine = rayml.Horovod(elastic=(1, 2))
    retry = rayml.Retry(attempts=2, backoff_s=0.01, on=("node_lost",))
    params = {"folder": folder, "lost": int(lost)}
    run = rayml.submit(job, params=params, engine=engine, retry=retry, store=folder + "/store")
    run.wait(200)
    print(run.state, run.attempt, run.result)
finally:
    ray.shutdown()
    cluster.shutdown()
"""


# The ranks' meeting place is on the first worker's machine.
@pytest.mark.parametrize(
    ("lost", "attempts"), [pytest.param(0, 2, marks=pytest.mark.thorough), (1, 1)]
)
def test_a_lost_machine_is_made_up_for(tmp_path: Path, lost: int, attempts: int) -> None:
    with started_script(tmp_path, MACHINES, tmp_path, lost) as process:
        out, _ = finish(process, 240)
    assert f"succeeded {attempts} 9" in out


def test_an_elastic_job_shrinks_and_grows(submit: Submit, tmp_path: Path) -> None:
    def job(folder: str) -> list[int]:
        import horovod.torch as hvd

        hvd.init()

        @hvd.elastic.run  # type: ignore[untyped-decorator]
        def go_on(state: Any) -> list[int]:
            while 1 not in state.sizes or state.sizes[-1] == 1:
                if hvd.rank() == 1 and len(state.sizes) == 2:
                    os._exit(1)
                state.sizes = [*state.sizes, hvd.size()]
                time.sleep(0.1)
                state.commit()
            return list(state.sizes)

        return list(go_on(hvd.elastic.TorchState(sizes=[])))

    run = submit(
        job, params={"folder": str(tmp_path)}, engine=rayml.Horovod(elastic=(1, 2)), resources=HALF
    ).wait()
    sizes: Any = run.result
    # What a rank has saved before it notices the loss counts.
    assert "".join(map(str, sizes)).strip("2") == "1" * sizes.count(1)
    assert (sizes[0], sizes[-1]) == (2, 2)


@pytest.mark.thorough
def test_an_elastic_job_may_end_without_its_first_worker(submit: Submit) -> None:
    def job() -> list[int]:
        import horovod.torch as hvd

        hvd.init()

        @hvd.elastic.run  # type: ignore[untyped-decorator]
        def go_on(state: Any) -> None:
            while state.step < 3:
                if os.environ["HOROVOD_HOSTNAME"] == "worker-0":
                    print("goes", flush=True)
                    os._exit(1)
                hvd.barrier()
                state.step += 1

        state = hvd.elastic.TorchState(step=0)
        go_on(state)
        size = hvd.size()
        hvd.shutdown()
        return [state.step, size]

    run = submit(job, engine=ELASTIC, resources=HALF).wait()
    assert run.result == [3, 1]
    assert "goes" in str(run.logs())
    assert not list(capture_path(run.id, 1).parent.glob(f"{run.id}*"))


@pytest.mark.thorough
def test_a_worker_that_dies_over_and_over_ends_an_elastic_job(submit: Submit) -> None:
    def job() -> None:
        import horovod.torch as hvd

        hvd.init()

        @hvd.elastic.run  # type: ignore[untyped-decorator]
        def go_on(state: Any) -> None:
            while True:
                if os.environ["HOROVOD_HOSTNAME"] == "worker-1":
                    os._exit(1)
                time.sleep(0.1)
                state.commit()

        go_on(hvd.elastic.TorchState(step=0))

    run = submit(job, engine=rayml.Horovod(elastic=(1, 2)), resources=HALF)
    with pytest.raises(rayml.JobFailed, match="rank 1: its process ended before"):
        run.wait()


@pytest.mark.thorough
def test_a_loss_ends_an_elastic_job_whose_code_is_not(submit: Submit) -> None:
    def job() -> None:
        import horovod.torch as hvd
        import torch

        hvd.init()
        if hvd.rank() == 1:
            os._exit(1)
        hvd.allreduce(torch.ones(1))

    run = submit(job, engine=rayml.Horovod(elastic=(1, 2)), resources=HALF)
    with pytest.raises(rayml.JobFailed, match="rank 1: its process ended before"):
        run.wait()


@pytest.mark.thorough
def test_an_elastic_rank_that_raises_ends_the_job(submit: Submit) -> None:
    def job() -> None:
        import horovod.torch as hvd

        hvd.init()

        @hvd.elastic.run  # type: ignore[untyped-decorator]
        def go_on(state: Any) -> None:
            if hvd.rank() == 1:
                raise ValueError("row 7 has no label")
            while True:
                state.commit()

        go_on(hvd.elastic.TorchState(step=0))

    run = submit(job, engine=rayml.Horovod(elastic=(1, 2)), resources=HALF)
    with pytest.raises(rayml.JobFailed, match="rank 1: ValueError: row 7"):
        run.wait()


def test_an_elastic_rank_that_hangs_is_replaced(submit: Submit, tmp_path: Path) -> None:
    def job(folder: str) -> int:
        import horovod.torch as hvd

        hvd.init()
        mark = Path(folder, "hung")

        @hvd.elastic.run  # type: ignore[untyped-decorator]
        def go_on(state: Any) -> None:
            while state.step < 5:
                if hvd.rank() == 1 and not mark.exists():
                    mark.touch()
                    time.sleep(600)
                state.step += 1
                state.commit()

        state = hvd.elastic.TorchState(step=0)
        go_on(state)
        return int(state.step)

    engine = rayml.Horovod(elastic=(2, 2), timeout_s=20)
    run = submit(job, params={"folder": str(tmp_path)}, engine=engine, resources=HALF).wait()
    assert run.result == 5


@pytest.mark.thorough
def test_elastic_ranks_that_all_wait_for_something_else_end_the_job(submit: Submit) -> None:
    def job() -> None:
        import horovod.torch as hvd
        import torch

        hvd.init()

        @hvd.elastic.run  # type: ignore[untyped-decorator]
        def go_on(_: Any) -> None:
            hvd.allreduce(torch.ones(1), name=f"total of {hvd.rank()}")

        go_on(hvd.elastic.TorchState(step=0))

    engine = rayml.Horovod(elastic=(1, 2), timeout_s=20)
    run = submit(job, engine=engine, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="rank 0, 1 waited for 20 s in vain"):
        run.wait(120)


@pytest.mark.thorough
def test_a_rank_that_hangs_over_and_over_ends_an_elastic_job(submit: Submit) -> None:
    def job() -> None:
        import horovod.torch as hvd

        hvd.init()

        @hvd.elastic.run  # type: ignore[untyped-decorator]
        def go_on(state: Any) -> None:
            while True:
                if os.environ["HOROVOD_HOSTNAME"] == "worker-1":
                    print("hangs", flush=True)
                    time.sleep(600)
                time.sleep(0.1)
                state.commit()

        go_on(hvd.elastic.TorchState(step=0))

    engine = rayml.Horovod(elastic=(1, 2), timeout_s=15)
    run = submit(job, engine=engine, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="rank 1: it did not come for 15 s") as caught:
        run.wait(240)
    assert caught.value.rank == 1
    assert str(run.logs()).count("[rank 1] hangs") == 3
