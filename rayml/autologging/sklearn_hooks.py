"""Hooks on scikit-learn's estimators: those that exist, and classes that are defined later.

Each class's own `fit`, `fit_predict`, `predict`, `predict_proba`, `decision_function` and `score`
gets a descriptor in its place, which only shows in what an instance gives: the class itself gives
the function as it was written. Both are pickled as what they stand for, by whichever pickler, so
that nothing of rayml is in a class, method or estimator that goes to another process.
"""

from __future__ import annotations

import copy
import sys
import time
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from rayml.autologging.calls import argument_name, caller, spared, unseen, user_run
from rayml.autologging.sklearn_fits import fit_of, log_fit, remember_prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rayml.run_context import Context

_FITS = ("fit", "fit_predict")
_PREDICTIONS = ("predict", "predict_proba", "decision_function")
_METHODS = (*_FITS, *_PREDICTIONS, "score")
_hooked: WeakSet[type] = WeakSet()
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
        _hook_class(kind)


def uninstall() -> None:
    """Put every method back that is still hooked."""
    while _undo:
        _undo.pop()()
    for kind in list(_hooked):
        for name in _METHODS:
            if isinstance(hook := vars(kind).get(name), _Hook):  # else another one has replaced it
                setattr(kind, name, hook.method)
    _hooked.clear()


class _Hook:
    """Stands for a method in its class, and gives instances a `_Bound` one."""

    def __init__(self, name: str, method: Any) -> None:  # noqa: ANN401
        self.name = name
        self.method = method

    def __get__(self, instance: object, owner: type | None = None) -> Any:  # noqa: ANN401
        method = self.method.__get__(instance, owner)
        if instance is None or type(method) is not MethodType or not self._is_of(type(instance)):
            return method
        return _Bound(method.__func__, instance, self.name)

    def _is_of(self, kind: type) -> bool:
        """Tell whether instances are asked for it, and not `super()`, whose call is no user's."""
        for owner in kind.__mro__:
            if self.name in vars(owner):
                return vars(owner)[self.name] is self
        return False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return self.method(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        # `__closure__` too, in which attrs gives methods the class that it has made anew.
        if name == "method":
            raise AttributeError(name)
        return getattr(self.method, name)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return copy.copy, (self.method,)  # of a function, that is the function itself


class _Bound:
    """A bound method whose calls are seen; in all else, the bound method."""

    __slots__ = ("_method", "_name")

    def __init__(self, function: Callable[..., Any], instance: object, name: str = "") -> None:
        self._method = MethodType(function, instance)
        self._name = name

    @unseen
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        context = _begin(self._name)
        started = time.perf_counter()
        result = self._method(*args, **kwargs)
        if context is not None:
            call = _Call(context, self._name, self._method.__self__, args, kwargs)
            call.log(result, time.perf_counter() - started)
        return result

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return MethodType

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self._method.__doc__

    @property
    def __module__(self) -> str:  # type: ignore[override]
        return self._method.__module__

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._method, name)

    def __repr__(self) -> str:
        return repr(self._method)

    def __eq__(self, other: object) -> bool:
        return self._method == (other._method if type(other) is _Bound else other)

    def __hash__(self) -> int:
        return hash(self._method)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return getattr, (self._method.__self__, self._name)


def _begin(name: str) -> Context | None:
    """Return the run in which user code makes a call, two frames above."""
    context = None
    if _undo and name:  # it has none in what `WeakMethod` makes of its type
        with spared(f"a call of {name}"):
            context = user_run(caller(2))
    return context


class _Call:
    """One call of user code that has returned."""

    def __init__(
        self,
        context: Context,
        name: str,
        estimator: Any,  # noqa: ANN401
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.context = context
        self.name = name
        self.estimator = estimator
        self.data = args[0] if args else kwargs.get("X")
        self.target = args[1] if len(args) > 1 else kwargs.get("y")

    def log(self, result: object, seconds: float) -> None:
        """Log what it did, as far as that can be."""
        with spared(f"a call of {self.name}", self.context):
            if self.name in _FITS:
                log_fit(self.context, self.estimator, self.data, self.target, seconds)
            elif (fit := fit_of(self.context, self.estimator)) is None:
                return
            elif self.name in _PREDICTIONS:
                remember_prediction(self.context, result, fit)
            else:
                dataset = argument_name(caller(2), 0, ["X"])
                self.context.log_metric(f"{dataset}{fit.suffix}/score", result)  # type: ignore[arg-type]


def _hook_new_classes(base: Any) -> None:  # noqa: ANN401
    own = vars(base).get("__init_subclass__")

    @unseen
    def init_subclass(cls: type, /, **kwargs: object) -> None:
        if own is None:
            super(base, cls).__init_subclass__(**kwargs)
        else:
            own.__get__(None, cls)(**kwargs)
        with spared(f"what {cls.__name__} does"):
            _hook_class(cls)

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


def _hook_class(kind: type) -> None:
    """Hook what the class defines itself or takes from a mixin."""
    for owner in kind.__mro__:
        if owner.__module__ != "builtins":
            for name in _METHODS:
                _hook_method(owner, name)


def _hook_method(owner: type, name: str) -> None:
    """Hook a function, or what scikit-learn keeps of one that exists on a condition."""
    method = vars(owner).get(name)
    is_conditional = type(method).__name__ == "_AvailableIfDescriptor"
    if isinstance(method, FunctionType) or is_conditional:
        setattr(owner, name, _Hook(name, method))
    if isinstance(vars(owner).get(name), _Hook):  # one came with a class that was made anew
        _hooked.add(owner)
