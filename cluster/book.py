"""The reservations of a cluster as its head writes them into the RayCluster's annotations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rayml.cluster.settings import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BOOK = f"{PREFIX}reservations"
# How many there are besides; it is not there if there are none.
MORE = f"{PREFIX}reservations-more"
# All annotations of an object together may have 256 KiB.
_SHOWN = 100


def write_book(lines: Sequence[Mapping[str, object]]) -> dict[str, str | None]:
    """Return the annotations that show reservations; the first hundred of them in full.

    >>> write_book([{"run": "r1"}])
    {'rayml.io/reservations': '[{"run": "r1"}]', 'rayml.io/reservations-more': None}
    """
    more = len(lines) - _SHOWN
    return {BOOK: json.dumps(lines[:_SHOWN]), MORE: str(more) if more > 0 else None}


def is_written(book: Mapping[str, str | None], cluster: Mapping[str, Any]) -> bool:
    """Tell whether a RayCluster shows these reservations already."""
    found = {BOOK: "[]"} | _annotations(cluster)
    return all(found.get(name) == text for name, text in book.items())


def reservations_of(cluster: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the reservations that a RayCluster's head has written down last.

    >>> reservations_of({"metadata": {}})
    []
    """
    text = _annotations(cluster).get(BOOK) or "[]"
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [line for line in found if isinstance(line, dict)] if isinstance(found, list) else []


def left_out(cluster: Mapping[str, Any]) -> int:
    """Return how many reservations there are besides those that are written down.

    >>> left_out({"metadata": {"annotations": {"rayml.io/reservations-more": "3"}}})
    3
    """
    text = _annotations(cluster).get(MORE, "")
    return int(text) if text.isdecimal() else 0


def _annotations(cluster: Mapping[str, Any]) -> dict[str, str]:
    return cluster["metadata"].get("annotations") or {}
