"""The Spark engine: a session on the job's workers, of which nothing is left after the job."""

from __future__ import annotations

import os
import signal
import tempfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import ray
import requests
from ray.util import list_named_actors, placement_group_table

import rayml
from rayml._ray import spark_scratch
from tests.maven import jar
from tests.ray.eventually import eventually
from tests.ray.test_dask import add_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ray.conftest import Gate, Submit

pytestmark = [pytest.mark.ray, pytest.mark.slow]
# Less to compile: these sessions are over before that would pay.
BRIEF = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
QUICK: dict[str, str | int | float | bool] = {
    "spark.driver.extraJavaOptions": BRIEF,
    "spark.executor.extraJavaOptions": BRIEF,
    "spark.sql.shuffle.partitions": 2,
}
HALF = rayml.Resources(cpus=0.5)
ONE = rayml.Spark(executors=1, conf=QUICK)


@pytest.fixture(autouse=True)
def nothing_left(ray_address: str, work: Path) -> Iterator[None]:
    """Whatever happens to a run, no process, actor, place or file of Spark's outlives it."""
    yield

    def is_clean() -> bool:
        groups = placement_group_table().values()
        actors = [a for a in list_named_actors(all_namespaces=True) if "spark" in str(a).lower()]
        return not sessions() and not actors and {g["state"] for g in groups} <= {"REMOVED"}

    eventually(is_clean, 60)
    assert not list(Path(tempfile.gettempdir()).glob("rayml-spark-*"))
    assert not list(session_folder().glob("app-*"))
    assert [path.name for path in work.iterdir() if path.suffix != ".py"] == []


