"""What a job's code starts on Ray by itself, where jobs hold all CPUs of the cluster."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import ray

import rayml
from rayml import _ray
from rayml._ray.own_tasks import held_together
from rayml.store import open_store
from tests.ray.conftest import end_tracker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ray.conftest import Submit

# Both CPUs of the tests' Ray.
ALL = rayml.Resources(cpus=1, workers=2)

pytestmark = pytest.mark.timeout(300)


def tasks_and_data() -> list[object]:
    """Start a task, an actor whose method starts one, and Ray Data's; return what they told."""
    import ray
    import ray.data
    from ray.util import get_current_placement_group

    @ray.remote
    def is_held() -> bool:
        return get_current_placement_group() is not None

    @ray.remote
    class Actor:
        def ask(self) -> bool:
            return bool(ray.get(is_held.remote()))

    told = ray.get([is_held.remote(), is_held.options(scheduling_strategy="SPREAD").remote()])
    actor: Any = Actor.remote()  # type: ignore[attr-defined]
    told.append(ray.get(actor.ask.remote()))
    ray.kill(actor)
    numbers = ray.data.range(100, override_num_blocks=4)
    total = numbers.map_batches(lambda batch: {"id": batch["id"] * 2}).sum("id")
    return [*told, total, int(ray.cluster_resources()["CPU"])]


class TestFunction:
    def test_its_tasks_and_ray_data_s_are_on_its_workers(self, submit: Submit) -> None:
        run = submit(tasks_and_data, resources=ALL).wait(120)
        assert run.result == [True, True, True, 9900, 2]

    def test_its_libraries_may_use_its_cpus(self, submit: Submit) -> None:
        def threads() -> str | None:
            return os.environ.get("OMP_NUM_THREADS")

        # Its task takes none of them, for which Ray would let them use one.
        resources = rayml.Resources(cpus=0.5, workers=2)
        assert submit(threads, resources=resources).wait(60).result == "1"
        env = {"OMP_NUM_THREADS": "3"}
        assert submit(threads, resources=resources, env=env).wait(60).result == "3"

    def test_its_runs_have_places_and_trackers_of_their_own(
        self, submit: Submit, tmp_path: Path
    ) -> None:
        other = str(tmp_path / "other")

        def job() -> object:
            # More than there is of one of this job's workers.
            resources = rayml.Resources(cpus=1)
            run = rayml.submit(lambda: 7, store=other, resources=resources)
            return run.wait(60).result  # type: ignore[union-attr]

        run = submit(job, resources=rayml.Resources(cpus=0.5, workers=2))
        assert run.wait(100).result == 7
        kept: Any = _ray.find_tracker(open_store(other))
        assert kept is not None
        assert ray.get(kept.__ray_ready__.remote())
        end_tracker(open_store(other))

    def test_the_process_is_as_before_afterwards(self, ray_address: str) -> None:
        def changed() -> list[object]:
            kinds: list[Any] = [ray.remote_function.RemoteFunction, ray.actor.ActorClass]
            worker = vars(type(ray.get_runtime_context().worker))
            names = ("placement_group_id", "should_capture_child_tasks_in_placement_group")
            return [
                *(vars(kind)["_remote"] for kind in kinds),
                *(worker[name] for name in names),
                ray.cluster_resources,
                ray.available_resources,
            ]

        before = changed()
        with held_together(f"{'00' * 18}@another"):
            assert all(new is not old for new, old in zip(changed(), before, strict=True))
            # That is another Ray, which this process is not connected to.
            assert ray.cluster_resources()["CPU"] == 2
            assert ray.get(ray.remote(lambda: 1).options(scheduling_strategy="SPREAD").remote())
        assert changed() == before


class TestScript:
    def run(self, submit: Submit, work: Path, text: str) -> str:
        (work / "script.py").write_text(textwrap.dedent(text))
        return str(submit("script.py", resources=ALL).wait(200).logs())

    def test_its_tasks_and_ray_data_s_are_on_its_workers(self, submit: Submit, work: Path) -> None:
        printed = self.run(
            submit,
            work,
            """
            import ray
            ray.init()
            from ray.util import get_current_placement_group
            is_held = ray.remote(lambda: get_current_placement_group() is not None)
            print(ray.get([is_held.remote() for _ in range(4)]), ray.cluster_resources()["CPU"])
            import ray.data
            numbers = ray.data.range(100, override_num_blocks=4).random_shuffle()
            print("counted", numbers.groupby("id").count().count())
            """,
        )
        assert "[True, True, True, True] 2.0\n" in printed
        assert "counted 100\n" in printed

    def test_a_ray_of_its_own_is_its_own(self, submit: Submit, work: Path) -> None:
        printed = self.run(
            submit,
            work,
            """
            import ray
            ray.init(address="local", num_cpus=3, include_dashboard=False)
            task = ray.remote(lambda: 7).options(scheduling_strategy="SPREAD")
            print(ray.get(task.remote()), ray.util.get_current_placement_group())
            """,
        )
        assert "7 None\n" in printed

    def test_ray_tune_and_ray_train_share_its_workers(self, submit: Submit, work: Path) -> None:
        printed = self.run(
            submit,
            work,
            """
            import ray.train
            from ray import tune
            from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

            def trial(config):
                tune.report({"score": config["x"] ** 2})

            best = tune.Tuner(
                trial,
                param_space={"x": tune.grid_search([1, 3])},
                tune_config=tune.TuneConfig(metric="score", mode="max"),
                run_config=tune.RunConfig(storage_path="/tmp/unused"),
            ).fit().get_best_result()
            print("best", best.metrics["score"])

            def train(workers):
                scaling = ray.train.ScalingConfig(num_workers=workers)
                trainer = DataParallelTrainer(
                    lambda: print("rank", ray.train.get_context().get_world_rank()),
                    scaling_config=scaling,
                    run_config=ray.train.RunConfig(storage_path="/tmp/unused"),
                )
                return trainer.fit()

            train(2)
            print("trained")
            try:
                train(3)
            except Exception as exc:
                print("refused:", str(exc).splitlines()[-1])
            """.replace("/tmp/unused", str(work)),  # noqa: S108 - replaced
        )
        assert "best 9\n" in printed
        assert "trained\n" in printed
        assert "refused: the job's workers have room for 2 of 3 ranks" in printed
