"""The fold: what a journal says about its runs, however much of it there is."""

from __future__ import annotations

import math
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayml.artifacts.record import ArtifactRecord
from rayml.errors import JournalCorrupt
from rayml.tracker.records import (
    TERMINAL,
    CancelRequested,
    Ended,
    Labels,
    Logged,
    Problem,
    Progress,
    Released,
    Reserved,
    Retrying,
    Started,
    Waiting,
    decode_record,
    plain_values,
)
from rayml.tracker.runs import Fold, RunRecord, apply
from tests.unit.journals import ended, logged, make_batch, make_spec, points, started, submitted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.tracker.records import Record

STATES = {"submitted", "waiting", "running", "retrying", *TERMINAL}
PROBLEM = Problem(kind="oom", message="killed for memory")


def waiting(attempt: int = 1, run: str = "r1") -> Waiting:
    return Waiting(run=run, time=2.0, attempt=attempt, reason="no CPU is free")


def retrying(attempt: int = 1, run: str = "r1") -> Retrying:
    return Retrying(run=run, time=3.0, attempt=attempt, delay_s=1, reason="again", problem=PROBLEM)


def cancel(run: str = "r1") -> CancelRequested:
    return CancelRequested(run=run, time=3.0, grace_s=5, by="ada")


def labelled(run: str = "r1") -> Labels:
    return Labels(run=run, time=3.0, attempt=1, labels={"team": "b", "new": "x"})


def artifact(format_: str = "png", run: str = "r1") -> Logged:
    record = ArtifactRecord(name="roc", kind="plot", format=format_, files=[], meta={}, run=run)
    return Logged(run=run, time=3.0, attempt=1, artifact=record)


def fold(*records: Record) -> RunRecord:
    """What the journal of run r1 says, one batch a record."""
    told = Fold()
    for n, record in enumerate(records, 1):
        told.add(make_batch(record, n=n))
    return told.runs["r1"]


def shown(fold: Fold) -> str:
    """All that a fold knows, to compare."""
    return repr(sorted(fold.runs.items()))


floats = st.floats().map(lambda v: v if math.isfinite(v) else str(v))
columns = st.lists(st.tuples(st.integers(-5, 20), floats), min_size=1, max_size=5)
attempts = st.integers(1, 3)
runs = st.sampled_from(["r1", "r2"])

records: st.SearchStrategy[Record] = st.one_of(
    st.builds(submitted, runs),
    st.builds(waiting, attempts, runs),
    st.builds(started, attempts, runs),
    st.builds(retrying, attempts, runs),
    st.builds(cancel, runs),
    st.builds(labelled, runs),
    st.builds(artifact, run=runs),
    st.builds(logged, st.integers(), attempts, runs),
    st.builds(ended, st.sampled_from(sorted(TERMINAL)), attempts, runs),
    st.builds(
        lambda name, rows, attempt, run: points(
            name, [step for step, _ in rows], [value for _, value in rows], attempt, run
        ),
        st.sampled_from(["loss", "auc 🚀"]),
        columns,
        attempts,
        runs,
    ),
)
journals = st.lists(records, max_size=12)


# Any journal


@given(journals)
def test_every_beginning_of_a_journal_is_a_valid_state(journal: list[Record]) -> None:
    told = Fold()
    over: dict[str, str] = {}
    for n, record in enumerate(journal, 1):
        told.add(make_batch(record, n=n))
        for name, run in told.runs.items():
            assert run.state in STATES
            assert run.is_terminal == (run.ended_at is not None)
            if run.is_terminal:
                assert repr(run) == over.setdefault(name, repr(run))


@given(journals)
def test_a_journal_that_is_read_twice_says_the_same(journal: list[Record]) -> None:
    batches = [make_batch(record, n=n) for n, record in enumerate(journal, 1)]
    once, twice = Fold(), Fold()
    for batch in batches:
        once.add(batch)
    for batch in [*batches, *batches]:
        twice.add(batch)

    assert shown(once) == shown(twice)