def sessions() -> list[psutil.Process]:
    """Return the processes of Spark sessions, but for those that lead them."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if spark_scratch.MARK in process.environ():
                found.append(process)
    return found


def session_folder() -> Path:
    """Return where this Ray keeps its files."""
    from ray._private import worker  # noqa: TID251

    node: Any = worker.global_worker.node
    return Path(node.get_session_dir_path())


def executors() -> list[psutil.Process]:
    return [process for process in sessions() if "-Xms" in " ".join(process.cmdline())]


def test_frames_go_from_spark_to_ray_to_pandas_and_back(submit: Submit) -> None:
    def job(context: rayml.Context) -> dict[str, Any]:
        import ray.data
        from pyspark.sql import SparkSession
        from pyspark.sql.pandas.functions import pandas_udf

        spark: Any = context.spark
        assert SparkSession.builder.getOrCreate() is spark
        frame = spark.range(100, numPartitions=3).selectExpr("id % 3 AS k", "id AS v")
        sums = {
            row.k: row.s for row in frame.groupBy("k").agg({"v": "sum"}).toDF("k", "s").collect()
        }

        dataset = ray.data.from_spark(frame)
        doubled = dataset.map_batches(lambda batch: {**batch, "v": batch["v"] * 2})
        pandas = doubled.to_pandas()
        back = doubled.to_spark(spark)

        plus_one: Any = pandas_udf(lambda values: values + 1, "long")  # type: ignore[call-overload]
        plus = back.select(plus_one("v").alias("v")).agg({"v": "sum"}).first()
        again: Any = spark.createDataFrame(pandas).agg({"v": "sum"}).first()
        context.log_dataset("frame", frame.selectExpr("k", "CAST(v AS double) AS v"))
        context.log_dataset("empty", frame.where("v < 0"))
        jvm: Any = spark.sparkContext._jvm  # noqa: SLF001
        java = jvm.System.getProperty("java.version")
        return {
            "sums": sums,
            "pandas": int(pandas.v.sum()),
            "plus": plus[0],
            "again": again[0],
            "java": java,
        }

    run = submit(job, engine=ONE, resources=HALF).wait()
    result: Any = run.result
    assert result["sums"] == {0: 1683, 1: 1617, 2: 1650}
    assert (result["pandas"], result["plus"], result["again"]) == (9900, 10000, 9900)
    assert result["java"].startswith("17.")

    frame = run.artifact("frame")
    parts = sorted(path.name for path in frame.path().iterdir())
    assert parts == [f"part-{number:05}.parquet" for number in range(3)]
    assert (frame.meta["source"], frame.meta["rows"], frame.meta["columns"]) == ("spark", 100, 2)
    assert frame.meta["statistics"]["v"]["mean"] == pytest.approx(49.5)
    assert frame.meta["preview"]["rows"][:2] == [[0, 0.0], [1, 1.0]]
    assert frame.to_pandas().v.tolist() == list(range(100))
    empty = run.artifact("empty")
    assert (empty.meta["rows"], [c["name"] for c in empty.meta["schema"]]) == (0, ["k", "v"])


def count(context: rayml.Context, rows: int) -> int:
    """Count rows on executors."""
    return context.spark.range(rows).selectExpr("id % 7 AS k").groupBy("k").count().count()


@pytest.mark.thorough
def test_another_engine_takes_over_on_the_same_workers(submit: Submit) -> None:
    def lead(context: rayml.Context) -> list[Any]:
        frame = context.spark.range(1001).selectExpr("id AS v", "id * 2 AS w").repartition(3)
        run: Any = rayml.submit(add_up, inputs={"table": frame}, engine=rayml.Torch(), borrow=True)
        run.wait()
        return [run.result, run.metrics["rows"], frame.count()]

    # All CPUs are the job's: nothing may be asked of Ray beside them.
    two = rayml.Spark(executors=2, conf=QUICK)
    run = submit(lead, engine=two, resources=rayml.Resources(cpus=1)).wait()
    result: Any = run.result
    total, rows, count = result
    assert (rows, count) == (1000, 1001)
    assert 1001_000 - 2 * 1000 <= total <= 1001_000  # one row is left out, which one is open


@pytest.mark.thorough
def test_horovod_trains_on_what_spark_has_prepared_on_the_same_workers(submit: Submit) -> None:
    def lead(context: rayml.Context) -> list[Any]:
        import ray.data

        frame = context.spark.range(1000, numPartitions=3).selectExpr("id % 2 AS x")
        rows = ray.data.from_spark(frame.selectExpr("x", "3 * x AS y"))
        run: Any = rayml.submit(
            fit_line, inputs={"rows": rows}, engine=rayml.Horovod(), borrow=True
        )
        run.wait()
        return [run.result, run.metrics["rows"], frame.count()]

    # All CPUs are the job's: nothing may be asked of Ray beside them.
    two = rayml.Spark(executors=2, conf=QUICK)
    run = submit(lead, engine=two, resources=rayml.Resources(cpus=1)).wait()
    result: Any = run.result
    slope, rows, count = result
    assert slope == pytest.approx(3, abs=0.01)
    assert (rows, count) == (1000, 1000)


def fit_line(rows: rayml.Input, *, context: rayml.Context) -> float:
    """Learn how y follows from x, each rank from its own rows."""
    import horovod.torch as hvd
    import torch

    hvd.init()
    shard: Any = rows.shard().to_pandas()
    context.log_metric("rows", len(shard), reduce="sum")
    x, y = (torch.tensor(shard[name].to_numpy(), dtype=torch.float32) for name in ("x", "y"))
    slope = torch.zeros(1, requires_grad=True)
    sgd = torch.optim.SGD([slope], lr=1.0)
    optimizer = hvd.DistributedOptimizer(sgd, [("slope", slope)])
    for _ in range(20):
        loss: Any = (slope * x - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return slope.item()


@pytest.fixture
def link_to_nothing() -> Iterator[None]:
    """What is called Ray's newest session is gone, as after one that was killed and cleared."""
    link = Path("/tmp/ray/session_latest")  # noqa: S108 - where RayDP looks, whatever Ray was told
    aside = link.with_name(f"aside-{os.getpid()}")
    link.parent.mkdir(exist_ok=True)
    if os.path.lexists(link):
        link.rename(aside)
    link.symlink_to(link.with_name("gone"))
    yield
    if link.is_symlink() and link.readlink().name == "gone":
        link.unlink()
        if os.path.lexists(aside):
            aside.rename(link)


