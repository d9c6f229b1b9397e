"""What a job gets: CPUs, memory, workers, its own environment and packages, its folder."""

from __future__ import annotations

import os
import time
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray.util.placement_group import placement_group_table

import rayml
from tests.ray.eventually import eventually

if TYPE_CHECKING:
    from rayml.store import Store
    from tests.ray.conftest import Gate, Submit

pytestmark = pytest.mark.ray

BOTH = rayml.Resources(cpus=2)
PACKAGE = "emoji==2.14.0"  # small, pure, and not part of this environment


def reserved() -> list[dict[str, Any]]:
    """Return the placement groups that hold resources."""
    groups = placement_group_table().values()
    return [group for group in groups if group["state"] != "REMOVED"]


class TestResources:
    def test_a_job_gets_what_it_asks_for(self, submit: Submit) -> None:
        asked = rayml.Resources(cpus=1.5, memory="100Mi")
        run = submit(lambda: ray.get_runtime_context().get_assigned_resources(), resources=asked)
        assert run.wait().result == {"CPU": 1.5, "memory": 100 * 2**20}
        assert run.spec.resources == asked
        nothing = submit(
            lambda: ray.get_runtime_context().get_assigned_resources(),
            resources=rayml.Resources(cpus=0),
        )
        assert nothing.wait().result == {}

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ({"gpus": 10_000}, "asks for 10000 GPUs a worker and the largest node has 0 GPUs"),
            ({"cpus": 100}, "asks for 100 CPUs a worker and the largest node has 2 CPUs"),
            ({"memory": "100Ti"}, r"asks for 102400\.0 GiB of memory a worker and the largest"),
            ({"workers": 3}, r"asks for 3 workers of 1 CPU and the cluster can hold 2; ask for"),
            ({"gpu_type": "H100"}, "no GPU of type H100"),
        ],
    )
    def test_more_than_there_can_ever_be_is_refused_at_once(
        self, submit: Submit, store: Store, asked: dict[str, Any], message: str
    ) -> None:
        started = time.monotonic()
        with pytest.raises(rayml.CapacityError, match=message):
            submit(lambda: None, resources=rayml.Resources(**asked))
        assert time.monotonic() - started < 2
        assert store.list("shards/") == []

    @pytest.mark.parametrize(
        "asked", [{"memory": "banana"}, {"cpus": -1}, {"workers": 0}, {"gpus": "many"}]
    )
    def test_what_is_no_amount_is_refused(self, asked: dict[str, Any]) -> None:
        with pytest.raises(rayml.SpecError, match=f"{next(iter(asked))}="):
            rayml.Resources(**asked)

    def test_waiting_for_a_place_has_an_end(self, submit: Submit, gate: Gate) -> None:
        path = str(gate)
        first = submit(lambda: Path(path).read_bytes(), resources=BOTH)
        with gate.held():
            run = submit(lambda: 1, start_timeout_s=1)
            with pytest.raises(rayml.JobTimeout, match=r"start_timeout_s=1 \(the cluster is busy"):
                run.wait(60)
            assert (run.state, run.started_at) == ("failed", None)
        first.wait()
        assert submit(lambda: 1, start_timeout_s=60).wait().result == 1

    def test_several_workers_are_reserved_together_and_released(
        self, submit: Submit, gate: Gate
    ) -> None:
        def job() -> tuple[int, float, list[dict[str, float]]]:
            group = ray.util.get_current_placement_group()
            free, over = 0.0, time.monotonic() + 30
            while free < 2 and time.monotonic() < over:  # Ray tells of a group a moment later
                free = ray.available_resources().get("CPU", 0)

            def where() -> str:
                return ray.get_runtime_context().get_placement_group_id() or ""

            inside = ray.get(ray.remote(num_cpus=1)(where).remote())
            assert group is not None
            assert inside == group.id.hex()
            return len(group.bundle_specs), free, group.bundle_specs

        path = str(gate)
        first = submit(lambda: Path(path).read_bytes())
        with gate.held():
            run = submit(job, resources=rayml.Resources(workers=2))
            eventually(lambda: run.state == "waiting")
            assert "1 CPU free of 2 CPUs needed" in run.reason
        first.wait()
        assert run.wait(60).result == (2, 2, [{"CPU": 1}, {"CPU": 1}])
        eventually(lambda: reserved() == [])

    def test_a_cancelled_reservation_is_released(self, submit: Submit, gate: Gate) -> None:
        path = str(gate)
        first = submit(lambda: Path(path).read_bytes())
        with gate.held():
            run = submit(lambda: 1, resources=rayml.Resources(workers=2))
            eventually(lambda: run.state == "waiting")
            run.cancel()
            with pytest.raises(rayml.JobCancelled):
                run.wait(60)
        first.wait()
        eventually(lambda: reserved() == [])


