"""The functions work together: from a raw table to an endpoint, by what each has logged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rayml

EXAMPLE = Path(__file__).parents[2] / "examples" / "flights_hub.py"


@pytest.mark.ray
@pytest.mark.slow
def test_the_lineage_of_the_model_that_is_served_tells_the_whole_way(tmp_path: Path) -> None:
    own = {"RAYML_STORE": str(tmp_path / "store"), "RAYML_CLUSTER": "local"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        check=False, cwd=tmp_path, env={**os.environ, **own}, capture_output=True, text=True,
        timeout=280,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    runs = rayml.runs(store=tmp_path / "store")
    steps = {run.name: run for run in runs if run.spec.parent is None}
    order = ["ingest", "book", "describe", "split", "auto_trainer", "evaluate", "serve"]
    assert set(steps) == set(order)
    assert steps["serve"].state == "cancelled"
    assert {steps[name].state for name in order[:-1]} == {"succeeded"}
    assert "'probabilities': [[" in done.stdout
    told = str(rayml.lineage("rayml://models/late_flights@production", store=tmp_path / "store"))
    ways = [told.index(f"({name}, ") for name in ("auto_trainer", "split", "book", "ingest")]
    assert ways == sorted(ways)
    assert told.index("to\n") < told.index("(evaluate, ")
    assert "(serve, " in told
