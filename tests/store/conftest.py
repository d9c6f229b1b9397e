"""Both kinds of store, empty, for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rayml.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.store import Store


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store."""
    if request.param == "folder":
        return open_store(tmp_path / "store")
    return open_store(request.getfixturevalue("s3_store_uri"))
