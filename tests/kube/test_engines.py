"""Engines on a RayCluster: workers in pods of their own, with files and addresses of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import rayml
from rayml.errors import JobFailed
from rayml.store import open_store
from tests.kube.clusters import JobCluster, ray_cluster, wait_for
from tests.kube.images import FULL_IMAGE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tests.kube.plane import Plane

PAIR = rayml.Resources(cpus=1, memory="3Gi")

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@pytest.fixture(scope="module")
def train(plane: Plane, ray_image: str, environment: dict[str, str]) -> Iterator[JobCluster]:
    """A cluster whose workers stay between the tests; its head is a stock one, without engines."""
    plane.add_image(FULL_IMAGE, Path(sys.executable).parent)
    with ray_cluster(plane, ray_image, environment, max_workers=4, grace_s=120) as cluster:
        yield cluster


def are_two_pods(hosts: Collection[str], cluster: JobCluster) -> bool:
    return len(set(hosts)) == 2 and set(hosts) <= set(cluster.pods())


def add_with_torch(context: rayml.Context) -> float:
    import socket

    import torch

    total = torch.tensor([context.rank + 1.0])
    torch.distributed.all_reduce(total)
    context.log_metric("local", context.local_rank, reduce="max")
    print(socket.gethostname())
    return total.item()


def add_with_horovod(context: rayml.Context) -> float:
    import socket

    import horovod.torch as hvd
    import torch

    hvd.init()
    total = hvd.allreduce(torch.tensor([context.rank + 1.0]), op=hvd.Sum)
    print(socket.gethostname())
    return float(total.item())


@pytest.mark.parametrize(
    ("function", "engine"),
    [
        (add_with_torch, rayml.Torch(workers=2, timeout_s=120)),
        pytest.param(
            add_with_horovod,
            rayml.Horovod(workers=2, timeout_s=120),
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_ranks_in_different_pods_find_each_other(
    train: JobCluster, function: Any, engine: Any
) -> None:
    run = train.submit(function, engine=engine, resources=PAIR, image=FULL_IMAGE).wait(300)
    assert run.result == 3
    hosts = {str(run.logs(rank=rank)).strip() for rank in (0, 1)}
    assert are_two_pods(hosts, train)


def begin_and_wait(gate: str, *, context: rayml.Context) -> int:
    """In the first attempt, stay until somebody breaks it."""
    import socket
    import time

    import torch

    from rayml.store import open_store

    if context.rank == 1 and context.attempt == 1:
        open_store(gate).create("host", socket.gethostname().encode())
    while context.attempt == 1:
        torch.distributed.barrier()
        time.sleep(0.1)
    return context.attempt


def train_until_one_is_lost(gate: str) -> list[int]:
    import socket
    import time

    import horovod.torch as hvd

    from rayml.store import open_store

    hvd.init()

    @hvd.elastic.run  # type: ignore[untyped-decorator]
    def go_on(state: Any) -> list[int]:
        while state.sizes.count(1) < 3:
            state.sizes = [*state.sizes, hvd.size()]
            if hvd.rank() == 1 and len(state.sizes) == 3:
                open_store(gate).create("host", socket.gethostname().encode())
            time.sleep(0.2)
            state.commit()
        return list(state.sizes)

    return list(go_on(hvd.elastic.TorchState(sizes=[])))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("function", "engine", "attempts"),
    [
        (begin_and_wait, rayml.Torch(workers=2, timeout_s=60), 2),
        (train_until_one_is_lost, rayml.Horovod(elastic=(1, 2), timeout_s=60), 1),
    ],
    ids=["begun-anew", "elastic"],
)
def test_a_job_goes_on_without_the_pod_that_a_rank_was_in(
    train: JobCluster, function: Any, engine: Any, attempts: int
) -> None:
    gate = f"{train.store}-gates/{attempts}"
    again = rayml.Retry(attempts=2, backoff_s=1)
    run = train.submit(
        function,
        params={"gate": gate},
        engine=engine,
        resources=PAIR,
        image=FULL_IMAGE,
        retry=again,
    )
    store = open_store(gate)
    wait_for(lambda: store.stat("host"), "the ranks")
    train.client.delete("pods", store.get("host").decode(), train.name.namespace)
    result: Any = run.wait(400).result
    assert run.attempt == attempts
    assert result == 2 or (result[0], result[-1]) == (2, 1)


def group_with_dask(gate: str) -> dict[str, Any]:
    import socket
    import time

    import dask
    import dask.dataframe as dd
    import pandas as pd

    frame = dd.from_pandas(pd.DataFrame({"k": [1, 2] * 500, "v": range(1000)}), npartitions=8)
    shuffled = frame.set_index("v").groupby("k").size().compute()

    def host(_: int) -> str:
        """Wait until a task is in another pod too; one alone would not get that far."""
        from rayml.store import open_store

        store, deadline = open_store(gate), time.monotonic() + 60
        store.create(f"hosts/{socket.gethostname()}", b"")
        while len(store.list("hosts/")) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        return socket.gethostname()

    hosts = dask.compute(*[dask.delayed(host)(number) for number in range(8)])
    return {"sizes": shuffled.to_dict(), "hosts": sorted(set(hosts))}


@pytest.mark.parametrize(
    "engine",
    [
        rayml.Dask(workers=2),
        pytest.param(rayml.Dask(workers=2, client=True), marks=pytest.mark.thorough),
    ],
)
def test_dask_computes_in_all_pods(train: JobCluster, engine: rayml.Dask) -> None:
    run = train.submit(
        group_with_dask,
        params={"gate": f"{train.store}-gates/dask-{engine.client}"},
        engine=engine,
        resources=PAIR,
        image=FULL_IMAGE,
    ).wait(300)
    result: Any = run.result
    assert result["sizes"] == {1: 500, 2: 500}
    assert are_two_pods(result["hosts"], train)


def count_shard(rows: rayml.Input, *, context: rayml.Context) -> float:
    import torch

    table: Any = rows.shard().to_pandas()
    total = torch.tensor([float(table.v.sum()), float(len(table))])
    torch.distributed.all_reduce(total)
    context.log_metric("rows", len(table), reduce="sum")
    return total[0].item()


def prepare_with_spark(context: rayml.Context) -> dict[str, Any]:
    import socket

    spark: Any = context.spark
    frame = spark.range(1000, numPartitions=4).selectExpr("id AS v")
    hosts = frame.rdd.mapPartitions(lambda _: [socket.gethostname()]).collect()
    context.log_dataset("rows", frame)
    child: Any = rayml.submit(
        count_shard,
        inputs={"rows": frame},
        engine=rayml.Torch(timeout_s=120),
        borrow=True,
    )
    heap = spark.conf.get("spark.executor.memory")
    return {
        "hosts": sorted(set(hosts)),
        "total": child.wait(200).result,
        "heap": heap,
        "masters": sorted(where_masters_are()),
    }


def where_masters_are() -> set[str]:
    """Return the nodes of a session's two masters, seen from this one."""
    import ray
    from ray._private import state  # noqa: TID251 - where Ray has put them, it tells nowhere else

    here = ray.get_runtime_context().get_node_id()
    return {
        "here" if actor["Address"]["NodeID"] == here else actor["Address"]["IPAddress"]
        for actor in state.actors().values()
        if actor["State"] == "ALIVE"
        and actor["ActorClassName"].endswith(("RayAppMaster", "RayDPSparkMaster"))
    }


@pytest.mark.thorough
def test_spark_prepares_and_torch_trains_on_the_same_pods(train: JobCluster) -> None:
    engine = rayml.Spark(executors=2, memory="3Gi", timeout_s=100)
    run = train.submit(prepare_with_spark, engine=engine, image=FULL_IMAGE).wait(400)
    result: Any = run.result
    assert (result["total"], result["heap"]) == (499_500, "2688m")
    assert are_two_pods(result["hosts"], train)
    assert run.artifact("rows").meta["rows"] == 1000
    assert result["masters"] == ["here"]  # the head's image has no Java


@pytest.mark.thorough
def test_what_a_worker_s_image_lacks_is_named_before_the_code_runs(train: JobCluster) -> None:
    run = train.submit(
        add_with_torch,
        engine=rayml.Torch(workers=2),
        resources=rayml.Resources(cpus=1, memory="1Gi"),
    )
    with pytest.raises(JobFailed, match=r"torch.*rayml\[torch\]"):
        run.wait(200)
