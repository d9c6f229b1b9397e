"""How much memory the search may take, and what that means for rows and processes."""

from __future__ import annotations

import re

import psutil

import rayml

_UNITS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_UNITS |= {"Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4}
_SHARE = 0.6
# What a process takes that has loaded the libraries, and of its rows' size what fitting takes.
_PROCESS = 350 * 1024**2
_TIMES_ROWS = 3.0


def memory_bytes(memory: str | None) -> int:
    """Return how many bytes a budget is; without one, 60 % of what is free here.

    Raises:
        SpecError: It is no amount of memory.
    """
    if memory is None:
        return int(psutil.virtual_memory().available * _SHARE)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(k|M|G|T|Ki|Mi|Gi|Ti)?", str(memory).strip())
    if found is None:
        raise rayml.SpecError(f"memory={memory!r} is no amount of memory; give one such as '4Gi'")
    return int(float(found[1]) * _UNITS[found[2] or ""])


def share_out(budget: int, rows: int, columns: int) -> tuple[int, int]:
    """Return how many trials fit at once, and how many rows they may have.

    Args:
        budget: In bytes.
        rows: How many there are.
        columns: About how many there will be once they are encoded.

    Raises:
        SpecError: Not even one process fits.
    """
    if budget < 1.2 * _PROCESS:
        raise rayml.SpecError(
            f"memory={budget / 1024**2:.0f}Mi is less than one process of the search takes; "
            f"give at least {1.2 * _PROCESS / 1024**2:.0f}Mi"
        )
    each = _TIMES_ROWS * 8 * max(1, columns)
    at_once = max(1, int(budget // (_PROCESS + each * rows)))
    return at_once, min(rows, int((budget - _PROCESS) / each))
