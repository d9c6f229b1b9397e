"""RayDP's Spark on the workers that a job holds, with a deadline for each of its steps.

RayDP starts four kinds of Java processes: a gateway, which its master (a Python actor) starts and
which is a Ray driver of its own; the application master and the executors, which are Java actors
of that driver; and Spark's driver, a child of this process.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pyarrow as pa
import pyspark
import ray
import raydp.spark.dataset as conversion
from ray._private import worker as ray_worker
from ray.exceptions import GetTimeoutError, RayError
from raydp.spark.ray_cluster import SparkCluster
from raydp.spark.ray_cluster_master import RAYDP_SPARK_MASTER_SUFFIX, RayDPSparkMaster

from rayml import processes
from rayml._ray import spark_scratch
from rayml._ray.blocks import FewAtATime, count_without_cpus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyspark.sql import SparkSession

_LOOK_S = 0.1
_END_S = 10.0
# Of an actor that RayDP starts, under names that a cluster has once.
_EXECUTOR = "raydp-executor-"
# What Scala calls the backend's private `appId` in Java.
_APPLICATION = "org$apache$spark$scheduler$cluster$raydp$RayCoarseGrainedSchedulerBackend$$appId"
_SHARE = "spark.ray.raydp_spark_executor.actor.resource"


class NotStarted(Exception):
    """The session did not come up; the text says what was missing."""


@dataclass(frozen=True)
class Plan:
    """A session as it is to be.

    Attributes:
        name: Its own: of the application, of Ray's namespace for its actors, and of its folder.
        group: The id of the job's placement group.
        share: What an executor takes of each worker, under Ray's names.
        least: How many executors must be there before it counts as up.
        conf: Spark's settings.
        variables: What the environment of all its processes has.
        scratch: The folders of all its files, on each machine; all have the same name.
    """

    name: str
    group: str
    share: Mapping[str, float]
    least: int
    conf: Mapping[str, str]
    variables: Mapping[str, str]
    scratch: Sequence[Path]


@contextmanager
def opened(plan: Plan, timeout_s: float) -> Iterator[SparkSession]:
    """Start a session, which nothing is left of after the block.

    Raises:
        NotStarted: It was not up in time.
    """
    deadline = time.monotonic() + timeout_s
    nodes = spark_scratch.nodes_of(plan.group)
    cluster = _Cluster(plan, deadline)
    try:
        _prepare(plan, nodes)
        yield _start(cluster, plan, nodes, deadline)
    finally:
        cluster.end()
        spark_scratch.on_nodes(nodes, spark_scratch.clear, plan.scratch)


def _prepare(plan: Plan, nodes: list[str]) -> None:
    wanted = (Path(plan.variables["JAVA_HOME"]), _folder_of("raydp"), _folder_of("pyspark"))
    lacks = spark_scratch.on_nodes(nodes, spark_scratch.prepare, plan.scratch, wanted)
    if silent := set(nodes) - set(lacks):
        raise NotStarted(f"machine {min(silent)} of its workers did not answer")
    if lacking := next(filter(None, lacks.values()), None):
        raise NotStarted(str(lacking))


def _folder_of(package: str) -> Path:
    spec = find_spec(package)
    return Path(str(spec and spec.origin)).parent


def _start(cluster: _Cluster, plan: Plan, nodes: list[str], deadline: float) -> SparkSession:
    cluster.start_master()
    session = cluster.start_driver()
    spark_scratch.on_nodes(nodes, spark_scratch.note, plan.scratch[0], _application(session))
    _await_executors(session, plan, deadline)
    count_without_cpus()
    conversion._fetch_arrow_table_from_executor = _fetcher(plan.name, plan.least)
    return session


def _application(session: SparkSession) -> str:
    """Return what RayDP calls the application: not what Spark does, and it tells nobody."""
    context: Any = session.sparkContext
    backend = context._jsc.sc().schedulerBackend()
    return str(getattr(backend, _APPLICATION)().get())


def _await_executors(session: SparkSession, plan: Plan, deadline: float) -> None:
    while (count := count_executors(session)) < plan.least:
        if time.monotonic() > deadline:
            raise NotStarted(f"{count} of {plan.least} executors had come")
        time.sleep(_LOOK_S)


def set_hadoop(session: SparkSession, conf: Mapping[str, str]) -> None:
    """Set what Hadoop's file systems need; executors get it with their tasks."""
    context: Any = session.sparkContext
    for key, value in conf.items():
        context._jsc.hadoopConfiguration().set(key, value)


