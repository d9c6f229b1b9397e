"""Git as a user calls it, with a name of its own."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *words: str, given: bytes = b"") -> str:
    """Return what git prints."""
    me = ("-c", "user.name=me", "-c", "user.email=me@host")
    done = subprocess.run(
        ["git", *me, *words], cwd=folder, input=given, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


def commit_all(folder: Path) -> None:
    """Make a repository of a folder, with one commit of all that is in it."""
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
