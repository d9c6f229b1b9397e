"""PyTorch's process group on all workers, through Ray Train."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rayml.culprit import Signs, find_culprit
from rayml.launch import ImportWatch
from rayml.ranks import RankFailed
from rayml.torch_timeouts import CONSTANTS, limit_waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
    """Let ranks wait no longer for each other where the script does not say how long.

    PyTorch is not loaded for that: a script may set variables before it loads it.
    """
    ImportWatch(CONSTANTS, partial(limit_waiting, settings.timeout_s))
