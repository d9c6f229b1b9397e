"""What holds for each of the library's own hub functions: its folder, and its example."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import rayml
from rayml.hubs import list_functions
from rayml.hubs.publishing import check_folder
from tests.ray.heads import Head, started_head

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FUNCTIONS = [function.name for function in list_functions("rayml")]
# The way of test_chain has these on the same table; the other two have jobs in their own tests.
COVERED = {"ingest", "describe", "auto_trainer", "evaluate", "serve", "train_torch", "tune"}
EXAMPLES = [
    pytest.param(name, marks=pytest.mark.thorough) if name in COVERED else name
    for name in FUNCTIONS
]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with started_head(lambda _: ["--num-cpus=2"]) as own:
        yield own


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_says_all_that_its_users_need(name: str) -> None:
    function = rayml.hub.get(name)

    assert list(check_folder(function.folder, run_example=False)) == []
    assert function.text, "nothing is said of what it logs"
    assert function.example


@pytest.mark.ray
@pytest.mark.parametrize("name", EXAMPLES)
def test_its_example_runs(name: str, head: Head, tmp_path: Path) -> None:
    example = rayml.hub.get(name).folder / "example.py"
    own = {"RAY_ADDRESS": head.gcs, "RAYML_STORE": str(tmp_path / "store")}

    done = subprocess.run(
        [sys.executable, str(example)],
        check=False, cwd=tmp_path, env={**head.env, **own}, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout, "it shows nothing"
    names = {run.name for run in rayml.runs(store=tmp_path / "store")}
    assert name in names
