"""Hooks on scikit-learn's estimators: those that exist, and classes that are defined later.

Seen are each class's own `fit`, `fit_predict`, `fit_transform`, `partial_fit`, `predict`,
`predict_proba`, `decision_function` and `score`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rayml.autologging.calls import argument_name, caller, spared, unseen
from rayml.autologging.fits import fit_or_other, remember_prediction
from rayml.autologging.methods import Call, MethodHooks
from rayml.autologging.sklearn_fits import log_fit
from rayml.autologging.sklearn_parts import log_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FITS = ("fit", "fit_predict", "fit_transform")
_PART = "partial_fit"
_PREDICTIONS = ("predict", "predict_proba", "decision_function")
_undo: list[Callable[[], None]] = []


def install() -> None:
    """Hook the methods of all estimators; once more, of those that came without being seen."""
    module = sys.modules["sklearn.base"]  # as an attribute it may not be there yet
    if not isinstance(base := getattr(module, "BaseEstimator", None), type):
        version = sys.modules["sklearn"].__version__
        raise TypeError(
            f"sklearn.base.BaseEstimator is not in scikit-learn {version}, so that no fit is seen"
        )
    if not _undo:
        _hook_new_classes(base)
    for kind in [base, *_subclasses(base)]:
        _hooks.hook(kind)


def uninstall() -> None:
    """Put every method back that is still hooked."""
    while _undo:
        _undo.pop()()
    _hooks.unhook()


def _log(call: Call) -> None:
    """Log what a call did, as far as that can be."""
    with spared(f"a call of {call.name}", call.context):
        if call.name in _FITS:
            data, target = (_argument(call, place, name) for place, name in enumerate("Xy"))
            log_fit(call.training, call.owner, data, target, call.seconds)
        elif call.name == _PART:
            data, target = (_argument(call, place, name) for place, name in enumerate("Xy"))
            log_part(call.training, call.owner, data, target, call.seconds)
        elif (fit := fit_or_other(call.context, call.owner)) is None:
            return
        elif call.name in _PREDICTIONS:
            remember_prediction(call.context, call.result, fit)
        else:
            dataset = argument_name(caller(2), 0, ["X"])
            call.context.log_metric(f"{dataset}{fit.suffix}/score", call.result)  # type: ignore[arg-type]


def _argument(call: Call, place: int, name: str) -> Any:  # noqa: ANN401
    return call.args[place] if len(call.args) > place else call.kwargs.get(name)


_hooks = MethodHooks((*_FITS, _PART, *_PREDICTIONS, "score"), _log)


def _hook_new_classes(base: Any) -> None:  # noqa: ANN401
    own = vars(base).get("__init_subclass__")

    @unseen
    def init_subclass(cls: type, /, **kwargs: object) -> None:
        if own is None:
            super(base, cls).__init_subclass__(**kwargs)
        else:
            own.__get__(None, cls)(**kwargs)
        with spared(f"what {cls.__name__} does"):
            _hooks.hook(cls)

    base.__init_subclass__ = classmethod(init_subclass)
    if own is None:
        _undo.append(lambda: delattr(base, "__init_subclass__"))
    else:
        _undo.append(lambda: setattr(base, "__init_subclass__", own))


def _subclasses(kind: type) -> Iterator[type]:
    below: type
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)
