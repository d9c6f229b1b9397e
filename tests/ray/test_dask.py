"""The Dask engine: plain Dask code on the job's workers, and Dask's own scheduler there."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import rayml
from tests.ray.eventually import eventually
from tests.ray.test_torch import nothing_left  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from tests.ray.conftest import Gate, Submit

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PAIR = rayml.Dask(workers=2)
CLIENT = rayml.Dask(workers=2, client=True)
HALF = rayml.Resources(cpus=0.5)


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


@pytest.mark.parametrize("engine", [PAIR, CLIENT], ids=["tasks", "client"])
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
        return [*kinds, held.w.sum().compute(), float((x[:50] + 1).sum().compute())]

    assert submit(persist, engine=PAIR, resources=HALF).wait().result == ["ObjectRef", 9900, 10000]


@pytest.mark.parametrize("engine", [PAIR, CLIENT], ids=["tasks", "client"])
def test_an_error_amid_many_tasks_is_dask_s_own_and_ends_the_rest(
    submit: Submit, engine: rayml.Dask
) -> None:
    def compute() -> None:
        import dask

        def step(number: int) -> int:
            if number == 300:
                raise KeyError("row 300")
            time.sleep(0.001)
            return number

        dask.delayed(sum)([dask.delayed(step)(n) for n in range(10_000)]).compute()

    run = submit(compute, engine=engine, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="KeyError: 'row 300'") as caught:
        run.wait()
    assert 'raise KeyError("row 300")' in caught.value.traceback
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
    return list(Path(tempfile.gettempdir()).glob("rayml-dask-*"))


@pytest.mark.parametrize("engine", [PAIR, CLIENT], ids=["tasks", "client"])
def test_a_worker_that_dies_is_made_up_for(submit: Submit, work: Path, engine: rayml.Dask) -> None:
    def compute() -> int:
        import dask

        def step(number: int) -> int:
            died = work / "died"
            if number == 5 and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return number

        return sum(dask.compute(*[dask.delayed(step)(n) for n in range(20)]))

    assert submit(compute, engine=engine, resources=HALF).wait().result == 190


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
                time.sleep(2.5)
                Path(at).read_text()
                time.sleep(600)
            return number

        first = dask.delayed(step)(0)
        dask.compute(*[dask.delayed(max)(first, dask.delayed(step)(n)) for n in range(20)])

    run = submit(compute, engine=engine, resources=HALF)
    gate.open()
    eventually(lambda: run.reason.startswith("dask: "))
    run.cancel(grace_s=5)
    with pytest.raises(rayml.JobCancelled):
        run.wait()
    eventually(lambda: not _folders())


SCRIPT = """
import sys
import dask.dataframe as dd
import pandas as pd

frame = dd.from_pandas(pd.DataFrame({"g": [0, 1] * 50, "v": range(100)}), npartitions=4)
print(sys.argv[1], frame.groupby("g").v.sum().compute().sort_index().tolist(), __name__)
if len(sys.argv) > 2:
    frame.v.map(lambda v: 1 / v, meta=("v", "f8")).apply(lambda v: undefined).compute()
"""


@pytest.mark.parametrize("engine", [PAIR, CLIENT], ids=["tasks", "client"])
def test_a_script_needs_no_change(submit: Submit, work: Path, engine: rayml.Dask) -> None:
    (work / "sums.py").write_text(SCRIPT)
    run = submit("sums.py", args=["by g"], engine=engine, resources=HALF).wait()
    assert "by g [2450, 2500] __main__" in str(run.logs())


def test_a_script_that_fails_shows_its_own_lines(submit: Submit, work: Path) -> None:
    (work / "sums.py").write_text(SCRIPT)
    run = submit("sums.py", args=["by g", "fail"], engine=PAIR, resources=HALF)
    with pytest.raises(rayml.JobFailed, match="NameError"):
        run.wait()
