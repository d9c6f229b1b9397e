"""From a submission to its result: what can be submitted, what arrives, what is left."""

from __future__ import annotations

import linecache
import logging
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray

import rayml
from tests.git import commit_all
from tests.hub.functions import make_squares
from tests.ray.conftest import run_script
from tests.ray.eventually import eventually

if TYPE_CHECKING:
    from rayml.store import Store
    from tests.ray.conftest import Gate, Submit

pytestmark = pytest.mark.ray


class TestWhatCanBeSubmitted:
    def test_a_closure_runs_with_what_it_closes_over(self, submit: Submit) -> None:
        offset = [40]
        run = submit(lambda number: offset[0] + number, params={"number": 2}).wait()
        assert run.result == 42
        assert run.name == "lambda"
        assert run.state == "succeeded"

    def test_a_closure_of_this_process_runs_again_with_its_objects(self, submit: Submit) -> None:
        offset = [40]
        frame = pd.DataFrame({"a": [1, 2]})
        run = submit(
            lambda pair, table, factor=1: (offset[0] + sum(pair) + len(table)) * factor,
            params={"pair": (1, 2)},
            inputs={"table": frame},
        )
        again = run.rerun(params={"factor": 2})
        assert isinstance(again, rayml.Run)
        assert (run.wait().result, again.wait().result) == (45, 90)
        assert again.spec.rerun_of == run.id
        with pytest.raises(rayml.SpecError, match="not stored; give it as function="):
            rayml.get_run(run.id, store=run.store).rerun()

    def test_a_hub_function_runs_with_what_its_folder_says(
        self, submit: Submit, tmp_path: Path
    ) -> None:
        folder = make_squares(tmp_path / "hub")

        run = submit(folder, params={"count": 4})
        assert run.wait().result == 14
        assert run.spec.resources.cpus == 0.5
        assert run.spec.target.digest == rayml.hub.get(folder).digest
        assert submit(rayml.hub.get(folder), resources=rayml.Resources()).wait().result == 5

        (folder / "_steps.py").write_text("def square(number):\n    return -number\n")
        with pytest.raises(rayml.SpecError, match="any more as it was run; give it as function="):
            run.rerun()
        assert submit(folder).wait().result == -3

    def test_a_class_and_a_bound_method_are_callables_too(self, submit: Submit) -> None:
        class Trainer:
            def __init__(self, base: int = 1) -> None:
                self.base = base

            def train(self, depth: int) -> int:
                return self.base + depth

            def __call__(self, depth: int) -> int:
                return self.base * depth

        assert submit(Trainer(10).train, params={"depth": 1}).wait().result == 11
        assert submit(Trainer(10), params={"depth": 2}).wait().result == 20

    def test_a_function_of_a_main_script_runs(
        self, work: Path, store: Store, ray_address: str
    ) -> None:
        source = """
            import sys, rayml

            FACTOR = 3

            class Box:
                def __init__(self, value): self.value = value

            def train(depth, box):
                return {"depth": depth * FACTOR, "box": box.value, "kind": type(box).__name__}

            def broken():
                raise ValueError("of the main script")

            if __name__ == "__main__":
                run = rayml.submit(train, params={"depth": 2, "box": Box(5)}, store=sys.argv[1])
                print(run.wait().result)
                try:
                    rayml.submit(broken, store=sys.argv[1]).wait()
                except rayml.JobFailed as error:
                    print(error)
        """
        printed, _ = run_script(work, source, store.uri, ray_address=ray_address)
        assert "{'depth': 6, 'box': 5, 'kind': 'Box'}" in printed
        assert 'raise ValueError("of the main script")' in printed

    def test_a_notebook_cell_runs_and_its_traceback_shows_its_lines(self, submit: Submit) -> None:
        name = "/tmp/ipykernel_1/2345.py"  # noqa: S108 - as notebooks name their cells; never opened
        source = dedent("""
            def helper(x):
                return 1 / x  # the cell's own line

            def train(x):
                return helper(x)
        """)
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        cell: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(source, name, "exec"), cell)  # noqa: S102 - that is what a notebook does
        assert submit(cell["train"], params={"x": 2}).wait().result == 0.5
        with pytest.raises(rayml.JobFailed) as caught:
            submit(cell["train"], params={"x": 0}).wait()
        assert "return 1 / x  # the cell's own line" in caught.value.traceback
        assert "return helper(x)" in caught.value.traceback

    def test_a_function_of_a_file_runs_as_the_file_is_now(
        self, submit: Submit, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAYML_DIFF", "on")
        train, beside = work / "train.py", work / "beside.py"
        train.write_text("import beside\ndef train(depth=1): return depth, beside.VALUE\n")
        beside.write_text("VALUE = 'first'\n")
        commit_all(work)
        assert submit("train.py:train").wait().result == (1, "first")
        beside.write_text("VALUE = 'second'\n")
        monkeypatch.setattr("rayml.diff._SHARED", 1e-9)  # as if that was a while ago
        run = submit("train.py:train").wait()
        assert run.result == (1, "second")
        assert "-VALUE = 'first'\n+VALUE = 'second'\n" in run.diff
        train.write_text("import beside\ndef train(depth=1): return -depth, beside.VALUE\n")
        assert submit("train.py:train").wait().result == (-1, "second")

    def test_a_helper_that_is_called_like_a_standard_module_is_not_kept(
        self, submit: Submit, work: Path
    ) -> None:
        # `cProfile` belongs to the standard library, which no worker has imported by itself.
        (work / "train.py").write_text("import cProfile\ndef train(): return cProfile.VALUE\n")
        for value in (1, 2):
            (work / "cProfile.py").write_text(f"VALUE = {value}\n")
            assert submit("train.py:train").wait().result == value

    def test_a_function_of_a_module_runs_as_the_module_is_now(
        self, submit: Submit, work: Path
    ) -> None:
        package = work / "forest"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "leaves.py").write_text("LEAVES = 3\n")
        (package / "fit.py").write_text(
            "from .leaves import LEAVES\ndef train(trees: int): return trees * LEAVES\n"
        )
        assert submit("forest.fit:train", params={"trees": 2}).wait().result == 6
        (package / "leaves.py").write_text("LEAVES = 50\n")
        assert submit("forest.fit:train", params={"trees": 2}).wait().result == 100

    def test_a_script_runs_as_python_runs_it(self, submit: Submit, work: Path) -> None:
        (work / "beside.py").write_text("VALUE = 7\n")
        (work / "plain.py").write_text(
            dedent("""
                import os, sys
                import beside
                print("argv", sys.argv[1:])
                print("file", os.path.basename(sys.argv[0]), os.path.basename(__file__))
                print("name", __name__)
                print("cwd", os.getcwd())
                print("beside", beside.VALUE)
                print("rayml", "rayml" in sys.modules, "ray" in sys.modules)
            """)
        )
        run = submit("plain.py", args=["--depth", "4", "a b", ""]).wait()
        assert run.logs() == (
            "argv ['--depth', '4', 'a b', '']\nfile plain.py plain.py\nname __main__\n"
            f"cwd {work}\nbeside 7\nrayml False False\n"
        )
        assert run.result is None
        assert run.spec.args == ["--depth", "4", "a b", ""]

    def test_a_script_logs_to_its_run(self, submit: Submit, work: Path) -> None:
        (work / "tracked.py").write_text(
            dedent("""
                import rayml
                context = rayml.context()
                context.log_metric("loss", 0.25)
                context.log_param("depth", 4)
                context.log_artifact("notes.txt", b"kept")
                with rayml.start_run() as same:
                    same.log_metric("loss", 0.125)
            """)
        )
        run = submit("tracked.py").wait()
        assert run.metrics == {"loss": 0.125}
        assert run.params == {"depth": 4}
        assert run.artifact("notes.txt").load() == b"kept"
        assert len(rayml.runs(store=run._store)) == 1  # noqa: SLF001 - the test's store

    def test_a_script_that_starts_ray_joins_the_ray_that_it_runs_on(
        self, submit: Submit, work: Path, ray_address: str
    ) -> None:
        (work / "rays.py").write_text(
            dedent("""
                import ray
                ray.init(log_to_driver=False)
                print(ray.get_runtime_context().gcs_address)
                print(ray.get(ray.remote(lambda: 6 * 7).remote()))
            """)
        )
        printed = submit("rays.py").wait().logs()
        assert isinstance(printed, str)
        assert ray_address in printed
        assert "42\n" in printed

    def test_a_script_that_leaves_workers_idle_is_told_so(
        self, submit: Submit, work: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (work / "one.py").write_text("print(1)")
        submit("one.py", resources=rayml.Resources(cpus=0.5, workers=2)).wait()
        assert "runs on the first of its 2 workers" in capsys.readouterr().err
        submit("one.py").wait()
        assert "runs on the first" not in capsys.readouterr().err

    def test_a_generator_of_metrics_may_be_decorated(self, submit: Submit, work: Path) -> None:
        (work / "decorated.py").write_text(
            dedent("""
                import functools

                def doubled(function):
                    @functools.wraps(function)
                    def wrapper(*args, **kwargs):
                        return 2 * function(*args, **kwargs)
                    return wrapper

                @doubled
                def train(depth: int, context) -> int:
                    context.log_metric("depth", depth)
                    return depth
            """)
        )
        run = submit("decorated.py:train", params={"depth": 4}).wait()
        assert (run.result, run.metrics) == (8, {"depth": 4, "result": 8})


def _shape(value: object) -> tuple[str, str]:
    return f"{type(value).__module__}.{type(value).__qualname__}", repr(value)


class TestWhatArrives:
    def test_parameters_come_through_as_they_are(self, submit: Submit) -> None:
        frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=[5, 6])
        params: dict[str, object] = {
            "none": None,
            "zero": 0,
            "no": False,
            "empty": "",
            "nan": math.nan,
            "infinite": -math.inf,
            "big": 2**80,
            "single": np.float32(0.1),
            "whole": np.int64(3),
            "yes": np.bool_(True),
            "array": np.arange(3, dtype="int8"),
            "frame": frame,
            "table": pa.table({"a": [1]}),
            "nested": {"a": {"b": [1, (2, 3), {4}, None]}, 5: b"\xff"},
            "text": "żółw 🐢\n",
            "path": Path("a/b"),
        }

        def job(**values: object) -> dict[str, tuple[str, str]]:
            return {
                name: (f"{type(v).__module__}.{type(v).__qualname__}", repr(v))
                for name, v in values.items()
            }

        run = submit(job, params=params).wait()
        assert run.result == {name: _shape(value) for name, value in params.items()}

    def test_what_a_run_was_given_is_recorded(self, submit: Submit) -> None:
        params = {
            "none": None,
            "no": False,
            "nan": math.nan,
            "whole": np.int64(3),
            "deep": {"a": 1},
        }
        run = submit(lambda **_: None, params=params).wait()
        recorded = {"none": None, "no": False, "nan": "nan", "whole": 3, "deep": {"a": 1}}
        assert run.params == recorded
        assert rayml.get_run(run.id, store=run.spec.store).params == recorded

    def test_inputs_take_the_form_that_annotations_ask_for(
        self, submit: Submit, work: Path
    ) -> None:
        frame = pd.DataFrame({"a": [1, 2, 3]})
        frame.to_parquet(work / "a.parquet")
        frame.to_csv(work / "a.csv", index=False)
        (work / "train.py").write_text(
            dedent("""
                from pathlib import Path
                import pandas as pd, pyarrow, ray.data

                def train(frame: pd.DataFrame, table: pyarrow.Table, path: Path,
                          data: ray.data.Dataset, plain, memory, context):
                    assert plain is context.inputs["plain"]
                    return {
                        "frame": (type(frame).__name__, frame.a.tolist()),
                        "table": (type(table).__name__, table["a"].to_pylist()),
                        "path": (isinstance(path, Path), path.name),
                        "data": (type(data).__name__, sum(row["a"] for row in data.take_all())),
                        "plain": (type(plain).__name__, plain.uri, plain.to_pandas().a.tolist()),
                        "memory": (type(memory).__name__, memory.a.tolist()),
                    }
            """)
        )
        inputs = {
            "frame": "a.csv",
            "table": work / "a.parquet",
            "path": "a.csv",
            "data": "a.parquet",
            "plain": "a.csv",
            "memory": frame,
        }
        run = submit("train.py:train", inputs=inputs).wait(120)
        assert run.result == {
            "frame": ("DataFrame", [1, 2, 3]),
            "table": ("Table", [1, 2, 3]),
            "path": (True, "a.csv"),
            "data": ("MaterializedDataset", 6),
            "plain": ("Input", str(work / "a.csv"), [1, 2, 3]),
            "memory": ("DataFrame", [1, 2, 3]),
        }
        assert run.inputs["memory"].uri == "memory://pandas.DataFrame"
        assert run.inputs["frame"].uri == str(work / "a.csv")

    def test_an_artifact_of_a_run_is_the_input_of_another(self, submit: Submit) -> None:
        def prepare(context: rayml.Context) -> None:
            context.log_dataset("clean", pd.DataFrame({"a": [1, 2]}))

        def total(data: pd.DataFrame) -> int:
            return int(data.a.sum())

        made = submit(prepare).wait().artifact("clean")
        for given in (made, made.uri):
            run = submit(total, inputs={"data": given}).wait()
            assert run.result == 3
            assert run.inputs["data"].uri == made.uri
        again = submit(total, inputs={"data": made}).wait()
        assert again.inputs["data"].digest == made.digest

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"params": {"dept": 1}}, r"no parameter 'dept'; did you mean 'depth'"),
            ({}, r"needs a value for 'depth'"),
            ({"params": {"depth": "deep"}}, r"'depth' is 'deep', of type str, .* wants int"),
            ({"params": {"depth": 1}, "inputs": {"depth": "."}}, r"both as a parameter and as an"),
            ({"params": {"depth": 1}, "inputs": {"data": "."}}, r"no parameter 'data'"),
        ],
    )
    def test_a_wrong_call_is_refused_before_anything_starts(
        self, submit: Submit, work: Path, store: Store, options: dict[str, Any], message: str
    ) -> None:
        def train(depth: int, rate: float = 0.1) -> None:
            raise AssertionError("never runs")

        (work / "train.py").write_text("raise SystemExit\ndef train(depth: int, rate=0.1): ...\n")
        for function in (train, "train.py:train", "train:train"):
            with pytest.raises(rayml.SpecError, match=message):
                submit(function, **options)
        assert store.list("shards/") == []

    def test_a_dry_run_shows_the_job_and_starts_nothing(self, store: Store) -> None:
        spec = rayml.submit(
            lambda depth: depth, params={"depth": 3}, secrets={"TOKEN": "hidden-value"},
            store=store, dry_run=True,
        )  # fmt: skip
        assert '"depth": 3' in str(spec)
        assert "TOKEN" in str(spec)
        assert "hidden-value" not in str(spec)
        assert store.list("shards/") == []


