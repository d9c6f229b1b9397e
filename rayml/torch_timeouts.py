"""How long PyTorch's process groups wait where nobody says it: half an hour, of PyTorch itself."""

from __future__ import annotations

import sys
from datetime import timedelta
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_CONSTANTS = "torch.distributed.constants"
_READERS = (_CONSTANTS, "torch.distributed.distributed_c10d")


def limit_waiting(timeout_s: float) -> None:
    """Let this process's groups wait so long by default.

    Subgroups too, which do not have the timeout of the group around them. PyTorch is not loaded
    for that: code may set variables before it loads it.
    """
    timeout = timedelta(seconds=timeout_s)
    loaded = [module for name in _READERS if (module := sys.modules.get(name)) is not None]
    for module in loaded:
        _set_timeouts(module, timeout)
    if not loaded:
        sys.meta_path.insert(0, _Finder(timeout))


def _set_timeouts(module: ModuleType, timeout: timedelta) -> None:
    vars(module).update(default_pg_timeout=timeout, default_pg_nccl_timeout=timeout)


class _Finder(MetaPathFinder):
    def __init__(self, timeout: timedelta) -> None:
        self._timeout = timeout

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
        _set_timeouts(module, self._timeout)
