"""PyTorch's process group by Ray Train, on a port that is chosen at the last moment."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from rayml.torch_timeouts import limit_waiting

if TYPE_CHECKING:
    from ray.train._internal.base_worker_group import BaseWorkerGroup


class TorchGroup(TorchConfig):
    """Ray Train's settings, with a backend that loads PyTorch before it looks for a port.

    Between the look and the listening lies else the time that it takes to load: seconds in which
    anybody's connection may get the same port.
    """

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What starts the process group."""
        return _LoadedBackend


class _LoadedBackend(_TorchBackend):
    def on_start(self, worker_group: BaseWorkerGroup, backend_config: TorchConfig) -> None:  # type: ignore[override]
        worker_group.execute(_load, backend_config.timeout_s)
        super().on_start(worker_group, backend_config)


def _load(timeout_s: int) -> None:
    importlib.import_module("ray.train.torch.config")
    limit_waiting(timeout_s)
