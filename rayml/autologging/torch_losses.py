"""The losses of a training with PyTorch: whatever scalars `backward` is called on."""

from __future__ import annotations

import sys
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import ref

from rayml.run_context import find_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.run_context import Context

_MOST = 1000  # between two steps


class _Pending(threading.local):
    """What a thread has computed gradients of in a run since an optimizer's last step there."""

    def __init__(self) -> None:
        self.run: ref[Context] | None = None
        self.losses: deque[Any] = deque(maxlen=_MOST)
        self.scaled: tuple[Any, Any] | None = None
        self.whole: Any = None


_pending = _Pending()


def notice(tensor: Any) -> None:  # noqa: ANN401
    """Keep the value of what `backward` has been called on in a run, if it is a loss."""
    if (context := find_context()) is None:
        return
    pending = vars(_pending)  # of this thread: its attributes cost more
    if pending["run"] is None or pending["run"]() is not context:
        pending["run"] = ref(context)
        pending["losses"].clear()
    scaled, pending["scaled"] = pending["scaled"], None
    value = pending["whole"]
    if value is None:
        value = scaled[1] if scaled and scaled[0]() is tensor else value_of(tensor)
    if value is not None:
        pending["losses"].append(value)


def notice_scaled(loss: Any, scaled: Any) -> None:  # noqa: ANN401
    """Let a loss that was scaled count as what it was."""
    if scaled is not loss and (value := value_of(loss)) is not None:
        _pending.scaled = ref(scaled), value


@contextmanager
def counted_as(loss: Any) -> Iterator[None]:  # noqa: ANN401
    """Let what `backward` is called on in the block count as this loss, of which it is a part."""
    _pending.whole = value_of(loss)
    try:
        yield
    finally:
        _pending.whole = None


def take(context: Context) -> list[Any]:
    """Return this thread's losses in a run since they were taken last."""
    pending = vars(_pending)
    losses = list(pending["losses"])
    pending["losses"].clear()
    return losses if losses and pending["run"]() is context else []


def value_of(tensor: Any) -> Any:  # noqa: ANN401
    """Return a tensor's only number, or a copy of it on another device; None if there is none.

    The copy is read later: to wait for the device now would hold up what is computed there. Of
    derived classes none is read, such as those that are spread over processes.
    """
    torch: Any = sys.modules["torch"]
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.numel() != 1:
        return None
    if tensor.is_cpu:
        number = tensor.item()
        return number if type(number) is float else None
    if tensor.is_meta or (tensor.is_cuda and torch.cuda.is_current_stream_capturing()):
        return None
    return tensor.detach().reshape(()).clone()
