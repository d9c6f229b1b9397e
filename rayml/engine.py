"""How one job spreads over several workers: settings that check themselves and do nothing."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from rayml.config import Resources, check_count, parse_memory
from rayml.errors import SpecError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_BACKENDS = ("gloo", "nccl")
_DEFAULTS = Resources()
_MIB = 1024**2
# What Spark itself reckons on Kubernetes, and the least that it starts with.
_BESIDE_HEAP = 384 * _MIB
_LEAST_HEAP_MIB = 450
_SPARK_WORDS = {"workers": "executors", "cpus": "cores"}
_TAKEN_CONF = {
    "spark.app.name": "leave it out",
    "spark.master": "leave it out",
    "spark.dynamicAllocation.enabled": "give dynamic=(min, max)",
    "spark.dynamicAllocation.maxExecutors": "give dynamic=(min, max)",
    "spark.dynamicAllocation.minExecutors": "give dynamic=(min, max)",
    "spark.executor.cores": "give cores=",
    "spark.executor.instances": "give executors=",
    "spark.executor.memory": "give memory=",
    "spark.jars.packages": "give packages=",
}
_COORDINATES = re.compile(r"[\w.-]+:[\w.-]+:[\w.-]+")


class Torch(msgspec.Struct, frozen=True, kw_only=True, tag_field="engine", tag="torch", gc=False):
    """The function runs on every worker at once, as one PyTorch process group, through Ray Train.

    `torch.distributed` is initialized before the function begins: `DistributedDataParallel`, FSDP
    and `ray.train.torch.prepare_model` work as they are. A script runs once on every worker with
    `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT` set, as torchrun does, and
    initializes the group itself. Needs `rayml[torch]`.

    Attributes:
        workers: How many; those of `Resources` by default.
        backend: `"gloo"` or `"nccl"`; NCCL on workers with GPUs by default, else Gloo.
        timeout_s: Seconds that ranks wait for one that does not come to a collective operation;
            then the attempt fails and names it.

    Raises:
        SpecError: A value is not such a thing.
    """

    workers: int | None = None
    backend: str | None = None
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_count("workers", self.workers)
        if self.backend is not None and self.backend not in _BACKENDS:
            raise SpecError(
                f"backend={self.backend!r} is none of PyTorch's that rayml starts; "
                f"{suggestion(str(self.backend), _BACKENDS)}"
            )
        _check_timeout(self.timeout_s)

    def wishes(self) -> Mapping[str, Any]:
        """Return what it says about `Resources`, by their names; None leaves that to them."""
        return {"workers": self.workers}

    def check(self, resources: Resources) -> None:
        """Check that the workers have what it needs.

        Raises:
            SpecError: They do not.
        """
        if self.backend == "nccl" and not resources.gpus:
            raise SpecError(
                "backend='nccl' works between GPUs and the job asks for none; give "
                "Resources(gpus=1), or backend='gloo'"
            )


class Horovod(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="engine", tag="horovod", gc=False
):
    """The function runs on every worker at once, and `hvd.init()` makes them one Horovod group.

    Workers reach each other by Gloo. A script runs once on every worker, as under `horovodrun`.
    Needs `rayml[horovod]`, which is built where it is installed: `rayml doctor` tells how.

    Attributes:
        workers: How many; those of `Resources` by default.
        elastic: `(min, max)`: the job gets as many workers as the larger number, and code under
            `hvd.elastic.run` goes on from its last commit while a worker that died is away, as
            long as the smaller number is left; one that is back joins at the next commit. It
            begins when all of them are held, and the loss of the first one's machine ends the
            attempt. Each worker counts as a machine of its own then: `hvd.local_rank()` is 0.
        timeout_s: Seconds that ranks wait for one that does not come to a collective operation.
            Then the attempt fails and names it. An elastic job goes on without it, unless it is
            the third time in a row, or in `hvd.init()`.

    Raises:
        SpecError: A value is not such a thing.
    """

    workers: int | None = None
    elastic: tuple[int, int] | None = None
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_count("workers", self.workers)
        _check_timeout(self.timeout_s)
        if self.elastic is not None:
            _check_bounds("elastic", self.elastic, "workers", self.workers)

    def wishes(self) -> Mapping[str, Any]:
        """As `Torch.wishes`."""
        return {"workers": self.workers if self.elastic is None else self.elastic[1]}

    def check(self, resources: Resources) -> None:
        """Accept any workers."""


class Dask(msgspec.Struct, frozen=True, kw_only=True, tag_field="engine", tag="dask", gc=False):
    """The function runs once, and what it computes with Dask is computed by all workers.

    Arrays, dataframes, bags and delayed functions work as they are: each task of a graph is a Ray
    task on one of the job's workers, as many at once as those have CPUs. What is persisted lies
    in the workers' object stores, and on their disks where it does not fit. Needs `rayml[dask]`.

    Attributes:
        workers: How many; those of `Resources` by default.
        memory: Of each, as in `Resources`.
        client: Start Dask's own scheduler and workers there, and let `distributed.Client()`
            find them: for futures and libraries that need a client.

    Raises:
        SpecError: A value is not such a thing.
    """

    workers: int | None = None
    memory: str | int | None = None
    client: bool = False

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_count("workers", self.workers)
        if self.memory is not None:
            parse_memory(self.memory)
        if not isinstance(self.client, bool):
            raise SpecError(f"client={self.client!r} is not an answer; give True or False")

    def wishes(self) -> Mapping[str, Any]:
        """As `Torch.wishes`."""
        return {"workers": self.workers, "memory": self.memory}

    def check(self, resources: Resources) -> None:
        """Check that the workers can work.

        Raises:
            SpecError: They have no CPUs.
        """
        if not resources.cpus:
            raise SpecError("cpus=0 leaves Dask nothing to work with; give Resources(cpus=1)")


class Spark(msgspec.Struct, frozen=True, kw_only=True, tag_field="engine", tag="spark", gc=False):
    """The function runs once, with a Spark session whose executors are the job's workers.

    `context.spark` is the session, and `SparkSession.builder.getOrCreate()` finds it; so does a
    script. `ray.data.from_spark(frame)` and `dataset.to_spark(spark)` lead to Ray Data and back.
    It ends with the function: what shall outlive it has to be logged, written or collected.
    Needs `rayml[spark]`, which brings Java 17; `env={"JAVA_HOME": …}` names another one.

    Attributes:
        executors: How many; the workers of `Resources` by default.
        cores: How many tasks each runs at once; the whole CPUs of `Resources` by default, and
            one on less than a CPU, of which it then gets its share.
        memory: Of each, as in `Resources`. Spark's heap is all of it but a tenth, and at least
            384 MiB, that what is beside it needs. If neither says, the heap is 1 GiB and
            nothing is held for it. On the first worker are the function's own process and
            Spark's driver too, whose heap grows to 1 GiB (`spark.driver.memory`): where a worker
            is a pod, which may use no more than this, leave them room.
        dynamic: `(min, max)`: the job holds as many workers as the larger number, Spark starts
            executors there as it needs them, and ends those that were idle for a minute.
        conf: Spark's own settings, by their names; none that is a secret, because processes
            show them.
        packages: Maven coordinates, `group:artifact:version`, that the session loads.
        timeout_s: Seconds until all executors must be there, or the smaller number of `dynamic`;
            then the attempt fails and tells what was missing.

    Raises:
        SpecError: A value is not such a thing.
    """

    executors: int | None = None
    cores: int | None = None
    memory: str | int | None = None
    dynamic: tuple[int, int] | None = None
    conf: dict[str, str | int | float | bool] = {}
    packages: tuple[str, ...] = ()
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        for name in ("executors", "cores"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.memory is not None:
            parse_memory(self.memory)
        if self.dynamic is not None:
            _check_bounds("dynamic", self.dynamic, "executors", self.executors)
        _check_conf(self.conf)
        _check_packages(self.packages)
        _check_timeout(self.timeout_s)

    def wishes(self) -> Mapping[str, Any]:
        """As `Torch.wishes`."""
        workers = self.executors if self.dynamic is None else self.dynamic[1]
        return {"workers": workers, "cpus": self.cores, "memory": self.memory}

    def check(self, resources: Resources) -> None:
        """Check that executors can work there.

        Raises:
            SpecError: They have no CPUs, or too little memory.
        """
        if not resources.cpus:
            raise SpecError("cpus=0 leaves Spark nothing to work with; give Resources(cpus=1)")
        if resources.memory is not None:
            spark_heap(parse_memory(resources.memory))


def spark_heap(memory: int) -> int:
    """Return how many MiB of an executor's memory, in bytes, are for Spark's heap.

    >>> spark_heap(2 * 1024**3)
    1664

    Raises:
        SpecError: Spark refuses to start with so little.
    """
    heap = (memory - max(_BESIDE_HEAP, memory // 10)) // _MIB
    if heap < _LEAST_HEAP_MIB:
        raise SpecError(
            f"memory={memory // _MIB}Mi leaves a Spark executor {max(heap, 0)} MiB of heap, and "
            f"it needs {_LEAST_HEAP_MIB}; give 1Gi"
        )
    return heap


Engine: TypeAlias = Torch | Horovod | Dask | Spark


def parse_engine(name: str, words: Mapping[str, str] | None = None) -> Engine:
    """Return the engine of a name, with the settings that words of a command line stand for.

    Commas stand between what a setting has several of, and names that begin with `spark.` are
    Spark's own.

    >>> parse_engine("horovod", {"elastic": "1,2"})
    Horovod(workers=None, elastic=(1, 2), timeout_s=600.0)
    >>> parse_engine("spark", {"executors": "2", "spark.ui.enabled": "true"}).conf
    {'spark.ui.enabled': 'true'}

    Raises:
        SpecError: There is no such engine, or it has no such setting.
    """
    known: dict[str, type[Engine]] = {_tag(kind): kind for kind in (Torch, Horovod, Dask, Spark)}
    if name not in known:
        raise SpecError(f"engine {name!r} is not known; {suggestion(name, known)}")
    kind = known[name]
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for word, text in (words or {}).items():
        if kind is Spark and word.startswith("spark."):
            values.setdefault("conf", {})[word] = text
        elif word in types:
            values[word] = _value(text, types[word])
        else:
            raise SpecError(f"engine {name!r} has no setting {word!r}; {suggestion(word, types)}")
    return kind(**values)


def _value(text: str, wanted: Any) -> object:  # noqa: ANN401 - a type, as annotations have them
    parts = [part.strip() for part in text.strip("()[]").split(",")]
    for form in (text, parts):
        with suppress(msgspec.ValidationError):
            return msgspec.convert(form, wanted, strict=False)
    return text  # which the engine refuses, and says what it expects


def engine_name(engine: Engine) -> str:
    """Return what people call an engine.

    >>> engine_name(Torch())
    'torch'
    """
    return _tag(type(engine))


def check_engine(engine: object) -> None:
    """Check that what is given as a job's engine is one.

    Raises:
        SpecError: It is something else.
    """
    if not isinstance(engine, Engine | None):
        raise SpecError(
            f"engine={engine!r} is none; give rayml.Torch(workers=2), or Horovod, Dask or Spark"
        )


def resize_for(engine: Engine, resources: Resources) -> Resources:
    """Return the resources of a job with an engine: with such workers as that says.

    Raises:
        SpecError: They contradict each other, or the workers lack what the engine needs.
    """
    wishes = {name: wish for name, wish in engine.wishes().items() if wish is not None}
    for name, wish in wishes.items():
        given = getattr(resources, name)
        if given not in (getattr(_DEFAULTS, name), wish):
            word = _word(engine, name)
            raise SpecError(
                f"the engine has {word}={wish!r} and the resources have {name}={given!r}; give "
                "it once"
            )
    resized = replace(resources, **wishes) if wishes else resources
    engine.check(resized)
    return resized


def leave_to_resources(engine: Engine, names: Iterable[str]) -> Engine:
    """Return an engine that no longer says these things about `Resources`, by their names there.

    >>> leave_to_resources(Dask(workers=2, memory="2Gi"), ["workers"])
    Dask(workers=None, memory='2Gi', client=False)
    """
    words = [_word(engine, name) for name in names]
    return msgspec.structs.replace(engine, **{n: None for n in words if hasattr(engine, n)})


def _word(engine: Engine, name: str) -> str:
    """Return what an engine calls one of the names of `Resources`."""
    return _SPARK_WORDS.get(name, name) if isinstance(engine, Spark) else name


def has_ranks(engine: Engine) -> bool:
    """Tell whether all workers run the function at once; else it runs once and leads them."""
    return isinstance(engine, Torch | Horovod)


def _check_bounds(name: str, bounds: object, what: str, count: int | None) -> None:
    if not isinstance(bounds, tuple) or [type(bound) for bound in bounds] != [int, int]:
        raise SpecError(f"{name}={bounds!r} is not (min, max); give two counts of {what}")
    least, most = bounds
    if not 1 <= least <= most:
        raise SpecError(f"{name}={bounds!r} needs 1 <= min <= max")
    if count not in (None, most):
        raise SpecError(
            f"the job gets the {most} {what} that {name}={bounds!r} allows; leave out "
            f"{what}={count}"
        )


def _check_conf(conf: object) -> None:
    if not isinstance(conf, dict):
        raise SpecError(f"conf={conf!r} is no dict; give Spark's settings by their names")
    for key, value in conf.items():
        if not isinstance(key, str) or not key.startswith("spark."):
            raise SpecError(f"conf has {key!r}, and Spark's settings begin with 'spark.'")
        if not isinstance(value, str | int | float):
            raise SpecError(f"conf has {key}={value!r}; give text, a number, True or False")
        if key in _TAKEN_CONF:
            raise SpecError(f"conf has {key}, which rayml sets; {_TAKEN_CONF[key]}")


def _check_packages(packages: object) -> None:
    if not isinstance(packages, tuple | list):
        raise SpecError(f"packages={packages!r} is no list; give ['group:artifact:version']")
    for package in packages:
        if not isinstance(package, str) or not _COORDINATES.fullmatch(package):
            raise SpecError(f"package {package!r} is not of Maven; give group:artifact:version")


def _check_timeout(timeout_s: object) -> None:
    if not isinstance(timeout_s, int | float) or not 0 < timeout_s < float("inf"):
        raise SpecError(f"timeout_s={timeout_s!r} is not a time; give seconds above 0")


def _tag(kind: type[Engine]) -> str:
    return str(kind.__struct_config__.tag)
