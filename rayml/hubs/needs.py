"""What a job of a hub function needs where nobody says otherwise."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from rayml.hubs.catalog import find_function, is_hub_name
from rayml.hubs.folder import HubFunction, is_function
from rayml.installed import is_met, read_extra
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


def words_to_install(missing: Iterable[str]) -> str:
    """Return what to give pip for requirements: the extras of rayml that bring them, and the rest.

    >>> words_to_install(["onnx>=1.17", "plotly>=6", "no-such>=1"])
    "'rayml[hub,onnx]' 'no-such>=1'"
    """
    offers = _offers()
    found = {text: _extra_with(text, offers) for text in missing}
    extras = sorted({extra for extra in found.values() if extra is not None})
    rest = [text for text, extra in found.items() if extra is None]
    return shlex.join([f"rayml[{','.join(extras)}]", *rest] if extras else rest)


def _offers() -> dict[str, list[Requirement]]:
    """Return what each extra of rayml brings, the hub's first; nothing if it is not installed."""
    with suppress(PackageNotFoundError):
        extras = metadata("rayml").get_all("Provides-Extra", [])
        ordered = sorted(extras, key=lambda extra: extra != "hub")
        return {extra: list(map(Requirement, read_extra("rayml", extra))) for extra in ordered}
    return {}


def _extra_with(requirement: str, offers: dict[str, list[Requirement]]) -> str | None:
    """Return an extra that meets a requirement: the hub's, that of the same name, or another."""
    try:
        wanted = Requirement(requirement)
    except InvalidRequirement:
        return None
    found = [name for name, brings in offers.items() if any(_meets(o, wanted) for o in brings)]
    own = canonicalize_name(wanted.name)
    if "hub" not in found and own in found:
        return own
    return found[0] if found else None


def _meets(offer: Requirement, wanted: Requirement) -> bool:
    """Tell whether the oldest version that is offered will do."""
    is_same = canonicalize_name(offer.name) == canonicalize_name(wanted.name)
    if not is_same or wanted.url is not None or not wanted.extras <= offer.extras:
        return False
    oldest = [each.version for each in offer.specifier if each.operator in (">=", "==")]
    return wanted.specifier.contains(oldest[0] if oldest else "0")