class Custom:
    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Custom) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]


class TestWhatComesBack:
    def test_results_of_every_kind_come_back_as_they_are(self, submit: Submit) -> None:
        values: list[object] = [
            None, 0, False, "", 1.5, math.nan, -math.inf, 2**80, "żółw", [1, [2]], {"a": {"b": 1}},
            (1, (2, 3)), {1: 2}, {4}, b"\x00\xff", np.float64(0.5), np.int8(3), np.bool_(False),
            np.arange(6).reshape(2, 3), Path("a/b"), complex(1, 2), pd.Timestamp("2013-01-01"),
        ]  # fmt: skip
        for value in values:
            run = submit(lambda value: value, params={"value": value}).wait()
            assert _shape(run.result) == _shape(value)

    def test_a_frame_comes_back_equal(self, submit: Submit) -> None:
        frames = [
            pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=pd.Index([5, 6], name="i")),
            pd.DataFrame({"c": pd.Categorical(["x", "y"]), "t": pd.to_datetime(["2013", "2014"])}),
            pd.DataFrame({"mixed": [1, "x"]}),
            pd.DataFrame(),
            pd.DataFrame({"wide": np.random.default_rng(0).random(50_000)}),
        ]
        for frame in frames:
            result = submit(lambda frame: frame, params={"frame": frame}).wait().result
            assert isinstance(result, pd.DataFrame)
            pd.testing.assert_frame_equal(result, frame)

    def test_an_object_of_the_users_own_class_comes_back(self, submit: Submit) -> None:
        assert submit(lambda: Custom(3)).wait().result == Custom(3)

    def test_returned_numbers_are_metrics_too(self, submit: Submit) -> None:
        returned = {"auc": 0.5, "test": {"loss": np.float32(0.25), "n": 3}, "note": "ok", "l": [1]}
        run = submit(lambda: returned).wait()
        assert run.metrics == {"auc": 0.5, "test/loss": 0.25, "test/n": 3}
        assert submit(lambda: 7).wait().metrics == {"result": 7}
        assert submit(lambda: np.float64(0.5)).wait().metrics == {"result": 0.5}
        assert submit(lambda: None).wait().metrics == {}

    def test_a_pickled_result_is_loaded_elsewhere_only_when_trusted(self, submit: Submit) -> None:
        run = submit(lambda: {1, 2}).wait()
        again = rayml.get_run(run.id, store=run.spec.store)
        with pytest.raises(rayml.SpecError, match="trusted=True"):
            _ = again.result
        assert again.load_result(trusted=True) == {1, 2}


