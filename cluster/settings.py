"""What is set for one cluster: annotations of its RayCluster, to be edited at any time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args

from rayml.cluster.code import Code
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Object = Mapping[str, Any]

PREFIX = "rayml.io/"
MANAGED = f"{PREFIX}managed"
Managed = Literal["up", "adopted"]
_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One cluster's settings.

    Attributes:
        max_workers: How many workers all of rayml's jobs may have together; None sets no limit.
        grace_s: How long a worker that nobody uses stays for the next job.
        store: The URI of the store that jobs on this cluster use.
        store_secret: The Secret whose keys all pods get as environment variables.
        version: The version of the rayml whose code is mounted.
        code: Its ConfigMaps; None where the image has rayml.
        nodes_grow: Nodes can come to those that there are, so that these are no limit: for who
            cannot be seen to add any.
        managed: Whether `up` made the cluster, adopted it, or it is none of ours (None).
    """

    max_workers: int | None = None
    grace_s: float = 60.0
    store: str | None = None
    store_secret: str | None = None
    version: str | None = None
    code: Code | None = None
    nodes_grow: bool = False
    managed: Managed | None = None

    @classmethod
    def read(cls, cluster: Object) -> Settings:
        """Return the settings that a RayCluster carries.

        Raises:
            SpecError: The text of an annotation or label is not what it has to be.
        """
        metadata = cluster.get("metadata", {})
        found = metadata.get("annotations") or {}
        managed = (metadata.get("labels") or {}).get(MANAGED)
        if managed not in {None, *get_args(Managed)}:
            raise _wrong("label", MANAGED, managed, "'up' or 'adopted'")
        return cls(
            max_workers=_parse(found, "max-workers", _count, "an integer from 0 up"),
            grace_s=_parse(found, "grace-s", _seconds, "seconds from 0 up", 60.0),
            store=found.get(f"{PREFIX}store") or None,
            store_secret=found.get(f"{PREFIX}store-secret") or None,
            version=found.get(f"{PREFIX}version") or None,
            code=_parse(found, "code", Code.parse, "twelve digits and a count, as `up` writes it"),
            nodes_grow=_parse(found, "nodes-grow", _truth, "'true' or 'false'", default=False),
            managed=cast("Managed | None", managed),
        )

    def annotations(self) -> dict[str, str]:
        """Return what to write into a RayCluster's annotations; nothing for what is not set."""
        written = {
            "max-workers": self.max_workers,
            "grace-s": repr(self.grace_s).removesuffix(".0"),
            "store": self.store,
            "store-secret": self.store_secret,
            "version": self.version,
            "code": self.code,
            "nodes-grow": "true" if self.nodes_grow else None,
        }
        return {f"{PREFIX}{k}": str(v) for k, v in written.items() if v is not None}

    def labels(self) -> dict[str, str]:
        """Return what to write into a RayCluster's labels."""
        return {} if self.managed is None else {MANAGED: self.managed}


def check_resizable(cluster: Object) -> None:
    """Check that one worker group can change without the whole cluster being stopped.

    Raises:
        SpecError: It cannot; the message says which setting stands in the way.
    """
    metadata, spec = cluster["metadata"], cluster["spec"]
    name = f"RayCluster {metadata['name']!r}"
    if (spec.get("upgradeStrategy") or {}).get("type") == "Recreate":
        raise SpecError(
            f"{name} has the upgradeStrategy Recreate, which restarts every pod when a worker "
            "group is added; take it out"
        )
    queue = (metadata.get("labels") or {}).get("kueue.x-k8s.io/queue-name")
    elastic = (metadata.get("annotations") or {}).get("kueue.x-k8s.io/elastic-job")
    if queue and elastic != "true":
        raise SpecError(
            f"{name} is in Kueue's queue {queue!r}, which stops the whole cluster when its size "
            "changes; take it out of the queue"
        )
    if spec.get("suspend"):
        raise SpecError(f"{name} is suspended and has no head; set spec.suspend to false")


def _parse(
    found: Mapping[str, str],
    name: str,
    convert: Callable[[str], _Value],
    form: str,
    default: _Value | None = None,
) -> _Value:
    text = found.get(f"{PREFIX}{name}", "")
    if not text:
        return cast("_Value", default)
    try:
        return convert(text)
    except ValueError as exc:
        raise _wrong("annotation", f"{PREFIX}{name}", text, form) from exc


def _count(text: str) -> int:
    return _at_least_zero(int(text))


def _seconds(text: str) -> float:
    return _at_least_zero(float(text))


def _truth(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(text)
    return text == "true"


def _at_least_zero(number: _Value) -> _Value:
    if not 0 <= number < math.inf:  # type: ignore[operator]
        raise ValueError(number)
    return number


def _wrong(kind: str, name: str, value: object, form: str) -> SpecError:
    return SpecError(f"the RayCluster's {kind} {name} is {value!r}; it has to be {form}")
