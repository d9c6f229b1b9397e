"""Finding hub functions: by name, version and digest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rayml.errors import NotFound, SpecError, suggestion
from rayml.hubs.folder import (
    DIGEST,
    VERSION,
    HubFunction,
    is_function,
    is_name,
    read_folder,
)
from rayml.hubs.sources import Hub, bring, list_hubs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SCHEMES = ("hub://", "marketplace://")
_WANTED = re.compile(
    r"(?:(?P<hub>[\w-]+)/)?(?P<name>[\w-]+)(?:@v?(?P<version>\d+(?:\.\d+){0,2}))?"
    r"(?:#(?P<digest>sha256:[0-9a-f]{8,64}))?"
)


class Wanted(NamedTuple):
    """What a name asks for: None where it does not say."""

    hub: str | None
    name: str
    version: str | None
    digest: str | None


def is_hub_name(function: object) -> bool:
    """Tell whether a job's function is named as one of a hub.

    >>> is_hub_name("hub://describe"), is_hub_name("train.py:train")
    (True, False)
    """
    return isinstance(function, str) and function.startswith(_SCHEMES)


def parse_name(text: str) -> Wanted:
    """Return what a hub function's name asks for.

    >>> parse_name("hub://team/score@1.2")
    Wanted(hub='team', name='score', version='1.2', digest=None)

    Raises:
        SpecError: It is no such name.
    """
    bare = next((text.removeprefix(s) for s in _SCHEMES if text.startswith(s)), text)
    match = _WANTED.fullmatch(bare)
    if match is None:
        raise SpecError(
            f"{text!r} is not the name of a hub function; write hub://name, hub://name@1.0 or "
            "hub://hub/name@1.0.0#sha256:…"
        )
    found = Wanted(*match.group("hub", "name", "version", "digest"))
    return found._replace(name=found.name.replace("-", "_"))


def find_function(text: str | Path) -> HubFunction:
    """Return a hub function, by its name with or without `hub://`, or by the path of its folder.

    A path is a `Path`, or has a `/` in it, as `./score`.

    A name without a hub's is looked for among the library's own functions first, so that no other
    hub can take the place of one. Without a version it is the newest, or the one that the project
    has pinned. A digest that is given, pinned or published is compared with the files.

    Raises:
        NotFound: There is no such function or version.
        SpecError: Its digest is another, several hubs have one of that name, or it is not whole.
    """
    if isinstance(text, Path) or (
        not is_hub_name(text) and "/" in text and is_function(Path(text))
    ):
        return _of_folder(Path(text))
    wanted = parse_name(text)
    hubs = list_hubs()
    if wanted.hub is not None:
        hub = _hub(wanted.hub, hubs)
        return _in_hub(hub, bring(hub), wanted)
    own, root = hubs[0], bring(hubs[0])
    known = _folders(root)
    return _in_hub(own, root, wanted) if wanted.name in known else _elsewhere(hubs, wanted, known)


def list_functions(hub: str | None = None) -> list[HubFunction]:
    """Return the newest version of each function, of one hub or of all, in order of their names.

    Raises:
        NotFound: There is no hub of that name.
        SpecError: A hub cannot be read.
    """
    hubs = list_hubs()
    chosen = hubs if hub is None else [_hub(hub, hubs)]
    return [function for one in chosen for function in _all_of(one)]


def search_functions(text: str) -> list[HubFunction]:
    """Return the functions in which all words of a text are found, the nearest first.

    A word in a name counts more than one among keywords, and that more than one in the text.
    """
    words = text.lower().split()
    weighed = [(_weights(function, words), function) for function in list_functions()]
    hits = [(sum(weights), function) for weights, function in weighed if all(weights)]
    return [function for _, function in sorted(hits, key=lambda hit: -hit[0])]


def _weights(function: HubFunction, words: list[str]) -> list[int]:
    """Return how much each word says of a function; 0 of one that is nowhere in its texts."""
    texts = (
        (8, f"{function.name} {function.name.replace('_', ' ')}"),
        (4, " ".join((*function.keywords, function.category))),
        (2, function.summary),
        (1, function.docstring),
    )
    return [max((w for w, text in texts if word in text.lower()), default=0) for word in words]


def _of_folder(folder: Path) -> HubFunction:
    folder = folder.resolve()
    name = folder.parent.name if VERSION.fullmatch(folder.name) else folder.name
    if not is_function(folder):
        raise NotFound(f"{folder} holds no hub function; rayml hub new makes one")
    return _checked(read_folder(folder, folder.parent.name, name), None)


def _hub(name: str, hubs: list[Hub]) -> Hub:
    for hub in hubs:
        if hub.name == name:
            return hub
    known = suggestion(name, [hub.name for hub in hubs])
    raise NotFound(f"there is no hub {name!r} in [tool.rayml.hubs]; {known}")


def _elsewhere(hubs: list[Hub], wanted: Wanted, own: Iterable[str]) -> HubFunction:
    """Return a function that is not among the library's own."""
    places = {hub.name: (hub, bring(hub)) for hub in hubs[1:]}
    having = [name for name, (_, root) in places.items() if wanted.name in _folders(root)]
    if len(having) > 1:
        raise SpecError(
            f"the hubs {', '.join(having)} have a function {wanted.name!r}; write "
            f"hub://{having[0]}/{wanted.name}"
        )
    if not having:
        known = {*own, *(name for _, root in places.values() for name in _folders(root))}
        raise NotFound(
            f"there is no function {wanted.name!r} in the hub; {suggestion(wanted.name, known)}"
        )
    return _in_hub(*places[having[0]], wanted)


