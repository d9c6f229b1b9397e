"""What waits for the end of a run on disk: models that are written when their fit ends, and files.

A model is written where its library reads and writes, and copies no other way.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayml.artifacts.model import store_model, write_model
from rayml.autologging.calls import warn
from rayml.autologging.ending import Task, at_end
from rayml.autologging.fits import has_room

if TYPE_CHECKING:
    from rayml.autologging.fits import Fit
    from rayml.run_context import Context

_MIB = 1024 * 1024
_FREE_BYTES = 16 * _MIB  # are written in about a tenth of a second
_BYTES_A_SECOND = 5 * _MIB  # of its fit, which takes about three hundredths of that time


class TooLarge(Exception):
    """To write a model would take too long beside its fit."""


class WrittenFiles:
    """The files of a model, in a folder that goes when this does.

    Args:
        model: It is written at once.
        name: The artifact's.

    Attributes:
        model: What is written, to which more may be added.
    """

    def __init__(self, model: Any, name: str) -> None:  # noqa: ANN401
        folder = Path(tempfile.mkdtemp(prefix="rayml-"))
        weakref.finalize(self, _remove, folder, os.getpid())
        self.model = write_model(folder, name, model)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return _size_of(self.model.folder)

    def store(self, context: Context, name: str) -> None:
        """Log it to a run."""
        context.log_stored(store_model(context.store, name, self.model))


def write(model: Any, size: int, fit: Fit) -> WrittenFiles:  # noqa: ANN401
    """Write a model of about so many bytes as its fit has left it.

    Raises:
        TooLarge: For the time that the fit has taken.
    """
    if size > _FREE_BYTES + _BYTES_A_SECOND * fit.seconds:
        raise TooLarge(f"{type(model).__qualname__} is too large for the time of its fit")
    return WrittenFiles(model, f"model{fit.suffix}")


def keep_path(context: Context, name: str, path: Path) -> None:
    """Store a file or folder of the user's when the run ends, if there is room for it."""
    if not path.exists() or not has_room(context, _size_of(path)):
        warn(f"leaves {name} where it is: {path}", context)
        return
    at_end(context, Task(f"the file {name}", partial(context.log_artifact, name, path)))


def _size_of(path: Path) -> int:
    """Return how many bytes a file has, or those below a folder."""
    files = [path, *path.rglob("*")]
    return sum(file.stat().st_size for file in files if file.is_file())


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # and not a fork that ends
        shutil.rmtree(folder, ignore_errors=True)
