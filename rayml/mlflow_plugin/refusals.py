"""rayml's errors as MLflow's, so that its clients and its server know what to make of them."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    NOT_IMPLEMENTED,
    RESOURCE_CONFLICT,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)

from rayml.errors import JournalFenced, NotFound, RaymlError, SpecError, StoreUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T", bound=type)
_CODES = (
    (NotFound, RESOURCE_DOES_NOT_EXIST),
    (SpecError, INVALID_PARAMETER_VALUE),
    (JournalFenced, RESOURCE_CONFLICT),
    (StoreUnreachable, TEMPORARILY_UNAVAILABLE),
)


def translated(kind: T) -> T:
    """Let all public methods of a class raise MLflow's errors in place of rayml's."""
    for name, method in vars(kind).items():
        if not name.startswith("__") and inspect.isfunction(method):
            setattr(kind, name, _translating(method))
    return kind


def refused(what: str) -> MlflowException:
    """Return the error for what MLflow has and rayml has not."""
    return MlflowException(f"A rayml store keeps no {what}", NOT_IMPLEMENTED)


def _translating(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: object, **kwargs: object) -> object:
        try:
            return method(*args, **kwargs)
        except RaymlError as exc:
            code = next((code for error, code in _CODES if isinstance(exc, error)), INTERNAL_ERROR)
            raise MlflowException(str(exc), code) from exc

    return call