def count_executors(session: SparkSession) -> int:
    """Return how many executors a session has at the moment."""
    context: Any = session.sparkContext
    return int(context._jsc.sc().getExecutorMemoryStatus().size()) - 1  # the driver is in it


def heap_ran_out(plan: Plan) -> bool:
    """Tell whether an executor of a session has used up its heap."""
    nodes = spark_scratch.nodes_of(plan.group)
    return any(spark_scratch.on_nodes(nodes, spark_scratch.ran_out, plan.scratch[0]).values())


class _Cluster(SparkCluster):  # type: ignore[misc]
    """RayDP's, started in steps, each of which ends in time."""

    def __init__(self, plan: Plan, deadline: float) -> None:
        self._plan = plan
        self._deadline = deadline
        self._spark_master_handle: Any = None
        self._spark_session: Any = None
        self._url = ""

    def start_master(self) -> None:
        plan, conf = self._plan, dict(self._plan.conf)
        executors = (conf.pop("spark.executor.instances"), conf.pop("spark.executor.cores"))
        try:
            super().__init__(
                plan.name,
                *executors,
                conf.pop("spark.executor.memory"),
                enable_hive=False,
                configs=conf,
            )
        except GetTimeoutError as exc:
            raise NotStarted("Spark's master had not started") from exc
        except RayError as exc:
            raise NotStarted(f"Spark's master failed: {_last_line(exc)}") from exc

    def start_driver(self) -> SparkSession:
        with _children_killed_at(self._deadline) as is_late:
            try:
                session = self.get_spark_session()
                self.connect_spark_driver_to_ray()
            except Exception as exc:
                if is_late():
                    raise NotStarted("Spark's driver had not started") from exc
                raise NotStarted(f"Spark's driver failed: {_last_line(exc)}") from exc
        return session  # type: ignore[no-any-return]

    def get_cluster_url(self) -> str:
        return self._url

    def end(self) -> None:
        """End all its processes, those of executors first: Ray would start them anew."""
        with _children_killed_at(time.monotonic() + _END_S), suppress(Exception):
            self._stop_driver()
        _forget_driver()
        processes.end(_driver_processes())
        for actor in _actors_of(self._plan.name):
            ray.kill(actor)
        if self._spark_master_handle is not None:
            ray.kill(self._spark_master_handle)

    def _stop_driver(self) -> None:
        if self._spark_session is not None:
            self._spark_session._jvm.org.apache.spark.deploy.raydp.RayAppMaster.shutdownRay()
            self._spark_session.stop()

    def _set_up_master(self, resources: object, kwargs: object) -> None:  # noqa: ARG002 - RayDP's
        plan = self._plan
        options = {"name": plan.name + RAYDP_SPARK_MASTER_SUFFIX, "num_cpus": 0}
        master = ray.remote(_Master).options(**options)
        self._spark_master_handle = master.remote(self._configs, plan.name, dict(plan.variables))
        ray.get(self._spark_master_handle.start_up.remote(), timeout=self._left())
        url = self._spark_master_handle.get_master_url.remote()
        self._url = ray.get(url, timeout=self._left())

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


_Base: Any = RayDPSparkMaster.__ray_metadata__.modified_class


class _Master(_Base):  # type: ignore[misc]
    """RayDP's, whose Java processes have a namespace and an environment of their own.

    Otherwise all sessions of a namespace would share the names of their actors, and Ray's Java
    workers would have the environment that Ray was started in.
    """

    def __init__(self, configs: object, namespace: str, variables: dict[str, str]) -> None:
        super().__init__(configs)
        self._namespace = namespace
        self._variables = variables
        os.environ |= {name: os.path.expandvars(text) for name, text in variables.items()}

    def _generate_ray_configs(self) -> str:
        options = json.loads(super()._generate_ray_configs())
        options["ray.job.namespace"] = self._namespace
        for name, text in self._variables.items():
            options[f"ray.job.runtime-env.env-vars.{name}"] = text
        return json.dumps(options)