class TestEnvironment:
    def test_it_is_set_for_the_job_alone(self, submit: Submit, work: Path) -> None:
        (work / "train.py").write_text(
            dedent("""
                import os
                AT_IMPORT = os.environ.get("OMP_NUM_THREADS")
                def train():
                    at_start = open("/proc/self/environ", "rb").read()
                    return AT_IMPORT, os.environ.get("A_WORD"), b"A_WORD=two words" in at_start
            """)
        )
        env = {"A_WORD": "two words", "OMP_NUM_THREADS": "7"}
        run = submit("train.py:train", env=env).wait(60)
        assert run.result == ("7", "two words", True)
        assert run.spec.env == env
        after = submit("train.py:train").wait(60).result
        assert after in ((None, None, False), ("1", None, False))

    def test_a_script_has_it_too(self, submit: Submit, work: Path) -> None:
        (work / "show.py").write_text("import os; print(os.environ['A_WORD'])\n")
        assert submit("show.py", env={"A_WORD": "x"}).wait(60).logs() == "x\n"

    def test_a_job_runs_in_its_folder(self, submit: Submit, tmp_path: Path) -> None:
        folder = tmp_path / "a folder"
        (folder / "data").mkdir(parents=True)
        (folder / "data/words.txt").write_text("here")
        (folder / "train.py").write_text(
            "from pathlib import Path\n"
            "def train(file: Path): return Path.cwd(), file.read_text(), Path(__file__).name\n"
        )
        run = submit(
            "train.py:train", working_dir=folder, inputs={"file": "data/words.txt"}
        ).wait()
        assert run.result == (folder, "here", "train.py")
        assert Path.cwd() != folder


class TestRequirements:
    def test_packages_are_there_for_their_job_alone(self, submit: Submit, work: Path) -> None:
        def version() -> str:
            import emoji  # type: ignore[import-not-found]

            return str(emoji.__version__)

        run = submit(version, requirements=[PACKAGE]).wait(120)
        assert run.result == "2.14.0"
        assert run.spec.requirements == [PACKAGE]
        with pytest.raises(rayml.JobFailed, match="No module named 'emoji'"):
            submit(version).wait(60)
        (work / "requirements.txt").write_text(f"# what we need\n\n{PACKAGE}  # and why\n")
        (work / "show.py").write_text("import emoji; print(emoji.__version__)\n")
        listed = submit("show.py", requirements=work / "requirements.txt").wait(120)
        assert listed.logs() == "2.14.0\n"
        assert listed.spec.requirements == [PACKAGE]

    def test_a_rerun_has_the_packages_that_the_run_had(self, submit: Submit, work: Path) -> None:
        (work / "show.py").write_text("import emoji, ray; print(emoji.__version__, ray.__file__)")
        run = submit("show.py", requirements=["emoji<2.14.1"]).wait(120)
        again = run.rerun(packages=True)
        assert isinstance(again, rayml.Run)
        assert again.wait(120).logs() == f"2.14.0 {ray.__file__}\n"
        assert PACKAGE in again.spec.requirements
        assert len(again.spec.requirements) > 50

    def test_what_cannot_be_installed_is_told_in_words_of_uv(self, submit: Submit) -> None:
        started = os.getpid()
        run = submit(lambda: started, requirements=["emoji==999.0"])
        with pytest.raises(rayml.JobFailed, match="requirements cannot be installed") as caught:
            run.wait(120)
        assert "emoji==999.0" in caught.value.message
        assert "no version of emoji==999.0" in caught.value.message
        assert caught.value.kind == "requirements"
        assert run.started_at is None
