"""Automatic logging: training code that never mentions rayml is tracked.

A framework is hooked when it is imported, or at once if it already is; nothing here imports one.
The hooks watch calls that user code makes inside of a run. They never change a result or raise: an
error of theirs is one warning in the run's output.

The package is not called `autolog`, because `rayml.autolog` is the function.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rayml.autologging.calls import in_own_process, spared
from rayml.autologging.options import ask_for, forget_all, is_asked_for
from rayml.errors import SpecError, suggestion
from rayml.launch import ImportWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["asked", "autolog", "stop", "watching"]

# Of each framework: the modules that are hooked, and what hooks each.
_FRAMEWORKS = {
    "sklearn": {
        "sklearn.base": "rayml.autologging.sklearn_hooks",
        "sklearn.metrics": "rayml.autologging.sklearn_metrics",
        "sklearn.calibration": "rayml.autologging.sklearn_metrics",
        "sklearn.model_selection": "rayml.autologging.sklearn_validation",
    },
    "xgboost": {"xgboost": "rayml.autologging.xgboost_hooks"},
    "lightgbm": {"lightgbm": "rayml.autologging.lightgbm_hooks"},
    "keras": {"keras": "rayml.autologging.keras_hooks"},
    "torch": {
        "torch": "rayml.autologging.torch_hooks",
        "accelerate.accelerator": "rayml.autologging.accelerate_hooks",
    },
    "lightning": {
        "lightning.pytorch": "rayml.autologging.lightning_hooks",
        "pytorch_lightning": "rayml.autologging.lightning_hooks",
    },
    "transformers": {"transformers.trainer": "rayml.autologging.transformers_hooks"},
    "ray": {
        "ray.train.v2.api.data_parallel_trainer": "rayml.autologging.ray_hooks",
        "ray.train.v2._internal.execution.train_fn_utils": "rayml.autologging.ray_hooks",
    },
}
# What is hooked beside whichever of them.
_ALWAYS = dict.fromkeys(("random", "numpy.random"), "rayml.autologging.seed_hooks")
_lock = threading.RLock()
_watches: dict[str, ImportWatch] = {}
_hooked: dict[str, str] = {}
_asked: set[str] = set()


def autolog(*frameworks: str, gradient_norm: bool = False) -> None:
    """Log from now on what training code does inside of runs; outside of one, nothing is logged.

    Submitted jobs do so unless they say `autolog=False`. Calling it again only finds classes
    that pickles have brought meanwhile.

    Args:
        frameworks: `"sklearn"`, `"xgboost"`, `"lightgbm"`, `"keras"`, `"torch"`, `"lightning"`,
            `"transformers"`, `"ray"`, which is Ray Train; all of them by default.
        gradient_norm: Log that of each step of PyTorch's optimizers too, which takes computing.

    Raises:
        SpecError: There is no such framework.
    """
    for name in frameworks:
        if name not in _FRAMEWORKS:
            known = suggestion(str(name), _FRAMEWORKS)
            raise SpecError(f"autolog got the framework {name!r}, which it does not know; {known}")
    with _lock:
        in_own_process()
        if gradient_norm:
            ask_for("gradient_norm")
        _asked.update(frameworks or _FRAMEWORKS)
        for modules in (_ALWAYS, *(_FRAMEWORKS[name] for name in frameworks or _FRAMEWORKS)):
            for module, hooks in modules.items():
                _watch(module, hooks)


def stop() -> None:
    """Undo `autolog`: every framework is as it was before."""
    with _lock:
        for watch in _watches.values():
            watch.stop()
        _watches.clear()
        for hooks in _hooked.values():
            importlib.import_module(hooks).uninstall()
        _hooked.clear()
        _asked.clear()
        forget_all()


def asked() -> tuple[tuple[str, ...], bool]:
    """Return what `autolog` has been called with: frameworks, and whether for gradient norms."""
    return tuple(sorted(_asked)), is_asked_for("gradient_norm")


@contextmanager
def watching(*, wanted: bool) -> Iterator[None]:
    """Log automatically in a block if that is wanted; nothing of it stays, nor of the block's."""
    if wanted:
        autolog()
    try:
        yield
    finally:
        stop()


def _watch(module: str, hooks: str) -> None:
    if module in sys.modules:
        _install(module, hooks)
    elif module not in _watches:
        _watches[module] = ImportWatch(module, partial(_install_there, os.getpid(), module, hooks))


def _install_there(process: int, module: str, hooks: str) -> None:
    if os.getpid() == process:  # and not in a child that was forked before the import
        _install(module, hooks)


def _install(module: str, hooks: str) -> None:
    with _lock, spared(f"what {module} does"):
        _hooked[module] = hooks
        importlib.import_module(hooks).install()
