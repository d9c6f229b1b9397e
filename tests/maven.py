"""Jars of Maven Central, each kept in the user's cache once it is there."""

from __future__ import annotations

import tempfile
from pathlib import Path

import requests

from tests.kube.building import cache_folder, locked

CENTRAL = "https://repo1.maven.org/maven2"
CONNECT_S, SILENT_S = 20.0, 60.0


def jar(group: str, name: str, version: str) -> Path:
    """Return where a jar is on this machine.

    Raises:
        requests.RequestException: It is not here, and cannot be loaded.
    """
    folder = cache_folder() / "jars"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}.jar"
    with locked(folder / "lock"):
        if not path.exists():
            _load(f"{CENTRAL}/{group.replace('.', '/')}/{name}/{version}/{path.name}", path)
    return path


def _load(address: str, path: Path) -> None:
    """Load a file whole; requests raises if it ends early."""
    with (
        requests.get(address, stream=True, timeout=(CONNECT_S, SILENT_S)) as answer,
        tempfile.TemporaryDirectory(dir=path.parent) as beside,
    ):
        answer.raise_for_status()
        part = Path(beside) / path.name
        with part.open("wb") as file:
            for piece in answer.iter_content(1 << 20):
                file.write(piece)
        part.rename(path)
