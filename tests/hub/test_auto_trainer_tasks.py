"""auto_trainer's trials as Ray tasks: on what the job holds, and ended with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import ray
from sklearn.datasets import load_breast_cancer, make_classification

import rayml
from rayml.hub.auto_trainer._data import read_data
from rayml.hub.auto_trainer._metrics import find_metric
from rayml.hub.auto_trainer._search import Search, Tried
from rayml.hub.auto_trainer._tasks import RayTasks
from tests.ray.conftest import ray_address, store, submit, work  # noqa: F401 - fixtures
from tests.ray.eventually import eventually

if TYPE_CHECKING:
    from tests.ray.conftest import Submit


@pytest.mark.ray
class TestOnRay:
    def test_trials_run_side_by_side_on_what_the_job_holds(
        self,
        submit: Submit,  # noqa: F811 - a fixture
    ) -> None:
        run = submit(
            "hub://auto_trainer",
            inputs={"table": load_breast_cancer(as_frame=True).frame},
            params={"target": "target", "budget_s": 60, "max_trials": 6},
            resources=rayml.Resources(cpus=2),
        ).wait(200)

        found: Any = run.params["found"]
        assert found["at_once"] == 2
        assert len(run.trials()) == 6
        # What is fitted on the way is not the run's own model, to automatic logging.
        assert not [name for name in run.params if name.startswith("model/")]
        assert not [name for name in run.artifacts if name.startswith("train/")]
        assert run.metrics["test/roc_auc"] > 0.95

    @pytest.mark.thorough
    def test_cancelling_it_ends_all_of_its_tasks(
        self,
        submit: Submit,  # noqa: F811 - a fixture
    ) -> None:
        run = submit(
            "hub://auto_trainer",
            inputs={"table": load_breast_cancer(as_frame=True).frame},
            params={"target": "target", "budget_s": 600},
            resources=rayml.Resources(cpus=2),
        )
        eventually(lambda: len(run.trials()) > 1, 120)

        run.cancel(grace_s=5)

        with pytest.raises(rayml.JobCancelled):
            run.wait(60)
        eventually(lambda: ray.available_resources().get("CPU") == 2, 60)

    @pytest.mark.usefixtures("ray_address")
    def test_a_trial_that_takes_more_memory_than_its_share_is_ended_and_told(self) -> None:
        numbers, target = make_classification(20_000, 20, random_state=0)
        table = pd.DataFrame(numbers).assign(target=target)
        data = read_data(table, None, "target", task="auto", drop=[], test_size=0.2, seed=0)
        ended: list[Tried] = []
        search = Search(
            data.problem(find_metric(None, data.target.task), 0),
            RayTasks(2, 2),
            budget_s=60,
            most_trials=1,
            families=["forest"],
            memory=1,
            record=ended.append,
        )

        with pytest.raises(rayml.SpecError, match="more than its share of memory"):
            search.run(data.train, data.truth)

        assert [one.state for one in ended] == ["failed"]