@pytest.mark.thorough
@pytest.mark.usefixtures("link_to_nothing")
def test_two_jobs_at_once_do_not_meet(submit: Submit) -> None:
    runs = [submit(count, params={"rows": rows}, engine=ONE, resources=HALF) for rows in (3, 100)]
    assert [run.wait(120).result for run in runs] == [3, 7]


SCRIPT = """
from pyspark.sql import SparkSession
import rayml
spark = SparkSession.builder.appName("mine").getOrCreate()
rayml.context().log_metric("total", spark.range(10).agg({"id": "sum"}).first()[0])
assert rayml.context().spark is spark
print("executors", spark.sparkContext.getConf().get("spark.executor.instances"))
spark.sql("SELECT nothing FROM nowhere")
"""


def test_a_script_finds_its_session_and_what_java_says_is_in_its_error(
    submit: Submit, work: Path
) -> None:
    (work / "count.py").write_text(SCRIPT)
    two = rayml.Spark(executors=2, conf=QUICK)
    run = submit("count.py", engine=two, resources=HALF)
    with pytest.raises(rayml.JobFailed, match=r"AnalysisException: .*TABLE") as caught:
        run.wait()
    assert "TABLE_OR_VIEW_NOT_FOUND" in caught.value.traceback
    assert "spark.sql(" in caught.value.traceback
    assert run.metrics["total"] == 45
    assert "executors 2" in str(run.logs())


def test_a_script_whose_session_cannot_start_says_why(submit: Submit, work: Path) -> None:
    (work / "count.py").write_text(SCRIPT)
    run = submit("count.py", engine=ONE, resources=HALF, env={"JAVA_HOME": "/nowhere"})
    with pytest.raises(rayml.JobFailed, match="JAVA_HOME") as caught:
        run.wait()
    assert caught.value.kind == "requirements"
    assert run.logs() == f"rayml: {caught.value.message}\n"


def stand(context: rayml.Context, gate: str) -> None:
    """Keep an executor busy, and do not listen to who cancels it."""
    context.spark.range(1).count()
    Path(gate).open().close()
    while True:
        with suppress(KeyboardInterrupt):
            context.spark.range(2).foreach(lambda _: time.sleep(600))


@pytest.mark.thorough
def test_cancel_leaves_nothing_of_a_job_that_does_not_listen(submit: Submit, gate: Gate) -> None:
    run = submit(stand, params={"gate": str(gate)}, engine=ONE, resources=HALF)
    gate.open(120)
    assert executors()
    run.cancel(grace_s=1)
    with pytest.raises(rayml.JobCancelled):
        run.wait(60)


