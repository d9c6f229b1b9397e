"""What a Spark session has on a machine: a folder on each disk, and processes with its mark."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import ray
from ray._private import worker as ray_worker

from rayml import processes
from rayml._ray.members import find_group
from rayml._ray.tasks import Place, run_on_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# In the environment of each of a session's processes but the one that leads it.
MARK = "RAYML_SPARK_SESSION"
_PREFIX = "rayml-spark-"
# RayDP leaves a folder for each session in Ray's own.
_LINK = "raydp"
# Ray may have been about to start one anew.
_ROUNDS = 3
_ANSWER_S = 30.0
# What an executor starts when its heap has run out, and the file that this leaves.
_PROGRAM, _RAN_OUT = "heap-ran-out.sh", "heap-ran-out"
_ON = "on-"
# A session that has just made its folder has no process yet.
_OLD_S = 3600.0


def session_name(run: str, attempt: int) -> str:
    """Return what an attempt's session is called, in Ray, in Spark and on disk."""
    return f"{_PREFIX}{run}-{attempt}"


def scratch_folders(name: str, conf: Mapping[str, object]) -> list[Path]:
    """Return where all of a session's files are, on each machine: shuffled ones on all disks.

    >>> scratch_folders("s", {"spark.local.dir": "/a, /b"})
    [PosixPath('/a/s'), PosixPath('/b/s')]
    """
    roots = str(conf.get("spark.local.dir", tempfile.gettempdir())).split(",")
    return [Path(root.strip(), name) for root in roots]


def nodes_of(group: str) -> list[str]:
    """Return the ids of the machines that a placement group is on."""
    return Place({}, find_group(group)).nodes()


def prepare(folders: Sequence[Path], wanted: Iterable[Path]) -> str:
    """On a machine: make a session's folders; return what it lacks, or nothing."""
    try:
        for folder in folders:
            _sweep(folder.parent)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / _here()).touch()
        _write_program(folders[0])
    except OSError as exc:
        return f"{exc}; give another spark.local.dir in conf"
    lacking = " and ".join(str(path) for path in wanted if not path.exists())
    way_out = "is not on all machines of its workers; give an image that has rayml[spark]"
    return f"{lacking} {way_out}" if lacking else ""


def _here() -> str:
    """Return the name of the file that says that a folder is this machine's: disks are shared."""
    return f"{_ON}{socket.gethostname()}"


def _write_program(folder: Path) -> None:
    program = folder / _PROGRAM
    program.write_text(f"#!/bin/sh\n: > {shlex.quote(str(folder / _RAN_OUT))}\n")
    program.chmod(0o700)


def driver_option() -> str:
    """Return where Java logs: else through a link to Ray's newest session, which may be gone."""
    node: Any = ray_worker.global_worker.node
    return f"-Dray.logging.dir={node.get_logs_dir_path()}"


def executor_option(folder: Path) -> str:
    """Return by which option Java notes that its heap has run out: Spark may not hear of it."""
    return f"-XX:OnOutOfMemoryError={folder / _PROGRAM}"


def ran_out(folder: Path) -> bool:
    """On a machine: tell whether an executor's heap has run out."""
    return (folder / _RAN_OUT).exists()


def note(folder: Path, application: str) -> None:
    """On a machine: remember that RayDP's folder of an application belongs to the session."""
    node: Any = ray_worker.global_worker.node
    with suppress(FileExistsError):
        (folder / _LINK).symlink_to(Path(node.get_session_dir_path(), application))


def clear(folders: Sequence[Path]) -> None:
    """On a machine: end a session's processes and remove its files; nothing if there are none."""
    for _ in range(_ROUNDS):
        if not (running := _marked(folders[0].name)):
            break
        processes.end(running)
    for folder in folders:
        _remove(folder)


def on_nodes(nodes: Iterable[str], function: object, *args: object) -> dict[str, object]:
    """Call a function on machines; return what those returned that have answered."""
    calls = {node: run_on_node(node, function, *args) for node in nodes}  # type: ignore[arg-type]
    if calls:
        ray.wait(list(calls.values()), num_returns=len(calls), timeout=_ANSWER_S)
    answers = {}
    for node, call in calls.items():
        with suppress(ray.exceptions.RayError):
            answers[node] = ray.get(call, timeout=0)
    return answers


def _remove(folder: Path) -> None:
    link = folder / _LINK
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Remove the folders of sessions that nobody could clear: their driver was lost too."""
    if not root.is_dir():
        return
    for folder in root.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if _is_old(folder) and not _of_others(folder) and not _marked(folder.name):
                _remove(folder)


def _is_old(folder: Path) -> bool:
    found = folder.stat()
    return found.st_uid == os.getuid() and found.st_mtime < time.time() - _OLD_S


def _of_others(folder: Path) -> bool:
    """Tell whether machines whose processes are not seen from here use a folder."""
    return bool({path.name for path in folder.glob(f"{_ON}*")} - {_here()})


def _marked(name: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == name:
                found.append(process)
    return found
