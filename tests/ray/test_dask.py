"""The Dask engine: plain Dask code on the job's workers, and Dask's own scheduler there."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import rayml
from tests.ray.eventually import eventually
from tests.ray.test_torch import nothing_left  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from tests.ray.conftest import Gate, Submit

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PAIR = rayml.Dask(workers=2)
CLIENT = rayml.Dask(workers=2, client=True)
MOSTLY_TASKS = [PAIR, pytest.param(CLIENT, marks=pytest.mark.thorough)]
HALF = rayml.Resources(cpus=0.5)
EXAMPLES = Path(__file__).parents[2] / "examples"


def compute_all() -> dict[str, Any]:
    """Use each of Dask's collections, with what needs rows to change places."""
    import dask
    import dask.array as da
    import dask.bag as db
    import dask.dataframe as dd
    import numpy as np
    import pandas as pd

    x = da.ones((400, 400), chunks=(100, 100))
    rows = pd.DataFrame({"k": np.arange(4000) % 100, "g": np.arange(4000) % 7, "v": 1.0})
    frame = dd.from_pandas(rows, npartitions=4).assign(w=lambda part: part.v * 2)
    indexed = frame.set_index("k")
    few = frame[["k", "v"]].drop_duplicates("k").rename(columns={"v": "other"})
    return {
        "array": float((x + x.T).sum().compute()),
        "groupby": frame.groupby("g").w.sum().compute().sort_index().tolist(),
        "sorted": bool(indexed.compute().index.is_monotonic_increasing),
        "merged": len(frame.merge(few, on="k")),
        "bag": db.from_sequence(range(100), npartitions=4).map(lambda n: n * 2).sum().compute(),
        "delayed": list(dask.compute(*[dask.delayed(pow)(n, 2) for n in range(5)])),
    }


EXPECTED = {
    "array": 320_000.0,
    "groupby": [1144.0, 1144.0, 1144.0] + [1142.0] * 4,
    "sorted": True,
    "merged": 4000,
    "bag": 9900,
    "delayed": [0, 1, 4, 9, 16],
}


@pytest.mark.parametrize("engine", MOSTLY_TASKS, ids=["tasks", "client"])
def test_plain_dask_code_runs_on_the_job_s_workers(submit: Submit, engine: rayml.Dask) -> None:
    def compute(context: rayml.Context) -> dict[str, Any]:
        import dask

        pids = dask.compute(*[dask.delayed(_pid)(n) for n in range(20)])
        context.log_metric("workers", len(set(pids)))
        return compute_all() | {"is_here": os.getpid() in pids, "world": context.world_size}

    run = submit(compute, engine=engine, resources=HALF).wait()
    assert run.result == EXPECTED | {"is_here": False, "world": 1}
    assert run.metrics["workers"] == 2


