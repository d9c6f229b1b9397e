"""Engines on a RayCluster: workers in pods of their own, with files and addresses of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import rayml
from rayml.errors import JobFailed
from tests.kube.clusters import JobCluster, ray_cluster
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
        (add_with_horovod, rayml.Horovod(workers=2, timeout_s=120)),
    ],
)
def test_ranks_in_different_pods_find_each_other(
    train: JobCluster, function: Any, engine: Any
) -> None:
    run = train.submit(function, engine=engine, resources=PAIR, image=FULL_IMAGE).wait(300)
    assert run.result == 3
    hosts = {str(run.logs(rank=rank)).strip() for rank in (0, 1)}
    assert are_two_pods(hosts, train)


def group_with_dask(context: rayml.Context) -> dict[str, Any]:
    import socket

    import dask
    import dask.dataframe as dd
    import pandas as pd

    frame = dd.from_pandas(pd.DataFrame({"k": [1, 2] * 500, "v": range(1000)}), npartitions=8)
    shuffled = frame.set_index("v").groupby("k").size().compute()

    def host(_: int) -> str:
        import time

        time.sleep(0.2)
        return socket.gethostname()

    hosts = dask.compute(*[dask.delayed(host)(number) for number in range(8)])
    return {"sizes": shuffled.to_dict(), "hosts": sorted(set(hosts))}


def test_dask_computes_in_all_pods(train: JobCluster) -> None:
    run = train.submit(
        group_with_dask, engine=rayml.Dask(workers=2), resources=PAIR, image=FULL_IMAGE
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
    return {"hosts": sorted(set(hosts)), "total": child.wait(200).result, "heap": heap}


def test_spark_prepares_and_torch_trains_on_the_same_pods(train: JobCluster) -> None:
    engine = rayml.Spark(executors=2, memory="3Gi", timeout_s=100)
    run = train.submit(prepare_with_spark, engine=engine, image=FULL_IMAGE).wait(400)
    result: Any = run.result
    assert (result["total"], result["heap"]) == (499_500, "2688m")
    assert are_two_pods(result["hosts"], train)
    assert run.artifact("rows").meta["rows"] == 1000


def test_what_a_worker_s_image_lacks_is_named_before_the_code_runs(train: JobCluster) -> None:
    run = train.submit(
        add_with_torch,
        engine=rayml.Torch(workers=2),
        resources=rayml.Resources(cpus=1, memory="1Gi"),
    )
    with pytest.raises(JobFailed, match=r"torch.*rayml\[torch\]"):
        run.wait(200)