class TestTheContext:
    def test_it_is_there_in_threads_children_and_tasks(self, submit: Submit) -> None:
        def job(context: rayml.Context) -> None:
            import multiprocessing

            import rayml

            def log_here(name: str) -> None:
                rayml.context().log_metric(name, 1)

            def log_there(given: rayml.Context) -> None:
                given.log_metric("task", 1)

            log_here("main")
            thread = threading.Thread(target=log_here, args=("thread",))
            thread.start()
            thread.join()
            child = multiprocessing.get_context("fork").Process(target=log_here, args=("fork",))
            child.start()
            child.join()
            code = "import rayml; rayml.context().log_metric('child', 1)"
            subprocess.run([sys.executable, "-c", code], check=True)
            ray.get(ray.remote(num_cpus=1)(log_there).remote(context))

        run = submit(job).wait()
        assert run.metrics == dict.fromkeys(["main", "thread", "fork", "child", "task"], 1)

    def test_a_spawned_pool_logs_to_the_run(self, submit: Submit, work: Path) -> None:
        (work / "train.py").write_text(
            dedent("""
                import multiprocessing, rayml

                def log(i):
                    rayml.context().log_metric(f"m{i}", i)

                def train():
                    with multiprocessing.get_context("spawn").Pool(2) as pool:
                        pool.map(log, range(4))
                        pool.close()
                        pool.join()
            """)
        )
        assert submit("train.py:train").wait().metrics == {f"m{i}": i for i in range(4)}

    def test_it_logs_all_kinds(self, submit: Submit) -> None:
        def job(context: rayml.Context) -> None:
            for step in range(3):
                context.log_metrics({"loss": 1 / (step + 1), "acc": step}, step=step * 10)
            context.log_params({"depth": 4, "odd": {1, 2}})
            context.log_label("stage", "dev")
            context.log_table("rows", [{"a": 1}])
            context.log_artifact("notes/readme.txt", b"text")

        run = submit(job, labels={"team": "x"}, experiment="trees", name="first").wait()
        assert run.labels == {"team": "x", "stage": "dev"}
        assert (run.experiment, run.name) == ("trees", "first")
        assert run.params == {"depth": 4, "odd": "{1, 2}"}
        assert run.artifact("rows").load().a.tolist() == [1]
        assert set(run.artifacts) == {"rows", "notes/readme.txt"}
        history = run.history("loss")
        assert history.step.tolist() == [0, 10, 20]
        assert history.value.tolist() == [1, 1 / 2, 1 / 3]
        assert str(history.time.dtype).startswith("datetime64[ns, UTC") or "UTC" in str(
            history.time.dtype
        )
        with pytest.raises(rayml.NotFound, match="did you mean 'loss'"):
            run.history("los")

    def test_code_outside_of_a_run_has_none(self) -> None:
        with pytest.raises(rayml.SpecError, match="not part of a run"):
            rayml.context()

    def test_what_a_run_leaves_in_its_process_does_not_reach_the_next(
        self, submit: Submit, work: Path
    ) -> None:
        def job() -> int:
            os.environ["LEFT_BEHIND"] = "1"
            os.chdir("/")
            sys.path.insert(0, "/left/behind")
            sys.argv = ["left"]
            return os.getpid()

        def look() -> tuple[object, ...]:
            left = "/left/behind" in sys.path, "LEFT_BEHIND" in os.environ
            return (*left, str(Path.cwd()), "left" in sys.argv, os.getpid())

        first = submit(job).wait().result
        assert submit(look).wait().result == (False, False, str(work), False, first)

    def test_a_seed_that_a_run_sets_does_not_reach_the_next(self, submit: Submit) -> None:
        def seed() -> None:
            import random

            random.seed(1)
            np.random.seed(1)  # noqa: NPY002 - many still do

        def draw() -> tuple[float, float]:
            import random

            return random.random(), float(np.random.random())  # noqa: NPY002

        drawn = []
        for _ in range(2):
            submit(seed).wait()
            drawn.append(submit(draw).wait().result)
        assert drawn[0] != drawn[1]

    def test_how_a_run_logs_does_not_reach_the_next(self, submit: Submit) -> None:
        def job(level: int) -> None:
            logging.basicConfig(level=level, format="%(levelname)s %(message)s")
            logging.getLogger().info("told")
            logging.getLogger().error("failed")

        for level, expected in ((logging.ERROR, ""), (logging.INFO, "INFO told\n")):
            run = submit(job, params={"level": level}).wait()
            assert run.logs() == f"{expected}ERROR failed\n"


