"""What a job asks for, and where settings come from.

`Resources` and `Retry` are plain values that check themselves. `setting()` is the one place that
reads the environment and the project's files. Order: argument, `RAYML_*` variable, `[tool.rayml]`
in pyproject.toml (or rayml.toml), default.
"""

from __future__ import annotations

import getpass
import os
import re
import tomllib
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from rayml.errors import SpecError, suggestion
from rayml.placement import CHECKS, check_plain

_MEMORY_UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")

_WORDS = dict.fromkeys(("true", "on", "yes", "1"), True)
_WORDS |= dict.fromkeys(("false", "off", "no", "0"), False)

Failure = Literal["node_lost", "oom", "error"]


def parse_memory(quantity: str | int, name: str = "memory") -> int:
    """Return a Kubernetes memory quantity in bytes; `name` is what errors call it.

    >>> parse_memory("4Gi"), parse_memory("1.5G"), parse_memory(1024)
    (4294967296, 1500000000, 1024)

    Raises:
        SpecError: It is not a positive quantity with a known unit.
    """
    match = _MEMORY.fullmatch(str(quantity).strip())
    if isinstance(quantity, bool) or match is None or match[2] not in _MEMORY_UNITS:
        raise SpecError(
            f"{name}={quantity!r} is not a quantity; write bytes as an integer, or a number with "
            "one of k M G T Ki Mi Gi Ti, such as '4Gi'"
        )
    size = int(float(match[1]) * _MEMORY_UNITS[match[2]])
    if size <= 0:
        raise SpecError(f"{name}={quantity!r} is nothing; leave it out to set no demand")
    return size


