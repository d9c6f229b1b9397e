"""What the process of a tracker costs."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.ray.conftest import tracker_pid

if TYPE_CHECKING:
    from rayml.store import Store
    from tests.ray.conftest import Submit

pytestmark = pytest.mark.ray


def test_a_tracker_that_comes_back_loads_no_library_that_takes_long(
    submit: Submit, store: Store
) -> None:
    submit(lambda: None).wait()
    first = tracker_pid(store)
    os.kill(first, signal.SIGKILL)
    submit(lambda: None).wait()
    second = tracker_pid(store)
    loaded = Path(f"/proc/{second}/maps").read_text()
    assert first != second
    assert [name for name in ("libarrow", "pydantic_core") if name in loaded] == []