class TestTheRun:
    def test_its_states_come_in_order_and_it_says_what_it_waits_for(
        self, submit: Submit, gate: Gate
    ) -> None:
        path = str(gate)
        first = submit(lambda: Path(path).read_bytes(), resources=rayml.Resources(cpus=2))
        eventually(lambda: first.state == "running")
        run = submit(lambda: Path(path).read_bytes(), resources=rayml.Resources(cpus=2))
        assert run.state in ("submitted", "waiting")
        not_yet = run.started_at
        assert not_yet is None
        eventually(lambda: run.state == "waiting" and "CPU" in run.reason)
        assert run.reason == "the cluster is busy: 0 CPUs free of 2 CPUs needed"
        assert run.reason in repr(run)
        gate.open()
        first.wait()
        with gate.held():
            eventually(lambda: run.state == "running")
            assert run.reason == ""
            assert run.started_at is not None
            with pytest.raises(rayml.SpecError, match="is running and has no result yet"):
                _ = run.result
            with pytest.raises(TimeoutError, match=r"still running after 0\.1 s; it goes on"):
                run.wait(0.1)
        assert run.wait().state == "succeeded"
        assert run.started_at is not None
        assert run.ended_at is not None
        assert run.submitted_at <= run.started_at <= run.ended_at
        assert (run.error, run.attempt) == (None, 1)

    def test_it_shows_itself(self, submit: Submit) -> None:
        run = submit(lambda auc: {"auc": auc}, params={"auc": 0.5}, name="<trees> & co").wait()
        assert repr(run) == f"<rayml.Run {run.id} '<trees> & co' succeeded auc=0.5>"
        shown = run._repr_html_()
        assert "&lt;trees&gt; &amp; co" in shown
        assert "auc=0.5" in shown

    def test_it_is_found_again_by_id_and_by_time(self, submit: Submit, store: Store) -> None:
        ids = [submit(lambda: None, experiment=name).wait().id for name in ("a", "b", "a")]
        assert [run.id for run in rayml.runs(store=store)] == sorted(ids, reverse=True) or {
            run.id for run in rayml.runs(store=store)
        } == set(ids)
        assert {run.id for run in rayml.runs("a", store=store)} == {ids[0], ids[2]}
        assert len(rayml.runs(store=store, limit=2)) == 2
        assert rayml.get_run(ids[1], store=store).experiment == "b"
        assert rayml.get_run("latest", store=store).id == ids[2]
        assert set(rayml.runs(store=store).to_pandas()["id"]) == set(ids)
        with pytest.raises(rayml.NotFound):
            rayml.get_run("20130101", store=store)

    def test_many_at_once_all_end_well(self, submit: Submit, store: Store) -> None:
        def job(i: int, context: rayml.Context) -> int:
            context.log_metric("i", i)
            return i

        runs = [submit(job, params={"i": i}) for i in range(20)]
        assert [run.wait().result for run in runs] == list(range(20))
        assert [run.metrics["i"] for run in runs] == list(range(20))
        assert len(rayml.runs(store=store)) == 20


