"""Hooks on the functions of `sklearn.model_selection` that validate an estimator."""

from __future__ import annotations

import sys

from rayml.autologging.sklearn_curves import log_scored_curve
from rayml.autologging.sklearn_folds import log_validation
from rayml.autologging.sklearn_functions import Called, FunctionHooks

_FOLDS = ("cross_validate", "cross_val_score", "cross_val_predict", "permutation_test_score")
_CURVES = ("learning_curve", "validation_curve")


def install() -> None:
    """Hook them."""
    module = sys.modules["sklearn.model_selection"]
    _hooks.hook(module.__name__, [vars(module).get(name, name) for name in (*_FOLDS, *_CURVES)])


def uninstall() -> None:
    """Put every function back."""
    _hooks.unhook()


def _log(called: Called) -> None:
    log_scored_curve(called) if called.name in _CURVES else log_validation(called)


_hooks = FunctionHooks(_log)
