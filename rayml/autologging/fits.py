"""The fits of a run: how each is called, how much may be spent on it, what is kept of it.

The first fit of a run is called `model` and its group of scores `train`; the second one `model-2`
and `train-2`, and so on.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary, ref

from rayml.artifacts.record import is_a
from rayml.autologging.calls import warn
from rayml.autologging.ending import Task, at_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from rayml.autologging.copies import Snapshot
    from rayml.run_context import Context

MOST_FITS = 100  # later ones are counted: a loop may fit thousands
_KEPT_FITS = 10  # of others there is no model, table or plot
KEPT_BYTES = 64 * 1024 * 1024  # of all models of a run
_KEPT_FILES_BYTES = 1024 * 1024 * 1024  # of those that wait on disk
_BASES = 10
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Fit:
    """One fit of a run.

    Attributes:
        number: From 1 up.
        seconds: How long it took.
        kind: What it is called if it has made no model of the run's: each kind has its numbers.
    """

    number: int
    seconds: float = 0.0
    kind: str = ""

    @property
    def suffix(self) -> str:
        """What ends the names that belong to it, but for those of its own groups."""
        return f"-{self.kind}{self._ending}" if self.kind else self._ending

    @property
    def model(self) -> str:
        """What its parameters are called."""
        return f"{self.kind or 'model'}{self._ending}"

    @property
    def group(self) -> str:
        """What is told of its data and the scores there are called."""
        return f"{self.kind or 'train'}{self._ending}"

    @property
    def _ending(self) -> str:
        return "" if self.number == 1 else f"-{self.number}"

    @property
    def is_kept(self) -> bool:
        """Its model, tables and plots are kept."""
        return self.number <= _KEPT_FITS

    @property
    def most_s(self) -> float:
        """How long one part of what follows may compute.

        Little of it is needed but by slow models; the rest keeps scores from following the load.
        """
        return max(0.01 * self.seconds, 0.2 if self.is_kept else 0.05)

    @property
    def most_bytes(self) -> int:
        """How much may be read or copied for it: a GB takes about a second."""
        return int((8 + 10 * self.seconds) * _MIB)


class Training:
    """What may become a fit of a run: it is one, with a number, once it is asked for.

    Attributes:
        context: The run.
    """

    def __init__(self, context: Context) -> None:
        self.context = context

    @cached_property
    def fit(self) -> Fit | None:
        """The run's next fit; None after many."""
        return next_fit(self.context)

    def ended(self, seconds: float) -> Fit | None:
        """Return the fit, which has taken so long."""
        return None if self.fit is None else replace(self.fit, seconds=seconds)


class Going:
    """A block in which a training goes on in this thread; none hides what is around the block.

    No generator: nothing but the block itself is to be in an error's traceback.
    """

    def __init__(self, training: Training | None) -> None:
        self._training = training

    def __enter__(self) -> None:
        self._around = training_now()
        _now.training = self._training

    def __exit__(self, *_: object) -> None:
        _now.training = self._around


_now = threading.local()


def training_now() -> Training | None:
    """Return the fit of user code that goes on in this thread."""
    return getattr(_now, "training", None)


@dataclass
class _Room:
    """What is left for models of a run, in bytes."""

    left: int

    def take(self, size: int) -> bool:
        with _lock:
            is_small = size <= self.left
            self.left -= size if is_small else 0
        return is_small


class Files(Protocol):
    """A model that waits on disk."""

    @property
    def size(self) -> int:
        """In bytes."""

    def store(self, context: Context, name: str, /) -> None:
        """Log it to the run by this name."""


@dataclass
class _Seen:
    """The fits of one run and the predictions of what they fitted, by the objects' identity."""

    count: int = 0
    number: int = 0
    others: Counter[str] = field(default_factory=Counter)
    memory: _Room = field(default_factory=lambda: _Room(KEPT_BYTES))
    disk: _Room = field(default_factory=lambda: _Room(_KEPT_FILES_BYTES))
    fits: dict[int, tuple[ref[Any], Fit]] = field(default_factory=dict)
    predictions: dict[int, tuple[ref[Any], Fit]] = field(default_factory=dict)


_runs: WeakKeyDictionary[Context, _Seen] = WeakKeyDictionary()
_lock = threading.RLock()


def fit_of(context: Context, estimator: object) -> Fit | None:
    """Return the fit that an estimator has from this run, if it has one."""
    return _find(_seen(context).fits, estimator)