class TestItsLogs:
    def test_all_that_is_printed_is_there(self, submit: Submit) -> None:
        def job() -> None:
            print("żółw 🐢")
            print("to stderr", file=sys.stderr)
            os.write(1, b"from C\n")
            os.write(2, b"not UTF-8: \xff\n")
            subprocess.run(["/bin/sh", "-c", "echo from a child; echo and this >&2"], check=True)
            sys.stdout.write("no end")

        printed = submit(job).wait().logs()
        assert printed == (
            "żółw 🐢\nto stderr\nfrom C\nnot UTF-8: \ufffd\nfrom a child\nand this\nno end"
        )

    def test_five_megabytes_are_complete(self, submit: Submit) -> None:
        def job() -> None:
            for i in range(50_000):
                print(f"{i:06d} {'ż' * 46}")

        run = submit(job).wait()
        expected = "".join(f"{i:06d} {'ż' * 46}\n" for i in range(50_000))
        assert run.logs() == expected
        assert "".join(run.logs(follow=True)) == expected

    def test_following_yields_lines_while_the_job_runs(self, submit: Submit, gate: Gate) -> None:
        path = str(gate)

        def job() -> None:
            print("before")
            sys.stdout.write("half a ")
            sys.stdout.flush()
            Path(path).read_bytes()
            print("line\nafter")

        run = submit(job)
        lines = iter(run.logs(follow=True))
        with gate.held():
            assert next(lines) == "before\n"
            assert run.state == "running"
        assert list(lines) == ["half a line\n", "after\n"]
        run.wait()

    def test_a_line_that_ends_oddly_is_one_line(self, submit: Submit) -> None:
        def job() -> None:
            sys.stdout.write("a progress bar\r50 %\r100 %\na form feed\x0cand\u2028more\n")

        run = submit(job).wait()
        assert "".join(run.logs(follow=True)) == run.logs()

    def test_they_are_gone_from_the_machine_when_they_are_in_the_store(
        self, submit: Submit, store: Store
    ) -> None:
        from rayml.logs import capture_path

        run = submit(lambda: print("kept")).wait()
        assert list(capture_path(run.id, 1).parent.glob(f"{run.id}*")) == []
        assert rayml.get_run(run.id, store=store).logs() == "kept\n"

    def test_a_job_that_closes_its_output_still_ends_well(self, submit: Submit) -> None:
        def job() -> int:
            print("before")
            sys.stdout.close()
            sys.stderr = None
            return 3

        run = submit(job).wait()
        assert (run.result, run.logs()) == (3, "before\n")