@given(journals, st.integers(1, 5))
def test_how_records_are_batched_changes_nothing(journal: list[Record], size: int) -> None:
    one_by_one, together = Fold(), Fold()
    for n, record in enumerate(journal, 1):
        one_by_one.add(make_batch(record, n=n))
    for n in range(0, len(journal), size):
        together.add(make_batch(*journal[n : n + size], n=n + 1))

    assert shown(one_by_one) == shown(together)


@given(journals)
def test_the_last_value_is_the_last_point_by_step(journal: list[Record]) -> None:
    told = Fold()
    for n, record in enumerate(journal, 1):
        told.add(make_batch(record, n=n))

    for run in told.runs.values():
        for name, value in run.last_values():
            history = run.points(name)
            assert repr(history[-1][2]) == repr(value)
            assert [p[0] for p in history] == sorted(p[0] for p in history)


@given(journals, st.sets(st.integers(1, 12)))
def test_looking_at_a_run_while_it_goes_on_changes_nothing(
    journal: list[Record], looks: set[int]
) -> None:
    looked_at, left_alone = Fold(), Fold()
    for n, record in enumerate(journal, 1):
        for told in (looked_at, left_alone):
            told.add(make_batch(record, n=n))
        if n in looks:
            for run in looked_at.runs.values():
                [run.metric(name, "last") for name in reversed(list(run.series))]

    assert shown(looked_at) == shown(left_alone)
    assert [list(run.series) for run in looked_at.runs.values()] == [
        list(run.series) for run in left_alone.runs.values()
    ]


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Let threads take turns after every few instructions."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
def test_a_metric_that_several_threads_look_at_has_each_point_once() -> None:
    told, steps, seen = Fold(), 3000, []
    told.add(make_batch(submitted(), n=1))
    run, is_over = told.runs["r1"], threading.Event()

    def look() -> None:
        while not is_over.is_set():
            if "loss" in run.series:
                seen.append(run.summary("loss").count)

    with ThreadPoolExecutor(3) as pool:
        looking = [pool.submit(look) for _ in range(3)]
        for step in range(steps):
            told.add(make_batch(points("loss", [step], [float(step)]), n=step + 2))
        is_over.set()
    assert [future.result() for future in looking] == [None] * 3
    assert max(seen, default=0) <= steps
    assert run.summary("loss").count == steps
    assert [point[0] for point in run.points("loss")] == list(range(steps))


def test_points_that_are_no_numbers_harm_only_who_looks_at_them() -> None:
    run = fold(submitted(), points("loss", [1], ["high"]), points("auc", [1], [0.5]))
    assert run.metric("auc", "last") == 0.5
    with pytest.raises(JournalCorrupt, match="not numbers"):
        run.metric("loss", "last")


# One run's way


def test_a_run_goes_its_way() -> None:
    way: list[Record] = [submitted(), waiting(), started(), retrying()]
    way += [waiting(2), started(2), ended(attempt=2)]
    states = [(run.state, run.attempt) for n in range(1, 8) if (run := fold(*way[:n]))]

    assert states == [
        ("submitted", 1),
        ("waiting", 1),
        ("running", 1),
        ("retrying", 2),
        ("waiting", 2),
        ("running", 2),
        ("succeeded", 2),
    ]


def test_a_waiting_run_says_what_for_until_it_starts() -> None:
    assert fold(submitted(), waiting()).reason == "no CPU is free"
    assert fold(submitted(), waiting(), started()).reason == ""


def test_the_first_attempt_says_when_a_run_began() -> None:
    later = msgspec.structs.replace(started(2), time=50.0)
    run = fold(submitted(), started(), retrying(), later)
    assert run.started_at == 2.0
    assert run.started == later


def test_the_ranks_of_the_newest_attempt_are_known() -> None:
    first, second = started(rank=1), started(rank=0)
    assert fold(submitted(), first, second).ranks == [first, second]
    assert fold(submitted(), first, second).started == first
    again = [started(2, rank=rank) for rank in (2, 0, 1)]
    assert fold(submitted(), first, second, retrying(), *again).ranks == again


