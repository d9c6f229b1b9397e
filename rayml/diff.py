"""What differed from the commit when a run began, as a patch that `git apply` takes.

It is read by git, in a thread beside whatever goes on; nothing in the repository is written. What
is large, or called as files of secrets are, is left out; lines before the patch say so, which git
passes over.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from rayml.config import switch
from rayml.errors import SpecError
from rayml.redaction import is_secret_name
from rayml.repository import Repository, find_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rayml.redaction import Redactor
    from rayml.store import Store

MAX_FILE_BYTES = 1024 * 1024
MAX_BYTES = 8 * 1024 * 1024
MAX_FILES = 1000
TIME_S = 10.0
# Runs that begin within so many times what a look has taken share it: a search over parameters
# makes thousands of them.
_SHARED = 20
_LAST_S = 2.0
_SKIPPED = frozenset({".venv", "venv", "__pycache__", ".rayml", "node_modules"})
_SECRET_FILE = re.compile(
    r"\.env(\..*)?|\.netrc|\.pgpass|\.pypirc|\.npmrc|id_(rsa|dsa|ecdsa|ed25519)|kubeconfig"
    r"|.*\.(pem|key|p12|pfx|jks|kubeconfig)|(secrets?|credentials?)(\..*)?"
)
_SOURCES = (".py", ".ipynb", ".sh", ".sql")
# As the user's settings do not make it: a patch that applies everywhere.
_AS_PATCH = (
    "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-relative",
    "--src-prefix=a/", "--dst-prefix=b/", "--unified=3",
)  # fmt: skip
_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # of whom we are a hook of

_logger = logging.getLogger("rayml")
_lock = threading.Lock()
_looks: dict[tuple[int, Path], _Look] = {}
_warned: set[Path] = set()


class _Failed(Exception):
    """Git did not tell; why, in words."""


@dataclass
class _Look:
    """One reading of a repository, which several runs may share."""

    began: float = field(default_factory=time.monotonic)
    took: float = float("inf")
    patch: Future[bytes] = field(default_factory=Future)

    def is_young(self) -> bool:
        """Tell whether it counts for a run that begins now."""
        return time.monotonic() - self.began < _SHARED * self.took


def look(folder: Path) -> Future[bytes]:
    """Begin to read what a folder's repository has that its commit has not; return at once.

    The result is a patch of at most some MiB: empty if nothing differs, nobody knows, or the
    setting `diff` is off.

    Raises:
        SpecError: That setting is neither on nor off.
    """
    repository = find_repository(folder) if switch("diff", None, default=True) else None
    if repository is None or repository.commit() is None:
        nothing: Future[bytes] = Future()
        nothing.set_result(b"")
        return nothing
    key = (os.getpid(), repository.root)  # a fork has none of its parent's threads
    with _lock:
        found = _looks.get(key)
        if found is None or not found.is_young():
            found = _looks[key] = _Look()
            begin = threading.Thread(target=_read_for, args=(found, repository), daemon=True)
            begin.start()
    return found.patch


def keep_diff(patch: Future[bytes], store: Store, redactor: Redactor | None = None) -> str:
    """Store a patch once it is read, without secrets; return its digest, or nothing for none.

    Raises:
        StoreError: The store refused.
    """
    data = patch.result()
    if not data:
        return ""
    return store.add(BytesIO(redactor.redact(data) if redactor is not None else data)).digest


@contextmanager
def telling(find: Callable[[], str], tell: Callable[[str], object]) -> Iterator[None]:
    """Tell of a patch beside a block; a short one waits for it, though not for long.

    Args:
        find: Waits, and returns the patch's digest; no error of it is raised.
        tell: Is given the digest, unless that is empty.
    """
    thread = threading.Thread(target=_tell, args=(find, tell), name="rayml-diff", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(_LAST_S)


def _tell(find: Callable[[], str], tell: Callable[[str], object]) -> None:
    try:
        if digest := find():
            tell(digest)
    except SpecError as exc:
        _logger.warning("what differs from the commit is not kept: %s", exc)
    except Exception:  # noqa: BLE001, S110 - the store's own, or the run has ended meanwhile
        pass


def _read_for(look: _Look, repository: Repository) -> None:
    patch = b""
    try:
        patch = read_diff(repository)
    except Exception as exc:  # noqa: BLE001 - a run goes on without it
        _warn(repository.root, exc)
    finally:
        look.took = time.monotonic() - look.began
        look.patch.set_result(patch)


def _warn(root: Path, exc: Exception) -> None:
    if root not in _warned:
        _warned.add(root)
        _logger.warning(
            "what differs from the commit in %s is not kept: %s; RAYML_DIFF=off does without it",
            root,
            exc,
        )


def read_diff(repository: Repository) -> bytes:
    """Return what a repository's files have that its commit has not; nothing if they are equal.

    Changed files are there, and new ones that git does not ignore.
    """
    git = _Git(repository.root, time.monotonic() + TIME_S)
    changed, new = _names(git)
    if not changed and not new:
        return b""
    left_out = _left_out(repository.root, [*changed, *new])
    changed = [name for name in changed if name not in left_out]
    new = [name for name in new if name not in left_out]
    patch = _patch(git, repository, changed, new) if changed or new else b""
    if len(patch) > MAX_BYTES:  # what was deleted is in it as well
        reason = f"the patch has more than {MAX_BYTES:,} bytes"
        left_out, patch = left_out | dict.fromkeys([*changed, *new], reason), b""
    return _heading(left_out) + patch


class _Git:
    """Calls git in a folder, all in all for a limited time."""

    def __init__(self, root: Path, deadline: float) -> None:
        self._root = root
        self._deadline = deadline

    def call(self, *words: str, given: bytes = b"", places: dict[str, str] | None = None) -> bytes:
        """Return what git prints, or somewhat more than may be kept of it.

        Raises:
            _Failed: Git is not there, refuses, or takes too long.
        """
        environment = {name: text for name, text in os.environ.items() if name not in _PLACES}
        environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", **(places or {})}
        line = ["git", *words]
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as errors:
            source.write(given)
            source.seek(0)
            try:
                process = subprocess.Popen(
                    line, cwd=self._root, env=environment,
                    stdin=source, stdout=subprocess.PIPE, stderr=errors,
                )  # fmt: skip
            except OSError as exc:
                raise _Failed(f"git cannot be started: {exc}") from exc
            printed = self._read(process)
            errors.seek(0)
            if process.returncode != 0 and len(printed) <= MAX_BYTES:
                raise _Failed(self._reason(process.returncode, errors.read(1000).decode()))
            return printed

    def _read(self, process: subprocess.Popen[bytes]) -> bytes:
        timer = threading.Timer(max(0.0, self._deadline - time.monotonic()), process.kill)
        timer.start()
        with process:
            try:
                assert process.stdout is not None  # noqa: S101 - a pipe, see above
                printed = process.stdout.read(MAX_BYTES + 1)
                if len(printed) > MAX_BYTES:
                    process.kill()
            finally:
                process.wait()
                timer.cancel()
        return printed

    def _reason(self, code: int, said: str) -> str:
        if time.monotonic() >= self._deadline:
            return f"git took more than {TIME_S:g} s"
        return f"git ended with {code}: {said.strip().partition(chr(10))[0]}"


def _names(git: _Git) -> tuple[list[str], list[str]]:
    """Return which files have changed, and which are new."""
    printed = git.call(
        "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--no-ahead-behind"
    )
    if len(printed) > MAX_BYTES:
        raise _Failed("too many files differ")
    changed: list[str] = []
    new: list[str] = []
    for entry in os.fsdecode(printed).split("\0")[:-1]:
        (new if entry.startswith("??") else changed).append(entry[3:])
    return changed, [name for name in new if not _SKIPPED.intersection(name.split("/"))]


def _left_out(root: Path, names: list[str]) -> dict[str, str]:
    """Return the files that are not kept, and why; of many, the small ones are."""
    left_out: dict[str, str] = {}
    total = 0
    sizes = {name: _size(root / name) for name in names}
    for count, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        if reason := _reason_against(name, size):
            left_out[name] = reason
        elif count >= MAX_FILES:
            left_out[name] = f"{len(sizes):,} files differ and {MAX_FILES:,} are kept"
        elif total + size > MAX_BYTES:
            left_out[name] = f"with it there would be more than {MAX_BYTES:,} bytes"
        else:
            total += size
    return left_out


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # it was deleted, which is a change too
        return 0


def _reason_against(name: str, size: int) -> str:
    """Return why a file is not kept; nothing if it is."""
    if name.endswith("/"):
        return "it is a repository of its own"
    if size > MAX_FILE_BYTES:
        return f"it has {size:,} bytes and a file may have {MAX_FILE_BYTES:,}"
    file = name.rpartition("/")[2]
    words = re.sub(r"[^a-z0-9]+", "_", file.lower().partition(".")[0])
    is_called_so = is_secret_name(words) and not file.endswith(_SOURCES)
    if is_called_so or _SECRET_FILE.fullmatch(file.lower()):
        return "files of that name hold secrets"
    return ""


def _patch(git: _Git, repository: Repository, changed: list[str], new: list[str]) -> bytes:
    words = ("diff", "HEAD", *_AS_PATCH, "--", *map(_exactly, [*changed, *new]))
    if not new:
        return git.call(*words)
    # With an index of its own, which names the new files, git diffs these too.
    with tempfile.TemporaryDirectory() as scratch:
        index, objects = Path(scratch, "index"), Path(scratch, "objects")
        objects.mkdir()
        if (repository.own / "index").exists():
            shutil.copyfile(repository.own / "index", index)
        places = {
            "GIT_INDEX_FILE": str(index),
            "GIT_OBJECT_DIRECTORY": str(objects),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(repository.shared.resolve() / "objects"),
        }
        given = b"".join(os.fsencode(f"{_exactly(name)}\0") for name in new)
        read = ("--pathspec-from-file=-", "--pathspec-file-nul")
        git.call("add", "--intent-to-add", *read, given=given, places=places)
        return git.call(*words, places=places)


def _exactly(name: str) -> str:
    """Return the pattern that is this name and no other."""
    return f":(top,literal){name}"


def _heading(left_out: dict[str, str]) -> bytes:
    lines = [f"# left out: {_shown(name)}: {left_out[name]}\n" for name in sorted(left_out)]
    if len(lines) > MAX_FILES:
        lines[MAX_FILES:] = [f"# left out: {len(lines) - MAX_FILES:,} more\n"]
    return "".join(lines).encode("utf-8", "backslashreplace")


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)[1:-1]
