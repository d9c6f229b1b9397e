"""`start_run`: a block of code becomes a run that anybody can read, however the block ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import rayml
from rayml.errors import JobCancelled, JobFailed, SpecError, StoreError
from rayml.store.folder import Folder
from rayml.tracker.journal import Journal
from rayml.tracker.live import live_shards
from rayml.tracker.own import close_idle
from rayml.tracker.reader import Reader
from rayml.tracker.segments import segment_key
from rayml.tracker.shards import ShardFold
from tests.ray.eventually import eventually
from tests.unit.journals import OWNER

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


@pytest.fixture(autouse=True)
def _no_threads_are_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert eventually(lambda: threading.active_count() <= before, 10)


def start_process(store: Folder, code: str) -> subprocess.Popen[str]:
    """Run code in another process; it knows the store as STORE."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import rayml, sys, os\nSTORE = {store.uri!r}\n{code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


# A block that ends well


def test_a_parameter_of_any_length_comes_back_whole(store: Folder) -> None:
    rows = [{"n": n, "text": "é" * 10} for n in range(1_000)]
    with rayml.start_run(params={"rows": rows, "short": 1}, store=store) as context:
        context.log_param("text", "x" * 100_000_000)
        context.log_param("text 2", "y" * 5_000)
        context.log_param("text 2", "z")

    run = rayml.get_run(context.run_id, store=store)
    assert run.params == {
        "rows": rows, "short": 1, "text": "x" * 100_000_000, "text 2": "z",
    }  # fmt: skip
    (shown,) = rayml.runs(store=store).to_pandas()["params.text"]
    assert shown.endswith("… (100,000,002 bytes in all)")
    assert sum(len(store.get(key)) for key in store.list("shards/")) < 50_000


def test_what_is_logged_with_sync_is_durable_at_once(store: Folder) -> None:
    with rayml.start_run(store=store) as context:
        context.log_metric("loss", 1.0, sync=True)
        context.log_metrics({"a": 1.0, "b": 2.0}, sync=True)
        context.log_param("depth", 4, sync=True)
        run = rayml.get_run(context.run_id, store=store)
        assert (run.metrics, run.params) == ({"loss": 1.0, "a": 1.0, "b": 2.0}, {"depth": 4})


def test_a_block_is_a_run_that_can_be_read(store: Folder) -> None:
    with rayml.start_run(
        "flights 🛫", experiment="late", params={"depth": 4}, labels={"team": "a"}, store=store
    ) as context:
        context.log_params({"rate": float("nan")})
        context.log_label("stage", "test")

    run = rayml.get_run(context.run_id, store=store)
    assert (run.name, run.experiment, run.state) == ("flights 🛫", "late", "succeeded")
    assert run.params == {"depth": 4, "rate": "nan"}
    assert run.labels == {"team": "a", "stage": "test"}


def test_what_a_block_logs_is_there_afterwards(store: Folder) -> None:
    with rayml.start_run(store=store) as context:
        for step in range(5):
            context.log_metrics({"loss": 1 / (step + 1), "auc 🚀": step}, step=step)
        context.log_artifact("notes/readme.txt", b"hello")

    run = rayml.get_run(context.run_id, store=store)
    assert run.metrics == {"loss": 0.2, "auc 🚀": 4.0}
    assert list(run.artifacts) == ["notes/readme.txt"]
    history = run.history("loss")
    assert history["step"].tolist() == [0, 1, 2, 3, 4]
    assert str(history["time"].dtype).endswith("UTC]")


def test_a_run_knows_when_and_by_whom_it_was_made(store: Folder) -> None:
    before = pd.Timestamp.now("UTC").floor("s")
    with rayml.start_run(store=store) as context:
        during = rayml.get_run(context.run_id, store=store)
        assert during.state == "running"
        assert during.ended_at is None

    run = rayml.get_run(context.run_id, store=store)
    assert run.started_at is not None
    assert run.ended_at is not None
    assert before <= run.submitted_at <= run.started_at <= run.ended_at
    assert run.spec.origin.rayml == rayml.__version__
    assert run.error is None


def test_a_block_that_ends_leaves_its_shard_in_good_order(store: Folder) -> None:
    with rayml.start_run(store=store):
        assert len(live_shards(store)) == 1
    eventually(lambda: live_shards(store) == [])


def test_a_block_right_after_another_finds_that_the_store_was_removed(store: Folder) -> None:
    with rayml.start_run("first", store=store):
        pass
    shutil.rmtree(store.root)
    with rayml.start_run("second", store=store):
        pass
    assert [run.name for run in rayml.runs(store=store)] == ["second"]


def test_a_block_right_after_another_finds_that_the_shard_was_taken_over(store: Folder) -> None:
    with rayml.start_run("first", store=store):
        pass
    (shard,) = live_shards(store)
    Journal(store, shard).open(OWNER, ShardFold())
    with rayml.start_run("second", store=store):
        pass
    assert [run.state for run in rayml.runs(store=store)] == ["succeeded", "succeeded"]


