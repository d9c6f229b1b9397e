"""What `import rayml` costs and gives."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

import pytest

HEAVY = [
    "duckdb",
    "kr8s",
    "mlflow",
    "numpy",
    "obstore",
    "pandas",
    "pyarrow",
    "ray",
    "torch",
    "typer",
]


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "module",
    ["rayml", "rayml.errors", "rayml.cluster", "rayml.hub", "rayml.job", "rayml.mlflow_plugin"],
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    loaded = json.loads(
        run_python(f"import json, sys, {module}; print(json.dumps([*sys.modules]))")
    )

    assert module in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_every_exported_name_is_there() -> None:
    import rayml

    assert len(set(rayml.__all__)) == len(rayml.__all__)
    assert [name for name in rayml.__all__ if getattr(rayml, name, None) is None] == []
    assert set(rayml.__all__) <= set(dir(rayml))


def test_the_contracts_names_are_exported() -> None:
    import rayml

    promised = {
        "Artifact",
        "Context",
        "JobFailed",
        "RaymlError",
        "Resources",
        "Retry",
        "Run",
        "SpecError",
        "artifact",
        "context",
        "get_run",
        "lineage",
        "load_model",
        "register_model",
        "runs",
        "sql",
        "start_run",
        "submit",
    }
    assert promised - set(rayml.__all__) == set()


def test_a_module_never_takes_the_place_of_a_function_of_its_name() -> None:
    code = """
import pkgutil, types, rayml
for name in rayml.__all__:
    if name in {module.name for module in pkgutil.iter_modules(rayml.__path__)}:
        __import__(f"rayml.{name}")
    if isinstance(getattr(rayml, name), types.ModuleType) and not callable(getattr(rayml, name)):
        print(name)
"""
    assert set(run_python(code).split()) <= {"hub"}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    import rayml

    with pytest.raises(AttributeError, match="sumbit"):
        getattr(rayml, "sumbit")  # noqa: B009 - a type checker would see the slip as well


def test_mlflow_is_asked_for_by_name_where_it_is_missing() -> None:
    code = """
import sys
sys.modules["mlflow"] = None  # as if it were not installed
import sqlite3
db = sqlite3.connect("mlflow.db")
for table in ("experiments", "runs", "alembic_version"):
    db.execute(f"create table {table} (x)")
from rayml.cli import main
sys.argv = ["rayml", "import", "mlflow", "mlflow.db"]
sys.stderr = sys.stdout
assert main() == 2
"""
    with tempfile.TemporaryDirectory() as folder:
        assert "pip install 'rayml[mlflow]'" in run_python(
            f"import os; os.chdir({folder!r})\n{code}"
        )