def test_everything_is_read_back_without_ray(submit: Submit, store: Store, work: Path) -> None:
    def job(context: rayml.Context) -> dict[str, float]:
        for step in range(5):
            context.log_metric("loss", 1 / (step + 1))
        context.log_artifact("notes.txt", b"kept")
        context.log_dataset("data", pd.DataFrame({"a": [1, 2]}))
        print("hello")
        return {"auc": 0.75}

    run = submit(job, name="told").wait()
    source = """
        import sys, rayml
        [found] = rayml.runs(store=sys.argv[1])
        print(found.id, found.state, found.name, found.metrics, found.result)
        print(found.history("loss").value.tolist())
        print(found.artifact("notes.txt").load(), found.artifact("data").load().a.tolist())
        print(rayml.artifact(found.artifact("data").uri, store=sys.argv[1]).meta["rows"])
        print(found.logs(), end="")
        print(found.wait().id == found.id)
        assert "ray" not in sys.modules, "reading loads Ray"
    """
    printed, _ = run_script(work, source, store.uri)
    assert printed.splitlines() == [
        f"{run.id} succeeded told {{'loss': 0.2, 'auc': 0.75}} {{'auc': 0.75}}",
        "[1.0, 0.5, 0.3333333333333333, 0.25, 0.2]",
        "b'kept' [1, 2]",
        "2",
        "hello",
        "True",
    ]
