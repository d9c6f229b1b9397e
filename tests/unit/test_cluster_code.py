"""rayml's code in a pod: the command that unpacks it is run here by a real shell."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from rayml.cluster.code import (
    HOOK,
    MOUNT,
    ROOT,
    Code,
    code_command,
    code_mount,
    code_volume,
)
from rayml.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path


def test_code_is_named_by_its_digest_and_its_parts() -> None:
    code = Code.parse("0123456789ab-2")

    assert code.names == ("rayml-code-0123456789ab-0", "rayml-code-0123456789ab-1")
    assert code.keys == ("part-000", "part-001")
    assert Code.parse(str(code)) == code


@pytest.mark.parametrize("text", ["", "0123456789ab", "0123456789ab-0", "0123456789AB-1", "x-1"])
def test_what_names_no_code_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="does not name rayml's code"):
        Code.parse(text)


def test_one_volume_shows_all_parts_where_the_command_looks_for_them() -> None:
    code = Code("0123456789ab", 2)
    volume = code_volume(code)

    assert [s["configMap"]["name"] for s in volume["projected"]["sources"]] == list(code.names)  # type: ignore[index]
    assert code_mount()["name"] == volume["name"]
    assert str(code_mount()["mountPath"]) in code_command()[0]


def test_the_command_leaves_the_start_of_ray_to_kuberay() -> None:
    # KubeRay adds no start of its own to a command with these words.
    assert "ray start" not in code_command(is_head=True)[0]


def test_only_the_head_brings_actors_back() -> None:
    assert "rayml.wake" in code_command(is_head=True)[0]
    assert "rayml.wake" not in code_command()[0]


class TestUnpacked:
    @pytest.fixture
    def pod(self, tmp_path: Path) -> Path:
        """A folder that stands for a pod's root, with code in two parts."""
        files = {
            "code/travelled.py": "WHERE = __file__",
            "code/shadowed.py": "FROM = 'the bundle'",
            "hook/sitecustomize.py": HOOK,
            "bin/travelled": "#!/bin/sh\necho it runs",
        }
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, text in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(text), 0o755
                archive.addfile(info, io.BytesIO(text.encode()))
        parts = tmp_path / "parts"
        parts.mkdir()
        data = packed.getvalue()
        (parts / "part-000").write_bytes(data[:100])
        (parts / "part-001").write_bytes(data[100:])
        image = tmp_path / "image"
        image.mkdir()
        (image / "shadowed.py").write_text("FROM = 'the image'")
        (image / "sitecustomize.py").write_text("import builtins; builtins.customized = True")
        return tmp_path

    def run(self, pod: Path, program: str, **environment: str) -> str:
        command = code_command()[0].replace(MOUNT, f"{pod}/parts").replace(ROOT, f"{pod}/root")
        line = f"{command} && ulimit -n 1024; exec {sys.executable} -c '{program}'"
        done = subprocess.run(
            ["/bin/bash", "-c", "--", line],
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        assert not done.stderr
        return done.stdout.strip()

    def test_ray_does_not_start_without_the_bundle(self, pod: Path) -> None:
        (pod / "parts" / "part-001").unlink()
        with pytest.raises(subprocess.CalledProcessError) as failed:
            self.run(pod, "print(1)")
        assert (failed.value.returncode, failed.value.stdout) == (1, "")

    def test_a_module_of_the_bundle_is_imported(self, pod: Path) -> None:
        found = self.run(pod, "import travelled; print(travelled.WHERE)")

        assert found == f"{pod}/root/code/travelled.py"

    def test_what_the_image_has_comes_first(self, pod: Path) -> None:
        program = "import shadowed; print(shadowed.FROM)"

        assert self.run(pod, program, PYTHONPATH=f"{pod}/image") == "the image"
        assert self.run(pod, program) == "the bundle"

    def test_the_images_own_sitecustomize_still_runs(self, pod: Path) -> None:
        found = self.run(pod, "print(customized)", PYTHONPATH=f"{pod}/image")

        assert found == "True"

    def test_a_command_of_the_bundle_is_found(self, pod: Path) -> None:
        program = """import subprocess; subprocess.run("travelled", check=True)"""

        assert self.run(pod, program) == "it runs"

    def test_it_can_be_done_twice(self, pod: Path) -> None:
        assert self.run(pod, "import travelled") == self.run(pod, "import travelled") == ""
