"""Hooks on methods of classes.

A method gets a descriptor in its place, which only shows in what an instance gives: the class
itself gives the function as it was written. Both are pickled as what they stand for, by whichever
pickler, so that nothing of rayml is in a class, method or estimator that goes to another process.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from rayml.autologging.calls import caller, spared, unseen, user_run
from rayml.autologging.fits import Going, Training

if TYPE_CHECKING:
    from collections.abc import Callable

    from rayml.run_context import Context


@dataclass
class Call:
    """One call of a method by user code that has returned.

    Attributes:
        training: The run's fit, if that is what it was.
        name: Of the method.
        owner: Whose method it is.
        args: By position.
        kwargs: By name.
        result: What it returned.
        seconds: How long it took.
    """

    training: Training
    name: str
    owner: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: object
    seconds: float

    @property
    def context(self) -> Context:
        """The run in which it was made."""
        return self.training.context


def is_half_imported(package: Any, last: str) -> bool:  # noqa: ANN401
    """Tell whether a package lacks what its import brings last, because that goes on.

    It has led to another framework's, then, and will tell when it is over.
    """
    return getattr(package.__spec__, "_initializing", False) and not hasattr(package, last)


def replace(owner: Any, name: str, hook: Any) -> Callable[[], None]:  # noqa: ANN401
    """Replace a function of a class or module; return what puts it back, if no other has come."""
    before = getattr(owner, name)
    setattr(owner, name, hook)

    def put_back() -> None:
        if getattr(owner, name) is hook:
            setattr(owner, name, before)

    return put_back


class MethodHooks:
    """Hooks on methods of some names, whichever classes define them.

    Args:
        names: Of the methods.
        log: Is told of each call that user code makes inside of a run, by the frame that makes it.
    """

    def __init__(self, names: tuple[str, ...], log: Callable[[Call], None]) -> None:
        self.log = log
        self.is_on = False
        self._names = names
        self._owners: WeakSet[type] = WeakSet()

    def hook(self, kind: type) -> None:
        """Hook what a class defines itself or takes from a mixin."""
        self.is_on = True
        for owner in kind.__mro__:
            if owner.__module__ != "builtins":
                for name in self._names:
                    self._hook_method(owner, name)

    def _hook_method(self, owner: type, name: str) -> None:
        """Hook a function, or what scikit-learn keeps of one that exists on a condition."""
        method = vars(owner).get(name)
        is_conditional = type(method).__name__ == "_AvailableIfDescriptor"
        if isinstance(method, FunctionType) or is_conditional:
            setattr(owner, name, _Hook(self, name, method))
        if isinstance(vars(owner).get(name), _Hook):  # one came with a class that was made anew
            self._owners.add(owner)

    def unhook(self) -> None:
        """Put every method back that is still hooked."""
        self.is_on = False
        for owner in list(self._owners):
            for name in self._names:
                if isinstance(hook := vars(owner).get(name), _Hook):  # else replaced by another
                    setattr(owner, name, hook.method)
        self._owners.clear()

    def begin(self, name: str) -> Training | None:
        """Return the fit that a call may be, if user code makes it, two frames above, in a run."""
        if self.is_on:
            with spared(f"a call of {name}"):
                if (context := user_run(caller(2))) is not None:
                    return Training(context)
        return None


class _Hook:
    """Stands for a method in its class, and gives instances a `_Bound` one."""

    def __init__(self, hooks: MethodHooks, name: str, method: Any) -> None:  # noqa: ANN401
        self.hooks = hooks
        self.name = name
        self.method = method

    def __get__(self, instance: object, owner: type | None = None) -> Any:  # noqa: ANN401
        method = self.method.__get__(instance, owner)
        if instance is None or type(method) is not MethodType or not self._is_of(type(instance)):
            return method
        return _Bound(method.__func__, instance, self.name, self.hooks)

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

    def __eq__(self, other: object) -> bool:
        # MLflow only hooks what a class has and gives alike.
        return self is other or self.method == (other.method if type(other) is _Hook else other)

    def __hash__(self) -> int:
        return hash(self.method)

    @property
    def fn(self) -> Any:  # noqa: ANN401
        """What a method that exists on a condition calls: MLflow reads it past `__getattr__`."""
        return self.method.fn

    @fn.setter
    def fn(self, function: Callable[..., Any]) -> None:
        self.method.fn = function

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return copy.copy, (self.method,)  # of a function, that is the function itself


class _Bound:
    """A bound method whose calls are seen; in all else, the bound method."""

    __slots__ = ("_hooks", "_method", "_name")

    def __init__(
        self,
        function: Callable[..., Any],
        instance: object,
        name: str = "",
        hooks: MethodHooks | None = None,  # it has none in what `WeakMethod` makes of its type
    ) -> None:
        self._hooks = hooks
        self._method = MethodType(function, instance)
        self._name = name

    @unseen
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        hooks = self._hooks
        training = hooks.begin(self._name) if hooks is not None else None
        started = time.perf_counter()
        with Going(training):
            result = self._method(*args, **kwargs)
        if hooks is not None and training is not None:
            seconds = time.perf_counter() - started
            owner = self._method.__self__
            hooks.log(Call(training, self._name, owner, args, kwargs, result, seconds))
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
