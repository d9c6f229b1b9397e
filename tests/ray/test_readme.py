"""What the README shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

_README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", _README, re.DOTALL | re.MULTILINE)


def _python(code: str, folder: Path) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=env | {"RAYML_CLUSTER": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_example_prints_what_it_says_and_the_second_reads_it(tmp_path: Path) -> None:
    first, second = _blocks("python")[:2]
    told = _python(first, tmp_path)
    assert "{'accuracy': 0.875} {'loss': 0.01, 'accuracy': 0.875}" in told
    read = _python(second, tmp_path)
    assert "succeeded {'depth': 4} {'loss': 0.01, 'accuracy': 0.875}" in read


def _shown(words: str) -> str:
    return next(block for block in _blocks("python") if words in block)


@pytest.mark.slow
def test_torch_trains_as_is_shown(tmp_path: Path) -> None:
    told = _python(_shown("engine=rayml.Torch(workers=2), resources"), tmp_path)
    assert re.search(r"^ +step +time +value$", told, re.MULTILINE)
    assert re.findall(r"^\d +(\d) +\d{4}-", told, re.MULTILINE) == ["0", "1", "2"]


@pytest.mark.slow
def test_horovod_trains_as_is_shown(tmp_path: Path) -> None:
    told = _python(_shown("engine=rayml.Horovod"), tmp_path)
    assert re.fullmatch(r"-?\d\.\d+(e-\d+)?", told.splitlines()[-1])


@pytest.mark.thorough
def test_spark_prepares_what_is_shown(tmp_path: Path) -> None:
    assert _python(_shown("engine = rayml.Spark"), tmp_path).splitlines()[-1] == "1000000"


@pytest.mark.slow
def test_dask_computes_what_is_shown(tmp_path: Path) -> None:
    told = _python(_shown("engine=rayml.Dask(workers=2), resources"), tmp_path)
    assert "{'EWR-ORD': 2.0, 'JFK-LAX': 5.5}" in told


def test_a_misspelt_parameter_is_answered_as_shown(tmp_path: Path) -> None:
    shown = next(block for block in _blocks("console") if "dept=4" in block)
    command, answer = shown.strip().split("\n")
    (tmp_path / "train.py").write_text("def train(depth: int = 3): ...\n")
    words = command.removeprefix("$ rayml ").split()
    done = subprocess.run(
        [sys.executable, "-m", "rayml.cli", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == answer
