"""The settings of the Spark engine, and which Java it takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import rayml
from rayml.engine import parse_engine, resize_for, spark_heap
from rayml.engines import java
from rayml.engines.spark import bucket_conf
from rayml.spec import Spec

ROOT = Path(__file__).parents[2]


def nothing() -> None:
    """Do nothing."""


def dry(folder: Path, **options: Any) -> Spec:
    spec = rayml.submit(nothing, store=folder, dry_run=True, **options)
    assert isinstance(spec, Spec)
    return spec


def test_executors_are_the_job_s_workers(tmp_path: Path) -> None:
    engine = rayml.Spark(
        executors=3, cores=2, memory="2Gi", conf={"spark.a": True}, packages=("a:b:1",)
    )
    spec = dry(tmp_path, engine=engine)
    assert (spec.resources.workers, spec.resources.cpus, spec.resources.memory) == (3, 2, "2Gi")
    assert spec.world_size == 1  # the function runs once
    assert msgspec.json.decode(msgspec.json.encode(spec), type=Spec).engine == engine
    assert parse_engine("spark") == rayml.Spark()


def test_what_the_engine_leaves_out_is_the_resources(tmp_path: Path) -> None:
    given = rayml.Resources(cpus=0.5, workers=2, memory="1Gi")
    assert resize_for(rayml.Spark(), given) == given
    assert resize_for(rayml.Spark(dynamic=(1, 4)), rayml.Resources()).workers == 4


@pytest.mark.parametrize(
    ("engine", "resources", "message"),
    [
        ({"executors": 2}, {"workers": 3}, "has executors=2 and the resources have workers=3"),
        ({"cores": 2}, {"cpus": 4}, "has cores=2 and the resources have cpus=4"),
        ({}, {"cpus": 0}, r"cpus=0 leaves Spark nothing"),
        (
            {"memory": "512Mi"},
            {},
            "512Mi leaves a Spark executor 128 MiB of heap, and it needs 450",
        ),
        ({}, {"memory": "300Mi"}, "leaves a Spark executor 0 MiB"),
    ],
)
def test_workers_that_do_not_fit_are_refused(
    tmp_path: Path, engine: dict[str, Any], resources: dict[str, Any], message: str
) -> None:
    with pytest.raises(rayml.SpecError, match=message):
        dry(tmp_path, engine=rayml.Spark(**engine), resources=rayml.Resources(**resources))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executors": 0}, "executors=0 is not a count"),
        ({"cores": 0.5}, "cores=0.5 is not a count"),
        ({"memory": "much"}, "memory='much' is not a quantity"),
        ({"dynamic": 3}, r"dynamic=3 is not \(min, max\); give two counts of executors"),
        ({"dynamic": (3, 2)}, "needs 1 <= min <= max"),
        ({"dynamic": (1, 2), "executors": 3}, "gets the 2 executors .* leave out executors=3"),
        ({"conf": ["spark.a"]}, "is no dict"),
        (
            {"conf": {"sql.shuffle": 1}},
            "has 'sql.shuffle', and Spark's settings begin with 'spark",
        ),
        ({"conf": {"spark.a": None}}, "has spark.a=None; give text"),
        ({"conf": {"spark.executor.memory": "2g"}}, "which rayml sets; give memory="),
        ({"packages": "a:b:1"}, "is no list"),
        (
            {"packages": ("hadoop-aws",)},
            "'hadoop-aws' is not of Maven; give group:artifact:version",
        ),
        ({"timeout_s": 0}, "timeout_s=0 is not a time"),
    ],
)
def test_a_wrong_setting_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(rayml.SpecError, match=message):
        rayml.Spark(**options)


def test_a_tenth_of_the_memory_is_beside_the_heap() -> None:
    assert spark_heap(10 * 1024**3) == 9216
    assert spark_heap(1024**3) == 640


def fake_java(folder: Path, says: str) -> Path:
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    program.chmod(0o755)
    return folder


def test_only_the_job_s_own_variable_names_another_java(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java.find_java({})[1] == 17
    eight = fake_java(tmp_path / "8", 'java version "1.8.0_392"')
    assert java.find_java({"JAVA_HOME": str(eight)}) == (eight, 8)
    assert "--add-opens" not in java.options(tmp_path, 8)


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ('openjdk version "21.0.2" 2024-01-16', "is Java 21, and Spark runs on 8, 11 or 17"),
        ("usage: java", "`java -version` said 'usage: java'"),
        (None, "has no Java that starts"),
    ],
)
def test_a_java_that_spark_cannot_use_is_refused(
    tmp_path: Path, says: str | None, message: str
) -> None:
    home = tmp_path / "java" if says is None else fake_java(tmp_path / "java", says)
    with pytest.raises(rayml.SpecError, match=message):
        java.find_java({"JAVA_HOME": str(home)})


def test_the_image_opens_the_same_packages() -> None:
    image = (ROOT / "cluster" / "image" / "Dockerfile").read_text()
    opened = re.findall(r"--add-opens=java\.base/([\w.]+)=ALL-UNNAMED", image)
    assert opened == list(java.OPENED)


def test_hadoop_reads_a_bucket_as_the_store_does() -> None:
    config = {
        "aws_endpoint_url": "http://127.0.0.1:9000",
        "aws_access_key_id": "me",
        "aws_secret_access_key": "hidden",
        "aws_session_token": "for an hour",
    }
    conf = bucket_conf("s3://bucket/runs", config)
    assert conf["fs.s3a.endpoint"] == "http://127.0.0.1:9000"
    assert conf["fs.s3a.path.style.access"] == "true"
    assert conf["fs.s3a.connection.ssl.enabled"] == "false"
    assert conf["fs.s3a.aws.credentials.provider"].endswith("TemporaryAWSCredentialsProvider")
    assert (conf["fs.s3a.access.key"], conf["fs.s3a.secret.key"]) == ("me", "hidden")
    assert bucket_conf("/a/folder", {}) == bucket_conf("gs://bucket", {}) == {}
    aws = bucket_conf("s3://bucket", {"aws_region": "eu-west-1"})
    assert set(aws) == {"fs.s3.impl", "fs.s3a.endpoint.region"}


@pytest.mark.parametrize("memory", [2**31, 2**32, 2**32 + 1, 3_000_000_001])
def test_executors_ask_for_exactly_what_a_worker_has(memory: int) -> None:
    pytest.importorskip("raydp")
    from rayml._ray.spark import placement_conf

    held = {"CPU": 0.5, "memory": float(memory), "GPU": 1.0, "accelerator_type:A100": 0.001}
    conf = placement_conf("ab", held)
    share = "spark.ray.raydp_spark_executor.actor.resource"
    assert {key for key in conf if key.startswith(share)} == {f"{share}.cpu", f"{share}.memory"}
    assert float(conf[f"{share}.memory"]) == memory
    assert float(conf[f"{share}.cpu"]) == 0.5
