"""What several files of unit tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import rayml
from rayml import autologging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rayml import Run


@pytest.fixture
def autolog() -> Iterator[None]:
    """Log automatically for as long as the test runs."""
    rayml.autolog()
    yield
    autologging.stop()


@pytest.fixture
def track(tmp_path: Path) -> Callable[[Callable[[], object]], Run]:
    """Return what makes a run of a function."""

    def track(function: Callable[[], object]) -> Run:
        with rayml.start_run(store=tmp_path / "store") as context:
            function()
        return rayml.get_run(context.run_id, store=tmp_path / "store")

    return track