def test_blocks_in_threads_share_a_shard(store: Folder) -> None:
    def track(number: int) -> None:
        with rayml.start_run(f"run-{number}", store=store) as context:
            context.log_metric("n", number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(track, range(40)))
    assert {run.metrics["n"] for run in rayml.runs(store=store)} == set(range(40))
    assert len(store.folders("shards/")) == 1


def test_blocks_that_threads_have_open_at_once_are_runs_of_their_own(store: Folder) -> None:
    both = threading.Barrier(2)

    def track(number: int) -> None:
        with rayml.start_run(f"run-{number}", store=store) as context:
            both.wait(30)
            context.log_metric("n", number)
            rayml.context().log_metric("same", number)
            both.wait(30)

    with rayml.start_run("around", store=store), ThreadPoolExecutor(2) as pool:
        list(pool.map(track, range(2)))
    found = {run.name: run.metrics for run in rayml.runs(store=store)}
    assert found == {f"run-{n}": {"n": n, "same": n} for n in range(2)} | {"around": {}}


def test_flush_makes_what_was_logged_readable_at_once(store: Folder) -> None:
    with rayml.start_run(store=store) as context:
        context.log_metric("loss", 0.5)
        context.flush()
        assert rayml.get_run(context.run_id, store=store).metrics == {"loss": 0.5}


# The context


def test_a_nested_block_is_part_of_the_same_run(store: Folder) -> None:
    with rayml.start_run(store=store) as outer:
        with rayml.start_run("inner", store=store) as inner:
            inner.log_metric("loss", 1.0)
        assert inner is outer
        assert rayml.get_run(outer.run_id, store=store).state == "running"

    assert len(rayml.runs(store=store)) == 1


def test_the_context_is_found_from_anywhere_inside(store: Folder) -> None:
    found: list[object] = []
    with rayml.start_run(store=store) as context:
        thread = threading.Thread(target=lambda: found.append(rayml.context()))
        thread.start()
        thread.join()
        found.append(rayml.context())

    assert found == [context, context]
    with pytest.raises(SpecError, match="not part of a run; submit it, or wrap it"):
        rayml.context()


def test_one_block_after_the_other_makes_two_runs(store: Folder) -> None:
    ids = set()
    for _ in range(2):
        with rayml.start_run(store=store) as context:
            ids.add(context.run_id)
    assert {run.id for run in rayml.runs(store=store)} == ids
    assert len(ids) == 2


def test_a_name_that_cannot_be_logged_fails_only_its_own_call(store: Folder) -> None:
    with rayml.start_run(store=store) as context:
        for wrong in ("", "x" * 251, 3):
            with pytest.raises(SpecError):
                context.log_metric(wrong, 1.0)  # type: ignore[arg-type]
        with pytest.raises(SpecError, match="a value is a number"):
            context.log_metric("loss", "high")  # type: ignore[arg-type]
        with pytest.raises(SpecError, match="64 bits"):
            context.log_metric("loss", 1.0, step=2**70)
        context.log_metric("loss", 2.0)

    assert rayml.get_run(context.run_id, store=store).metrics == {"loss": 2.0}


# A block that does not end well


def fail_after(context: rayml.Context) -> None:
    context.log_metric("loss", 0.5)
    try:
        _ = 1 / 0
    except ZeroDivisionError as exc:
        raise KeyError("label") from exc


def test_a_block_that_raises_fails_its_run_and_the_error_goes_on(store: Folder) -> None:
    with pytest.raises(KeyError, match="label"), rayml.start_run(store=store) as context:
        fail_after(context)

    run = rayml.get_run(context.run_id, store=store)
    assert (run.state, run.metrics) == ("failed", {"loss": 0.5})
    assert isinstance(run.error, JobFailed)
    assert run.error.message == "KeyError: 'label'"


def test_the_traceback_of_a_failed_run_is_the_user_s_own(store: Folder) -> None:
    with pytest.raises(KeyError), rayml.start_run(store=store) as context:
        fail_after(context)

    error = rayml.get_run(context.run_id, store=store).error
    assert isinstance(error, JobFailed)
    assert "in fail_after" in error.traceback
    assert "ZeroDivisionError: " in error.traceback
    assert f"{ROOT}/rayml/" not in error.traceback


def test_an_interrupted_block_is_a_cancelled_run(store: Folder) -> None:
    with pytest.raises(KeyboardInterrupt), rayml.start_run(store=store) as context:
        raise KeyboardInterrupt
    run = rayml.get_run(context.run_id, store=store)
    assert run.state == "cancelled"
    assert isinstance(run.error, JobCancelled)


