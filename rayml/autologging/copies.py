"""Copies of fitted estimators: what they are asked leaves the user's own as it is."""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
import time
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType
from typing import Any

# A model made of these alone has no code of the user's in it.
_LIBRARIES = frozenset(["joblib", "lightgbm", "numpy", "pandas", "scipy", "sklearn", "xgboost"])
_PYTHON = sys.stdlib_module_names
_PARTS = 10_000
# What a copy runs of a class's own when it is made, or goes.
_COPYING = frozenset(
    [
        "__del__",
        "__getattr__",
        "__getattribute__",
        "__getnewargs__",
        "__getnewargs_ex__",
        "__getstate__",
        "__reduce__",
        "__reduce_ex__",
        "__setstate__",
    ]
)

_ASKING = frozenset(["__getattr__", "__getattribute__", "get_params"])
_ASKED = ("best_estimator_", "best_params_", "best_score_", "cv_results_", "predict")


class NotCopied(Exception):
    """A model is too large, takes too long, or would be copied by code of the user's."""


@dataclass(frozen=True)
class Snapshot:
    """An estimator as it was: a pickle that never leaves this process.

    Attributes:
        data: The pickle without its arrays.
        arrays: The bytes of each.
        has_own_code: Classes or functions of the user's, or of a library that is not known.
    """

    data: bytes
    arrays: list[bytes]
    has_own_code: bool

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return len(self.data) + sum(map(len, self.arrays))

    def restore(self) -> Any:  # noqa: ANN401
        """Return the estimator, anew with each call."""
        return pickle.loads(self.data, buffers=[bytearray(array) for array in self.arrays])  # noqa: S301 - made here


def snapshot(estimator: Any, most_bytes: int, most_s: float) -> Snapshot:  # noqa: ANN401
    """Return a copy of an estimator that has at most so many bytes; arrays are copied once.

    Raises:
        NotCopied: It has more, it takes longer than `most_s` seconds of computing to tell, or
            there is a class in it that is not a library's and says how it is copied.
    """
    file = _Limited(most_bytes, time.process_time() + most_s)
    found: list[pickle.PickleBuffer] = []
    pickler = _Pickler(file, found)
    pickler.dump(estimator)
    arrays = [bytes(array.raw()) for array in found]
    return Snapshot(file.getvalue(), arrays, pickler.has_own_code)


class _Limited(io.BytesIO):
    """Takes so many bytes, written or counted, until a time."""

    def __init__(self, most_bytes: int, until: float) -> None:
        super().__init__()
        self._left = most_bytes
        self._until = until

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - as its base
        self.count(len(data))
        return super().write(data)

    def count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise NotCopied("it is larger than what is kept of a run's models")
        self.look_at_time()

    def look_at_time(self) -> None:
        if time.process_time() > self._until:
            raise NotCopied("it takes too long to copy")


class _Pickler(pickle.Pickler):
    """Counts arrays before it copies any, and sees whose classes and functions there are."""

    def __init__(self, file: _Limited, found: list[pickle.PickleBuffer]) -> None:
        def add(array: pickle.PickleBuffer) -> None:
            file.count(array.raw().nbytes)
            found.append(array)

        # No method of its own: that would keep the estimator until the next collection.
        super().__init__(file, protocol=5, buffer_callback=add)
        self.has_own_code = False
        self._file = file

    def reducer_override(self, value: Any) -> Any:  # noqa: ANN401 - as its base
        self._file.look_at_time()
        kind = type(value)
        is_named = isinstance(value, type) or _is_function(kind)
        self.has_own_code |= _is_own(value.__module__ if is_named else kind.__module__)
        if not is_named and _copies_itself(kind):
            raise NotCopied(f"{kind.__qualname__} has code of its own for copies")
        return NotImplemented


def _is_function(kind: type) -> bool:
    """Tell whether its values are functions, which are pickled by name: Cython's are numpy's."""
    return kind in (FunctionType, BuiltinFunctionType) or kind.__module__.startswith("_cython_")


def _is_own(module: object) -> bool:
    """Tell whether it is no module of Python or of a library that is known."""
    top = str(module or "builtins").partition(".")[0]
    return top not in _LIBRARIES and top not in _PYTHON


def _copies_itself(kind: type) -> bool:
    reducer = copyreg.dispatch_table.get(kind)
    if reducer is not None and _is_own(reducer.__module__):
        return True
    return any(
        _is_own(owner.__module__) and _COPYING & vars(owner).keys() for owner in kind.__mro__
    )


def asks_own_code(kind: type) -> bool:
    """Tell whether to ask a fitted estimator what it has and is would run code of the user's."""
    own = [vars(owner) for owner in kind.__mro__ if _is_own(owner.__module__)]
    if any(_ASKING & members.keys() for members in own):
        return True
    return any(isinstance(members.get(name), property) for members in own for name in _ASKED)


def with_own_seeds(estimator: Any) -> Any:  # noqa: ANN401
    """Let a copy, and what it is made of, draw no shared random numbers and print nothing."""
    from sklearn.base import BaseEstimator  # noqa: PLC0415 - is imported already

    waiting, seen = [estimator], set[int]()
    while waiting and len(seen) < _PARTS:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, BaseEstimator):
            if getattr(part, "random_state", 0) is None:
                part.random_state = 0
            if isinstance(getattr(part, "verbose", None), int):
                part.verbose = 0
            waiting += vars(part).values()
        elif isinstance(part, dict | list | tuple) and len(part) <= _PARTS:
            waiting += part.values() if isinstance(part, dict) else part
    return estimator
