"""What somebody wants of a cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from rayml.cluster.manifest import Head, own_image
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rayml.cluster.settings import Settings

_TAG_RAY: Final = re.compile(r"(\d+\.\d+\.\d+(?:rc\d+|\.dev\d+)?)(?![\d.])")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What somebody wants of a cluster; None leaves it as it is, or as is usual.

    Attributes:
        image: With Ray; usually the public one with this process's Ray and Python.
        ray_version: Ray's in it; usually what its tag says.
        arch: Of its machines, `amd64` or `arm64`; usually what its tag says.
        has_rayml: The image has rayml already, so no code is mounted; usually it has not.
        head_cpus: Of the head's pod.
        head_memory: Of the head's pod: a Kubernetes quantity.
        head_nodes: Labels of nodes on which the head may run.
        store: The URI of the store that its jobs use.
        store_secret: The Secret that holds the store's credentials, as environment variables.
        max_workers: Of all jobs together.
        grace_s: How long an idle worker stays.

    Raises:
        SpecError: Pods cannot see the store, or a number is not one.
    """

    image: str | None = None
    ray_version: str | None = None
    arch: str | None = None
    has_rayml: bool | None = None
    head_cpus: float | None = None
    head_memory: str | None = None
    head_nodes: Mapping[str, str] | None = None
    store: str | None = None
    store_secret: str | None = None
    max_workers: int | None = None
    grace_s: float | None = None

    def __post_init__(self) -> None:
        if self.store is not None and ("://" not in self.store or self.store.startswith("file:")):
            raise SpecError(
                f"store {self.store} is a folder of this machine, which pods cannot see; use an "
                "s3:// gs:// or az:// store"
            )
        for name in ("max_workers", "grace_s"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise SpecError(f"{name}={value!r} is no amount; give a number from 0 up")

    def settings(self, before: Settings) -> Settings:
        """Return settings with what is chosen here, and the rest as before."""
        names = ("store", "store_secret", "max_workers", "grace_s")
        chosen = {name: getattr(self, name) for name in names}
        return replace(before, **{n: value for n, value in chosen.items() if value is not None})

    def new_head(self) -> Head:
        """Return what the head of a new cluster is."""
        image = self.image or own_image()
        return self._head(image, self.ray_version or ray_of(image))

    def renewed_head(self, cluster: Mapping[str, Any]) -> Head:
        """Return what the head of a RayCluster is to be."""
        spec = cluster["spec"]
        old = spec["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
        image = self.image or old
        version = self.ray_version or (spec.get("rayVersion") if image == old else None)
        return self._head(image, version or ray_of(image))

    def _head(self, image: str, ray_version: str) -> Head:
        return Head(
            image=image,
            ray_version=ray_version,
            cpus=self.head_cpus,
            memory=self.head_memory,
            node_selector=dict(self.head_nodes or {}),
        )


def ray_of(image: str) -> str:
    """Return the version of Ray that an image's tag begins with; else this process's.

    >>> ray_of("rayproject/ray:2.59.1-py311-cpu")
    '2.59.1'
    """
    found = _TAG_RAY.match(image.rpartition("/")[2].partition(":")[2])
    return found[1] if found else metadata.version("ray")
