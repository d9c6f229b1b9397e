"""How long PyTorch's process groups wait where nobody says it: half an hour, of PyTorch itself."""

from __future__ import annotations

import sys
from datetime import timedelta

# Where PyTorch has it, and who has read it there once it is loaded.
CONSTANTS = "torch.distributed.constants"
_READER = "torch.distributed.distributed_c10d"
_NAMES = ("default_pg_timeout", "default_pg_nccl_timeout")


def limit_waiting(timeout_s: float) -> None:
    """Let groups wait so long by default, as far as PyTorch is loaded.

    Subgroups too, which do not have the timeout of the group around them.
    """
    given = dict.fromkeys(_NAMES, timedelta(seconds=timeout_s))
    for name in (CONSTANTS, _READER):
        if (module := sys.modules.get(name)) is not None:
            vars(module).update(given)
