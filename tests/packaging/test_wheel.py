"""What is built: the sdist, the wheel that is made from it, and what that wheel gives a user."""

from __future__ import annotations

import ast
import email
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import rayml

ROOT = Path(__file__).parents[2]
PACKED = {"rayml": "rayml", "cluster": "rayml/cluster", "hub": "rayml/hub"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that git keeps, or would keep."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout, to know which files belong to the project")
    copy = tmp_path_factory.mktemp("tree")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, target = ROOT / name, copy / name
        if source.is_symlink() or source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return copy


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, tree],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and our dependencies, without our checkout."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, symlinks=True)
    paths = sysconfig.get_paths("venv", {"base": str(folder), "platbase": str(folder)})
    site = Path(paths["purelib"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)  # noqa: S202 - we have just built it
    # A folder that a .pth names is searched, but its own .pth files, such as the one that leads to
    # the checkout, are not followed.
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(here)))
    return Path(paths["scripts"]) / "python"


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_its_only_top_level_name_is_rayml(wheel: Path) -> None:
    names = {name.partition("/")[0] for name in names_in(wheel)}

    assert {name for name in names if not name.endswith(".dist-info")} == {"rayml"}
    assert len(names) == 2


def test_every_file_of_the_packages_is_in_it(tree: Path, wheel: Path) -> None:
    expected = {
        f"{target}/{path.relative_to(tree / source).as_posix()}"
        for source, target in PACKED.items()
        for path in (tree / source).rglob("*")
        if path.is_file() and not path.is_symlink()
    }

    missing = expected - names_in(wheel)
    assert missing == set()
    assert "rayml/py.typed" in expected


@pytest.mark.parametrize("package", ["cluster", "hub"])
def test_the_linked_packages_are_real_files(tree: Path, wheel: Path, package: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read(f"rayml/{package}/__init__.py")

    assert packed == (tree / package / "__init__.py").read_bytes()


def test_the_license_comes_with_it(tree: Path, wheel: Path) -> None:
    (name,) = (n for n in names_in(wheel) if n.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(archive.read(name))
        licence = archive.read(name.replace("METADATA", "licenses/LICENSE"))

    assert metadata["License-Expression"] == "Apache-2.0"
    assert licence == (tree / "LICENSE").read_bytes()
    assert b"Apache License" in licence


def test_the_sdist_carries_the_linked_packages_and_the_license(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}

    assert {"LICENSE", "README.md", "pyproject.toml"} <= files
    assert {"rayml/cluster/__init__.py", "rayml/hub/__init__.py", "rayml/py.typed"} <= files


def run_alone(clean_python: Path, code: str, folder: Path) -> str:
    """Return what code prints there, without the checkout, variables and the user's packages."""
    done = subprocess.run(
        [clean_python, "-I", "-c", code],
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["rayml", "rayml.cluster", "rayml.hub", "rayml.cli"])
def test_it_imports_in_a_clean_environment(
    clean_python: Path, tmp_path: Path, module: str
) -> None:
    file = run_alone(clean_python, f"import {module}; print({module}.__file__)", tmp_path)

    assert Path(file.strip()).is_relative_to(clean_python.parents[1])


def test_the_hub_is_in_it_and_its_functions_have_the_digests_of_the_checkout(
    clean_python: Path, tmp_path: Path
) -> None:
    code = "import rayml; print({f.pinned: str(f.folder) for f in rayml.hub.list()})"
    found = ast.literal_eval(run_alone(clean_python, code, tmp_path))

    assert set(found) == {function.pinned for function in rayml.hub.list()}
    assert all(Path(path).is_relative_to(clean_python.parents[1]) for path in found.values())


OFFLINE = """
import socket

def refuse(sock, address):
    if sock.family != socket.AF_UNIX:
        raise OSError(f"there is no network to {address}")

socket.socket.connect = socket.socket.connect_ex = refuse

import pandas
import rayml

with rayml.start_run("split", store="store"):
    print(rayml.hub.get("split@1.0.0")(table=pandas.DataFrame({"x": range(100)})))
"""


def test_a_hub_function_runs_without_a_network(clean_python: Path, tmp_path: Path) -> None:
    *_, last = run_alone(clean_python, OFFLINE, tmp_path).splitlines()

    assert ast.literal_eval(last) == {"train": 80, "test": 20}


def test_its_command_is_there_to_be_called(wheel: Path) -> None:
    (name,) = (n for n in names_in(wheel) if n.endswith(".dist-info/entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        assert "rayml = rayml.cli:main" in archive.read(name).decode()
