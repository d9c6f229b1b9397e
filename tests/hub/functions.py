"""A hub function for tests, which has a module beside it and starts tasks on Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayml.hubs.publishing import make_folder

if TYPE_CHECKING:
    from pathlib import Path

_FUNCTION = '''
import ray

import rayml

from ._steps import square


def squares(context: rayml.Context, count: int = 3) -> int:
    """Add squares up, each of which a task of its own computes.

    Args:
        count: How many.
    """
    ran = ray.remote(_in_task)
    return sum(ray.get([ran.remote(number) for number in range(count)]))


def _in_task(number: int) -> int:
    return square(number)
'''


def make_squares(root: Path) -> Path:
    """Write the function's folder below a hub's root, and return it."""
    folder = make_folder(root / "squares")
    (folder / "function.py").write_text(_FUNCTION)
    (folder / "_steps.py").write_text("def square(number):\n    return number * number\n")
    (folder / "hub.toml").write_text(
        'version = "1.0.0"\ncategory = "training"\n[resources]\ncpus = 0.5\n'
    )
    return folder
