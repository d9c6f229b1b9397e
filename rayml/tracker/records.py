"""What the journal holds: one small type per thing that can happen to a run.

Every record is one JSON object whose `type` names it. A reader skips types that it does not know,
so that a journal written by a newer rayml stays readable.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import msgspec

from rayml.artifacts.record import ArtifactRecord
from rayml.spec import Spec
from rayml.tracker.series import Reduction

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class Problem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Why an attempt failed.

    Attributes:
        kind: `error`, `exit`, `killed`, `oom`, `node_lost`, `timeout`, `start_timeout`, `result`,
            `store`, `lost`, `capacity` (its workers can never be had), `requirements` (what it
            needs could not be installed, or is not) or `engine` (that could not start).
        message: One sentence.
        traceback: The user's own, without rayml's frames; empty if there is none.
        rank: Of the worker that failed.
    """

    kind: str
    message: str
    traceback: str = ""
    rank: int = 0


class Result(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the function returned: inline if small, else a blob.

    Attributes:
        format: `json`, `numpy`, `parquet` or `pickle`.
        inline: The encoded bytes, base64 in the journal, or None.
        digest: The blob that holds them, or None.
    """

    format: str
    inline: bytes | None = None
    digest: str | None = None


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A run handed to a remote cluster: what its driver needs to execute it.

    Attributes:
        payload: Digest of the blob with the function and its values.
        code: Digest of the blob with the packed working folder, or None.
        diff: Digest of the blob with what differed from the commit there; empty if nothing did.
    """

    spec: Spec
    payload: str
    code: str | None = None
    diff: str = ""


class Submitted(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="submitted"):
    """A run exists."""

    run: str
    time: float
    spec: Spec


class Waiting(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="waiting"):
    """An attempt cannot start yet, and why."""

    run: str
    time: float
    attempt: int
    reason: str


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="progress"):
    """How far a running attempt has come with what it does for long, in words."""

    run: str
    time: float
    attempt: int
    text: str


class Started(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="started"):
    """User code begins, on each rank.

    Attributes:
        packages: Digest of the blob that lists what is installed there; empty if nobody knows.
    """

    run: str
    time: float
    attempt: int
    node: str
    host: str
    pid: int
    rank: int = 0
    packages: str = ""


class Reserved(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="reserved"):
    """An attempt holds workers of a cluster from now on, until `Released` or the run's end.

    Attributes:
        shape: The key of the workers' shape.
        workers: Their names: on Kubernetes, their pods'.
    """

    run: str
    time: float
    attempt: int
    shape: str
    workers: list[str]


class Released(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="released"):
    """The workers are given back."""

    run: str
    time: float
    attempt: int


class Differed(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="differed"):
    """The files that it came from were not those of their commit.

    Attributes:
        digest: Of the blob with the patch between them.
    """

    run: str
    time: float
    digest: str


class CancelRequested(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="cancel"):
    """Someone wants the run to end."""

    run: str
    time: float
    grace_s: float
    by: str


class Retrying(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="retrying"):
    """An attempt failed and another will follow."""

    run: str
    time: float
    attempt: int
    delay_s: float
    reason: str
    problem: Problem


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ended"):
    """The run has reached a state that it never leaves."""

    run: str
    time: float
    attempt: int
    state: str
    problem: Problem | None = None
    result: Result | None = None


class Used(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="used"):
    """What one rank of an attempt has taken of its machine, from its begin to its end.

    Attributes:
        wall_s: Seconds on the clock.
        cpu_s: Seconds of CPU, in user mode and the kernel, its ended children's included.
        max_memory: The most resident bytes that one of its processes had; 0 if nobody knows.
    """

    run: str
    time: float
    attempt: int
    wall_s: float
    cpu_s: float
    max_memory: int
    rank: int = 0


class Params(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="params"):
    """Parameters that the code logged, beside those it was submitted with.

    Attributes:
        params: By name; long ones are cut.
        long: Digests of the blobs that hold those whole, by name.
    """

    run: str
    time: float
    attempt: int
    params: dict[str, object]
    long: dict[str, str] = {}


class Labels(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="labels"):
    """Labels that the code set."""

    run: str
    time: float
    attempt: int
    labels: dict[str, str]


class Logged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="artifact"):
    """An artifact whose bytes are all in the store."""

    run: str
    time: float
    attempt: int
    artifact: ArtifactRecord


class Points(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="points"
):
    """Metric points in columns: name → (steps, times, values), equally long.

    Values that JSON has no number for are written as `"nan"`, `"inf"` and `"-inf"`.

    Attributes:
        rank: Who logged them.
        reductions: How several ranks' values become one, by metric, where that was said.
    """

    run: str
    time: float
    attempt: int
    rank: int
    series: dict[str, tuple[list[int], list[float], list[float | str]]]
    reductions: dict[str, Reduction] = {}


class ReadPoints(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="points"):
    """`Points` as they are read: columns stay encoded until somebody looks at them."""

    run: str
    attempt: int
    rank: int
    series: dict[str, msgspec.Raw]
    reductions: dict[str, Reduction] = {}


_Event: TypeAlias = (
    Submitted
    | Waiting
    | Progress
    | Started
    | Reserved
    | Released
    | Differed
    | CancelRequested
    | Retrying
    | Used
    | Ended
    | Params
    | Labels
    | Logged
)
Record: TypeAlias = _Event | Points
ReadRecord: TypeAlias = _Event | ReadPoints

_decoder: msgspec.json.Decoder[ReadRecord] = msgspec.json.Decoder(ReadRecord)
_KNOWN_TYPES = frozenset(kind.__struct_config__.tag for kind in Record.__args__)


class _Tag(msgspec.Struct):
    type: str


def is_known(data: bytes | msgspec.Raw) -> bool:
    """Tell whether a record is of a type that this rayml has."""
    return msgspec.json.decode(data, type=_Tag).type in _KNOWN_TYPES


def decode_record(data: bytes | msgspec.Raw) -> ReadRecord | None:
    """Return a record, or None for a type that a newer rayml has added.

    Raises:
        msgspec.DecodeError: It is not JSON, or a known type with wrong fields.
    """
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError:
        if is_known(data):
            raise
        return None


def plain_values(values: list[float]) -> list[float | str]:
    """Return metric values as JSON can hold them.

    >>> plain_values([0.5, float("inf")])
    [0.5, 'inf']
    """
    if math.isfinite(sum(values)):  # a sum that overflows only takes the longer way
        return values  # type: ignore[return-value]
    return [v if math.isfinite(v) else str(v) for v in values]