@pytest.mark.thorough
def test_a_lost_executor_is_replaced_and_a_lost_driver_is_tried_again(
    submit: Submit, gate: Gate
) -> None:
    def job(context: rayml.Context, gate: str) -> None:
        from pyspark.sql.functions import udf

        spark = context.spark
        if context.attempt == 1:
            Path(gate).open().close()
            assert spark.range(10, numPartitions=4).selectExpr("id + 1").count() == 10
            context.log_metric("rows", 10, sync=True)
            os.kill(os.getpid(), signal.SIGKILL)
        fails = udf(lambda _: 1 // 0, "int")
        spark.range(3).select(fails("id")).collect()

    again = rayml.Retry(attempts=2, backoff_s=0.01)
    run = submit(job, params={"gate": str(gate)}, engine=ONE, resources=HALF, retry=again)
    with gate.held(120):
        executors()[0].kill()
    with pytest.raises(rayml.JobFailed, match="ZeroDivisionError"):
        run.wait()
    assert (run.attempt, run.history("rows").value.tolist()) == (2, [10])


@pytest.mark.thorough
def test_all_is_over_when_the_job_s_time_is(submit: Submit, gate: Gate) -> None:
    job = submit(stand, params={"gate": str(gate)}, engine=ONE, resources=HALF, timeout_s=40)
    gate.open(40)  # its session is up long before
    assert executors()
    with pytest.raises(rayml.JobTimeout, match="ran longer than timeout_s=40"):
        job.wait(120)


@pytest.mark.thorough
def test_files_lie_in_the_folders_named_and_go_with_a_job_that_is_killed(
    submit: Submit, tmp_path: Path
) -> None:
    disks = [tmp_path / "one", tmp_path / "two"]
    for disk in disks:
        disk.mkdir()

    def job(context: rayml.Context) -> None:
        count(context, 100)
        for disk in disks:
            context.log_metric(disk.name, len(list(disk.rglob("blockmgr-*"))), sync=True)
        os.kill(os.getpid(), signal.SIGKILL)

    conf = {**QUICK, "spark.local.dir": ",".join(map(str, disks))}
    run = submit(job, engine=rayml.Spark(executors=1, conf=conf), resources=HALF)
    with pytest.raises(rayml.JobFailed, match="ended before the function returned"):
        run.wait()
    assert run.metrics == {"one": 2, "two": 2}  # the driver's and the executor's
    assert [list(disk.iterdir()) for disk in disks] == [[], []]


def test_a_folder_that_cannot_be_made_is_named(submit: Submit) -> None:
    nowhere = rayml.Spark(executors=1, conf={"spark.local.dir": "/proc/none"})
    run = submit(count, params={"rows": 1}, engine=nowhere, resources=HALF)
    with pytest.raises(rayml.JobFailed, match=r"'/proc/none.* give another spark\.local\.dir"):
        run.wait()


@pytest.mark.thorough
def test_executors_come_with_the_load_and_go_with_it(submit: Submit, tmp_path: Path) -> None:
    def job(context: rayml.Context) -> int:
        from rayml._ray.spark import count_executors

        def meet(_: object) -> None:
            (tmp_path / f"daemon-{os.getppid()}").touch()  # each executor has one
            eventually(lambda: len(list(tmp_path.glob("daemon-*"))) == 2)

        eventually(lambda: count_executors(context.spark) == 1)
        context.spark.range(4, numPartitions=4).foreach(meet)
        eventually(lambda: count_executors(context.spark) == 1)
        return len(list(tmp_path.glob("daemon-*")))

    conf = {**QUICK, "spark.dynamicAllocation.executorIdleTimeout": "1s"}
    engine = rayml.Spark(dynamic=(1, 2), conf=conf)
    assert submit(job, engine=engine, resources=HALF).wait().result == 2


POM = """
<project><modelVersion>4.0.0</modelVersion>
<groupId>org.example</groupId><artifactId>made-up</artifactId><version>1.0</version></project>
"""


@pytest.mark.thorough
def test_packages_are_loaded(submit: Submit, tmp_path: Path) -> None:
    def job(context: rayml.Context) -> list[Any]:
        spark: Any = context.spark.sparkContext
        loader = spark._jvm.Thread.currentThread().getContextClassLoader()  # noqa: SLF001
        served = spark._jsc.sc().listJars().mkString(" ")  # noqa: SLF001
        return [loader.getResource("made/up.txt") is not None, "made-up-1.0.jar" in served]

    folder = tmp_path / "maven" / "org" / "example" / "made-up" / "1.0"
    folder.mkdir(parents=True)
    (folder / "made-up-1.0.pom").write_text(POM)
    with zipfile.ZipFile(folder / "made-up-1.0.jar", "w") as jar:
        jar.writestr("made/up.txt", "made up")
    conf = {**QUICK, "spark.jars.ivy": str(tmp_path / "ivy")}
    engine = rayml.Spark(executors=1, conf=conf, packages=("org.example:made-up:1.0",))
    env = {"DEFAULT_ARTIFACT_REPOSITORY": (tmp_path / "maven").as_uri()}  # else Maven Central
    assert submit(job, engine=engine, resources=HALF, env=env).wait().result == [True, True]


@pytest.fixture(scope="module")
def s3_jars() -> str:
    """With what Hadoop reads buckets, from Maven Central."""
    try:
        hadoop = jar("org.apache.hadoop", "hadoop-aws", "3.3.4")
        amazon = jar("com.amazonaws", "aws-java-sdk-bundle", "1.12.262")
    except requests.RequestException as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"Maven Central is out of reach: {exc}")
    return f"{hadoop},{amazon}"


