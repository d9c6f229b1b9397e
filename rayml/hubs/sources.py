"""The hubs that a project knows, and how each comes to this machine."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

import rayml
from rayml import config
from rayml.config import project_root, settings_table
from rayml.errors import SpecError, StoreUnreachable
from rayml.hubs.folder import OWN, is_name
from rayml.store import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rayml.store import Store

_MOST_FILES = 10_000
_MOST_BYTES = 16 * 1024 * 1024
# What is before the path goes first: an @ there is a user's, not a revision's.
_GIT = re.compile(
    r"(?:git\+)?(?P<url>(?:\w+://[^/]*|[^@/]+@[^:/]+:)?[^#]*?)(?:@(?P<rev>[^@:#]+))?"
    r"(?:#subdirectory=(?P<folder>.+))?"
)
_GIT_STARTS = ("git+", "git@", "ssh://")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PROTOCOLS = "file:git:http:https:ssh"


class Hub(msgspec.Struct, frozen=True, kw_only=True):
    """A place of hub functions.

    Attributes:
        name: What the project calls it.
        url: A folder, a git repository's URL, or a store's URI.
        pins: By function, the version that is meant where none is given, and after a `#` its
            digest.
    """

    name: str
    url: str
    pins: dict[str, str] = {}


def list_hubs() -> list[Hub]:
    """Return the hubs that are known: the library's own, then those of `[tool.rayml.hubs]`.

    `RAYML_HUBS` names others instead: `name=url` for each, with spaces between them.

    Raises:
        SpecError: The setting is not such a table.
    """
    own = Hub(name=OWN, url=str(Path(rayml.__file__).parent / "hub"))
    return [own, *(_hub(name, value) for name, value in settings_table("hubs").items())]


def _hub(name: str, value: object) -> Hub:
    if not is_name(name) or name == OWN:
        raise SpecError(f"hubs: {name!r} cannot name a hub; use small letters, digits and _")
    if isinstance(value, str):
        return Hub(name=name, url=value)
    try:
        return msgspec.convert({"name": name, **dict(value)}, Hub)  # type: ignore[call-overload]
    except (msgspec.ValidationError, TypeError, ValueError) as exc:
        raise SpecError(
            f"hubs: {name} is {value!r}; write a folder, URL or URI, or a table with url and pins"
        ) from exc


def bring(hub: Hub) -> Path:
    """Return a folder of this machine with a hub's functions; what has changed there comes anew.

    Raises:
        SpecError: There is no such place, or it is no hub.
        StoreUnreachable: It does not answer, and was never here.
    """
    if is_git(hub.url):
        return _from_git(hub)
    if is_store(hub.url):
        return _from_store(hub)
    folder = Path(hub.url) if hub.name == OWN else local_folder(hub.url)
    if not folder.is_dir():
        raise SpecError(f"hub {hub.name!r}: there is no folder {folder}; check its path")
    return folder.resolve()


def is_git(url: str) -> bool:
    """Tell whether a hub's place is a git repository.

    >>> is_git("https://host/hub.git@v1"), is_git("git+file:///srv/hub"), is_git("s3://b/hub")
    (True, True, False)
    """
    return url.startswith(_GIT_STARTS) or ".git@" in url or url.endswith(".git") or ".git#" in url


def parse_git(url: str) -> tuple[str, str, str]:
    """Return where a repository is, which revision of it is meant, and which folder.

    >>> parse_git("git+ssh://git@host/ml/hub.git")
    ('ssh://git@host/ml/hub.git', 'HEAD', '')
    >>> parse_git("git@host:ml/hub.git@v2#subdirectory=hub")
    ('git@host:ml/hub.git', 'v2', 'hub')

    Raises:
        SpecError: It is no such URL.
    """
    match = _GIT.fullmatch(url)
    if match is None:
        raise SpecError(
            f"{_shown(url)!r} is no URL of git; write git+URL@REVISION, and after it "
            "#subdirectory=FOLDER if the hub is not at its root"
        )
    return match["url"], match["rev"] or "HEAD", match["folder"] or ""


def is_store(url: str) -> bool:
    """Tell whether a hub's place is object storage."""
    scheme = urlsplit(url).scheme
    return bool(scheme) and scheme != "file"


def local_folder(url: str) -> Path:
    """Return the folder that a path or `file://` URI names; relative to the project's root."""
    path = url.removeprefix("file://")
    return project_root() / Path(path).expanduser()


def cache_folder(kind: str, url: str) -> Path:
    """Return where on this machine copies of a hub are kept."""
    return config.cache_folder() / "hubs" / kind / hashlib.sha256(url.encode()).hexdigest()[:16]


