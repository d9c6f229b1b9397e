"""What runs in a task: encoding rows, trying one model on them, and fitting it on all of them."""

from __future__ import annotations

import os
import threading
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from sklearn.pipeline import Pipeline

from ._encoders import lighten, make_encoder
from ._families import FAMILIES, Part

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

    from ._encoders import Kind
    from ._metrics import Metric
    from ._table import Columns

_LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class Problem:
    """What is to be learned.

    Attributes:
        columns: What is known of each row.
        metric: What counts.
        classes: How many there are; 0 of a number.
        seed: Of what is random.
    """

    columns: Columns
    metric: Metric
    classes: int
    seed: int


@dataclass(frozen=True)
class Encoded:
    """Rows as arrays; the other ones, if there are any, are encoded as those to learn from say."""

    encoder: Any
    rows: np.ndarray
    truth: np.ndarray
    valid: Any = None
    valid_truth: Any = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Trial:
    """One model to try.

    Attributes:
        number: Counted from 0.
        family: Which kind of model.
        params: Of the model; none are the library's own defaults.
        seconds: How long it may take.
        to_beat: Mean goodness by the number of folds below which it is given up; may be empty.
        most_rows: How many rows of each fold it may learn from.
        threads: How many to use.
        memory: How many bytes its process may take; 0 is no limit.
    """

    number: int
    family: str
    params: Mapping[str, Any]
    seconds: float = np.inf
    to_beat: tuple[float, ...] = ()
    most_rows: int = 2**62
    threads: int = 1
    memory: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a trial has come to.

    Attributes:
        said: Of the rows that were kept back, fold by fold: numbers or probabilities.
        goodness: Of each fold, the more the better; fewer than there are if it was given up.
        rounds: After how many it was best, where there are any.
        fit_s: How long fitting took, of all folds together.
        rows: How many it learned from, of all folds together.
        seconds: How long all of it took.
    """

    said: np.ndarray
    goodness: list[float] = field(default_factory=list)
    rounds: int | None = None
    fit_s: float = 0.0
    rows: int = 0
    seconds: float = 0.0


def encode(
    problem: Problem,
    kind: Kind,
    table: pd.DataFrame,
    truth: np.ndarray,
    train: np.ndarray | None = None,
    valid: np.ndarray | None = None,
) -> Encoded:
    """Return rows as arrays: all of them, or some to learn from and some that are kept back."""
    started = time.monotonic()
    rows, known = (table, truth) if train is None else (table.iloc[train], truth[train])
    encoder = make_encoder(kind, problem.columns, problem.classes)
    with _quiet():
        encoded = encoder.fit_transform(rows, known)
        lighten(encoder)
        if valid is None:
            return Encoded(encoder, encoded, known, seconds=time.monotonic() - started)
        kept = encoder.transform(table.iloc[valid])
    return Encoded(encoder, encoded, known, kept, truth[valid], time.monotonic() - started)


def try_model(problem: Problem, trial: Trial, *folds: Encoded) -> Outcome:
    """Fit a model on each fold, and score it on what was kept back."""
    started = time.monotonic()
    said, goodness, rounds, fit_s, rows = [], [], [], 0.0, 0
    with _quiet(), _within(trial.memory):
        for place, fold in enumerate(folds):
            left = trial.seconds - (time.monotonic() - started)
            part, classes = _part(problem, trial, fold, left / (len(folds) - place))
            begun = time.monotonic()
            model, best = FAMILIES[trial.family].fit(part, trial.params)
            fit_s += time.monotonic() - begun
            rows += len(part.rows)
            said.append(_say(problem, model, fold.valid, classes))
            goodness.append(problem.metric.goodness(fold.valid_truth, said[-1]))
            rounds += [best] if best else []
            if (
                place < len(trial.to_beat)
                and np.mean(np.nan_to_num(goodness)) < trial.to_beat[place]
            ):
                break
    best_rounds = round(float(np.mean(rounds))) if rounds else None
    seconds = time.monotonic() - started
    return Outcome(np.concatenate(said), goodness, best_rounds, fit_s, rows, seconds)


def fit_model(problem: Problem, trial: Trial, rounds: int | None, rows: Encoded) -> Pipeline:
    """Return a pipeline of encoder and model that has learned from all rows."""
    part, _ = _part(problem, trial, rows, trial.seconds)
    with _quiet(), _within(trial.memory):
        model, _ = FAMILIES[trial.family].fit(_for_good(part, rounds), trial.params)
    return Pipeline([("encoder", rows.encoder), ("model", model)])


def _part(
    problem: Problem, trial: Trial, fold: Encoded, seconds: float
) -> tuple[Part, np.ndarray]:
    """Return what a model is fitted on, and the classes there: a rare one may be missing."""
    chosen = _some(len(fold.truth), trial.most_rows, problem.seed)
    rows, truth = fold.rows[chosen], fold.truth[chosen]
    valid, valid_truth, classes = fold.valid, fold.valid_truth, np.arange(problem.classes)
    if problem.classes:
        classes, truth = np.unique(truth, return_inverse=True)
        if valid is not None and len(classes) < problem.classes:
            known = np.isin(valid_truth, classes)
            valid, valid_truth = valid[known], np.searchsorted(classes, valid_truth[known])
    part = Part(
        rows,
        truth,
        len(problem.columns.few) if FAMILIES[trial.family].kind == "codes" else 0,
        problem.metric,
        valid,
        valid_truth,
        until=time.monotonic() + seconds,
        threads=trial.threads,
        seed=problem.seed,
    )
    return part, classes


def _for_good(part: Part, rounds: int | None) -> Part:
    return Part(
        part.rows,
        part.truth,
        part.codes,
        part.metric,
        rounds=rounds or 1,
        until=part.until,
        threads=part.threads,
        seed=part.seed,
    )


def _some(rows: int, most: int, seed: int) -> slice | np.ndarray:
    if rows <= most:
        return slice(None)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _say(
    problem: Problem,
    model: Any,  # noqa: ANN401
    rows: np.ndarray | None,
    classes: np.ndarray,
) -> np.ndarray:
    if not problem.classes:
        return np.asarray(model.predict(rows), dtype=float)
    shares = np.asarray(model.predict_proba(rows), dtype=float)
    spread = np.zeros((len(shares), problem.classes))
    spread[:, classes] = shares
    return spread


@contextmanager
def _quiet() -> Iterator[None]:
    """Show no warnings: that a model of a search does not converge is for its score to say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _within(memory: int) -> Iterator[None]:
    """End this process if it takes more memory: nothing else stops a fit that is under way."""
    done = threading.Event()
    if memory:
        threading.Thread(target=_watch, args=(memory, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _watch(memory: int, done: threading.Event) -> None:
    process = psutil.Process()
    while not done.wait(_LOOK_EVERY_S):
        info = process.memory_info()
        if info.rss - info.shared > memory:
            os._exit(1)
