"""What the tests of MLflow share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rayml.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rayml.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give an empty store; what MLflow has begun in this process ends with it."""
    opened = open_store(tmp_path / "my store")
    yield opened
    from rayml.mlflow_plugin.recorder import recorder

    recorder(opened).close()
