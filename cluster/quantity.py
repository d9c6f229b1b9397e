"""Kubernetes quantities: `500m` of a CPU, `8Gi` of memory."""

from __future__ import annotations

import math
import re

_UNITS = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "E": 10**18,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
    "Ei": 2**60,
}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([A-Za-z]*)")


def parse_quantity(text: str | float) -> float:
    """Return what a quantity of the Kubernetes API stands for.

    >>> parse_quantity("500m"), parse_quantity("2Gi"), parse_quantity("1e3"), parse_quantity(4)
    (0.5, 2147483648.0, 1000.0, 4.0)

    Raises:
        ValueError: It is no quantity.
    """
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is not a quantity")
    return float(match[1]) * _UNITS[match[2]]


def cpu_quantity(cpus: float) -> str:
    """Return CPU cores as a quantity, rounded up to a thousandth.

    >>> cpu_quantity(4), cpu_quantity(0.5), cpu_quantity(0)
    ('4', '500m', '0')
    """
    thousandths = math.ceil(round(cpus * 1000, 6))
    return f"{thousandths}m" if thousandths % 1000 else str(thousandths // 1000)


def memory_quantity(size: int) -> str:
    """Return bytes as the shortest exact quantity: equal sizes give equal text.

    >>> memory_quantity(8 * 2**30), memory_quantity(1_500_000_000), memory_quantity(1536 * 2**20)
    ('8Gi', '1500M', '1536Mi')
    """
    units = ("Ti", "Gi", "Mi", "Ki", "T", "G", "M", "k", "")
    texts = [f"{size // _UNITS[u]:.0f}{u}" for u in units if size % _UNITS[u] == 0]
    return min(texts, key=len)
