"""What a model is called with, seen once, between the first two steps of its training.

The hook is PyTorch's own for the calls of all modules: one of the model's would be copied and
pickled with it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from rayml.autologging.calls import spared
from rayml.autologging.data import EXAMPLE_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_BYTES = 8 * 1024 * 1024
_open: WeakSet[Window] = WeakSet()


class Window:
    """A while in which the next call of a module is seen.

    Args:
        module: Which.
        tell: Gets the shape of the only tensor that it is called with, and a few rows of it.
    """

    def __init__(self, module: Any, tell: Callable[[list[int], Any], None]) -> None:  # noqa: ANN401
        self._module = ref(module)
        self._tell = tell
        modules = sys.modules["torch"].nn.modules.module
        self._handle = modules.register_module_forward_pre_hook(self._look)
        _open.add(self)

    def close(self) -> None:
        """Look no more."""
        self._handle.remove()
        _open.discard(self)

    def _look(self, module: object, args: tuple[Any, ...]) -> None:
        torch: Any = sys.modules["torch"]
        if torch.compiler.is_compiling() or module is not self._module():
            return
        self.close()
        with spared("what a model is called with"):
            if len(args) == 1 and type(args[0]) is torch.Tensor and args[0].dim() > 0:
                self._tell(list(args[0].shape), _some_rows(torch, args[0]))


def close_all() -> None:
    """Look at no module's calls any more."""
    for window in list(_open):
        window.close()


def _some_rows(torch: Any, data: Any) -> Any:  # noqa: ANN401
    """Return a copy of a few rows on the CPU; None of rows that are large, or being recorded."""
    rows = data.detach()[:EXAMPLE_ROWS]
    if rows.numel() * rows.element_size() > _MOST_BYTES or torch.jit.is_tracing():
        return None
    return rows.to("cpu", copy=True)
