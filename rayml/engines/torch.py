"""PyTorch's process group on all workers, through Ray Train."""

from __future__ import annotations

import sys
from datetime import timedelta
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from typing import TYPE_CHECKING

from rayml.culprit import Signs, find_culprit
from rayml.ranks import RankFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from rayml.engine import Torch
    from rayml.ranks import Rank

MODULES = {"torch": "torch", "pydantic": "ray[train]"}
REMEDY = (
    "install 'rayml[torch]' there, or give requirements=['torch', 'ray[train]'], or an image that "
    "has it"
)
# Gloo's words, those of PyTorch's store, and of NCCL's watchdog.
SIGNS = Signs(
    raised=("RuntimeError", "torch.distributed."),
    of_losses=("Connection closed by peer", "Connection reset", "Broken pipe", "recvValue failed"),
    of_timeouts=(
        *("Timed out waiting", "Timed out after", "timed out after"),
        *("Timeout waiting", "Watchdog caught"),
    ),
)
# Where PyTorch has how long groups wait for which nobody says it.
_CONSTANTS = "torch.distributed.constants"


def run(
    settings: Torch,
    share: Mapping[str, float],
    world_size: int,
    is_script: bool,  # noqa: FBT001 - as all engines'
    main: Callable[[Rank], bytes],
) -> bytes:
    """Run the ranks to their end; return what the first one returned.

    Raises:
        RankFailed: Its failure has ended the others.
    """
    from rayml._ray.train import Group, fit  # noqa: PLC0415 - loads Ray Train

    backend = settings.backend or ("nccl" if share.get("GPU") else "gloo")
    group = Group(None if is_script else backend, settings.timeout_s)
    outcome = fit(main, world_size, share, group)
    if isinstance(outcome, bytes):
        return outcome
    raise RankFailed(find_culprit(outcome, world_size, settings.timeout_s, SIGNS))


def prepare_script(settings: Torch, rank: int) -> None:  # noqa: ARG001 - as all engines'
    """Let ranks wait no longer for each other where the script that begins here does not say it.

    PyTorch is not loaded for that: a script may set variables before it loads it.
    """
    sys.meta_path.insert(0, _Finder(settings.timeout_s))


class _Finder(MetaPathFinder):
    def __init__(self, timeout_s: float) -> None:
        self._timeout = timedelta(seconds=timeout_s)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module with PyTorch's timeouts, and no other."""
        if name != _CONSTANTS:
            return None
        sys.meta_path.remove(self)
        found = PathFinder.find_spec(name, path, target)
        if found is None or found.origin is None:
            return None
        loader = _Loader(name, found.origin, self._timeout)
        return spec_from_file_location(name, found.origin, loader=loader)


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, timeout: timedelta) -> None:
        super().__init__(name, path)
        self._timeout = timeout

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, and set the timeouts before anybody reads them."""
        super().exec_module(module)
        given = {"default_pg_timeout": self._timeout, "default_pg_nccl_timeout": self._timeout}
        vars(module).update(given)
