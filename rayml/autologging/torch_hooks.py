"""Hooks on PyTorch: its own where it has some, and on what else tells of a training.

Its own tell of the steps of optimizers and of what modules get, that is, which is in which. The
function behind `backward` tells of losses, a scaler's `scale` of what they were, and the end of a
module that there is a last chance to copy it.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from rayml.autologging.calls import caller, spared, unseen
from rayml.autologging.methods import is_half_imported, replace
from rayml.autologging.seeds import watch_seed
from rayml.autologging.torch_examples import close_all
from rayml.autologging.torch_loops import stepped
from rayml.autologging.torch_losses import notice, notice_scaled
from rayml.autologging.torch_models import look_at_last
from rayml.autologging.torch_modules import remember

if TYPE_CHECKING:
    from collections.abc import Callable

_undo: list[Callable[[], None]] = []


def install() -> None:
    """Hook PyTorch, once it is there.

    Raises:
        AttributeError: It does not have what is hooked.
    """
    torch: Any = sys.modules["torch"]
    if _undo or is_half_imported(torch, "compiler"):
        return
    modules, optimizers = torch.nn.modules.module, sys.modules["torch.optim.optimizer"]
    scaler, is_compiling = torch.amp.GradScaler, torch.compiler.is_compiling
    backward = _seen_backward(torch.autograd.backward, is_compiling)
    note = _before_registration(is_compiling)
    handles = [
        optimizers.register_optimizer_step_post_hook(_after_step(is_compiling)),
        modules.register_module_parameter_registration_hook(note),
        modules.register_module_module_registration_hook(note),
    ]
    _undo.extend(handle.remove for handle in handles)
    _undo.append(replace(torch.autograd, "backward", backward))
    _undo.append(watch_seed(torch, "manual_seed", "torch"))
    _undo.append(replace(torch.random, "manual_seed", torch.manual_seed))
    _undo.append(replace(scaler, "scale", _seen_scale(scaler.scale, is_compiling)))
    if "__del__" not in vars(torch.nn.Module):
        torch.nn.Module.__del__ = look_at_last
        _undo.append(functools.partial(delattr, torch.nn.Module, "__del__"))


def uninstall() -> None:
    """Put everything back that is still hooked."""
    close_all()
    while _undo:
        _undo.pop()()


# Of the hooks, those that PyTorch may read to compile them do nothing then.


def _before_registration(is_compiling: Callable[[], bool]) -> Callable[..., None]:
    def note(module: Any, name: str, part: object) -> None:  # noqa: ANN401
        if not is_compiling():
            remember(module, name, part)

    return note


def _after_step(is_compiling: Callable[[], bool]) -> Callable[..., None]:
    def log(optimizer: Any, _args: object, _kwargs: object) -> None:  # noqa: ANN401
        if not is_compiling():
            stepped(optimizer, caller(1))

    return log


def _seen_backward(
    backward: Callable[..., None], is_compiling: Callable[[], bool]
) -> Callable[..., None]:
    @functools.wraps(backward)
    @unseen
    def call(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        backward(*args, **kwargs)
        if args and not is_compiling():
            try:
                notice(args[0])
            except Exception as exc:
                with spared("a loss"):
                    raise exc  # noqa: TRY201 - it is none any more here

    return call


def _seen_scale(scale: Callable[..., Any], is_compiling: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(scale)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        scaled = scale(*args, **kwargs)
        if len(args) == 2 and not is_compiling():
            with spared("a scaled loss"):
                notice_scaled(args[1], scaled)
        return scaled

    return call
