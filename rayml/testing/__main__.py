"""`python -m rayml.testing s3://bucket/prefix`: does this store keep rayml's contract?

What follows the URI goes to pytest, such as `-k create`. The exit code is pytest's: 0 when all
tests pass. Each test writes below a folder of its own, which is emptied when it ends.
"""

from __future__ import annotations

import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rayml.store import Store, open_store
from rayml.testing import StoreContract

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class StoreUnderTest:
    """A pytest plugin: the fixture `store`, below a URI."""

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """An empty store below the URI."""
        store = open_store(f"{self._uri}/rayml-testing-{uuid.uuid4().hex}")
        yield store
        for key in store.list(""):
            store.delete(key)


def main(words: Sequence[str]) -> int:
    """Try the store at the first word; return pytest's exit code."""
    if not words or words[0].startswith("-"):
        print(__doc__, file=sys.stderr)  # noqa: T201 - a command line
        return 2
    with tempfile.TemporaryDirectory() as folder:
        test = Path(folder) / "test_store_contract.py"
        name = StoreContract.__name__
        test.write_text(f"from rayml.testing import {name}\nclass Test({name}): pass\n")
        options = ["--rootdir", folder, "-p", "no:cacheprovider", "-c", "/dev/null", *words[1:]]
        return int(pytest.main([*options, str(test)], plugins=[StoreUnderTest(words[0])]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
