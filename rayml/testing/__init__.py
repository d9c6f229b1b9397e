"""Tests for whoever brings a store of their own: an S3-compatible server, or a class.

A server is tried from the command line, below a prefix that the tests may fill and that they empty
again:

    $ python -m rayml.testing s3://bucket/prefix

A class of stores is tried with pytest, by a subclass that gives the fixture `store`:

    class TestMyStore(rayml.testing.StoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)

Needs pytest. `import rayml` does not load this module.
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError(
        "rayml.testing needs pytest, which is not installed; pip install pytest", name="pytest"
    ) from exc

# Before it is imported: a failed assert then shows the values that it compared.
pytest.register_assert_rewrite("rayml.testing.contract")

from rayml.testing.contract import StoreContract  # noqa: E402 - see above

__all__ = ["StoreContract"]
