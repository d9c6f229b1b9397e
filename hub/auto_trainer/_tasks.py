"""Where the work is done: by Ray's tasks on the CPUs that the job holds, or in this process."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import joblib
import ray
from ray.util import get_current_placement_group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

_LITTLE = 10_000


class Tasks(Protocol):
    """A way to have functions called.

    Attributes:
        at_once: How many calls are worked on at the same time.
        threads: How many each may use.
        can_end: Whether a call that is under way can be ended.
    """

    at_once: int
    threads: int
    can_end: bool

    def share(self, value: object) -> Any:  # noqa: ANN401
        """Return what stands for a value among the arguments of many calls."""

    def start(self, function: Callable[..., object], *args: object) -> Any:  # noqa: ANN401
        """Have a function called; what is returned stands for its result, also as an argument."""

    def wait(self, calls: Sequence[Any], timeout_s: float) -> list[Any]:
        """Return those that are over, as soon as one is or so many seconds have passed."""

    def result(self, call: Any) -> Any:  # noqa: ANN401
        """Return what a call has returned, or raise what it has raised."""

    def end(self, call: Any) -> None:  # noqa: ANN401
        """End a call that is not over."""


class RayTasks:
    """Ray's tasks; each takes whole CPUs, and memory that can be watched."""

    can_end = True

    def __init__(self, cpus: int, at_once: int) -> None:
        self.at_once = max(1, min(cpus, at_once))
        self.threads = max(1, cpus // self.at_once)
        self._remote: dict[Callable[..., object], Any] = {}

    def share(self, value: object) -> Any:  # noqa: ANN401
        """Put a value into Ray's object store once."""
        return ray.put(value)

    def start(self, function: Callable[..., object], *args: object) -> Any:  # noqa: ANN401
        """Start a task."""
        if function not in self._remote:  # made anew each time, it would be sent each time
            made = ray.remote(num_cpus=self.threads, max_retries=0)(function)
            self._remote[function] = made
        return self._remote[function].remote(*args)

    def wait(self, calls: Sequence[Any], timeout_s: float) -> list[Any]:
        """Wait for one task, or for so long."""
        return ray.wait(list(calls), timeout=max(0.0, timeout_s))[0] if calls else []

    def result(self, call: Any) -> Any:  # noqa: ANN401
        """Get what a task has returned."""
        return ray.get(call)

    def end(self, call: Any) -> None:  # noqa: ANN401
        """Kill the process of a task."""
        with suppress(Exception):  # it has ended, or Ray has
            ray.cancel(call, force=True)


class OwnProcess:
    """Calls one after the other, in this process."""

    at_once = 1
    can_end = False

    def __init__(self, rows: int) -> None:
        # Threads that wait for each other take longer over little than one does.
        self.threads = len(os.sched_getaffinity(0)) if rows > _LITTLE else 1

    def share(self, value: object) -> Any:  # noqa: ANN401
        """Return the value itself."""
        return value

    def start(self, function: Callable[..., object], *args: object) -> Any:  # noqa: ANN401
        """Call the function now."""
        given = [arg.value() if isinstance(arg, _Called) else arg for arg in args]
        return _Called(function, given)

    def wait(self, calls: Sequence[Any], timeout_s: float) -> list[Any]:  # noqa: ARG002
        """Return all of them: they are over."""
        return list(calls)

    def result(self, call: Any) -> Any:  # noqa: ANN401
        """Return what a call has returned."""
        return call.value()

    def end(self, call: Any) -> None:  # noqa: ANN401
        """Do nothing: it is over."""


class _Called:
    def __init__(self, function: Callable[..., object], args: Sequence[object]) -> None:
        self._error: Exception | None = None
        self._value: object = None
        try:
            self._value = unlogged(function, *args)
        except Exception as exc:  # noqa: BLE001 - for whoever asks for the result
            self._error = exc

    def value(self) -> object:
        """Return the result, or raise the error."""
        if self._error is not None:
            raise self._error
        return self._value


def unlogged(function: Callable[..., T], *args: object) -> T:
    """Call a function of whose fits automatic logging makes nothing: they are parts of one whole.

    What joblib calls is that to it.
    """
    (value,) = joblib.Parallel(n_jobs=1)([joblib.delayed(function)(*args)])
    return value  # type: ignore[no-any-return]


def held_cpus() -> int:
    """Return how many CPUs this process's job holds on Ray; 0 where there is no Ray."""
    if not ray.is_initialized():
        return 0
    cpus = 0.0
    if get_current_placement_group() is None and _is_in_task():
        cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    return max(1, int(cpus or ray.cluster_resources().get("CPU", 1)))


def _is_in_task() -> bool:
    return bool(ray.get_runtime_context().worker.mode == ray.WORKER_MODE)