@dataclass(frozen=True, kw_only=True, repr=False)
class Resources:
    """What each worker of a job gets, and on which machines.

    On a plain Ray cluster the first five count, and Ray schedules by them and does not enforce
    them: a job that uses more memory than it asked for competes with its neighbours. On KubeRay a
    worker is a pod of its own, and all of them count.

    Attributes:
        cpus: CPU cores; fractions are allowed, 0 means that the job only coordinates. A pod has at
            least these; Ray counts whole ones, rounded up.
        memory: Bytes, or a Kubernetes quantity such as `"4Gi"`; None makes no demand. A pod that
            uses more than `memory_limit`, or without one more than this, is killed (`oom`).
        gpus: GPUs; fractions below 1 share one. Whole ones on KubeRay.
        gpu_type: Ray's accelerator type, such as `"A100"`; None takes any. On KubeRay the value of
            the GPU's label on your nodes, such as `"NVIDIA-A100-SXM4-40GB"` or `"nvidia-l4"`, or,
            with a slash, the name of the resource: `"amd.com/gpu"`.
        workers: Workers of this size that are reserved together: all of them or none.
        cpus_limit: CPU cores that a pod may use at most; None sets no limit.
        memory_limit: Memory that a pod may use at most; by default `memory`.
        node_selector: Labels that a pod's node must have.
        tolerations: Taints that pods tolerate: dicts as in a pod's `spec.tolerations`.
        affinity: As a pod's `spec.affinity`; what it requires is required besides the rest.
        priority_class: The name of the pods' PriorityClass.
        spot: True wants interruptible nodes, False refuses them, None takes either. Known on GKE,
            EKS, AKS and nodes of Karpenter.
        volumes: What pods mount. Each is a dict with `name`, `mount_path`, if need be `read_only`
            and `sub_path`, and one source as in a pod's `spec.volumes`: `persistentVolumeClaim`,
            `secret`, `configMap`, `emptyDir`, `hostPath`, `nfs` or `csi`. For example
            `{"name": "data", "mount_path": "/data", "persistentVolumeClaim": {"claimName": "d"}}`.
        service_account: The name of the pods' ServiceAccount.
        labels: Labels of the pods, for whoever counts costs or writes network policies.

    Raises:
        SpecError: A value is negative, not a number, not a quantity, or nothing that a pod takes.
    """

    cpus: float = 1
    memory: str | int | None = None
    gpus: float = 0
    gpu_type: str | None = None
    workers: int = 1
    cpus_limit: float | None = None
    memory_limit: str | int | None = None
    node_selector: dict[str, str] | None = None
    tolerations: list[dict[str, Any]] | None = None
    affinity: dict[str, Any] | None = None
    priority_class: str | None = None
    spot: bool | None = None
    volumes: list[dict[str, Any]] | None = None
    service_account: str | None = None
    labels: dict[str, str] | None = None

    def __post_init__(self) -> None:
        for name in ("cpus", "gpus"):
            _check_amount(name, getattr(self, name))
        check_count("workers", self.workers)
        if self.memory is not None:
            parse_memory(self.memory)
        self._check_limits()
        if self.spot is not None and not isinstance(self.spot, bool):
            raise SpecError(f"spot={self.spot!r} is not an answer; give True, False or None")
        for name, check in CHECKS.items():
            if (value := getattr(self, name)) is not None:
                check(value)
                check_plain(name, value)
                object.__setattr__(self, name, deepcopy(value))  # the caller may change its own

    def _check_limits(self) -> None:
        if self.cpus_limit is not None:
            _check_amount("cpus_limit", self.cpus_limit)
            if self.cpus_limit < self.cpus or self.cpus_limit == 0:
                raise SpecError(
                    f"cpus_limit={self.cpus_limit!r} is less than a worker needs, "
                    f"cpus={self.cpus!r}; give at least that many, or None"
                )
        if (limit := self.memory_limit_bytes) is not None and limit < (self.memory_bytes or 0):
            raise SpecError(
                f"memory_limit={self.memory_limit!r} is less than memory={self.memory!r}; give at "
                "least that much, or None"
            )

    @property
    def memory_bytes(self) -> int | None:
        """The memory demand in bytes, or None."""
        return None if self.memory is None else parse_memory(self.memory)

    @property
    def memory_limit_bytes(self) -> int | None:
        """The most memory that a worker's pod may use, in bytes, or None."""
        limit = self.memory if self.memory_limit is None else self.memory_limit
        return None if limit is None else parse_memory(limit, "memory_limit")

    def __repr__(self) -> str:
        """Return what differs from the defaults.

        >>> Resources(cpus=4, memory="8Gi", spot=True)
        Resources(cpus=4, memory='8Gi', spot=True)
        """
        given = [
            f"{field.name}={value!r}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        ]
        return f"Resources({', '.join(given)})"


def check_count(name: str, value: object) -> None:
    """Check that a setting counts something.

    Raises:
        SpecError: It is not an integer from 1 up.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(f"{name}={value!r} is not a count; give an integer from 1 up")


def _check_amount(name: str, value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < float("inf"):  # type: ignore[operator]
        raise SpecError(f"{name}={value!r} is not an amount; give a number from 0 up")


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often and after what a job is tried again.

    Attributes:
        attempts: Tries in all, the first one included.
        backoff_s: Seconds before the second attempt; doubled for each further one, at most 600.
        on: Which failures are tried again: `node_lost` (its node or Ray went away), `oom` (killed
            for memory), `error` (it raised, exited or crashed). A cancelled or timed-out run is
            not.
    """

    attempts: int = 3
    backoff_s: float = 10
    on: tuple[Failure, ...] = get_args(Failure)

    def __post_init__(self) -> None:
        _check_amount("backoff_s", self.backoff_s)
        check_count("attempts", self.attempts)
        for kind in self.on:
            if kind not in get_args(Failure):
                known = suggestion(str(kind), get_args(Failure))
                raise SpecError(
                    f"retry on={kind!r} is not a failure that rayml tells apart; {known}"
                )


def project_root(start: Path | None = None) -> Path:
    """Return the nearest folder at or above `start` with pyproject.toml or .git, else `start`."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").exists() or (folder / ".git").exists():
            return folder
    return start


def setting(name: str, argument: str | None = None) -> str | None:
    """Return a setting: the argument, else `RAYML_<NAME>`, else the project's file, else None."""
    if argument is not None:
        return argument
    value = _find_setting(name)
    if value is not None and not isinstance(value, str):
        raise SpecError(
            f"setting {name!r} is {value!r} in the project's file; write it as a string"
        )
    return value


def switch(name: str, argument: bool | None, *, default: bool) -> bool:  # noqa: FBT001 - as `setting`
    """Return a setting that is on or off, from where `setting` takes others.

    Raises:
        SpecError: It is neither; the words are true, on, yes, 1 and false, off, no, 0.
    """
    value = _find_setting(name) if argument is None else argument
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    if (word := str(value).lower()) in _WORDS:
        return _WORDS[word]
    raise SpecError(f"setting {name!r} is {value!r}, neither on nor off; give true or false")


def settings_table(name: str) -> dict[str, object]:
    """Return a setting that is a table of the project's file; `name=value` words as a variable.

    Raises:
        SpecError: It is no table.
    """
    value = _find_setting(name)
    if isinstance(value, str):
        value = dict(word.partition("=")[::2] for word in value.split())
    if not isinstance(value, dict | None):
        raise SpecError(f"setting {name!r} is {value!r} in the project's file; make it a table")
    return value or {}


def _find_setting(name: str) -> object:
    if from_environment := os.environ.get(f"RAYML_{name.upper()}"):
        return from_environment
    return _project_settings(project_root()).get(name)


def cluster_address(argument: str | None = None) -> str:
    """Return the Ray that is asked for: the setting `cluster`, or `RAY_ADDRESS`; else nothing."""
    return setting("cluster", argument) or os.environ.get("RAY_ADDRESS", "")


def cache_folder() -> Path:
    """Return the folder of this user's for what can be made or fetched again at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rayml"


def settings_files() -> list[Path]:
    """Return the project's files that hold settings, those that count more last.

    Raises:
        SpecError: One of them is not valid TOML.
    """
    root = project_root()
    own, shared = root / "rayml.toml", root / "pyproject.toml"
    found = [shared] if shared.exists() and _read_toml(shared).get("tool", {}).get("rayml") else []
    if own.exists():
        _read_toml(own)
        found.append(own)
    return found


def user_name() -> str:
    """Return who runs this process; the number of a user without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def default_store() -> str:
    """Return the store of the project that the current folder belongs to: its `.rayml` folder."""
    return str(project_root() / ".rayml")


@lru_cache(maxsize=8)
def _project_settings(root: Path) -> dict[str, object]:
    own, shared = root / "rayml.toml", root / "pyproject.toml"
    settings: dict[str, object] = {}
    if shared.exists():
        settings |= _read_toml(shared).get("tool", {}).get("rayml", {})
    if own.exists():
        settings |= _read_toml(own)
    return settings


def _read_toml(path: Path) -> dict:  # type: ignore[type-arg]
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SpecError(
            f"{path} is not valid TOML: {exc}; mend it or set RAYML_* instead"
        ) from exc
