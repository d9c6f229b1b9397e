"""Hooks on the functions of `sklearn.metrics`, for scores that user code computes itself."""

from __future__ import annotations

import sys
from numbers import Real
from typing import Any

from rayml.autologging.fits import fit_of_prediction
from rayml.autologging.sklearn_functions import Called, FunctionHooks, takes_first
from rayml.autologging.sklearn_tables import log_table

_MODULES = ("sklearn.metrics", "sklearn.calibration")


def install() -> None:
    """Hook every function that compares targets with predictions, of what is imported so far."""
    for name in _MODULES:
        module = sys.modules.get(name)  # as an attribute of its package it may not be there yet
        if module is not None:
            _hooks.hook(name, [f for f in _public(module) if takes_first(f, "y_true")])


def uninstall() -> None:
    """Put every function back."""
    _hooks.unhook()


def _public(module: Any) -> list[Any]:  # noqa: ANN401
    names = getattr(module, "__all__", ["calibration_curve"])
    return [vars(module).get(name) for name in names]


def _log(called: Called) -> None:
    predicted = list(called.arguments.values())[1]
    if (fit := fit_of_prediction(called.context, predicted)) is None:
        return
    group = f"{called.written(0)}{fit.suffix}"
    if isinstance(called.result, Real):
        called.context.log_metric(f"{group}/{called.name}", called.result)
    else:
        log_table(called, group)


_hooks = FunctionHooks(_log)
