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

from rayml.config import user_name
from rayml.repository import find_repository
from rayml.spec import Origin

if TYPE_CHECKING:
    from pathlib import Path


def new_run_id() -> str:
    """Return a new id; ids sort by the second of their making."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def read_origin(folder: Path) -> Origin:
    """Return who runs this process, where, and from which commit of the folder's repository."""
    repository = find_repository(folder)
    return Origin(
        user=user_name(),
        host=socket.gethostname(),
        command=" ".join(sys.argv)[:1000].encode("utf-8", "replace").decode(),
        python=platform.python_version(),
        rayml=_version(),
        commit=repository.commit() if repository is not None else None,
    )


@cache
def _version() -> str:
    return version("rayml")
