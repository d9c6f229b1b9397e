"""`rayml.autolog()`: what scikit-learn does beside plain fits of models that predict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - so it is asked for
from sklearn.linear_model import Ridge
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
)

if TYPE_CHECKING:
    from rayml import Run

pytestmark = pytest.mark.usefixtures("autolog")
X = np.random.default_rng(0).random((120, 4))
TWO = (X[:, 0] + X[:, 1] > 1).astype(int)
THREE = np.array(["low", "middle", "high"])[(X[:, 0] * 2.99).astype(int)]
AMOUNT = X @ [1.0, 2.0, 3.0, 4.0] + 5


def values(run: Run, metric: str) -> list[float]:
    """Return a metric's values by step."""
    found: list[float] = run.history(metric)["value"].to_list()
    return found


# Searches


@pytest.mark.filterwarnings("ignore")  # a trial's folds fail, which scikit-learn warns of
def test_the_trials_of_a_search_are_children(track: Any) -> None:
    search = GridSearchCV(
        Ridge(),
        {"alpha": [0.1, 1.0, -1.0]},
        cv=3,
        scoring=["r2", "neg_max_error"],
        refit="r2",
        return_train_score=True,
    )
    run = track(lambda: search.fit(X, AMOUNT))
    refused, second, first = run.children()  # the newest is the first
    assert [trial.name for trial in (first, second)] == ["search/trial-1", "search/trial-2"]
    assert second.params == {"model/class": "Ridge", "model/alpha": 1.0}
    results = search.cv_results_
    for name, data in (("r2", "test"), ("neg_max_error", "train")):
        folds = second.history(f"cv/{data}/{name}")["value"].to_list()
        assert folds == [results[f"split{fold}_{data}_{name}"][1] for fold in range(3)]
        assert second.metrics[f"cv/{data}/{name}-mean"] == results[f"mean_{data}_{name}"][1]
        assert second.metrics[f"cv/{data}/{name}-std"] == results[f"std_{data}_{name}"][1]
    assert second.metrics["cv/fit_time-mean"] == results["mean_fit_time"][1]
    assert (second.state, refused.state) == ("succeeded", "failed")
    assert {trial.parent.id for trial in run.children() if trial.parent} == {run.id}
    assert (second.experiment, second.packages) == (run.experiment, run.packages)


def test_of_many_trials_the_best_become_runs(
    track: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rayml.autologging.sklearn_trials._RUNS", 2)
    alphas = [1000.0, 0.1, 100.0, 0.01]  # the smaller, the better
    run = track(lambda: GridSearchCV(Ridge(), {"alpha": alphas}).fit(X, AMOUNT))
    assert [trial.name for trial in run.children()] == ["search/trial-4", "search/trial-2"]
    assert len(run.artifact("search/trials").to_pandas()) == 4
    assert "runs of 2 of a search's 4 trials" in caplog.text


def test_a_search_that_halves(track: Any) -> None:
    search = HalvingGridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, factor=3)
    run = track(lambda: search.fit(X, AMOUNT))
    stages = [trial.params["cv/n_resources"] for trial in run.children()]
    assert stages[::-1] == search.cv_results_["n_resources"].tolist()
