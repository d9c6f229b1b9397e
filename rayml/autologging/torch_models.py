"""The models of a run that are trained with PyTorch: what they are made of, and what is kept.

One that the user lets go before the run ends is copied at that moment, so that none lives longer
for being logged.
"""

from __future__ import annotations

import io
import json
import random
import sys
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from rayml.autologging.calls import is_own_process, spared, warn
from rayml.autologging.copies import NotCopied
from rayml.autologging.ending import Task, at_end
from rayml.autologging.fits import KEPT_BYTES, has_room
from rayml.autologging.torch_copies import copied, size_of
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rayml.autologging.fits import Fit
    from rayml.autologging.torch_copies import Copy
    from rayml.run_context import Context

_LAYERS = 1000
# What a program costs when the run ends, about, and how much of a training's time it may be.
_PROGRAM_S, _PROGRAM_S_PER_MODULE = 1.0, 0.03
_SHARE = 0.02

_kept: dict[int, list[KeptModel]] = {}
_lock = threading.RLock()


class KeptModel:
    """A model of a run, stored when that ends, as it is then.

    Attributes:
        seconds: How long it has been trained.
        example: A few rows that it was called with, if they are known.
    """

    def __init__(self, context: Context, fit: Fit, model: Any) -> None:  # noqa: ANN401
        self.seconds = 0.0
        self.example: Any = None
        self._context = ref(context)
        self._name = f"model{fit.suffix}"
        self._kind = type(model).__name__
        self._model = ref(model)
        self._copy: Copy | None = None

    def is_of(self, context: Context, model: object) -> bool:
        """Tell whether it is that model of that run."""
        return self._context() is context and self._model() is model

    def take(self, model: Any) -> None:  # noqa: ANN401
        """Copy the model, if there is room for it among those kept."""
        if (context := self._context()) is None:
            return
        why = f"a run's models have {KEPT_BYTES // 2**20} MiB together"
        try:
            if has_room(context, size_of(model)):
                self._copy = copied(model)
                return
        except NotCopied as exc:
            why = str(exc)
        warn(f"left out the model {self._kind}: {why}; log it yourself", context)

    def store(self) -> None:
        """Store the model, by itself if it has been let go."""
        context, model = self._context(), self._model()
        _forget(self)
        if context is None or context.has_logged(self._name):  # the user's own
            return
        if model is not None and self._copy is None:
            self.take(model)
        if self._copy is not None:
            with _own_random_numbers():
                _log_copy(context, self._name, self._copy, self._shown_example(self._copy))
            self._copy = None

    def _shown_example(self, copy: Copy) -> Any:  # noqa: ANN401
        """Return the example if the model can be run, and there is time for its program."""
        modules = len(list(copy.module.modules()))
        needed = _PROGRAM_S + _PROGRAM_S_PER_MODULE * modules
        return None if copy.lacks or needed > _SHARE * self.seconds else self.example


def keep_model(context: Context, fit: Fit, model: Any) -> KeptModel | None:  # noqa: ANN401
    """Have a model stored when the run ends, and once only; return what is told more of it."""
    with _lock:
        others = _kept.setdefault(id(model), [])
        if any(other.is_of(context, model) for other in others):
            return None
        kept = KeptModel(context, fit, model)
        others.append(kept)
    at_end(context, Task(f"{type(model).__name__}'s model", kept.store))
    return kept


def look_at_last(model: Any) -> None:  # noqa: ANN401
    """Copy a model that is about to go, if it is to be stored."""
    if id(model) not in _kept or not is_own_process():
        return
    with _lock:
        kept = _kept.pop(id(model), [])
    for one in kept:
        with spared("a model that was let go"):
            one.take(model)


def _forget(kept: KeptModel) -> None:
    with _lock:
        for key, others in list(_kept.items()):
            if kept in others:
                others.remove(kept)
            if not others:
                del _kept[key]


def _log_copy(context: Context, name: str, copy: Copy, example: Any) -> None:  # noqa: ANN401
    if copy.lacks:  # to another library's format it may be what is needed
        context.log_model(name, copy.module, format="torch")
        return
    try:
        context.log_model(name, copy.module, input_example=example)
    except SpecError as exc:
        if example is None:
            raise
        warn(f"keeps the weights of {name!r} alone: {exc}", context)
        context.log_model(name, copy.module)


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Leave all generators as they were: a model that is run may draw from them."""
    torch: Any = sys.modules["torch"]
    numpy: Any = sys.modules.get("numpy.random")
    states = random.getstate(), numpy and numpy.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        if numpy is not None:
            numpy.set_state(states[1])


def log_structure(context: Context, fit: Fit, model: Any) -> None:  # noqa: ANN401
    """Log what a model is made of: its class, how many parameters it has, and each layer."""
    prefix = f"model{fit.suffix}"
    parameters = list(model.parameters())
    context.log_params(
        {
            f"{prefix}/class": type(model).__qualname__,
            f"{prefix}/parameters": sum(one.numel() for one in parameters),
            f"{prefix}/trainable_parameters": _trainable(parameters),
        }
    )
    if fit.is_kept:
        name = f"train{fit.suffix}/layers"
        log = partial(_log_layers, context, name, _layers(model))
        at_end(context, Task(f"the table {name}", log))


def _layers(model: Any) -> list[dict[str, object]]:  # noqa: ANN401
    """Tell of the modules with parameters of their own or without modules in them, in order."""
    layers: list[dict[str, object]] = []
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if len(layers) < _LAYERS and (own or not any(module.children())):
            shapes = [f"{word} {'×'.join(map(str, one.shape))}" for word, one in own.items()]
            layers.append(
                {
                    "layer": name,
                    "class": type(module).__qualname__,
                    "shapes": ", ".join(shapes),
                    "parameters": sum(one.numel() for one in own.values()),
                    "trainable": _trainable(own.values()),
                }
            )
    return layers


def _log_layers(context: Context, name: str, layers: list[dict[str, object]]) -> None:
    """Log the table; as JSON, of which Arrow makes one without loading pandas for it."""
    from pyarrow.json import read_json  # noqa: PLC0415 - not before the run ends

    text = "\n".join(map(json.dumps, layers))
    context.log_table(name, read_json(io.BytesIO(text.encode())))


def _trainable(parameters: Iterable[Any]) -> int:
    return sum(one.numel() for one in parameters if one.requires_grad)
