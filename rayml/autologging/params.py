"""The parameters of a training as a run records them: short, and without secrets."""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any

from rayml.artifacts.record import type_name
from rayml.redaction import MASK, is_secret_name
from rayml.spec import is_long, is_numpy_scalar, plain_value

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN = (bool, int, float, str)
_ITEMS = 100  # of a list; a longer one is data
_TEXT = 1000


def params_of(estimator: Any) -> dict[str, object]:  # noqa: ANN401
    """Return parameters, nested ones too; of a search, those of the best it found."""
    best = getattr(estimator, "best_estimator_", None)
    if best is None and hasattr(estimator, "best_params_"):
        params = estimator.best_params_
    else:
        params = (estimator if best is None else best).get_params(deep=True)
    return shown(params)


def shown(params: Mapping[str, object]) -> dict[str, object]:
    """Return parameters as they are recorded."""
    return {str(name): _shown(str(name), value) for name, value in params.items()}


def holds_secret(estimator: Any) -> bool:  # noqa: ANN401
    """Tell whether one of its parameters, or something in one, is not to be written down."""
    return any(MASK.decode() in str(shown) for shown in params_of(estimator).values())


def is_verbose(estimator: Any) -> bool:  # noqa: ANN401
    """Tell whether it, or a part of it, prints what it does."""
    params = params_of(estimator).items()
    return any(value for name, value in params if name.rpartition("__")[2] == "verbose")


def is_secret(name: str, value: object) -> bool:
    """Tell whether a parameter is text that its name calls a secret, or an address with one."""
    if not isinstance(value, str) or not value:
        return False
    return is_secret_name(name.rpartition("__")[2]) or _has_password(value)


def _has_password(text: str) -> bool:
    place = text.partition("://")[2].partition("/")[0]
    return "@" in place and ":" in place.rpartition("@")[0]


def _shown(name: str, value: object) -> object:
    if is_secret(name, value):
        return MASK.decode()
    if isinstance(value, str):
        return plain_value(value[:_TEXT])
    if value is None or isinstance(value, _PLAIN) or is_numpy_scalar(value):
        return plain_value(value)
    if isinstance(value, list | tuple | dict) and len(value) <= _ITEMS:
        return _shown_items(name, value)
    is_named = isinstance(value, type) or type(value) in (FunctionType, BuiltinFunctionType)
    called = getattr(value, "__qualname__", None) if is_named else None
    size = f" of {len(value)}" if isinstance(value, list | tuple | dict) else ""
    return called if isinstance(called, str) else type_name(value) + size


def _shown_items(name: str, value: Any) -> object:  # noqa: ANN401
    """Return a short list or dict with what is short in it."""
    items: object
    if isinstance(value, dict):
        items = {str(key): _shown(str(key), item) for key, item in value.items()}
    else:
        items = [_shown(name, item) for item in value]
    return f"{type_name(value)} of {len(value)}" if is_long(items) else items
