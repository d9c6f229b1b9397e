"""auto_trainer's search on a machine that is slower than its budget."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.datasets import load_breast_cancer

from rayml.hub.auto_trainer._data import read_data
from rayml.hub.auto_trainer._metrics import find_metric
from rayml.hub.auto_trainer._search import Found, Search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class SlowTasks:
    """Two threads; each call of a name waits as long as is given for it, first call first."""

    at_once = 2
    threads = 1
    can_end = True

    def __init__(self, **waits: list[float]) -> None:
        self._pool = ThreadPoolExecutor(2)
        self._waits = waits

    def share(self, value: object) -> object:
        return value

    def start(self, function: Callable[..., object], *args: object) -> Future[object]:
        waits = self._waits.get(function.__name__, [])
        return self._pool.submit(_slowly, waits.pop(0) if waits else 0, function, args)

    def wait(self, calls: Sequence[Future[object]], timeout_s: float) -> list[Future[object]]:
        return list(wait(calls, max(0.0, timeout_s), FIRST_COMPLETED).done)

    def result(self, call: Future[object]) -> object:
        return call.result()

    def end(self, call: Future[object]) -> None:
        call.cancel()

    def close(self) -> None:
        self._pool.shutdown()


def _slowly(wait_s: float, function: Callable[..., object], args: Sequence[Any]) -> object:
    time.sleep(wait_s)
    return function(*(arg.result() if isinstance(arg, Future) else arg for arg in args))


@pytest.fixture
def searched() -> Iterator[Callable[..., Found]]:
    made: list[SlowTasks] = []

    def search(budget_s: float, **waits: list[float]) -> Found:
        made.append(SlowTasks(**waits))
        table = load_breast_cancer(as_frame=True).frame
        data = read_data(table, None, "target", task="auto", drop=[], test_size=0.2, seed=0)
        one = Search(
            data.problem(find_metric(None, data.target.task), 0),
            made[-1],
            budget_s=budget_s,
            most_trials=None,
            families=["linear"],
            memory=0,
            record=lambda _: None,
        )
        return one.run(data.train, data.truth)

    yield search
    for tasks in made:
        tasks.close()


def test_a_first_model_that_takes_the_whole_budget_is_what_is_found(
    searched: Callable[..., Found],
) -> None:
    found = searched(1.0, try_model=[1.5])

    assert found.folds == 1
    assert [one.state for one in found.tried] == ["complete"]
    assert found.score > 0.9


def test_a_machine_that_becomes_slow_is_given_the_time_for_one_model(
    searched: Callable[..., Found],
) -> None:
    # Its first look is quick; what follows takes longer than the budget, and a trial's grace.
    found = searched(2.0, try_model=[0, 7, 7])

    assert any(one.state == "complete" for one in found.tried)
    assert found.score > 0.9