def _from_store(hub: Hub) -> Path:
    """Return the copy of a hub on object storage; only what is new there is fetched."""
    copy = cache_folder("stores", hub.url)
    copy.mkdir(parents=True, exist_ok=True)
    try:
        store = open_store(hub.url)
        found = store.stats("").items()
    except StoreUnreachable:
        if any(copy.iterdir()):
            _tell_offline(hub)
            return copy
        raise
    stats = {key: stat for key, stat in found if _is_of_function(key)}
    if len(stats) > _MOST_FILES:
        raise SpecError(
            f"hub {hub.name!r}: {hub.url} has {len(stats):,} objects and a hub may have "
            f"{_MOST_FILES:,}; name the folder that holds its functions"
        )
    for key, stat in stats.items():
        _fetch(store, key, copy / key, (stat.size, stat.modified))
    _forget(copy, stats)
    return copy


def _is_of_function(key: str) -> bool:
    """Tell whether an object lies in a folder that is named as a function is."""
    return "/" in key and is_name(key.partition("/")[0])


def _fetch(store: Store, key: str, file: Path, stat: tuple[int, float]) -> None:
    size, modified = stat
    if size > _MOST_BYTES:
        return  # no function's: it would be told by the digest
    with suppress(FileNotFoundError):
        here = file.stat()
        if (here.st_size, here.st_mtime) == (size, modified):
            return
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as scratch:
        scratch.write(store.get(key))
    os.utime(scratch.name, (modified, modified))
    Path(scratch.name).replace(file)


def _forget(copy: Path, keys: Mapping[str, object]) -> None:
    for file in copy.rglob("*"):
        if file.is_file() and file.relative_to(copy).as_posix() not in keys:
            file.unlink(missing_ok=True)


def _from_git(hub: Hub) -> Path:
    """Return a checkout of the revision that a hub's URL names, or of its newest commit."""
    try:
        url, revision, inner = parse_git(hub.url)
    except SpecError as exc:
        raise SpecError(f"hub {hub.name!r}: {exc}") from exc
    copies = cache_folder("git", url)
    commit = revision if _COMMIT.fullmatch(revision) else None
    if commit is None or not (copies / commit).is_dir():
        commit = _checkout(hub, url, revision, copies)
    folder = copies / commit / inner
    if not folder.is_dir() or not folder.resolve().is_relative_to((copies / commit).resolve()):
        raise SpecError(f"hub {hub.name!r}: its repository has no folder {inner!r}; check its URL")
    return folder


def _checkout(hub: Hub, url: str, revision: str, copies: Path) -> str:
    """Fetch a revision and return its commit; where nobody answers, what it was the last time."""
    last = copies / "refs" / hashlib.sha256(revision.encode()).hexdigest()
    copies.mkdir(parents=True, exist_ok=True)
    try:
        commit = _fetch_commit(url, revision, copies)
    except subprocess.CalledProcessError as exc:
        if not last.is_file():
            words = exc.stderr.strip().splitlines()[-1:] or ["git failed"]
            raise SpecError(
                f"hub {hub.name!r}: {_shown(url)} has no revision {revision!r} that can be "
                f"fetched: {_shown(words[0])}; check its URL and your access to it"
            ) from exc
        _tell_offline(hub)
        return last.read_text()
    except FileNotFoundError as exc:
        raise SpecError(f"hub {hub.name!r} is a git repository; install git") from exc
    last.parent.mkdir(exist_ok=True)
    last.write_text(commit)
    return commit


def _fetch_commit(url: str, revision: str, copies: Path) -> str:
    with tempfile.TemporaryDirectory(dir=copies) as scratch:
        folder = Path(scratch, "hub")
        _git("init", "--quiet", str(folder))
        try:
            _git("-C", str(folder), "fetch", "--quiet", "--depth=1", "--", url, revision)
        except subprocess.CalledProcessError:  # not every server gives a commit by its number
            _git("-C", str(folder), "fetch", "--quiet", "--tags", "--", url, "+refs/*:refs/hub/*")
            _git("-C", str(folder), "update-ref", "FETCH_HEAD", revision)
        commit = _git("-C", str(folder), "rev-parse", "FETCH_HEAD^{commit}")
        _git("-C", str(folder), "checkout", "--quiet", "--detach", commit)
        shutil.rmtree(folder / ".git")
        with suppress(OSError):  # another process has just fetched the same
            folder.rename(copies / commit)
    return commit


def _git(*words: str) -> str:
    environment = {
        **os.environ,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": os.environ.get("GIT_ALLOW_PROTOCOL", _PROTOCOLS),
    }
    line = ["git", *words]
    done = subprocess.run(line, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def _shown(url: str) -> str:
    """Return a URL without the password that may stand in it."""
    return re.sub(r"//[^/@]*@", "//…@", url)


def _tell_offline(hub: Hub) -> None:
    print(  # noqa: T201 - what runs may be older than what is there
        f"rayml: hub {hub.name} does not answer; its functions are as they were the last time",
        file=sys.stderr,
    )
