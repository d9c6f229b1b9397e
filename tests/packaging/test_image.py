"""The recipe for images with engines installs what the extras of the package ask for."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from rayml.engines import horovod_setup

ROOT = Path(__file__).parents[2]
RECIPE = "".join(
    (ROOT / "cluster" / "image" / name).read_text() for name in ("Dockerfile", "horovod.sh")
)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("extra", ["torch", "horovod", "dask", "spark"])
def test_all_of_an_engine_s_packages_are_in_the_image(extra: str) -> None:
    assert [wanted for wanted in EXTRAS[extra] if f'"{wanted}"' not in RECIPE] == []


def test_horovod_is_built_as_it_is_for_the_tests() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    variables = project["tool"]["uv"]["extra-build-variables"]["horovod"]
    said = dict(re.findall(r"\b(HOROVOD_\w+)=(\d)", RECIPE))
    assert said == variables == horovod_setup.SETTINGS
    pinned = next(wanted for wanted in EXTRAS["horovod"] if wanted.startswith("horovod"))
    assert pinned == horovod_setup.HOROVOD
    assert horovod_setup.TORCH in EXTRAS["horovod"]
    assert os.access(horovod_setup.COMPILER, os.X_OK)
