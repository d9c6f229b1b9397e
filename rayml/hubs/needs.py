"""What a job of a hub function needs where nobody says otherwise."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement

from rayml.errors import SpecError
from rayml.hubs.catalog import find_function, is_hub_name
from rayml.hubs.folder import HubFunction, is_function
from rayml.spec import has_jobs_api

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rayml.config import Resources
    from rayml.engine import Engine


@dataclass(frozen=True)
class Needs:
    """What a job is to run, and what comes with it.

    Attributes:
        function: As `find_target` takes it.
        resources: Of a hub function; None for the usual.
        engine: Of a hub function; None for none.
        requirements: Packages of a hub function.
    """

    function: Any
    resources: Resources | None = None
    engine: Engine | None = None
    requirements: tuple[str, ...] = ()

    def packages(self, cluster: str | None) -> list[str]:
        """Return what is to be installed for the job: here, only what is missing."""
        if has_jobs_api(cluster or os.environ.get("RAY_ADDRESS", "")):
            return list(self.requirements)
        return missing_packages(self.requirements)


def needs_of(function: Any) -> Needs:  # noqa: ANN401 - whatever `submit` takes
    """Return what a job of a function needs; of a hub function also what its folder says.

    Raises:
        NotFound: There is no such hub function.
        SpecError: It is not what it should be.
    """
    if is_hub_name(function):
        function = find_function(function)
    elif _is_folder(function):
        function = find_function(Path(function))
    if not isinstance(function, HubFunction):
        return Needs(function)
    return Needs(function.target, function.resources, function.engine, function.requirements)


def _is_folder(function: object) -> bool:
    return isinstance(function, str | Path) and is_function(Path(function))


def missing_packages(requirements: Iterable[str]) -> list[str]:
    """Return the requirements that what is installed here does not meet.

    >>> missing_packages(["msgspec>=0.1", "msgspec>=999", "nothing-of-this-name"])
    ['msgspec>=999', 'nothing-of-this-name']

    Raises:
        SpecError: One of them is not a requirement.
    """
    return [text for text in requirements if not _is_met(text)]


def _is_met(text: str) -> bool:
    try:
        wanted = Requirement(text)
    except InvalidRequirement as exc:
        raise SpecError(f"{text!r} is no requirement; write it as 'name>=1.0'") from exc
    if wanted.marker is not None and not wanted.marker.evaluate():
        return True
    try:
        return wanted.specifier.contains(version(wanted.name), prereleases=True)
    except PackageNotFoundError:
        return False