def _pid(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


@pytest.mark.parametrize("engine", MOSTLY_TASKS, ids=["tasks", "client"])
def test_tasks_find_the_job_s_variables_and_secrets(submit: Submit, engine: rayml.Dask) -> None:
    def job() -> list[tuple[int, int]]:
        import os

        import dask

        def lengths(_: int) -> tuple[int, int]:
            return len(os.environ["PLAIN"]), len(os.environ["TOKEN"])

        return sorted(set(dask.compute(*[dask.delayed(lengths)(n) for n in range(4)])))

    given: Any = {"env": {"PLAIN": "abc"}, "secrets": {"TOKEN": "not-for-others"}}
    run = submit(job, engine=engine, resources=HALF, **given).wait()
    assert run.result == [(3, 14)]


@pytest.mark.parametrize("engine", MOSTLY_TASKS, ids=["tasks", "client"])
def test_all_workers_have_the_packages_of_their_job(
    submit: Submit, work: Path, engine: rayml.Dask
) -> None:
    def job() -> list[str]:
        import dask

        def version(_: int) -> str:
            import emoji  # type: ignore[import-not-found]

            (work / f"worker-{os.getpid()}").touch()
            eventually(lambda: len(list(work.glob("worker-*"))) == 2, 60)
            return str(emoji.__version__)

        return list(dask.compute(*[dask.delayed(version)(n) for n in range(2)]))

    needed = ["emoji==2.14.0"]
    run = submit(job, engine=engine, resources=HALF, requirements=needed).wait(200)
    assert run.result == ["2.14.0", "2.14.0"]


def test_what_tasks_print_is_in_the_log(submit: Submit) -> None:
    def job() -> None:
        import dask

        def step(number: int, *_: int) -> int:
            print("step", number)
            if number == 2:
                os.system("echo from a child >&2")  # noqa: S605
                raise KeyError(os.environ["TOKEN"])
            return number

        first, last = dask.delayed(step)(1), dask.delayed(step)
        try:
            last(2, first).compute()
        except KeyError:
            print("done")

    run = submit(job, engine=PAIR, resources=HALF, secrets={"TOKEN": "not-for-others"}).wait()
    assert run.logs() == "step 1\nstep 2\nfrom a child\ndone\n"


def test_what_is_persisted_stays_on_the_workers(submit: Submit) -> None:
    def persist() -> list[Any]:
        import dask.array as da
        import dask.dataframe as dd
        import pandas as pd

        frame = dd.from_pandas(pd.DataFrame({"v": range(100)}), npartitions=2)
        held = frame.assign(w=frame.v * 2).persist()
        kinds = {type(getattr(v, "value", v)).__name__ for v in dict(held.dask).values()}
        x = da.ones((100, 100), chunks=50).persist()
        # Dask fuses what was persisted with what comes after it.
        return [*(kinds - {"Alias"}), held.w.sum().compute(), float((x[:50] + 1).sum().compute())]

    assert submit(persist, engine=PAIR, resources=HALF).wait().result == ["ObjectRef", 9900, 10000]


def test_an_error_amid_many_tasks_is_dask_s_own_and_ends_the_rest(submit: Submit) -> None:
    def compute() -> None:
        import dask

        def step(number: int) -> int:
            if number == 9_000:  # Dask begins with the last
                raise KeyError("row 9000")
            time.sleep(0.001)
            return number

        steps = [dask.delayed(step)(n, dask_key_name=f"step-{n:05}") for n in range(10_000)]
        dask.delayed(sum)(steps).compute()

    run = submit(compute, engine=PAIR, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="KeyError: 'row 9000'") as caught:
        run.wait()
    assert 'raise KeyError("row 9000")' in caught.value.traceback
    assert "_ray/dask" not in caught.value.traceback


def test_a_client_is_found_and_futures_work(submit: Submit) -> None:
    def compute() -> list[Any]:
        from distributed import Client, get_client

        with Client() as client:
            futures = client.map(lambda n: n + 1, range(10))
            is_same = client.scheduler.address == get_client().scheduler.address
            return [sum(client.gather(futures)), len(client.scheduler_info()["workers"]), is_same]

    run = submit(compute, engine=CLIENT, resources=HALF).wait()
    assert run.result == [55, 2, True]
    assert "distributed" not in str(run.logs())
    eventually(lambda: not _folders())


def _folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("*dask-*"))


@pytest.mark.thorough
def test_xgboost_trains_on_the_workers_through_a_client(submit: Submit) -> None:
    def fit() -> list[float]:
        import dask.array as da
        import numpy as np
        from distributed import Client
        from xgboost import dask as boost

        rows = np.random.default_rng(0).normal(size=(400, 3))
        x = da.from_array(rows, chunks=(100, 3))
        y = da.from_array(rows @ [1.0, 2.0, 3.0], chunks=100)
        with Client() as client:
            data = boost.DaskDMatrix(client, x, y)
            trained = boost.train(client, {"max_depth": 3}, data, 5, evals=[(data, "all")])
            guess = boost.predict(client, trained["booster"], x).compute()
        errors = trained["history"]["all"]["rmse"]
        return [errors[0], errors[-1], float(np.sqrt(np.mean((guess - y.compute()) ** 2)))]

    result: Any = submit(fit, engine=CLIENT, resources=HALF).wait().result
    first, last, own = result
    assert last < first / 1.5
    assert own == pytest.approx(last, rel=0.01)


@pytest.mark.thorough
def test_dask_ml_searches_on_the_workers_through_a_client(submit: Submit) -> None:
    def search() -> list[Any]:
        import numpy as np
        from dask_ml.model_selection import GridSearchCV
        from distributed import Client
        from sklearn.linear_model import Ridge

        here = os.getpid()

        def score(model: Ridge, x: Any, y: Any) -> float:
            return float(model.score(x, y)) - (os.getpid() == here)

        rows = np.random.default_rng(0).normal(size=(100, 3))
        grid = GridSearchCV(Ridge(), {"alpha": [0.01, 100.0, 1000.0]}, scoring=score, cv=3)
        with Client():
            grid.fit(rows, rows @ [1.0, 2.0, 3.0])
        return [grid.best_params_, bool(grid.best_score_ > 0.9)]

    run = submit(search, engine=CLIENT, resources=HALF).wait()
    assert run.result == [{"alpha": 0.01}, True]


