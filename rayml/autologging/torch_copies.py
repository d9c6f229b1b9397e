"""Copies of modules on the CPU: what they are asked leaves the user's own as it is.

A copy is made without code of the user's: of what a module has beside parameters, buffers and
modules, it gets what is plain data. One that lacks something cannot be run, but has all weights.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import OrderedDict
from dataclasses import dataclass, field, is_dataclass
from types import BuiltinFunctionType, FunctionType, NoneType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType

from rayml.artifacts.record import is_a
from rayml.autologging.copies import NotCopied

if TYPE_CHECKING:
    from collections.abc import Iterator

_ITEMS = 10_000  # of a list; a longer one is data
_PLAIN = frozenset(
    [
        *(bool, int, float, complex, str, bytes, range, slice, NoneType),
        *(BuiltinFunctionType, ReferenceType),
    ]
)
_PLAIN_OF_TORCH = frozenset(["dtype", "device", "Size", "layout", "memory_format"])
_COLLECTIONS = (list, tuple, set, frozenset)
_SHARDED = "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel"
_SCRIPTED = "torch.jit._script.ScriptModule"
_SETTINGS = (
    "transformers.configuration_utils.PretrainedConfig",
    "transformers.generation.configuration_utils.GenerationConfig",
)
_COMPILED = "_compiled_call_impl"  # what `module.compile()` leaves


@dataclass
class Copy:
    """A module as it was, in evaluation.

    Attributes:
        module: Of the same class.
        lacks: What it cannot be run without; empty if there is no such thing.
    """

    module: Any = None
    lacks: str = ""
    _made: dict[int, Any] = field(default_factory=dict)

    def add_module(self, module: Any) -> Any:  # noqa: ANN401
        """Return the copy of a module."""
        base: Any = sys.modules["torch"].nn.Module
        made = self._made[id(module)] = object.__new__(type(module))
        base.__init__(made)
        own, state = vars(module), vars(made)
        for part in ("_parameters", "_buffers", "_modules"):
            state[part] |= {name: self._add(value) for name, value in own[part].items()}
        state["_non_persistent_buffers_set"] |= own["_non_persistent_buffers_set"]
        if own["_forward_hooks"] or own["_forward_pre_hooks"]:
            self.lacks = self.lacks or f"its {type(module).__qualname__} has hooks"
        for name in [name for name in own if name not in state and name != _COMPILED]:
            try:
                state[name] = self._add(own[name])
            except TypeError as exc:
                self.lacks = self.lacks or f"{type(module).__qualname__}.{name} is {exc}"
        state["training"] = False
        return made

    def _add(self, value: Any) -> Any:  # noqa: ANN401
        """Return a copy of plain data, or raise TypeError."""
        if (made := self._made.get(id(value))) is not None:
            return made
        kind, torch = type(value), sys.modules["torch"]
        is_function = kind is FunctionType and value.__closure__ is None
        if is_function or kind in _PLAIN or isinstance(value, type):
            return value
        if kind.__module__ == "torch" and kind.__name__ in _PLAIN_OF_TORCH:
            return value
        if isinstance(value, torch.nn.Module):
            return self.add_module(value)
        if isinstance(value, torch.Tensor):
            made = self._made[id(value)] = _on_cpu(torch, value)
            return made
        return self._add_collection(value)

    def _add_collection(self, value: Any) -> Any:  # noqa: ANN401
        kind = type(value)
        if kind in (*_COLLECTIONS, dict, OrderedDict) and len(value) > _ITEMS:
            raise TypeError(f"a {kind.__name__} of {len(value)}")
        if kind in _COLLECTIONS:
            return kind(map(self._add, value))
        if kind in (dict, OrderedDict):
            return kind((self._add(key), self._add(one)) for key, one in value.items())
        is_of_values = kind in (Namespace, SimpleNamespace) or is_dataclass(kind)
        if is_of_values or any(is_a(value, name) for name in _SETTINGS):
            made = self._made[id(value)] = object.__new__(kind)
            vars(made).update({name: self._add(one) for name, one in vars(value).items()})
            return made
        raise TypeError(f"a {kind.__qualname__}")


def copied(model: Any) -> Copy:  # noqa: ANN401
    """Return a copy of a module.

    Raises:
        NotCopied: It has parts of which no copy can be had here.
    """
    copy = Copy()
    copy.module = copy.add_module(model)
    return copy


def size_of(model: Any) -> int:  # noqa: ANN401
    """Return how many bytes the weights of a module have.

    Raises:
        NotCopied: It has parts of which no copy can be had here.
    """
    for module in model.modules():
        if is_a(module, _SHARDED):
            raise NotCopied("its weights are spread over processes")
        if is_a(module, _SCRIPTED):
            raise NotCopied("it is TorchScript")
        if _ends_by_itself(type(module)):
            raise NotCopied(f"{type(module).__qualname__} has code of its own for its end")
    tensors = {id(tensor): tensor for tensor in tensors_of(model)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def tensors_of(model: Any) -> Iterator[Any]:  # noqa: ANN401
    """Return parameters and buffers.

    Raises:
        NotCopied: One has no numbers of its own.
    """
    torch: Any = sys.modules["torch"]
    plain = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
    for tensor in (*model.parameters(), *model.buffers()):
        if type(tensor) not in plain or tensor.device.type == "meta":
            raise NotCopied(f"it has a {type(tensor).__qualname__} on {tensor.device} in it")
        if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
            raise NotCopied("it was let go while a graph was being captured")
        yield tensor


def _ends_by_itself(kind: type) -> bool:
    above = sys.modules["torch"].nn.Module
    return any("__del__" in vars(one) for one in kind.__mro__ if one is not above)


def _on_cpu(torch: Any, tensor: Any) -> Any:  # noqa: ANN401
    copy = tensor.detach().to("cpu", copy=True)
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(copy, tensor.requires_grad)
    return copy
