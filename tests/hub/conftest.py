"""What tests of hub functions share: a call that is tracked in a store of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import rayml

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hub.calls import Tracked


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let runs be recorded for the test alone; return where."""
    monkeypatch.setenv("RAYML_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def tracked(own_store: Path) -> Tracked:
    """Call a hub function by name; return what it returns, and its run, which is over."""

    def call(name: str, **values: object) -> tuple[Any, rayml.Run]:
        function = rayml.hub.get(name)
        with rayml.start_run(function.name) as context:
            result = function(**values)
        return result, rayml.get_run(context.run_id)

    return call