@pytest.mark.parametrize("engine", MOSTLY_TASKS, ids=["tasks", "client"])
def test_a_worker_that_dies_is_made_up_for(submit: Submit, work: Path, engine: rayml.Dask) -> None:
    def compute() -> int:
        import dask

        def step(number: int) -> int:
            died = work / "died"
            if number == 5 and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return number + len(os.environ["TOKEN"])

        return sum(dask.compute(*[dask.delayed(step)(n) for n in range(20)]))

    run = submit(compute, engine=engine, resources=HALF, secrets={"TOKEN": "abcde"})
    assert run.wait().result == 190 + 20 * 5


def test_a_task_that_kills_each_worker_ends_the_run_with_the_reason(submit: Submit) -> None:
    def compute() -> None:
        import dask

        dask.delayed(os._exit)(3).compute()

    run = submit(compute, engine=PAIR, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="ended before the function returned"):
        run.wait()


@pytest.mark.parametrize("engine", [PAIR, CLIENT], ids=["tasks", "client"])
def test_progress_is_shown_and_a_cancel_leaves_nothing(
    submit: Submit, gate: Gate, engine: rayml.Dask
) -> None:
    at = str(gate)

    def compute() -> None:
        import dask

        def step(number: int) -> int:
            if number == 1:
                Path(at).read_text()
                time.sleep(600)
            return number

        first = dask.delayed(step)(0)
        dask.compute(*[dask.delayed(max)(first, dask.delayed(step)(n)) for n in range(20)])

    run = submit(compute, engine=engine, resources=HALF)
    gate.open()  # from now on no task is done
    eventually(lambda: run.reason.startswith("dask: "))
    run.cancel(grace_s=5)
    with pytest.raises(rayml.JobCancelled):
        run.wait()
    eventually(lambda: not _folders())


@pytest.mark.parametrize("engine", MOSTLY_TASKS, ids=["tasks", "client"])
def test_tasks_end_when_the_job_s_time_is_over(
    submit: Submit, work: Path, engine: rayml.Dask
) -> None:
    def compute() -> None:
        import dask

        def stay(number: int) -> None:
            Path(work, str(os.getpid())).touch()
            time.sleep(600)

        dask.compute(*[dask.delayed(stay)(n) for n in range(2)])

    run = submit(compute, engine=engine, resources=HALF, timeout_s=15)  # by then both are there
    with pytest.raises(rayml.JobTimeout, match="ran longer than timeout_s=15"):
        run.wait(120)
    pids = [int(path.name) for path in work.iterdir()]
    assert len(pids) == 2
    eventually(lambda: not any(map(psutil.pid_exists, pids)))
    eventually(lambda: not _folders())


def test_an_error_that_cannot_be_put_together_again_ends_the_graph(submit: Submit) -> None:
    def compute() -> None:
        import dask

        class BadRow(Exception):
            def __init__(self, row: int, column: str) -> None:
                super().__init__(f"row {row}, {column}")

        def step(number: int) -> int:
            raise BadRow(number, "delay")

        dask.delayed(step)(7).compute()

    run = submit(compute, engine=PAIR, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="BadRow: row 7, delay"):
        run.wait()


SCRIPT = """
import sys
import dask.dataframe as dd
import pandas as pd

frame = dd.from_pandas(pd.DataFrame({"g": [0, 1] * 50, "v": range(100)}), npartitions=4)
print(sys.argv[1], frame.groupby("g").v.sum().compute().sort_index().tolist(), __name__)
if len(sys.argv) > 2:
    frame.v.map(lambda v: 1 / v, meta=("v", "f8")).apply(lambda v: undefined).compute()
"""


def test_a_script_needs_no_change(submit: Submit, work: Path) -> None:
    (work / "sums.py").write_text(SCRIPT)
    run = submit("sums.py", args=["by g"], engine=CLIENT, resources=HALF).wait()
    assert "by g [2450, 2500] __main__" in str(run.logs())


def test_a_script_that_fails_shows_its_own_lines(submit: Submit, work: Path) -> None:
    (work / "sums.py").write_text(SCRIPT)
    run = submit("sums.py", args=["by g", "fail"], engine=PAIR, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="name 'undefined' is not defined") as caught:
        run.wait()
    assert "rayml" not in caught.value.traceback


def lead(context: rayml.Context, cpus: float, workers: int | None = None) -> Any:
    """Leave a Dask frame on the workers and have PyTorch read it there, a part on each rank."""
    import dask.dataframe as dd
    import pandas as pd

    frame = dd.from_pandas(pd.DataFrame({"v": range(1001)}), npartitions=4)
    frame = frame.assign(w=frame.v * 2)
    run: Any = rayml.submit(
        add_up,
        inputs={"table": frame},
        engine=rayml.Torch(workers=workers),
        resources=rayml.Resources(cpus=cpus) if cpus else None,
        borrow=True,
    )
    return [run.wait().result, run.metrics["rows"], int(frame.w.sum().compute())]