def fit_or_other(context: Context, estimator: object) -> Fit | None:
    """Return an estimator's fit; for one that this run has not fitted, a name of its own.

    It was loaded, or is a part of another one. None after many of either.
    """
    if (fit := fit_of(context, estimator)) is not None or _seen(context).count > MOST_FITS:
        return fit
    if (fit := next_other(context, "other")) is not None:
        remember_fit(context, estimator, fit)
        context.log_param(f"{fit.model}/class", type(estimator).__qualname__)
    return fit


def fit_of_prediction(context: Context, predicted: Any) -> Fit | None:  # noqa: ANN401
    """Return the fit whose estimator has predicted an array, or the one that it is a part of."""
    known = _seen(context).predictions
    for _ in range(_BASES):
        if predicted is None:
            return None
        if (fit := _find(known, predicted)) is not None:
            return fit
        predicted = predicted.base if is_a(predicted, "numpy.ndarray") else None
    return None


def remember_fit(context: Context, estimator: object, fit: Fit) -> None:
    """Let what an estimator predicts belong to the fit."""
    _keep(_seen(context).fits, estimator, fit)


def remember_prediction(context: Context, predicted: object, fit: Fit) -> None:
    """Let a score that is computed of an array belong to the fit."""
    _keep(_seen(context).predictions, predicted, fit)


def next_fit(context: Context) -> Fit | None:
    """Return the next fit, whose model replaces none of the user's own; None after many."""
    seen = _seen(context)
    with _lock:
        seen.count += 1
        seen.number += 1
        while context.has_logged(f"model{Fit(seen.number).suffix}"):
            seen.number += 1
        fit = Fit(seen.number)
        is_first_left_out = seen.count == MOST_FITS + 1
    if is_first_left_out:
        warn(f"counts the fits of this run from here on: it logs {MOST_FITS}", context)
        count = Task("the number of fits", lambda: context.log_param("train/fits", seen.count))
        at_end(context, count)
    if fit.number == _KEPT_FITS + 1:
        warn(f"keeps models, tables and plots of {_KEPT_FITS} fits; log others yourself", context)
    return fit if seen.count <= MOST_FITS else None


def next_other(context: Context, kind: str) -> Fit | None:
    """Return the next fit of a kind that is not the run's model, as `cv`; None after many."""
    seen = _seen(context)
    with _lock:
        seen.others[kind] += 1
        number = seen.others[kind]
    if number == MOST_FITS + 1:
        warn(
            f"logs {MOST_FITS} times what is called {kind} in a run, and no more of this one",
            context,
        )
    return Fit(number, kind=kind) if number <= MOST_FITS else None


def log_table_at_end(context: Context, name: str, table: dict[str, Any]) -> None:
    """Log a table when the run ends."""
    at_end(context, Task(f"the table {name}", partial(context.log_table, name, table)))


def keep_model(context: Context, fit: Fit, kind: str, taken: Snapshot, example: Any) -> None:  # noqa: ANN401
    """Store a copy of a model when the run ends, if there is room for it among those kept."""
    if not has_room(context, taken.size):
        warn(f"keeps {KEPT_BYTES // _MIB} MiB of models, and not this {kind}", context)
        return

    def store(name: str) -> None:
        context.log_model(name, taken.restore(), input_example=example)

    _store_at_end(context, fit, kind, store)


def has_room(context: Context, size: int) -> bool:
    """Take so many bytes of those that a run may keep of models, if as many are left."""
    return _seen(context).memory.take(size)


def keep_files(context: Context, fit: Fit, kind: str, files: Files) -> None:
    """Store a model that is written to files already, as `keep_model` does."""
    if not _seen(context).disk.take(files.size):
        warn(f"keeps {_KEPT_FILES_BYTES // _MIB} MiB of files, and not this {kind}", context)
        return
    _store_at_end(context, fit, kind, partial(files.store, context))


def _store_at_end(context: Context, fit: Fit, kind: str, store: Callable[[str], None]) -> None:
    name = f"{fit.group}/model" if fit.kind else fit.model

    def store_unless_logged() -> None:
        if not context.has_logged(name):  # the user's own
            store(name)

    at_end(context, Task(f"{kind}'s model", store_unless_logged))


def _seen(context: Context) -> _Seen:
    with _lock:
        return _runs.setdefault(context, _Seen())


def _find(known: dict[int, tuple[ref[Any], Fit]], value: object) -> Fit | None:
    found, fit = known.get(id(value), (None, None))
    return fit if found is not None and found() is value else None


def _keep(known: dict[int, tuple[ref[Any], Fit]], value: object, fit: Fit) -> None:
    """Know an object as long as it lives; one that cannot be watched is not known."""
    key = id(value)
    try:
        known[key] = ref(value, lambda _: known.pop(key, None)), fit
    except TypeError:
        return
