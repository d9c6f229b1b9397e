"""Which Ray, Python and rayml a cluster has, beside those of this process."""

from __future__ import annotations

import json
import platform
import re
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from rayml.cluster.bundle import machine_of
from rayml.cluster.choices import ray_of
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rayml.cluster.address import ClusterName
    from rayml.cluster.door import Door
    from rayml.cluster.settings import Settings

# Whoever numbers an image of another name need not mean Ray.
_OF_RAY: Final = re.compile(r"([^:@]*[-_.])?ray[-_.:@]")
_LIVE: Final = frozenset({"PENDING", "RUNNING"})


@dataclass(frozen=True)
class Versions:
    """What runs on one side.

    Attributes:
        ray: Such as `2.60.0`.
        python: Such as `3.11.9`.
        rayml: None where the cluster's image has it, and nobody says which.
    """

    ray: str
    python: str
    rayml: str | None

    def __str__(self) -> str:
        more = f" and rayml {self.rayml}" if self.rayml else ""
        return f"Ray {self.ray} on Python {self.python}{more}"


def own_versions() -> Versions:
    """Return those of this process."""
    return Versions(metadata.version("ray"), platform.python_version(), metadata.version("rayml"))


def read_versions(settings: Settings, door: Door) -> Versions:
    """Return those of a cluster.

    Raises:
        ClusterUnreachable: Its head does not answer.
    """
    found = ask(door, "/api/v0/cluster_metadata")["data"]
    return Versions(found["rayVersion"], found["pythonVersion"], settings.version)


def check_versions(name: ClusterName, settings: Settings, door: Door) -> Versions:
    """Return a cluster's versions if jobs of this process can run there.

    What is pickled here is unpickled there: Ray has to be the same, and Python to its minor
    version.

    Raises:
        SpecError: They cannot; names both sides.
        ClusterUnreachable: Its head does not answer.
    """
    there, here = read_versions(settings, door), own_versions()
    is_same = there.ray == here.ray and _minor(there.python) == _minor(here.python)
    if not is_same:
        raise SpecError(
            f"{name} has Ray {there.ray} on Python {there.python} and this process has Ray "
            f"{here.ray} on Python {here.python}; install the cluster's versions here, or give "
            "the cluster another image by rayml cluster up --image"
        )
    if there.rayml not in {None, here.rayml}:
        raise SpecError(
            f"{name} has rayml {there.rayml} and this process has rayml {here.rayml}; run rayml "
            "cluster up again, or install the cluster's version here"
        )
    return there


def check_image(image: str, there: Versions) -> None:
    """Check that a job's own image has the head's Ray and Python, as far as its tag says.

    Args:
        image: Its name.
        there: The versions of the cluster that it is for, which are this process's.

    Raises:
        SpecError: It has others; names both sides.
    """
    python = machine_of(image).python
    ray = ray_of(image) if _OF_RAY.match(image.rpartition("/")[2]) else there.ray
    if ray != there.ray or python.split(".") != _minor(there.python):
        raise SpecError(
            f"image {image!r} has Ray {ray} on Python {python} by its tag and the cluster's head "
            f"has Ray {there.ray} on Python {there.python}; give the job an image with the same"
        )


def is_answering(door: Door) -> bool:
    """Tell whether a cluster's Jobs API answers.

    Raises:
        ClusterUnreachable: It does not, or refuses.
    """
    return "ray_version" in ask(door, "/api/version")


def live_jobs(door: Door) -> list[Mapping[str, Any]]:
    """Return the Ray jobs that were submitted to a cluster and have not ended."""
    jobs = ask(door, "/api/jobs/")
    return [job for job in jobs if job.get("submission_id") and job.get("status") in _LIVE]


def ask(door: Door, path: str) -> Any:  # noqa: ANN401 - whatever Ray answers
    """Return what a cluster's dashboard says at a path.

    Raises:
        ClusterUnreachable: Nothing, or no.
    """
    return json.loads(door.call("GET", path))


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
