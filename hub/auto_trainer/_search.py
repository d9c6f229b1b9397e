"""The search: which models are tried, how many at once, and when it is over."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import optuna
import ray
from sklearn.model_selection import KFold, StratifiedKFold

import rayml

from ._ensemble import choose
from ._families import FAMILIES
from ._metrics import mean_known
from ._trials import Outcome, Problem, Trial, encode, fit_model, try_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from sklearn.pipeline import Pipeline

    from ._encoders import Kind
    from ._tasks import Tasks

_FOLDS = 5
_FEW_FOLDS = 3
# Scoring on more rows than this tells nothing new.
_MOST_VALID = 20_000
_FEW_ROWS = 3000
_HARDLY_ANY_ROWS = 1000
# Of fewer rows than this a score is worth more folds, up to so many times.
_MANY_ROWS = 10_000
_MORE_WORTH = 2.5
# What one trial may cost of all that can be worked in the time.
_SHARE = 0.03
_LONGEST = 0.2
# Of the time, at most so much is left for fitting the best models on all rows.
_FINAL = 0.4
_FINAL_SLACK = 1.25
_FINAL_S = 0.3
_GRACE = 0.1
_MOST_MEMBERS = 5
_CANDIDATES = 15
_OF_A_KIND = 4
# On how many rows the members are chosen, and looked for while the search goes on.
_ROWS = 10_000
_LOOK_ROWS = 1500
_LOOK_EVERY_S = 2.0
_LATE_S = 3.0
_FIRST_S = 60.0  # at least one model there shall be, however short the budget and slow the machine
_FEWER = 4
_KINDS_BETWEEN = 3
_CHEAP_S = 0.1
_TICK_S = 0.3
# Of the time that is left, what a trial may take that stops by itself: to end its process would
# cost the time to start another.
_OF_LEFT = 0.9
_GIVE_UP_BELOW = 60  # percent of the trials before


@dataclass
class Tried:
    """A trial and how it went.

    Attributes:
        state: "complete", "given up", "failed", or "out of time".
    """

    trial: Trial
    state: str
    outcome: Outcome | None = None
    error: str = ""
    asked: optuna.Trial | None = None

    @property
    def goodness(self) -> float:
        """The mean over the folds, the more the better."""
        return mean_known(self.outcome.goodness) if self.outcome else -np.inf

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.trial.family}-{self.trial.number}"


@dataclass
class Found:
    """What a search has come to.

    Attributes:
        members: The models that were chosen, with what each counts.
        baseline: LightGBM with its defaults, fitted on all rows as well; None if it was not tried.
        tried: Every trial, in the order in which they ended.
        folds: How many parts of the rows each was scored on.
        score: Of the members together, on rows that they did not learn from.
        search_s: How long the search took, and `final_s` the fitting of what it chose.
    """

    members: list[tuple[Tried, Pipeline, float]]
    baseline: Pipeline | None
    tried: list[Tried]
    folds: int
    score: float
    search_s: float
    final_s: float


class Search:
    """One search over a table.

    Args:
        problem: What is to be learned.
        tasks: Where the work is done.
        budget_s: How long all of it may take.
        most_trials: None is as many as there is time for.
        families: Which kinds of models to try.
        memory: How many bytes each trial's process may take; 0 is no limit.
        record: Is given each trial when it has ended.
    """

    def __init__(
        self,
        problem: Problem,
        tasks: Tasks,
        *,
        budget_s: float,
        most_trials: int | None,
        families: Sequence[str],
        memory: int,
        record: Callable[[Tried], None],
    ) -> None:
        self._problem = problem
        self._tasks = tasks
        self._budget_s = budget_s
        self._started = time.monotonic()
        self._deadline = self._started + budget_s
        self._most_trials = most_trials or 2**62
        self._families = [name for name in FAMILIES if name in families]
        self._memory = memory
        self._record = record
        self._tried: list[Tried] = []
        self._running: dict[Any, tuple[Trial, optuna.Trial | None, float]] = {}
        self._encoded: dict[tuple[Kind, int | None], Any] = {}
        self._study = _study(problem.seed)
        self._rng = np.random.default_rng(problem.seed)
        self._queue: list[tuple[str, dict[str, Any], optuna.Trial | None]]
        self._queue = [(*start, None) for start in _starts(self._families)]
        self._number = 0
        self._folds = 1
        self._looked = self._started
        self._likely: list[Tried] = []
        self._most_rows = dict.fromkeys(self._families, 2**62)

    def run(self, table: pd.DataFrame, truth: np.ndarray) -> Found:
        """Search, and fit what was chosen on all rows."""
        self._truth = truth
        self._rows = len(truth)
        self._splits = split(self._problem, truth)
        self._given = tuple(map(self._tasks.share, (self._problem, table, truth)))
        try:
            self._look_ahead()
            self._try_many()
            search_s = time.monotonic() - self._started
            return self._finish(search_s)
        finally:
            for call in [*self._running, *self._encoded.values()]:
                self._tasks.end(call)

    # --- what a trial costs ---

    def _look_ahead(self) -> None:
        """Try the first model on one fold, to see on how many the others will be tried.

        The other processes encode meanwhile what will be needed.
        """
        family, params, _ = self._queue[0]
        trial = self._trial(family, params)
        call = self._start(trial, folds=1)
        for kind in dict.fromkeys(FAMILIES[name].kind for name in self._families):
            for place in (0, None):
                self._encode(kind, place)
        if not self._tasks.wait([call], max(_FIRST_S, self._deadline - time.monotonic())):
            self._tasks.end(call)
            raise _nothing([])
        try:
            outcome = cast("Outcome", self._tasks.result(call))
        except Exception:  # noqa: BLE001 - it will fail as a trial, too, which is recorded
            return
        took = time.monotonic() - self._started
        self._folds = self._worth(outcome) if took < self._left() else 1
        if self._folds == 1:  # that was the trial
            self._queue.pop(0)
            self._number += 1
            self._judge(trial, None, outcome)
            self._propose()

    def _worth(self, outcome: Outcome) -> int:
        """Return how many folds are worth their time, and see on how many rows of each."""
        worth = self._budget_s * self._tasks.at_once * _SHARE
        cost = outcome.seconds
        if cost > worth:
            most = int(max(_FEW_ROWS, outcome.rows * worth / cost))
            self._most_rows = dict.fromkeys(self._families, most)
        for folds in (_FOLDS, _FEW_FOLDS):
            if cost * folds <= worth * np.clip(_MANY_ROWS / self._rows, 1, _MORE_WORTH):
                return folds
        return _FEW_FOLDS if self._rows < _HARDLY_ANY_ROWS else 1

    def _left(self) -> float:
        """Return how long the search goes on."""
        return self._search_end() - time.monotonic()

    def _limit(self) -> float:
        """Return how long a trial may take that starts now.

        The first one, whose defaults the result is compared with, may take as long as there is.
        """
        long = self._budget_s * _LONGEST if self._number else self._budget_s
        return max(0.5, min(self._left() * _OF_LEFT, max(long, 2 * self._expected())))

    def _expected(self, family: str | None = None) -> float:
        """Return about how long a trial takes, of some family as of all."""
        all_s = [one.outcome.seconds for one in self._tried if one.outcome]
        own = [
            one.outcome.seconds
            for one in self._tried
            if one.outcome and one.trial.family == family
        ]
        return float(np.median(own or all_s or [0.0]))

    def _search_end(self) -> float:
        done = self._complete()
        if not done:
            return self._deadline - 0.1 * self._budget_s
        costs = [self._cost_of_all(one) for one in [*self._likely, done[0]]]
        final = max(*costs, sum(costs) / self._tasks.at_once) * _FINAL_SLACK + _FINAL_S
        return self._deadline - min(final, _FINAL * self._budget_s)

    def _look(self) -> None:
        """See now and then what is likely to be chosen: what that costs to fit ends the search."""
        done = self._complete()
        is_due = not self._likely or time.monotonic() > self._looked + _LOOK_EVERY_S
        if done and is_due:
            self._likely = [one for one, _ in self._choose(_best(done), _LOOK_ROWS)]
            self._looked = time.monotonic()

    def _cost_of_all(self, one: Tried) -> float:
        """Return about how long it takes to fit a model of a trial on all rows."""
        assert one.outcome is not None  # noqa: S101 - it is complete
        return one.outcome.fit_s / max(1, one.outcome.rows) * self._rows + 0.05

    # --- trials ---

    def _try_many(self) -> None:
        while True:
            while len(self._running) < self._tasks.at_once and self._has_more():
                self._start_next()
            if not self._running:
                return
            self._look()  # which takes a while: no CPU waits for it
            wait_s = min(1.0, max(self._left(), _TICK_S))
            for call in self._tasks.wait(list(self._running), wait_s):
                self._end(call)
            self._stop_late()
            if self._left() <= 0 and not self._waits_for_a_first() and not self._ends_soon():
                self._stop_all()
                return

    def _has_more(self) -> bool:
        in_time = self._left() > self._expected(self._queue[0][0]) or not self._tried
        return self._number < self._most_trials and in_time

    def _ends_soon(self) -> bool:
        """Whether all that runs will stop by itself, for which its process is spared."""
        now = time.monotonic()
        ends = (begun + trial.seconds + _TICK_S for trial, _, begun in self._running.values())
        return now < self._deadline and all(now < end for end in ends)

    def _waits_for_a_first(self) -> bool:
        """Whether time is over, and yet goes on until there is one model at least."""
        long = max(self._started + _FIRST_S, self._deadline + _LATE_S)
        is_over = self._left() <= 0 and time.monotonic() < long
        return is_over and not self._complete()

    def _start_next(self) -> None:
        family, params, asked = self._queue.pop(0)
        trial = self._trial(family, params, self._to_beat() if asked else ())
        self._number += 1
        call = self._start(trial, self._folds)
        self._running[call] = (trial, asked, time.monotonic())
        self._propose()

    def _propose(self) -> None:
        """Have something to try next, once this runs: no CPU waits for what is drawn."""
        if not self._queue:
            asked, family = self._study.ask(), self._choose_family()
            self._queue.append((family, FAMILIES[family].vary(asked), asked))

    def _choose_family(self) -> str:
        """Return a kind to vary: the better its best trial and the cheaper it is, the likelier.

        None is left out: models that err differently are better together than each is.
        """
        best = {
            name: max((o.goodness for o in self._tried if o.trial.family == name), default=-np.inf)
            for name in self._families
        }
        ranks = {name: sum(other > one for other in best.values()) for name, one in best.items()}
        weights = [
            1 / (1 + ranks[name]) / np.sqrt(max(self._expected(name), _CHEAP_S))
            for name in self._families
        ]
        return str(self._rng.choice(self._families, p=np.array(weights) / sum(weights)))

    def _trial(
        self, family: str, params: dict[str, Any], to_beat: tuple[float, ...] = ()
    ) -> Trial:
        # The defaults of LightGBM are what the result is compared with: they get every row.
        most_rows = self._most_rows[family] if self._number else 2**62
        return Trial(
            self._number,
            family,
            params,
            self._limit(),
            to_beat,
            most_rows,
            self._tasks.threads,
            self._memory,
        )

    def _start(self, trial: Trial, folds: int) -> Any:  # noqa: ANN401
        kind = FAMILIES[trial.family].kind
        encoded = [self._encode(kind, place) for place in range(folds)]
        return self._tasks.start(try_model, self._given[0], trial, *encoded)

    def _encode(self, kind: Kind, place: int | None) -> Any:  # noqa: ANN401
        """Return what stands for the rows of a fold as arrays, or for all rows."""
        if (kind, place) not in self._encoded:
            problem, table, truth = self._given
            parts = () if place is None else self._splits[place]
            call = self._tasks.start(encode, problem, kind, table, truth, *parts)
            self._encoded[kind, place] = call
        return self._encoded[kind, place]

    def _end(self, call: Any) -> None:  # noqa: ANN401
        trial, asked, _ = self._running.pop(call)
        try:
            outcome = cast("Outcome", self._tasks.result(call))
        except Exception as exc:  # noqa: BLE001 - a trial that fails does not end the search
            self._tell(Tried(trial, "failed", error=_reason(exc), asked=asked))
            return
        self._judge(trial, asked, outcome)

    def _judge(self, trial: Trial, asked: optuna.Trial | None, outcome: Outcome) -> None:
        state = "complete" if len(outcome.goodness) == self._folds else "given up"
        if np.isnan(mean_known(outcome.goodness)) or not np.isfinite(outcome.said).all():
            self._tell(Tried(trial, "failed", error="it predicts no numbers", asked=asked))
            return
        self._tell(Tried(trial, state, outcome, asked=asked))

    def _tell(self, one: Tried) -> None:
        self._tried.append(one)
        self._record(one)
        states = optuna.trial.TrialState
        if one.asked is None:
            return
        if one.outcome is None:
            self._study.tell(one.asked, state=states.FAIL)
        else:
            one.asked.report(one.goodness, len(one.outcome.goodness))
            is_whole = one.state == "complete"
            values, state = (one.goodness, None) if is_whole else (None, states.PRUNED)
            self._study.tell(one.asked, values, state)

    def _complete(self) -> list[Tried]:
        return [one for one in self._tried if one.state == "complete"]

    def _to_beat(self) -> tuple[float, ...]:
        """Return below which mean a trial is given up, by how many folds it has been scored on."""
        done = [one.outcome.goodness for one in self._complete() if one.outcome]
        if len(done) < 5 or self._folds == 1:
            return ()
        known = np.nan_to_num(done)
        means = np.cumsum(known, axis=1) / np.arange(1, self._folds + 1)
        return tuple(np.percentile(means, _GIVE_UP_BELOW, axis=0)[:-1])

    def _stop_late(self) -> None:
        """End what should have stopped by itself long ago."""
        if self._waits_for_a_first():
            return
        for call, (trial, asked, begun) in list(self._running.items()):
            if time.monotonic() - begun > 1.5 * trial.seconds + _LATE_S and self._tasks.can_end:
                self._stop(call, trial, asked)
                # The next ones of its kind have fewer rows.
                rows = min(self._rows, self._most_rows[trial.family])
                self._most_rows[trial.family] = max(_FEW_ROWS, rows // _FEWER)

    def _stop_all(self) -> None:
        for call, (trial, asked, _) in list(self._running.items()):
            self._stop(call, trial, asked)

    def _stop(self, call: Any, trial: Trial, asked: optuna.Trial | None) -> None:  # noqa: ANN401
        self._tasks.end(call)
        del self._running[call]
        self._tell(Tried(trial, "out of time", error="there was no time left", asked=asked))

    # --- what comes out ---

    def _finish(self, search_s: float) -> Found:
        done = self._complete()
        if not done:
            raise _nothing([one.error for one in self._tried])
        baseline = next((one for one in done if one.trial.number == 0), None)
        chosen = self._choose(self._affordable(_best(done)), _ROWS)
        models = self._fit_all([one for one, _ in chosen], baseline)
        members = [(one, models[one.name], weight) for one, weight in chosen if one.name in models]
        if not members:
            members = [(one, models[one.name], 1.0) for one in _best(done) if one.name in models]
            members = members[:1]
        total = sum(weight for *_, weight in members)
        members = [(one, model, weight / total) for one, model, weight in members]
        together = sum(weight * one.outcome.said for one, _, weight in members if one.outcome)
        return Found(
            members,
            models.get(baseline.name) if baseline else None,
            self._tried,
            self._folds,
            self._score(cast("np.ndarray", together)),
            search_s,
            time.monotonic() - self._started - search_s,
        )

    def _choose(self, best: Sequence[Tried], rows: int) -> list[tuple[Tried, float]]:
        """Return which of these are better together, and what each counts."""
        said = [one.outcome.said for one in best if one.outcome]
        seed = self._problem.seed
        weights = choose(self._problem.metric, self._kept(), said, _MOST_MEMBERS, rows, seed)
        return [(best[place], weight) for place, weight in weights.items()]

    def _kept(self) -> list[np.ndarray]:
        """Return the truth of what each fold has kept back."""
        return [self._truth[valid] for _, valid in self._splits[: self._folds]]

    def _score(self, said: np.ndarray) -> float:
        """Return the mean score over the folds."""
        folds = self._kept()
        parts = np.split(said, np.cumsum([len(fold) for fold in folds])[:-1])
        scores = [self._problem.metric(*part) for part in zip(folds, parts, strict=True)]
        return mean_known(scores)

    def _affordable(self, best: Sequence[Tried]) -> list[Tried]:
        """Return those for whose fitting on all rows there is time; one at least."""
        left = max(self._deadline - time.monotonic(), 0.5)
        found = [one for one in best if self._cost_of_all(one) <= left]
        return found or [min(best, key=self._cost_of_all)]

    def _fit_all(self, chosen: Sequence[Tried], baseline: Tried | None) -> dict[str, Pipeline]:
        """Fit models on all rows; those that are not there in time are left out, but for one."""
        wanted = [*chosen, *([baseline] if baseline and baseline not in chosen else [])]
        calls: dict[Any, str] = {}
        for one in wanted:
            trial = Trial(
                one.trial.number,
                one.trial.family,
                one.trial.params,
                max(1.0, self._deadline - time.monotonic()),
                threads=self._tasks.threads,
                memory=self._memory,
            )
            rows = self._encode(FAMILIES[trial.family].kind, None)
            rounds = cast("Outcome", one.outcome).rounds
            calls[self._tasks.start(fit_model, self._given[0], trial, rounds, rows)] = one.name
        models: dict[str, Pipeline] = {}
        failed: list[str] = []
        while calls:
            left = self._deadline + _GRACE * self._budget_s - time.monotonic()
            if left <= 0 and any(one.name in models for one in chosen):
                break
            for call in self._tasks.wait(list(calls), max(left, 1.0)):
                name = calls.pop(call)
                try:
                    models[name] = self._tasks.result(call)
                except Exception as exc:  # noqa: BLE001 - the others are there
                    failed.append(_reason(exc))
        if not models:
            raise _nothing(failed)
        for call in calls:
            self._tasks.end(call)
        return models


def split(problem: Problem, truth: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the folds: places of rows to learn from, and of those that are kept back.

    Those come first in which most of the classes are kept back.
    """
    folds = max(_FOLDS, len(truth) // _MOST_VALID)
    rows = np.zeros(len(truth))
    kind = KFold
    if problem.classes and np.bincount(truth.astype(int)).max() >= folds:
        kind = StratifiedKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer rows than folds
        parts = kind(folds, shuffle=True, random_state=problem.seed).split(rows, truth)
        found = [(train, valid) for train, valid in parts]
    if problem.classes:
        found.sort(key=lambda part: -len(np.unique(truth[part[1]])))
    return found


def _best(done: Sequence[Tried]) -> list[Tried]:
    """Return the trials that may become members, the best first, and the baseline among them."""
    ranked = sorted(done, key=lambda one: -one.goodness)
    kinds = [one.trial.family for one in ranked]
    # Many of one kind would keep out those that err differently.
    few = [one for n, one in enumerate(ranked) if kinds[:n].count(kinds[n]) < _OF_A_KIND]
    best = few[:_CANDIDATES]
    return best + [one for one in done if one.trial.number == 0 and one not in best]


def _starts(families: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return what is tried first: the second start of a kind comes three kinds after its first."""
    starts = [
        (place * _KINDS_BETWEEN + family, name, start)
        for family, name in enumerate(families)
        for place, start in enumerate(FAMILIES[name].starts)
    ]
    return [(name, start) for _, name, start in sorted(starts, key=lambda one: one[0])]


def _study(seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of its settings count as experimental
        sampler = optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True
        )
    return optuna.create_study(direction="maximize", sampler=sampler)


def _nothing(reasons: Sequence[str]) -> rayml.SpecError:
    why = " and ".join(dict.fromkeys(reason for reason in reasons if reason)) or "time was over"
    return rayml.SpecError(f"no model could be fitted, because {why}; raise budget_s or memory")


def _reason(exc: Exception) -> str:
    if isinstance(exc, ray.exceptions.WorkerCrashedError):
        return "its process died, as it does when it takes more than its share of memory"
    cause = exc.cause if isinstance(exc, ray.exceptions.RayTaskError) else exc
    return f"{type(cause).__name__}: {cause}".splitlines()[0]