@pytest.mark.thorough
def test_a_bucket_is_read_and_written_as_the_store_is(
    submit: Submit, s3_store_uri: str, s3_jars: str
) -> None:
    def job(bucket: str, *, context: rayml.Context) -> list[Any]:
        spark: Any = context.spark
        spark.range(100, numPartitions=2).write.parquet(f"s3a://{bucket}/numbers")
        frame = spark.read.parquet(f"s3://{bucket}/numbers")
        context.log_dataset("numbers", frame)
        return [frame.count(), spark.read.parquet(f"s3a://{bucket}/numbers").count()]

    bucket = s3_store_uri.removeprefix("s3://")
    engine = rayml.Spark(executors=1, conf={**QUICK, "spark.jars": s3_jars})
    options: dict[str, Any] = {"store": f"{s3_store_uri}/runs", "resources": HALF}
    run = submit(job, params={"bucket": bucket}, engine=engine, **options).wait()
    assert run.result == [100, 100]
    assert run.artifact("numbers").load().id.sum() == 4950


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("last", "words"),
    [
        ("60000000 + id", "an executor ran out of memory, of which its heap had 516 MiB"),
        ("60000000", "Spark's driver ran out of memory"),  # it computes what is constant
    ],
)
def test_what_is_without_memory_is_named(submit: Submit, last: str, words: str) -> None:
    def job(last: str, *, context: rayml.Context) -> None:
        big = f"transform(sequence(0, {last}), x -> concat('a', x))"
        context.spark.range(1).selectExpr(f"size({big})").collect()

    small = rayml.Spark(executors=1, memory="900Mi", conf={**QUICK, "spark.task.maxFailures": 1})
    with pytest.raises(rayml.JobFailed, match=words) as caught:
        submit(job, params={"last": last}, engine=small, resources=HALF).wait()
    assert caught.value.kind == "oom"


@pytest.mark.thorough
def test_a_script_without_memory_is_known_as_such(submit: Submit, work: Path) -> None:
    (work / "big.py").write_text(
        "import rayml\n"
        "big = \"size(transform(sequence(0, 60000000), x -> concat('a', x)))\"\n"
        "rayml.context().spark.range(1).selectExpr(big).collect()\n"
    )
    small = rayml.Spark(executors=1, memory="900Mi", conf=QUICK)
    with pytest.raises(rayml.JobFailed, match="Spark's driver ran out of memory") as caught:
        submit("big.py", engine=small, resources=HALF).wait()
    assert caught.value.kind == "oom"


def test_a_session_that_is_late_says_what_it_waited_for(submit: Submit) -> None:
    late = rayml.Spark(executors=1, timeout_s=1)
    with pytest.raises(rayml.JobFailed, match="did not start within timeout_s=1: Spark's master"):
        submit(count, params={"rows": 1}, engine=late, resources=HALF).wait()


def test_a_java_that_spark_cannot_use_is_refused(submit: Submit, tmp_path: Path) -> None:
    java = tmp_path / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.2\" 2024-01-16' >&2\n")
    java.chmod(0o755)
    env = {"JAVA_HOME": str(tmp_path / "java")}
    run = submit(count, params={"rows": 1}, engine=ONE, resources=HALF, env=env)
    with pytest.raises(rayml.JobFailed, match="is Java 21, and Spark runs on 8, 11 or 17"):
        run.wait()


def test_without_the_engine_there_is_no_session(submit: Submit) -> None:
    with pytest.raises(rayml.JobFailed, match=r"no Spark session .* engine=rayml\.Spark\(\)"):
        submit(count, params={"rows": 1}, resources=HALF).wait()
    assert ray.is_initialized()
