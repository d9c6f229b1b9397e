"""A job as plain data: validated, printable, and enough to tell later what was run."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import msgspec

from rayml.config import Resources, Retry
from rayml.engine import Engine, has_ranks
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PARAM_BYTES = 256 * 1024 * 1024
# Of a URL; what names a variable of the environment is none.
_PASSWORDS = (
    re.compile(r"(://[^\s/:@]*:)(?!\$\{\w+\}@)[^\s/]+(?=@)"),
    re.compile(r"([?&](?:password|passwd|pwd|sslpassword)=)(?!\$\{\w+\})[^&\s]+", re.IGNORECASE),
)
_SHOWN_BYTES = 4096


class InputRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a run was given: recorded as lineage.

    Attributes:
        name: The parameter that takes it.
        uri: Where it is; `memory://<type>` for an object that was handed over directly.
        kind: `path`, `uri`, `artifact` or `memory`.
        digest: As artifacts have it, of their bytes: of an artifact, and of a local file or folder
            of at most 32 MiB in 1,000 files, as it was when the job was submitted.
        size: Its size in bytes, where known.
    """

    name: str
    uri: str
    kind: str
    digest: str | None = None
    size: int | None = None


class Target(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the user wrote and where it is.

    Attributes:
        kind: `callable`, `file` (a function in a file), `script`, or `module` (a function in a
            module).
        text: As the user named it.
        file: The Python file, absolute or relative to the job's working folder; empty if there is
            none.
        module: The module's dotted name, for `module`.
        function: The function's name; empty for scripts.
        digest: Of a hub function's files, `sha256:` and hexadecimal digits; empty for all else.
    """

    kind: str
    text: str
    file: str = ""
    module: str = ""
    function: str = ""
    digest: str = ""


class Origin(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who submitted a run, from where, and from which code."""

    user: str
    host: str
    command: str
    python: str
    rayml: str
    commit: str | None = None


class Spec(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A validated job: what will run, with what, where. It never holds a secret's value.

    Attributes:
        run: The run's id.
        params: Their values as JSON; what JSON cannot hold is described by its text.
        engine: How it spreads over its workers; None runs it once.
        secrets: The names of the secrets only.
        working_dir: The folder the job runs in; a digest of the packed code on a remote cluster.
        parent: The id of the run that started this one, or None.
        image: The container image of its workers; None for the cluster's own.
        borrows: It runs on the workers of the run that has submitted it.
        changes: The JSON patch by which its RayCluster would change: only of a dry run.
        autolog: What its training code does is logged without that it says so.
        priority: Of its priority class: of two that wait for workers, the higher comes first.
        described: The parameters that JSON cannot hold as they are, or that had a secret in
            them: `params` only describes these.
        rerun_of: The id of the run whose job this one repeats, or None.
    """

    run: str
    name: str
    experiment: str
    target: Target
    origin: Origin
    submitted_at: float
    store: str
    cluster: str
    working_dir: str
    params: dict[str, object] = {}
    inputs: dict[str, InputRecord] = {}
    args: list[str] = []
    labels: dict[str, str] = {}
    resources: Resources = Resources()
    engine: Engine | None = None
    requirements: list[str] = []
    env: dict[str, str] = {}
    secrets: list[str] = []
    retry: Retry | None = None
    timeout_s: float | None = None
    start_timeout_s: float | None = None
    parent: str | None = None
    image: str | None = None
    priority: int = 0
    borrows: bool = False
    autolog: bool = False
    changes: list[dict[str, Any]] = []
    long_params: dict[str, str] = {}
    described: list[str] = []
    rerun_of: str | None = None

    @property
    def world_size(self) -> int:
        """How many processes run its function at once."""
        is_spread = self.engine is not None and has_ranks(self.engine)
        return self.resources.workers if is_spread else 1

    def __str__(self) -> str:
        """Return the job as indented JSON: what `dry_run=True` and `--dry-run` show."""
        return msgspec.json.format(msgspec.json.encode(self)).decode()


def has_jobs_api(cluster: str) -> bool:
    """Tell whether jobs reach a cluster of this address through Ray's Jobs API.

    >>> has_jobs_api("kuberay://ml/train"), has_jobs_api("http://head:8265"), has_jobs_api("local")
    (True, True, False)
    """
    return cluster.startswith(("http://", "https://", "kuberay://"))


def describe_params(params: Mapping[str, object]) -> dict[str, object]:
    """Return parameters as JSON can hold them, each within a few KiB.

    >>> describe_params({"depth": 4, "rate": float("nan"), "on": None})
    {'depth': 4, 'rate': 'nan', 'on': None}

    Raises:
        SpecError: A value is larger than 256 MiB.
    """
    return {name: describe_value(name, value) for name, value in params.items()}


def describe_value(name: str, value: object) -> object:
    """Return one value as JSON can hold it; a long one is cut and says so.

    Raises:
        SpecError: The value is larger than 256 MiB.
    """
    _check_size(name, value)
    plain = plain_value(value)
    if len(text := msgspec.json.encode(plain)) <= _SHOWN_BYTES:
        return plain
    return f"{text[:_SHOWN_BYTES].decode(errors='ignore')}… ({len(text):,} bytes in all)"


def is_long(value: object) -> bool:
    """Tell whether `describe_value` cuts a value.

    >>> is_long("x" * 5000), is_long([1, 2])
    (True, False)
    """
    return len(msgspec.json.encode(plain_value(value))) > _SHOWN_BYTES


def plain_value(value: object) -> object:  # noqa: PLR0911 - one line per kind of value
    """Return a value as strict JSON: numpy scalars as numbers, NaN and infinities as text.

    What has no JSON form becomes its `repr`; a password in a URL becomes `***`.

    >>> plain_value("postgresql://me:hunter2@host/db"), plain_value("mysql://me:${SECRET}@host")
    ('postgresql://me:***@host/db', 'mysql://me:${SECRET}@host')
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _encodable(_without_password(value))
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else _digits(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, dict):
        return {_encodable(str(k)): plain_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    if is_numpy_scalar(value):
        return plain_value(value.item())  # type: ignore[attr-defined]
    return _encodable(repr(value))


def _without_password(text: str) -> str:
    for pattern in _PASSWORDS if "://" in text else ():
        text = pattern.sub(r"\1***", text)
    return text


def is_exact(value: object) -> bool:
    """Tell whether JSON gives a value back as it is; a numpy scalar counts as its number.

    >>> is_exact({"depth": [4, 0.5, None]}), is_exact((1, 2)), is_exact(float("nan"))
    (True, False, False)
    """
    if type(value) is list:
        return all(map(is_exact, value))
    if type(value) is dict:
        return all(type(key) is str and is_exact(item) for key, item in value.items())
    plain = plain_value(value)
    if type(value) is str or plain is None or isinstance(value, bool):
        return plain == value
    is_number = type(value) in (int, float) or is_numpy_scalar(value)
    return is_number and not isinstance(plain, str)


def _digits(value: int) -> str:
    # Python refuses to write more than 4,300 decimal digits, because that takes long.
    return str(value) if value.bit_length() < 14_000 else hex(value)


def _encodable(text: str) -> str:
    """Return text as it is, but for lone surrogates, which UTF-8 has no bytes for."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_numpy_scalar(value: object) -> bool:
    """Tell whether a value is a numpy scalar, without importing numpy."""
    return type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()


def _check_size(name: str, value: object) -> None:
    size = value_bytes(value)
    if size > MAX_PARAM_BYTES:
        raise SpecError(
            f"parameter {name!r} has {size:,} bytes and a parameter may have {MAX_PARAM_BYTES:,}; "
            f"write it to a file or log it as a dataset, and pass it as inputs={{{name!r}: …}}"
        )


def value_bytes(value: object) -> int:
    """Return about how many bytes a value's content has, without copying it."""
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, dict):
        return sum(value_bytes(item) for item in value.values())
    if isinstance(value, list | tuple | set):
        return sum(value_bytes(item) for item in value)
    size = getattr(value, "nbytes", 0)
    return size if isinstance(size, int) else 0
