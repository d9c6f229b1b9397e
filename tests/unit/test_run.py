"""Reading runs: with only the store, by anybody, years later."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pandas as pd
import pytest

import rayml
from rayml.errors import (
    JobCancelled,
    JobFailed,
    JobTimeout,
    NotFound,
    RaymlError,
    SpecError,
    StoreError,
)
from rayml.result import encode_result
from rayml.store.folder import Folder
from rayml.tracker.journal import Journal
from rayml.tracker.records import Ended, Problem, Waiting
from tests.unit.journals import (
    OWNER,
    Replayed,
    encode,
    ended,
    logged,
    make_spec,
    points,
    started,
    submitted,
)

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.tracker.records import Record


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


def write(store: Folder, *records: Record) -> rayml.Run:
    """Write a run into a shard of its own and read it back."""
    run = records[0].run
    journal = Journal(store, f"shard-{run}")
    journal.open(OWNER, Replayed())
    for n, record in enumerate(records, 1):
        journal.append([encode(record, producer=run, n=n)])
    return rayml.get_run(run, store=store)


def submit_at(time: float, run: str, **fields: object) -> Record:
    spec = make_spec(run, submitted_at=time, **fields)
    return msgspec.structs.replace(submitted(run), spec=spec)


def fail(kind: str, message: str = "it broke") -> Ended:
    problem = Problem(kind=kind, message=message, traceback="Traceback …\nKeyError: 1\n", rank=2)
    return Ended(run="r1", time=9.0, attempt=3, state="failed", problem=problem)


# Finding runs


def test_a_run_is_found_by_the_beginning_of_its_id(store: Folder) -> None:
    for run in ("20260102-a1", "20260102-b2", "20260103-c3"):
        write(store, submitted(run))

    assert rayml.get_run("20260102-b", store=store).id == "20260102-b2"
    with pytest.raises(NotFound, match=r"2 runs in .* begin with '20260102'; give more of the id"):
        rayml.get_run("20260102", store=store)


def test_a_whole_id_is_found_even_if_it_begins_another(store: Folder) -> None:
    write(store, submitted("a"))
    write(store, submitted("ab"))
    assert rayml.get_run("a", store=store).id == "a"


def test_latest_is_the_run_that_was_submitted_last(store: Folder) -> None:
    for time, run in ((2.0, "b"), (3.0, "a"), (1.0, "c")):
        write(store, submit_at(time, run))
    assert rayml.get_run("latest", store=store).id == "a"


def test_a_run_that_is_not_there_is_named_with_the_nearest(store: Folder) -> None:
    with pytest.raises(NotFound, match=r"store .* has no runs; is it the right one\?"):
        rayml.get_run("latest", store=store)
    write(store, submitted("20260102-a1"))
    with pytest.raises(NotFound, match=r"no run '20260102-a2'; did you mean '20260102-a1'\?"):
        rayml.get_run("20260102-a2", store=store)
    with pytest.raises(NotFound):
        rayml.get_run("", store=store)


def test_runs_are_listed_newest_first(store: Folder) -> None:
    for time, run, experiment in ((1.0, "a", "x"), (3.0, "b", "y"), (2.0, "c", "x")):
        write(store, submit_at(time, run, experiment=experiment))

    assert [run.id for run in rayml.runs(store=store)] == ["b", "c", "a"]
    assert [run.id for run in rayml.runs("x", store=store)] == ["c", "a"]
    assert [run.id for run in rayml.runs("x", limit=1, store=store)] == ["c"]


def test_an_empty_store_lists_nothing(store: Folder) -> None:
    listed = rayml.runs(store=store)
    assert list(listed) == []
    assert listed.to_pandas().empty


def test_a_list_of_runs_is_a_table(store: Folder) -> None:
    write(store, submit_at(1.0, "a", params={"depth": 4}), started(run="a"), ended(run="a"))
    write(store, submit_at(2.0, "b"), points("auc", [0, 1], [0.5, 0.75], run="b"))
    frame = rayml.runs(store=store).to_pandas()

    assert frame["id"].tolist() == ["b", "a"]
    assert frame["state"].tolist() == ["submitted", "succeeded"]
    assert frame.set_index("id").loc["a", "params.depth"] == 4
    assert frame.set_index("id").loc["b", "metrics.auc"] == 0.75


# Looking at one


def test_a_run_s_attributes_are_of_now(store: Folder) -> None:
    run = write(store, submitted())
    assert (run.state, run.started_at) == ("submitted", None)
    journal = Journal(store, "shard-r1")
    journal.open(OWNER, Replayed())
    way: list[tuple[Record, str]] = [
        (Waiting(run="r1", time=2.0, attempt=1, reason="no GPU is free"), "waiting"),
        (started(), "running"),
        (ended(), "succeeded"),
    ]
    for n, (record, state) in enumerate(way, 1):
        journal.append([encode(record, producer="later", n=n)])
        assert run.state == state
        assert run.reason == ("no GPU is free" if state == "waiting" else "")

    assert run.ended_at == datetime.fromtimestamp(9, UTC)


def test_history_is_a_table_by_step(store: Folder) -> None:
    run = write(store, submitted(), points("loss", [2, 0, 1], [0.1, "nan", "inf"]))
    history = run.history("loss")

    assert list(history.columns) == ["step", "time", "value"]
    assert history["step"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(history["value"], [np.nan, np.inf, 0.1])
    assert history["time"].iloc[0] == pd.Timestamp(4, unit="s", tz="UTC")


def test_history_goes_along_another_metric(store: Folder) -> None:
    run = write(
        store,
        submitted(),
        points("loss", [0, 10, 20, 30], [4.0, 3.0, 2.0, 1.0]),
        points("epoch", [25, 10], [2.0, 1.0]),
    )
    history = run.history("loss", axis="epoch")

    assert list(history.columns) == ["axis", "step", "time", "value"]
    np.testing.assert_array_equal(history["axis"], [np.nan, 1.0, 1.0, 2.0])
    assert history["value"].tolist() == [4.0, 3.0, 2.0, 1.0]
    with pytest.raises(NotFound, match="no metric 'epochs'; did you mean 'epoch'"):
        run.history("loss", axis="epochs")


def test_a_metric_has_a_summary_and_a_best_value(store: Folder) -> None:
    values: list[float | str] = [3.0, "nan", 1.0, 5.0, 1.0, 5.0]
    run = write(store, submitted(), points("loss", [0, 1, 2, 3, 4, 5], values))

    summary = run.summary("loss")
    assert (summary.count, summary.first_step, summary.last_step, summary.last) == (6, 0, 5, 5.0)
    assert run.best("loss", "min") == (1.0, 2)
    assert run.best("loss", goal="max") == (5.0, 3)
    with pytest.raises(SpecError, match="'min' or 'max'"):
        run.best("loss", "low")  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="did you mean 'loss'"):
        run.summary("lost")


def test_an_unknown_metric_or_artifact_names_the_nearest(store: Folder) -> None:
    run = write(store, submitted(), points("loss", [0], [1.0]))
    with pytest.raises(NotFound, match=r"run r1 has no metric 'lost'; did you mean 'loss'\?"):
        run.history("lost")
    with pytest.raises(NotFound, match="run r1 has no artifact 'model'; there are none"):
        run.artifact("model")


def test_a_run_shows_what_matters(store: Folder) -> None:
    run = write(store, submit_at(1.0, "r1", params={"<b>": "&"}), points("loss", [0], [0.5]))
    assert repr(run) == "<rayml.Run r1 'train' submitted loss=0.5>"
    assert "&lt;b&gt;=&amp;" in run._repr_html_()


def test_what_a_reader_changes_does_not_change_the_run(store: Folder) -> None:
    run = write(store, submitted(), logged(1), ended())
    run.params["p"] = 2
    run.labels["x"] = "y"
    assert (run.params, run.labels) == ({"p": 1}, {})


# How it ended


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("error", JobFailed),
        ("oom", JobFailed),
        ("node_lost", JobFailed),
        ("timeout", JobTimeout),
        ("start_timeout", JobTimeout),
        ("store", StoreError),
    ],
)
def test_a_failed_run_raises_what_it_failed_with(
    store: Folder, kind: str, error: type[RaymlError]
) -> None:
    run = write(store, submitted(), fail(kind))

    assert type(run.error) is error
    assert "run r1: it broke" in str(run.error)
    with pytest.raises(error):
        run.wait()
    with pytest.raises(error):
        run.load_result()


def test_a_failure_tells_all_that_is_known(store: Folder) -> None:
    error = write(store, submitted(), fail("oom")).error
    assert isinstance(error, JobFailed)
    assert (error.run_id, error.attempt, error.rank, error.kind) == ("r1", 3, 2, "oom")
    assert str(error).startswith("Traceback …\nKeyError: 1\n\nrun r1: it broke (attempt 3)")


def test_a_cancelled_run_says_so(store: Folder) -> None:
    run = write(store, submitted(), logged(5), ended("cancelled"))
    with pytest.raises(JobCancelled, match="run r1: it was cancelled; what it had logged is kept"):
        run.wait()
    assert run.params == {"p": 5}
    run.cancel()
    assert run.state == "cancelled"


def test_a_run_that_goes_on_has_no_result_yet(store: Folder) -> None:
    run = write(store, submitted(), started())
    with pytest.raises(
        SpecError, match=r"run r1 is running and has no result yet; wait\(\) for it"
    ):
        _ = run.result
    with pytest.raises(TimeoutError, match=r"still running after 0\.05 s; it goes on"):
        run.wait(0.05)


def test_wait_returns_when_the_run_ends_elsewhere(store: Folder) -> None:
    run = write(store, submitted(), started())
    journal = Journal(store, "shard-r1")
    journal.open(OWNER, Replayed())
    threading.Timer(0.05, journal.append, [[encode(ended(), producer="later")]]).start()
    assert run.wait(10).state == "succeeded"


def test_a_result_comes_back(store: Folder) -> None:
    for n, value in enumerate([None, 0, False, {"auc": 0.5}]):
        result = encode_result(value, store, bytes)
        end = msgspec.structs.replace(ended(run=f"r{n}"), result=result)
        assert repr(write(store, submitted(f"r{n}"), end).result) == repr(value)


def test_a_pickled_result_of_somebody_else_needs_trust(store: Folder) -> None:
    end = msgspec.structs.replace(ended(), result=encode_result((1, 2), store, bytes))
    run = write(store, submitted(), end)
    with pytest.raises(SpecError, match="trusted=True"):
        _ = run.result
    assert run.load_result(trusted=True) == (1, 2)


# Its log


def test_the_log_is_read_from_the_store_alone(store: Folder) -> None:
    run = write(store, submitted(), started(), ended())
    assert run.logs() == ""
    store.put("logs/r1/00000/0001/00000000.log", "epoch 1 é".encode()[:-1])
    store.put("logs/r1/00000/0001/00000001.log", "é".encode()[1:] + b"\nepoch 2\nend")

    assert run.logs() == "epoch 1 é\nepoch 2\nend"
    assert list(run.logs(follow=True)) == ["epoch 1 é\n", "epoch 2\n", "end"]


def test_a_file_in_place_of_the_store_has_no_runs(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(RaymlError):
        rayml.get_run("latest", store=tmp_path / "store")


def test_a_worker_whose_clock_is_an_hour_ahead_harms_nothing(store: Folder) -> None:
    later = msgspec.structs.replace(started(), time=started().time + 3600)
    late_points = msgspec.structs.replace(
        points("loss", [1, 0], [0.5, 1.0]), time=points("loss", [0], [1.0]).time + 3600
    )
    run = write(store, submitted(), later, late_points, ended())

    assert run.history("loss")["value"].tolist() == [1.0, 0.5]
    (found,) = rayml.runs(where="state = 'succeeded' and duration_s = 0", store=store)
    assert found.id == run.id