def test_what_several_ranks_log_at_a_step_is_one_value() -> None:
    logged_by_two = [
        points("loss", [0, 1], [1.0, 2.0], rank=0),
        points("loss", [0, 1, 2], [3.0, 8.0, 7.0], rank=1),
        points("rows", [0], [10.0], rank=0, reductions={"rows": "sum"}),
        points("rows", [0], [5.0], rank=1, reductions={"rows": "sum"}),
    ]
    run = fold(submitted(), started(), *logged_by_two)
    assert [point[2] for point in run.points("loss")] == [2.0, 5.0, 7.0]
    assert [point[2] for point in run.points("loss", rank=0)] == [1.0, 2.0]
    assert (run.metric("loss", "max"), run.metric("loss", "last")) == (7.0, 7.0)
    assert dict(run.last_values()) == {"loss": 7.0, "rows": 15.0}
    assert [point[2] for point in run.course("loss")] == [2.0, 5.0, 7.0]
    assert [point[2] for point in run.course("rows")] == [15.0]

    later = [points("loss", [1], [0.5], attempt=2, rank=rank) for rank in (0, 1)]
    run = fold(submitted(), started(), *logged_by_two, retrying(), started(2), *later)
    assert [point[2] for point in run.points("loss")] == [2.0, 0.5]
    assert [point[2] for point in run.course("loss")] == [0.5]


def test_records_before_the_submission_change_nothing() -> None:
    told = Fold()
    told.add(make_batch(started()))
    assert told.runs == {}


def test_records_after_the_end_change_nothing() -> None:
    before: list[Record] = [submitted(), started(), points("loss", [1], [2.0]), ended("failed")]
    after: list[Record] = [
        started(2),
        logged(1),
        points("loss", [2], [1.0]),
        labelled(),
        artifact(),
        ended(),
        cancel(),
    ]
    assert repr(fold(*before, *after)) == repr(fold(*before))


def test_a_second_submission_changes_nothing() -> None:
    other = msgspec.structs.replace(submitted(), spec=make_spec(name="other"))
    assert fold(submitted(), started(), other).spec.name == "train"


def test_later_params_labels_and_artifacts_take_the_place_of_earlier_ones() -> None:
    spec = make_spec(params={"p": 0, "q": 1}, labels={"team": "a"})
    first = msgspec.structs.replace(submitted(), spec=spec)
    run = fold(first, logged(5), labelled(), artifact("png"), artifact("html"))

    assert run.params == {"p": 5, "q": 1}
    assert run.labels == {"team": "b", "new": "x"}
    assert run.artifacts["roc"].format == "html"
    assert spec.params == {"p": 0, "q": 1}


def test_a_failed_run_says_why() -> None:
    end = Ended(run="r1", time=9.0, attempt=1, state="failed", problem=PROBLEM)
    run = fold(submitted(), started(), end)
    assert (run.state, run.problem, run.ended_at) == ("failed", PROBLEM, 9.0)


# Metrics


def test_points_come_in_the_order_of_their_steps() -> None:
    run = fold(submitted(), points("loss", [3, 1], [0.3, 0.1]), points("loss", [2, 1], [0.2, 0.9]))
    assert [(step, value) for step, _, value in run.points("loss")] == [
        (1, 0.1),
        (1, 0.9),
        (2, 0.2),
        (3, 0.3),
    ]
    assert dict(run.last_values()) == {"loss": 0.3}


def test_a_later_attempt_takes_over_from_its_first_step_on() -> None:
    run = fold(
        submitted(),
        points("loss", [0, 1, 2, 3], [9.0, 8.0, 7.0, 6.0], attempt=1),
        points("loss", [2, 3], [5.0, 4.0], attempt=2),
        points("only first", [7], [1.0], attempt=1),
    )
    assert [value for _, _, value in run.points("loss")] == [9.0, 8.0, 5.0, 4.0]
    assert dict(run.last_values()) == {"loss": 4.0, "only first": 1.0}


