"""A hook on accelerate: of several batches in a step it divides each loss by their number.

What else it has around PyTorch's own calls the hooks on those see through.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from rayml.autologging.calls import unseen
from rayml.autologging.methods import replace
from rayml.autologging.torch_losses import counted_as

if TYPE_CHECKING:
    from collections.abc import Callable

_undo: list[Callable[[], None]] = []


def install() -> None:
    """Hook it, once it is there.

    Raises:
        AttributeError: It does not have what is hooked.
    """
    if not _undo:
        accelerator: Any = sys.modules["accelerate.accelerator"].Accelerator
        _undo.append(replace(accelerator, "backward", _seen(accelerator.backward)))


def uninstall() -> None:
    """Put everything back that is still hooked."""
    while _undo:
        _undo.pop()()


def _seen(backward: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(backward)
    @unseen
    def call(accelerator: Any, loss: Any, **kwargs: Any) -> None:  # noqa: ANN401
        with counted_as(loss):
            backward(accelerator, loss, **kwargs)

    return call