def _in_hub(hub: Hub, root: Path, wanted: Wanted) -> HubFunction:
    folders = _folders(root)
    if wanted.name not in folders:
        near = suggestion(wanted.name, folders)
        raise NotFound(f"hub {hub.name!r} has no function {wanted.name!r}; {near}")
    wanted = _pinned(hub, wanted)
    versions = folders[wanted.name]
    for version, folder in versions:
        if not version or wanted.version is None or _is_of(version, wanted.version):
            function = read_folder(folder, hub.name, wanted.name)
            return _checked(_wanted_version(function, wanted), wanted.digest)
    known = ", ".join(version for version, _ in versions)
    raise NotFound(_no_version(wanted, known))


def _wanted_version(function: HubFunction, wanted: Wanted) -> HubFunction:
    """Return a function whose folder does not tell its version, if it is the one that is meant."""
    if wanted.version is not None and not _is_of(function.version, wanted.version):
        raise NotFound(_no_version(wanted, function.version))
    return function


def _no_version(wanted: Wanted, known: str) -> str:
    return (
        f"hub function {wanted.name!r} has no version {wanted.version} here; there is {known}, "
        f"as hub://{wanted.name} without a version"
    )


def _pinned(hub: Hub, wanted: Wanted) -> Wanted:
    """Return what is wanted as the project has pinned it, where the name itself says no version.

    Raises:
        SpecError: The pin is no version.
    """
    if wanted.version is not None or (pin := hub.pins.get(wanted.name)) is None:
        return wanted
    pinned = parse_name(f"{wanted.name}@{pin}")
    return pinned._replace(hub=hub.name, digest=wanted.digest or pinned.digest)


def _is_of(version: str, wanted: str) -> bool:
    """Tell whether a version is one of those that a shorter one names.

    >>> _is_of("1.2.0", "1.2"), _is_of("1.20.0", "1.2")
    (True, False)
    """
    parts = wanted.split(".")
    return version.split(".")[: len(parts)] == parts


def _checked(function: HubFunction, digest: str | None) -> HubFunction:
    """Return a function if its files are what its digests say.

    Raises:
        SpecError: They are not.
    """
    published = function.folder / DIGEST
    said = published.read_text("utf-8").strip() if published.is_file() else None
    for wanted, who in ((said, "it was published with"), (digest, "is asked for:")):
        if wanted is not None and not function.digest.startswith(wanted):
            raise SpecError(
                f"hub function {function.uri} has the digest {function.digest[:19]}… and "
                f"{who} {wanted[:19]}…; it was changed, or is not whole, and is not run"
            )
    return function


def _all_of(hub: Hub) -> Iterator[HubFunction]:
    root = bring(hub)
    for name, versions in sorted(_folders(root).items()):
        folder = versions[0][1]
        yield read_folder(folder, hub.name, name)


def _folders(root: Path) -> dict[str, list[tuple[str, Path]]]:
    """Return the folders of each function, the newest version first.

    A function's folder holds its files, or a folder for each version.
    """
    found: dict[str, list[tuple[str, Path]]] = {}
    for folder in root.iterdir():
        if not folder.is_dir() or not is_name(folder.name):
            continue
        if versions := _versions(folder):
            found[folder.name] = versions
    return found


def _versions(folder: Path) -> list[tuple[str, Path]]:
    if is_function(folder):
        return [("", folder)]
    inner = [(f.name, f) for f in folder.iterdir() if VERSION.fullmatch(f.name) and is_function(f)]
    return sorted(inner, key=lambda pair: [int(part) for part in pair[0].split(".")], reverse=True)
