"""What travels to pods of a stock Ray image; packages come from uv's cache, or over the net."""

from __future__ import annotations

import io
import platform
import re
import subprocess
import sys
import tarfile
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from rayml.cluster import bundle as bundles
from rayml.cluster.bundle import Bundle, Machine, machine_of, make_bundle, this_machine
from rayml.cluster.packages import fetch_packages, lacking_packages
from rayml.cluster.versions import Versions, check_image
from rayml.errors import ClusterUnreachable, SpecError

if TYPE_CHECKING:
    from pathlib import Path

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make_bundle(this_machine())


@pytest.fixture(scope="module")
def unpacked(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pod")
    subprocess.run(["tar", "-xzf", "-", "-C", folder], input=b"".join(bundle.parts), check=True)
    return folder


def test_it_brings_what_rayml_needs_and_a_ray_image_lacks() -> None:
    lacking = lacking_packages(MINOR)

    assert {"msgspec", "obstore", "cloudpickle", "psutil", "typer", "rich"} <= set(lacking)
    assert lacking["obstore"] == metadata.version("obstore")


@pytest.mark.parametrize(
    "name", ["ray", "pandas", "pyarrow", "numpy", "pydantic", "requests", "aiohttp", "uv", "rayml"]
)
def test_what_a_ray_image_has_stays_at_home(name: str) -> None:
    assert name not in lacking_packages(MINOR)


def test_the_same_input_gives_the_same_bytes(bundle: Bundle) -> None:
    assert make_bundle(this_machine()) == bundle


def test_it_is_made_anew_where_nothing_can_be_kept(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rayml").write_text("not a folder")
    # uv's own cache is somebody else's.
    monkeypatch.setenv("UV_CACHE_DIR", _uv_cache())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert make_bundle(this_machine()) == bundle


def test_its_parts_fit_into_config_maps(bundle: Bundle) -> None:
    assert bundle.code.parts == len(bundle.parts)
    assert max(map(len, bundle.parts)) < 1_000_000
    assert b"".join(bundle.parts) == bundle.data


def test_another_byte_is_another_code() -> None:
    assert Bundle.of(b"a").code.digest != Bundle.of(b"b").code.digest


def test_rayml_is_imported_from_it_with_all_that_it_needs(unpacked: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import rayml.cluster.client, rayml.hub, rayml.store.bucket, rayml.cli, obstore, msgspec\n"
        "print(rayml.__file__, obstore.__file__, msgspec.__file__)\n"
        "from importlib import metadata; print(metadata.version('rayml'))"
    )
    code = unpacked / "code"
    done = subprocess.run(
        [sys.executable, "-c", program, code],
        capture_output=True,
        check=True,
        cwd=unpacked,
        text=True,
    )

    *files, version = done.stdout.split()
    assert all(file.startswith(f"{code}/") for file in files), files
    assert version == metadata.version("rayml")


def test_it_has_a_command_that_runs(unpacked: Path) -> None:
    done = subprocess.run(
        [unpacked / "bin" / "rayml", "--version"],
        capture_output=True,
        check=True,
        env={"PATH": str(sys.executable).rpartition("/")[0], "PYTHONPATH": f"{unpacked}/code"},
        text=True,
    )

    assert done.stdout.strip() == metadata.version("rayml")


def test_it_has_no_traces_of_this_machine(bundle: Bundle) -> None:
    with tarfile.open(fileobj=io.BytesIO(bundle.data)) as archive:
        members = archive.getmembers()

    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}
    assert not [m.name for m in members if m.name.endswith((".pyc", "RECORD", "direct_url.json"))]


@pytest.mark.parametrize(
    ("image", "python", "arch"),
    [
        ("rayproject/ray:2.60.0-py312", "3.12", "amd64"),
        ("rayproject/ray:2.60.0-py311-aarch64", "3.11", "arm64"),
        ("rayproject/ray-ml:2.60.0.abc-py310-gpu", "3.10", "amd64"),
        ("registry.local:5000/team/ray:latest", MINOR, "amd64"),
        ("ray", MINOR, "amd64"),
        ("copy39/ray", MINOR, "amd64"),
    ],
)
def test_an_images_tag_says_for_what_it_is_made(image: str, python: str, arch: str) -> None:
    assert machine_of(image) == Machine(python, arch)


def test_a_jobs_own_image_has_the_heads_ray_and_python_as_far_as_its_tag_says() -> None:
    ray = metadata.version("ray")
    there = Versions(ray, platform.python_version(), None)
    tag = f"{ray}-py{MINOR.replace('.', '')}"
    others = ("team/train:1.2.3", f"team/xray:1.2.3-py{MINOR.replace('.', '')}", "team/ray:latest")
    for image in (f"ray:{tag}-gpu", f"team/train:{tag}", *others):
        check_image(image, there)

    words = rf"'ray:1\.9\.0' has Ray 1\.9\.0 .* the cluster's head has Ray {re.escape(ray)} on"
    with pytest.raises(SpecError, match=words):
        check_image("ray:1.9.0", there)
    with pytest.raises(SpecError, match=r"on Python 3\.9 by its tag"):
        check_image("team/train:1.2-py39", there)
    with pytest.raises(SpecError, match=r"has Ray 1\.9\.0"):
        check_image(f"team/our-ray-gpu:1.9.0-py{MINOR.replace('.', '')}", there)


def test_what_is_said_counts_more_than_a_tag() -> None:
    assert machine_of("ray:2.60.0-py311-aarch64", "amd64").arch == "amd64"


@pytest.mark.parametrize(("python", "arch"), [("3.11", "s390x"), ("3", "amd64"), ("2.7", "amd64")])
def test_a_machine_that_is_none_is_refused(python: str, arch: str) -> None:
    with pytest.raises(SpecError, match=r"say amd64 or arm64|write it as"):
        Machine(python, arch)


def test_a_version_that_nobody_has_names_package_and_machine(tmp_path: Path) -> None:
    with pytest.raises(ClusterUnreachable, match=r"Python 3\.11 on x86_64.*msgspec") as caught:
        fetch_packages({"msgspec": "999.0"}, "3.11", "x86_64-manylinux_2_28", tmp_path)

    assert "an image that has rayml" in str(caught.value)


def _uv_cache() -> str:
    import uv

    words = [uv.find_uv_bin(), "cache", "dir"]
    return subprocess.run(words, capture_output=True, check=True, text=True).stdout.strip()


def test_the_constants_of_both_ends_agree(unpacked: Path) -> None:
    from rayml.cluster.code import CODE_FOLDER, COMMAND_FOLDER, HOOK, HOOK_FILE, HOOK_FOLDER

    assert (unpacked / HOOK_FOLDER / HOOK_FILE).read_text() == HOOK
    assert {p.name for p in unpacked.iterdir()} == {CODE_FOLDER, HOOK_FOLDER, COMMAND_FOLDER}
    assert bundles.PART_BYTES < 2**20
