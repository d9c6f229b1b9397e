"""Hooks on what seeds the generators of Python and numpy; those of PyTorch are with its others."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rayml.autologging.seeds import watch_seed

if TYPE_CHECKING:
    from collections.abc import Callable

_watched: dict[str, list[Callable[[], None]]] = {}


def install() -> None:
    """Hook what is there of them and is not hooked yet.

    Raises:
        AttributeError: It does not have what is hooked.
    """
    if (python := sys.modules.get("random")) is not None and "random" not in _watched:
        _watched["random"] = [watch_seed(python, "seed", "random", "a")]
    if (numpy := sys.modules.get("numpy.random")) is not None and "numpy" not in _watched:
        _watched["numpy"] = [
            watch_seed(numpy, "seed", "numpy"),
            watch_seed(numpy, "default_rng", "default_rng", of_user=True),
        ]


def uninstall() -> None:
    """Put everything back that is still hooked."""
    for undo in _watched.values():
        for put_back in undo:
            put_back()
    _watched.clear()
