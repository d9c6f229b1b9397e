"""What tests of hub functions share: a call that is tracked in a store of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def tracked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Any, rayml.Run]]:
    """Call a hub function by name; return what it returns, and its run, which is over."""
    monkeypatch.setenv("RAYML_STORE", str(tmp_path / "store"))

    def call(name: str, **values: object) -> tuple[Any, rayml.Run]:
        function = rayml.hub.get(name)
        with rayml.start_run(function.name) as context:
            result = function(**values)
        return result, rayml.get_run(context.run_id)

    return call
