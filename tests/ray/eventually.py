"""The one way in which tests wait for something that has no event."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_POLL_S = 0.02


def eventually(check: Callable[[], T | None], timeout_s: float = 30.0) -> T:
    """Return what `check` returns as soon as that is true; an AssertionError counts as false.

    Raises:
        AssertionError: It is not, `timeout_s` seconds later.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            value, error = check(), None
        except AssertionError as exc:
            value, error = None, exc
        if value:
            return value
        if time.monotonic() > deadline:
            raise error or AssertionError(f"not within {timeout_s:g} s; it is still {value!r}")
        time.sleep(_POLL_S)
