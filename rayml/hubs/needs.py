"""What a job of a hub function needs where nobody says otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayml.hubs.catalog import find_function, is_hub_name
from rayml.hubs.folder import HubFunction, is_function
from rayml.installed import is_met
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

    def packages(self, address: str, image: str | None) -> list[str]:
        """Return what is to be installed for the job: here, only what is missing.

        A cluster sees for itself what it has. An image that is named has what the job needs.
        """
        if has_jobs_api(address):
            return list(self.requirements) if image is None else []
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
    """
    return [text for text in requirements if not is_met(text)]
