"""Folders that no process leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.ray.eventually import eventually

_MAKE = """
import sys
from rayml._ray.passing import make_passing_folder
folder = make_passing_folder("rayml-test-")
open(folder + "/file", "w").close()
print(folder, flush=True)
sys.stdin.read()
"""


def test_a_passing_folder_goes_with_a_process_that_is_killed() -> None:
    words = [sys.executable, "-c", _MAKE]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert (folder / "file").exists()
        process.kill()
    eventually(lambda: not folder.exists(), 20)