def add_up(table: rayml.Input, *, context: rayml.Context) -> float:
    import torch
    import torch.distributed as dist

    shard = table.shard()
    context.log_metric("rows", shard.num_rows, reduce="sum")
    total = torch.tensor(float(sum(shard["w"].to_pylist())))
    dist.all_reduce(total)
    return total.item()


@pytest.mark.thorough
def test_another_engine_takes_over_on_the_same_workers(submit: Submit) -> None:
    # All CPUs are the job's: nothing may be asked of Ray beside them.
    one = rayml.Resources(cpus=1)
    # A project's own cluster is not where what borrows workers goes.
    elsewhere = {"RAYML_CLUSTER": "http://127.0.0.1:1"}
    run = submit(lead, params={"cpus": 0}, engine=CLIENT, resources=one, env=elsewhere).wait()
    assert run.result == [float(2 * sum(range(1000))), 1000, 1001_000]
    (child,) = run.children()
    assert (child.state, child.experiment) == ("succeeded", run.experiment)


def start_another(begun: str, fails: bool) -> None:
    """Leave a run on the workers that this one holds; end once its ranks have begun."""
    params = {"begun": begun, "for_s": 600 if fails else 1}
    rayml.submit(stay, params=params, engine=rayml.Torch(), borrow=True)
    while not Path(begun).exists():
        time.sleep(0.05)
    if fails:
        raise ValueError("no more of it")


def stay(begun: str, for_s: float) -> None:
    Path(begun).touch()
    time.sleep(for_s)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("fails", "state"),
    [(True, "cancelled"), (False, "succeeded")],
)
def test_what_borrows_the_workers_is_over_before_they_go(
    submit: Submit, work: Path, fails: bool, state: str
) -> None:
    params = {"begun": str(work / "begun"), "fails": fails}
    run = submit(start_another, params=params, engine=PAIR, resources=HALF)
    with suppress(rayml.JobFailed):
        run.wait(timeout_s=200)
    assert run.state == ("failed" if fails else "succeeded")
    (child,) = run.children()
    assert child.state == state


@pytest.mark.thorough
def test_more_than_there_is_cannot_be_borrowed(submit: Submit) -> None:
    run = submit(lead, params={"cpus": 2}, engine=PAIR, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="cpus=2 is more than the run around it has to lend"):
        run.wait()
    run = submit(lead, params={"cpus": 0, "workers": 4}, engine=PAIR, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="workers=4 is more than the run around it has"):
        run.wait()
    with pytest.raises(rayml.SpecError, match="this process leads none"):
        submit(lead, borrow=True)


@pytest.mark.parametrize(
    ("example", "params", "result"),
    [
        ("flight_routes.py:summarize", {"copies": 2}, {"routes": 223.0, "flights": 654_692.0}),
        ("flight_bootstrap.py:bootstrap", {"samples": 20}, {"carriers": 16.0}),
        ("flight_network.py:prepare", {"epochs": 2, "rows": 500}, {"rows": 6000.0}),
    ],
)
def test_an_example_works(
    submit: Submit, example: str, params: dict[str, Any], result: dict[str, float]
) -> None:
    all_cpus = rayml.Resources(cpus=1)  # nothing may be asked of Ray beside them
    options = {"params": params, "engine": PAIR, "resources": all_cpus, "working_dir": EXAMPLES}
    run: Any = submit(example, **options).wait()
    assert result.items() <= run.result.items()


@pytest.mark.thorough
def test_no_worker_holds_the_example_s_table(submit: Submit) -> None:
    def measure(context: rayml.Context, copies: int) -> list[int]:
        import dask
        from flight_routes import read_month, summarize

        def peak(_: int) -> int:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

        peaks = []
        for times in (1, copies):
            summarize(context, times)
            peaks.append(max(dask.compute(*[dask.delayed(peak)(n) for n in range(8)])))
        months = [read_month((0, month)) for month in range(1, 13)]
        year = sum(int(month.memory_usage(deep=True).sum()) for month in months)
        return [peaks[1] - peaks[0], year * copies]

    options: dict[str, Any] = {"engine": PAIR, "resources": HALF, "working_dir": EXAMPLES}
    result: Any = submit(measure, params={"copies": 15}, **options).wait().result
    more, table = result
    assert more < table
