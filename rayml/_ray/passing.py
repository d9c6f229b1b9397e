"""Folders that no process leaves behind, also one that Ray kills."""

from __future__ import annotations

import os
import subprocess
import tempfile

# Open as long as this process is there.
_held: list[int] = []


def make_passing_folder(prefix: str) -> str:
    """Return a new folder that goes away with this process, however that ends."""
    folder = tempfile.mkdtemp(prefix=prefix)
    inner, outer = os.pipe()
    # Its input ends when this process does, by SIGKILL too. It is nobody's child: Ray ends those.
    watch = 'exec 3<&0; (cat <&3; rm -rf "$0") >/dev/null 2>&1 &'
    subprocess.run(
        ["/bin/sh", "-c", watch, folder], stdin=inner, start_new_session=True, check=True
    )
    os.close(inner)
    _held.append(outer)
    return folder