def test_a_value_of_the_highest_step_is_the_last_even_if_it_came_first() -> None:
    run = fold(submitted(), points("loss", [9], [0.9]), points("loss", [1, 2], [0.1, 0.2]))
    assert dict(run.last_values()) == {"loss": 0.9}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.1, -0.0, 5e-324, 1.7e308])
def test_every_float_survives_the_journal(value: float) -> None:
    run = fold(submitted(), points("loss", [1], plain_values([value])))
    assert repr(run.points("loss")[0][2]) == repr(value)


@given(st.lists(st.floats(), max_size=5))
def test_every_list_of_floats_has_a_form_in_json(values: list[float]) -> None:
    text = msgspec.json.encode(plain_values(values))
    assert b"null" not in text
    assert repr([float(v) for v in msgspec.json.decode(text)]) == repr(values)


# Journals of a newer rayml


def test_an_unknown_type_of_record_is_skipped() -> None:
    unknown = msgspec.Raw(b'{"type":"checkpoint","run":"r1","time":1,"step":{"deep":[1]}}')
    batch = make_batch(submitted(), started())
    batch.records.insert(1, unknown)
    told = Fold()
    told.add(batch)

    assert decode_record(unknown) is None
    assert told.runs["r1"].state == "running"


def test_an_unknown_field_of_a_record_is_skipped() -> None:
    data = msgspec.json.decode(msgspec.json.encode(started()))
    assert decode_record(msgspec.json.encode(data | {"later": 1})) == started()


def test_a_known_record_without_its_fields_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_record(b'{"type":"started","run":"r1","time":1}')


def test_a_wait_that_is_told_after_the_start_changes_nothing() -> None:
    runs: dict[str, RunRecord] = {}
    begun = Started(run="r1", time=2.0, attempt=1, node="", host="h", pid=1)
    late = Waiting(run="r1", time=2.1, attempt=1, reason="a worker process is starting")
    for record in (submitted("r1"), begun, late):
        apply(runs, record)
    assert runs["r1"].state == "running"
    assert runs["r1"].reason == ""
    apply(runs, Waiting(run="r1", time=3.0, attempt=2, reason="busy"))
    assert runs["r1"].state == "waiting"


def test_a_running_attempt_tells_how_far_it_is_until_it_ends() -> None:
    begun = Started(run="r1", time=2.0, attempt=1, node="", host="h", pid=1)
    far = Progress(run="r1", time=2.5, attempt=1, text="3 of 9 tasks")
    assert fold(submitted(), far).reason == ""
    assert fold(submitted(), begun, far).reason == "3 of 9 tasks"
    assert fold(submitted(), begun, far, ended()).reason == ""
    assert fold(submitted(), begun, retrying(), far).reason == "again"


def reserved(time: float, *workers: str, attempt: int = 1) -> Reserved:
    return Reserved(run="r1", time=time, attempt=attempt, shape="abc", workers=list(workers))


def test_workers_cost_what_they_are_held_for() -> None:
    run = fold(submitted(), reserved(1, "a", "b"), Released(run="r1", time=5, attempt=1), ended())
    assert (run.worker_s, run.held) == (8.0, None)


def test_the_end_of_a_run_gives_its_workers_back() -> None:
    run = fold(submitted(), reserved(3.5, "a", "b"), ended())
    assert (run.worker_s, run.held) == (11.0, None)


def test_other_workers_take_the_place_of_those_before() -> None:
    run = fold(submitted(), reserved(10, "a", "b"), reserved(12, "b", "c", "d"))
    assert run.worker_s == 4.0
    assert run.held_s(13) == 3.0


def test_a_clock_that_goes_back_costs_nothing() -> None:
    run = fold(submitted(), reserved(10, "a"), ended())
    assert run.worker_s == 0.0
