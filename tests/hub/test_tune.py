"""tune: what it finds, how its trials go, and what it refuses."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pytest

import rayml
from tests.ray.conftest import ray_address, store, submit, work  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.hub.calls import Tracked
    from tests.ray.conftest import Submit

SPACE = {"x": {"low": -3.0, "high": 3.0}, "kind": ["flat", "steep"]}


@pytest.fixture
def tune(submit: Submit, work: Path) -> Callable[..., rayml.Run]:  # noqa: F811 - a fixture
    """Tune a function `score` of a file with this text; return the run, which is over."""

    def run(text: str, **params: object) -> rayml.Run:
        (work / "job.py").write_text(textwrap.dedent(text))
        given = {"function": str(work / "job.py:score"), "cpus": 0.5, **params}
        return submit("hub://tune", params=given)

    return run


@pytest.mark.ray
class TestTrials:
    def test_the_best_values_are_found_and_each_trial_is_a_run(
        self, tune: Callable[..., rayml.Run]
    ) -> None:
        run = tune(
            """
            def score(x, kind, offset, *, context):
                context.log_metric("loss", abs(x - 1) * (2 if kind == "steep" else 1) + offset)
            """,
            space=SPACE, metric="loss", direction="minimize", params={"offset": 5}, trials=8,
            start={"x": 0.75, "kind": "flat"},
        ).wait(120)  # fmt: skip

        table = run.artifact("trials").load()
        trials = run.trials()
        assert len(trials) == len(table) == 8
        assert trials[0].params == {"x": 0.75, "kind": "flat", "offset": 5}
        best = min(one.metrics["loss"] for one in trials)
        result: Any = run.result
        assert result["best_value"] == best == table["value"].min()
        assert best <= 5.25
        found = rayml.get_run(result["best_run"], store=run.store)
        assert found.metrics["loss"] == best
        logged = {name: value for name, value in run.params.items() if name.startswith("best/")}
        assert logged == {f"best/{name}": value for name, value in result["best_params"].items()}
        assert len(run.history("loss")) == 8
        assert {"search", "values", "importance"} <= run.artifacts.keys()

    @pytest.mark.thorough
    def test_a_trial_that_fails_is_one_less(self, tune: Callable[..., rayml.Run]) -> None:
        run = tune(
            """
            def score(x):
                if x == 2:
                    raise ValueError("not two")
                return x
            """,
            space={"x": [1, 2, 3]}, trials=6, seed=1, parallel=1,
        ).wait(120)  # fmt: skip

        states = {one.params["x"]: one.state for one in run.trials()}
        assert states[2] == "failed"
        assert run.metrics["best/result"] == 3

    def test_a_function_that_always_fails_ends_the_search(
        self, tune: Callable[..., rayml.Run]
    ) -> None:
        run = tune("def score(x): return x / 0", space={"x": [1, 2, 3]}, trials=50)

        with pytest.raises(rayml.JobFailed, match=r"have all failed.*division by zero"):
            run.wait(120)
        assert len(run.trials()) < 10

    def test_a_metric_that_nobody_logs_is_named(self, tune: Callable[..., rayml.Run]) -> None:
        run = tune("def score(x): return {'accuracy': x}", space={"x": [1, 2]}, metric="accurcy")

        with pytest.raises(rayml.JobFailed, match="did you mean 'accuracy'"):
            run.wait(120)

    @pytest.mark.thorough
    def test_what_falls_behind_is_ended(
        self, tune: Callable[..., rayml.Run], tmp_path: Path
    ) -> None:
        (tmp_path / "seen").mkdir()
        run = tune(
            """
            import time
            from pathlib import Path

            def score(x, folder, *, context):
                place = len(list(Path(folder).iterdir()))
                Path(folder, str(place)).touch()
                context.log_metric("gain", 10 if place < 3 else 0, step=0, sync=True)
                if place == 3:
                    time.sleep(600)
                context.log_metric("gain", 10, step=1)
            """,
            space={"x": [1, 2]}, metric="gain", params={"folder": str(tmp_path / "seen")},
            trials=4, parallel=1, prune=True,
        )  # fmt: skip
        run.wait(200)

        assert [one.state for one in run.trials()] == ["succeeded"] * 3 + ["cancelled"]
        assert list(run.artifact("trials").load()["state"])[-1] == "PRUNED"

    def test_a_later_attempt_goes_on_from_the_trials_that_are_there(
        self,
        work: Path,  # noqa: F811 - a fixture
        tracked: Tracked,
        ray_address: str,  # noqa: F811 - a fixture
    ) -> None:
        (work / "job.py").write_text("def score(x): return -x * x\n")
        function = rayml.hub.get("tune")
        given: dict[str, Any] = {
            "function": str(work / "job.py:score"),
            "space": {"x": {"low": -3.0, "high": 3.0}},
            "cpus": 0.5,
        }
        with rayml.start_run("both attempts") as context:
            first = function(**given, trials=2)
            second = function(**given, trials=5)

        assert (first["trials"], first["reused"]) == (2, 0)
        assert (second["trials"], second["reused"]) == (5, 2)
        assert len(rayml.get_run(context.run_id).trials()) == 5


class TestBadInput:
    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"space": {}}, "no parameter"),
            ({"space": {"x": 3}}, "belongs in params"),
            ({"space": {"x": []}}, "empty list"),
            ({"space": {"x": {"low": 1, "hihg": 3}}}, "did you mean 'high'"),
            ({"space": {"x": {"low": 3, "high": 1}}}, "cannot be drawn from"),
            ({"space": {"x": {"low": 0.0, "high": 1.0, "log": True}}}, "cannot be drawn from"),
            ({"space": {"x": {"low": "a", "high": 1}}}, "are numbers"),
            ({"params": {"x": 1}}, "in space and in params"),
            ({"trials": 0}, "trials=0"),
            ({"parallel": 0}, "parallel=0"),
            ({"budget_s": -1}, "budget_s=-1"),
            ({"alias": "new"}, "register_as"),
            ({"direction": "up"}, "direction"),
            ({"start": {"x": 7}}, "not in the space"),
        ],
    )
    def test_it_is_refused_in_a_sentence(
        self, tracked: Tracked, values: dict[str, Any], said: str
    ) -> None:
        given = {"function": "job.py:score", "space": {"x": [1, 2]}, **values}
        with pytest.raises(rayml.SpecError, match=said):
            tracked("tune", **given)
