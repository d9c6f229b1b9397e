"""Where a run comes from: its id, its user, its machine, its code."""

from __future__ import annotations

import platform
import secrets
import socket
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from rayml.config import project_root, user_name
from rayml.spec import Origin

if TYPE_CHECKING:
    from pathlib import Path


def new_run_id() -> str:
    """Return a new id; ids sort by the second of their making."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def read_origin(folder: Path) -> Origin:
    """Return who runs this process, where, and from which commit of the folder's repository."""
    return Origin(
        user=user_name(),
        host=socket.gethostname(),
        command=" ".join(sys.argv)[:1000].encode("utf-8", "replace").decode(),
        python=platform.python_version(),
        rayml=_version(),
        commit=_commit(folder),
    )


@cache
def _version() -> str:
    return version("rayml")


def _commit(folder: Path) -> str | None:
    """Return the commit that is checked out, read from git's files: a process would cost more."""
    try:
        git = project_root(folder) / ".git"
        head = (git / "HEAD").read_text("ascii").strip()
        if not head.startswith("ref: "):
            return head
        ref = head.removeprefix("ref: ")
        if (git / ref).exists():
            return (git / ref).read_text("ascii").strip()
        packed = (line.split() for line in (git / "packed-refs").read_text("ascii").splitlines())
        return next((line[0] for line in packed if line[-1] == ref), None)
    except (OSError, UnicodeDecodeError):
        return None
