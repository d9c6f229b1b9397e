"""Engines' settings, and how a failure is told from what it causes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import rayml
from rayml.culprit import find_culprit, hang
from rayml.engine import parse_engine, resize_for
from rayml.engines.torch import SIGNS
from rayml.errors import SpecError
from rayml.spec import Spec
from rayml.tracker.records import Problem

if TYPE_CHECKING:
    from pathlib import Path


def job(context: rayml.Context) -> None:
    pass


def dry(tmp_path: Path, **options: Any) -> Spec:
    spec = rayml.submit(job, dry_run=True, store=tmp_path, **options)
    assert isinstance(spec, Spec)
    return spec


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, "workers=0 is not a count"),
        ({"workers": True}, "workers=True is not a count"),
        ({"backend": "mpi"}, "backend='mpi' is none of"),
        ({"backend": "ncll"}, "did you mean 'nccl'"),
        ({"timeout_s": 0}, "timeout_s=0 is not a time"),
        ({"timeout_s": float("inf")}, "timeout_s=inf is not a time"),
    ],
)
def test_a_wrong_setting_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        rayml.Torch(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, "workers=0 is not a count"),
        ({"timeout_s": -1}, "timeout_s=-1 is not a time"),
        ({"elastic": 2}, r"elastic=2 is not \(min, max\)"),
        ({"elastic": (1, 2, 3)}, r"is not \(min, max\)"),
        ({"elastic": (True, 2)}, r"is not \(min, max\)"),
        ({"elastic": (3, 2)}, "needs 1 <= min <= max"),
        ({"elastic": (0, 2)}, "needs 1 <= min <= max"),
        ({"elastic": (1, 2), "workers": 3}, "leave out workers=3"),
    ],
)
def test_a_wrong_setting_of_horovod_s_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        rayml.Horovod(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, "workers=0 is not a count"),
        ({"memory": "4 gigs"}, "memory='4 gigs' is not a quantity"),
        ({"client": "yes"}, "client='yes' is not an answer"),
    ],
)
def test_a_wrong_setting_of_dask_s_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        rayml.Dask(**options)


def test_dask_leads_workers_of_its_size_and_runs_the_function_once(tmp_path: Path) -> None:
    spec = dry(tmp_path, engine=rayml.Dask(workers=3, memory="2Gi"))
    assert (spec.resources.workers, spec.resources.memory, spec.world_size) == (3, "2Gi", 1)
    with pytest.raises(SpecError, match="memory='2Gi' and the resources have memory='1Gi'"):
        dry(tmp_path, engine=rayml.Dask(memory="2Gi"), resources=rayml.Resources(memory="1Gi"))
    with pytest.raises(SpecError, match="cpus=0 leaves Dask nothing"):
        dry(tmp_path, engine=rayml.Dask(), resources=rayml.Resources(cpus=0))


def test_an_elastic_job_gets_as_many_workers_as_it_may_have(tmp_path: Path) -> None:
    spec = dry(tmp_path, engine=rayml.Horovod(elastic=(2, 4)))
    assert (spec.resources.workers, spec.world_size) == (4, 4)
    assert spec.engine == rayml.Horovod(elastic=(2, 4))
    assert msgspec.json.decode(msgspec.json.encode(spec), type=Spec) == spec
    with pytest.raises(SpecError, match="workers=4 and the resources have workers=2"):
        dry(tmp_path, engine=rayml.Horovod(elastic=(2, 4)), resources=rayml.Resources(workers=2))


@pytest.mark.parametrize(
    ("waits", "running", "absent"),
    [
        ({}, [0, 1], None),
        ({0: 3.9}, [0, 1], None),
        ({0: 4.0}, [0, 1, 2], [1, 2]),
        ({0: 4.0, 1: 0.0, 2: 2.5}, [0, 1, 2], [1]),
        ({0: 9.0}, [0], []),
    ],
)
def test_those_that_do_not_wait_are_the_ones_that_hang(
    waits: dict[int, float], running: list[int], absent: list[int] | None
) -> None:
    from rayml._ray.horovod import find_absent

    assert find_absent(waits, running, 4) == absent


@pytest.mark.parametrize(
    ("lived_s", "is_hang", "losses"), [(29, False, 3), (31, False, 0), (601, True, 3)]
)
def test_a_worker_that_hangs_is_lost_again_however_long_that_took(
    lived_s: float, is_hang: bool, losses: int
) -> None:
    from rayml._ray.horovod_elastic import count_losses

    assert count_losses(2, lived_s, is_hang=is_hang) == losses


def test_ranks_that_share_a_gpu_are_told_of_it_once() -> None:
    from rayml._ray.horovod import gpu_variables
    from rayml._ray.members import Seat

    seats = [Seat("a", "", (gpu,)) for gpu in ("0", "0", "1")] + [Seat("b", "", ())]
    assert gpu_variables(seats, "a") == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert gpu_variables(seats, "b") == {}


def test_who_waits_for_those_that_have_returned_is_told_so() -> None:
    found = hang([], [2, 0], 5)
    assert found.message.startswith("rank 0, 2 waited for 5 s in vain: another one has returned")
    assert found.rank == 0


def test_the_engine_s_workers_are_the_resources(tmp_path: Path) -> None:
    spec = dry(tmp_path, engine=rayml.Torch(workers=4), resources=rayml.Resources(cpus=2))
    assert (spec.resources.workers, spec.resources.cpus, spec.world_size) == (4, 2, 4)
    three = rayml.Resources(workers=3)
    for engine in (rayml.Torch(), rayml.Torch(workers=3)):
        assert dry(tmp_path, engine=engine, resources=three).world_size == 3
    assert dry(tmp_path, resources=three).world_size == 1


def test_two_numbers_of_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="workers=4 and the resources have workers=2"):
        dry(tmp_path, engine=rayml.Torch(workers=4), resources=rayml.Resources(workers=2))


def test_nccl_without_gpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="backend='nccl' works between GPUs"):
        dry(tmp_path, engine=rayml.Torch(workers=2, backend="nccl"))
    gpus = rayml.Resources(gpus=1)
    assert dry(tmp_path, engine=rayml.Torch(workers=2, backend="nccl"), resources=gpus).engine


@pytest.mark.parametrize("engine", ["torch", rayml.Torch])
def test_what_is_no_engine_is_refused(tmp_path: Path, engine: Any) -> None:
    with pytest.raises(SpecError, match=r"is none; give rayml\.Torch\(workers=2\)"):
        dry(tmp_path, engine=engine)


def test_what_borrows_workers_goes_to_no_other_cluster(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="leave out cluster"):
        dry(tmp_path, borrow=True, cluster="http://127.0.0.1:1")


def test_an_engine_is_recorded_with_the_job(tmp_path: Path) -> None:
    spec = dry(tmp_path, engine=rayml.Torch(workers=2, timeout_s=5))
    assert '"engine": "torch"' in str(spec)
    assert msgspec.json.decode(msgspec.json.encode(spec), type=Spec).engine == spec.engine


def test_an_unknown_engine_is_refused() -> None:
    assert parse_engine("torch") == rayml.Torch()
    with pytest.raises(SpecError, match="did you mean 'torch'"):
        parse_engine("torhc")


@pytest.mark.parametrize(
    ("name", "words", "engine"),
    [
        (
            "torch",
            {"backend": "gloo", "timeout_s": "1.5"},
            rayml.Torch(backend="gloo", timeout_s=1.5),
        ),
        ("torch", {"workers": "4"}, rayml.Torch(workers=4)),
        ("horovod", {"elastic": "1,2"}, rayml.Horovod(elastic=(1, 2))),
        ("horovod", {"elastic": "(1, 2)"}, rayml.Horovod(elastic=(1, 2))),
        ("horovod", {"elastic": "[1, 2]"}, rayml.Horovod(elastic=(1, 2))),
        ("dask", {"client": "true", "memory": "2Gi"}, rayml.Dask(client=True, memory="2Gi")),
        ("dask", {"client": "False", "memory": "1024"}, rayml.Dask(memory="1024")),
        ("spark", {"executors": "2", "cores": "1"}, rayml.Spark(executors=2, cores=1)),
        ("spark", {"packages": "a:b:1,c:d:2"}, rayml.Spark(packages=("a:b:1", "c:d:2"))),
        ("spark", {"packages": "a:b:1"}, rayml.Spark(packages=("a:b:1",))),
        (
            "spark",
            {"spark.a": "8", "dynamic": "1,3", "spark.b": "a=b,c"},
            rayml.Spark(dynamic=(1, 3), conf={"spark.a": "8", "spark.b": "a=b,c"}),
        ),
    ],
)
def test_words_are_read_as_an_engine_s_settings(
    name: str, words: dict[str, str], engine: Any
) -> None:
    assert parse_engine(name, words) == engine


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("torch", {"backnd": "gloo"}, "'torch' has no setting 'backnd'; did you mean 'backend'"),
        ("torch", {"spark.a": "1"}, "'torch' has no setting 'spark.a'; known: 'backend'"),
        ("torch", {"backend": "mpi"}, "backend='mpi' is none of"),
        ("torch", {"workers": "2.5"}, "workers='2.5' is not a count; give an integer from 1 up"),
        ("torch", {"timeout_s": "soon"}, "timeout_s='soon' is not a time; give seconds above 0"),
        ("horovod", {"elastic": "2"}, r"elastic='2' is not \(min, max\); give two counts"),
        ("horovod", {"elastic": "3,2"}, "needs 1 <= min <= max"),
        ("dask", {"client": "maybe"}, "client='maybe' is not an answer; give True or False"),
        ("dask", {"memory": "4 gigs"}, "memory='4 gigs' is not a quantity"),
        ("spark", {"packages": "hadoop-aws"}, "package 'hadoop-aws' is not of Maven; give group"),
        ("spark", {"conf": "a=b"}, "conf='a=b' is no dict; give Spark's settings by their names"),
        ("spark", {"spark.master": "x"}, "conf has spark.master, which rayml sets"),
    ],
)
def test_words_that_are_no_settings_are_refused(
    name: str, words: dict[str, str], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        parse_engine(name, words)


def test_resources_without_an_engine_s_number_stay() -> None:
    resources = rayml.Resources(workers=5)
    assert resize_for(rayml.Torch(), resources) is resources


# Who is to blame

DEAD = Problem(kind="killed", message="its process ended")
LOST = Problem(kind="error", message="RuntimeError: Connection closed by peer", traceback="lost")
WAITED = Problem(
    kind="error", message="RuntimeError: Timed out waiting 5000ms for recv", traceback="waited"
)
SLOW = Problem(
    kind="error",
    message="subprocess.TimeoutExpired: Command 'tar' timed out after 30 seconds",
    traceback="slow",
)
WRONG = Problem(kind="error", message="ValueError: bad row", traceback="wrong")


@pytest.mark.parametrize(
    ("problems", "rank", "words"),
    [
        ({1: WRONG}, 1, "rank 1: ValueError"),
        ({0: SLOW}, 0, "rank 0: subprocess.TimeoutExpired"),
        ({2: WRONG, 0: LOST}, 2, "rank 2: ValueError"),
        ({0: LOST, 1: DEAD}, 1, "rank 1: its process ended"),
        ({0: WAITED, 2: WAITED}, 1, "rank 1 did not come for 5 s to where rank 0, 2 waited"),
        ({2: WAITED}, 0, "rank 0 and rank 1 did not come"),
        ({0: WAITED, 1: WAITED, 2: WAITED}, 0, "rank 0: RuntimeError: Timed out"),
        ({0: WAITED, 1: WRONG}, 1, "rank 1: ValueError"),
    ],
)
def test_the_rank_that_made_the_others_fail_is_named(
    problems: dict[int, Problem], rank: int, words: str
) -> None:
    found = find_culprit(problems, 3, 5, SIGNS)
    assert found.rank == rank
    assert found.message.startswith(words)


def test_the_only_rank_needs_no_number() -> None:
    assert find_culprit({0: WRONG}, 1, 5, SIGNS).message == "ValueError: bad row"
