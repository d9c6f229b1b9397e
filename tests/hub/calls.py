"""What tests of hub functions call, and what they read of the run that comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import rayml

Tracked: TypeAlias = Callable[..., tuple[Any, rayml.Run]]


def warnings_of(run: rayml.Run) -> str:
    return "\n".join(run.artifact("warnings").load()["warning"])