def _actors_of(namespace: str) -> Iterator[Any]:
    for found in ray.util.list_named_actors(all_namespaces=True):
        if found["namespace"] == namespace:
            with suppress(ValueError):  # it has just ended
                yield ray.get_actor(found["name"], namespace=namespace)


def _fetcher(namespace: str, width: int) -> FewAtATime:
    """Return how `ray.data.from_spark` gets a partition from an executor: by RayDP's own way.

    It looks for the executor in the namespace of the session, not of the job; and its process can
    serve other tasks afterwards, for which it must not look for code in local modules only.
    """

    def fetch(executor: str, *partition: object) -> Any:  # noqa: ANN401
        worker: Any = ray_worker.global_worker
        worker.set_load_code_from_local(True)  # without it, Ray calls no Java
        try:
            actor: Any = ray.get_actor(executor, namespace=namespace)
            stream: Any = ray.get(actor.getRDDPartition.remote(*partition))
        finally:
            worker.set_load_code_from_local(False)
        reader = pa.ipc.open_stream(pa.BufferReader(stream))
        return reader.read_all().replace_schema_metadata()

    return FewAtATime(fetch, width)  # without a CPU: executors have all of the job's


@contextmanager
def _children_killed_at(deadline: float) -> Iterator[Any]:
    """End Spark's driver when the block takes longer: nothing else ends a call that waits for it.

    Yields what tells whether that happened.
    """
    late = threading.Event()

    def kill() -> None:
        late.set()
        processes.end(_driver_processes())

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), kill)
    timer.start()
    try:
        yield late.is_set
    finally:
        timer.cancel()


def _driver_processes() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if child.environ().get(spark_scratch.MARK):
                found.append(child)
    return found


def _forget_driver() -> None:
    """Let nothing speak to it: what Python's objects of it say when they go would be in vain."""
    context: Any = pyspark.SparkContext
    if (gateway := context._gateway) is not None:
        with suppress(Exception):
            gateway.shutdown()
        gateway._gateway_client.is_connected = False
    context._active_spark_context = context._gateway = context._jvm = None


def environment(java: Path, scratch: Sequence[Path], brief: str, run: str) -> dict[str, str]:
    """Return the variables of a session's processes; `${NAME}` is their machine's own."""
    return {
        "JAVA_HOME": str(java),
        "PATH": f"{java}/bin:${{PATH}}",
        "SPARK_HOME": str(_folder_of("pyspark")),
        "SPARK_LOCAL_DIRS": ",".join(map(str, scratch)),
        "TMPDIR": str(scratch[0]),
        "SPARK_LAUNCHER_OPTS": brief,
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        processes.VARIABLE: run,
        spark_scratch.MARK: scratch[0].name,
    }


def placement_conf(plan_group: str, share: Mapping[str, float]) -> dict[str, str]:
    """Return the settings by which RayDP places executors: one on each of a job's workers.

    Without indexes of bundles, which RayDP counts round wrongly once an executor has ended. What
    executors take of a worker is said one by one, because RayDP would ask for their heap. The
    master stays on this machine: Ray would put what asks for nothing on any of the cluster's, and
    a head's image has no Java. GPUs stay for the ranks of a run that borrows the workers.
    """
    here = f"node:{ray.util.get_node_ip_address()}"
    taken = {"memory": share.get("memory", 0.0), "CPU": share["CPU"]}
    shares = {f"{_SHARE}.{'cpu' if k == 'CPU' else k}": repr(float(v)) for k, v in taken.items()}
    return {
        "spark.ray.placement_group": plan_group,
        "spark.ray.raydp_spark_master.actor.resource.CPU": "0",
        f"spark.ray.raydp_spark_master.actor.resource.{here}": "0.001",
        **shares,
    }


def _last_line(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__