@pytest.mark.parametrize(("code", "state"), [(None, "succeeded"), (0, "succeeded"), (3, "failed")])
def test_a_block_that_exits_ends_as_its_exit_code_says(
    store: Folder, code: int | None, state: str
) -> None:
    with pytest.raises(SystemExit), rayml.start_run(store=store) as context:
        sys.exit(code)
    assert rayml.get_run(context.run_id, store=store).state == state


def test_a_killed_process_s_run_is_closed_by_the_next_one(store: Folder) -> None:
    code = """
with rayml.start_run("doomed", store=STORE) as context:
    context.log_metric("loss", 0.5)
    context.flush()
    print(context.run_id, flush=True)
    sys.stdin.read()
"""
    with start_process(store, code) as process:
        assert process.stdout is not None
        doomed = process.stdout.readline().strip()
        assert rayml.get_run(doomed, store=store).state == "running"
        os.kill(process.pid, signal.SIGKILL)

    with rayml.start_run("next", store=store):
        run = rayml.get_run(doomed, store=store)
        assert (run.state, run.metrics) == ("failed", {"loss": 0.5})
        assert isinstance(run.error, JobFailed)
        assert run.error.kind == "node_lost"
    close_idle()
    assert live_shards(store) == []


def test_a_living_process_s_run_is_left_alone(store: Folder) -> None:
    code = """
with rayml.start_run("alive", store=STORE) as context:
    print(context.run_id, flush=True)
    sys.stdin.read()
    context.log_metric("loss", 0.5)
"""
    with start_process(store, code) as process:
        assert process.stdout is not None
        alive = process.stdout.readline().strip()
        with rayml.start_run("other", store=store):
            assert rayml.get_run(alive, store=store).state == "running"
        process.communicate("go on")

    run = rayml.get_run(alive, store=store)
    assert (process.returncode, run.state, run.metrics) == (0, "succeeded", {"loss": 0.5})


def test_two_processes_track_into_one_store_at_once(store: Folder) -> None:
    code = """
for n in range(3):
    with rayml.start_run(sys.argv[0], store=STORE) as context:
        context.log_metric("n", n)
"""
    processes = [start_process(store, code) for _ in range(2)]
    for process in processes:
        process.communicate()

    runs = rayml.runs(store=store)
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(run.metrics["n"] for run in runs) == [0, 0, 1, 1, 2, 2]
    assert {run.state for run in runs} == {"succeeded"}


def test_a_corrupt_shard_of_a_dead_process_does_not_stop_new_runs(store: Folder) -> None:
    code = """
with rayml.start_run(store=STORE) as context:
    for n in range(3):
        context.log_metric("n", n)
        context.flush()
    os.kill(os.getpid(), 9)
"""
    start_process(store, code).communicate()
    [shard] = live_shards(store)
    (store.root / segment_key(shard, 2)).write_bytes(b"{")

    with rayml.start_run(store=store) as context:
        context.log_metric("loss", 1.0)
    reader = Reader(store)
    reader.refresh()
    assert list(reader.runs) == [context.run_id]
    assert segment_key(shard, 2) in str(reader.problems[shard])


# A store that fails


def test_a_store_that_cannot_be_written_is_named_before_the_block_runs(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    block = rayml.start_run(store=tmp_path / "store")
    with pytest.raises(StoreError, match="part of that path is a file; choose another store"):
        block.__enter__()
    with pytest.raises(SpecError, match="not part of a run"):
        rayml.context()


def test_a_store_of_an_unknown_sort_is_named() -> None:
    block = rayml.start_run(store="ftp://host/x")
    with pytest.raises(SpecError, match="scheme 'ftp', which rayml cannot store to"):
        block.__enter__()


def test_a_store_that_is_away_for_a_moment_loses_nothing(store: Folder) -> None:
    aside = store.root.with_name("aside")
    with rayml.start_run(store=store) as context:
        store.root.rename(aside)
        store.root.write_text("a file")
        context.log_metric("loss", 0.5)
        with pytest.raises(StoreError, match=r"1 logged values were not durable after 0\.2 s"):
            context.flush(0.2)
        store.root.unlink()
        aside.rename(store.root)

    run = rayml.get_run(context.run_id, store=store)
    assert (run.state, run.metrics) == ("succeeded", {"loss": 0.5})


# Much, and odd


def test_ten_thousand_metrics_are_a_run_like_any_other(store: Folder) -> None:
    with rayml.start_run(store=store) as context:
        for step in range(3):
            for n in range(10_000):
                context.log_metric(f"group {n % 100}/metric {n}", step * n, step)

    run = rayml.get_run(context.run_id, store=store)
    assert run.metrics == {f"group {n % 100}/metric {n}": 2 * n for n in range(10_000)}
    assert run.history("group 7/metric 107").value.tolist() == [0, 107, 214]
    (found,) = rayml.runs(where="metrics.'group 7/metric 107'.max = 214", store=store)
    assert found.id == run.id
