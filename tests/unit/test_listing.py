"""Finding, comparing and editing runs, and runs that belong together."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

import rayml
from rayml.errors import JobFailed, NotFound, SpecError
from rayml.store.folder import Folder
from rayml.tracker.catalog import open_catalog
from rayml.tracker.changes import RunsCollected
from rayml.tracker.journal import Journal
from tests.unit.journals import (
    OWNER,
    Replayed,
    encode,
    ended,
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


def write(store: Folder, run: str, *records: Record, **fields: object) -> rayml.Run:
    """Write a run into a shard of its own, ended well unless records tell otherwise."""
    spec = make_spec(run, **fields)
    first = msgspec.structs.replace(submitted(run), spec=spec)
    journal = Journal(store, f"shard-{run}")
    journal.open(OWNER, Replayed())
    for n, record in enumerate((first, *(records or (started(run=run), ended(run=run)))), 1):
        journal.append([encode(record, producer=run, n=n)])
    return rayml.get_run(run, store=store)


def ids(store: Folder, *args: object, **kwargs: object) -> list[str]:
    return [run.id for run in rayml.runs(*args, store=store, **kwargs)]  # type: ignore[arg-type]


# Queries


@pytest.fixture
def three(store: Folder) -> Folder:
    """a: depth 2, auc 0.7 (0.9 at best); b: depth 4, auc 0.8, failed; c: no metrics, running."""
    write(
        store, "a", points("auc", [0, 1], [0.9, 0.7], run="a"), ended(run="a"), submitted_at=1.0,
        params={"depth": 2}, labels={"team": "red"},
    )  # fmt: skip
    write(
        store, "b", started(run="b"), points("auc", [0], [0.8], run="b"), ended("failed", run="b"),
        submitted_at=2.0, params={"depth": 4}, experiment="x",
    )  # fmt: skip
    write(store, "c", started(run="c"), submitted_at=3.0, params={"depth": 4, "model": {"k": 1}})
    return store


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("metrics.auc > 0.6 and params.depth = 4", ["b"]),
        ("metrics.auc.max > 0.85", ["a"]),
        ("metrics.auc > 0.85", []),
        ("metrics.auc is null", ["c"]),
        ("params.depth in (2, 4)", ["c", "b", "a"]),
        ("params.model.k = 1 or labels.team = 'red'", ["c", "a"]),
        ("state = 'running' or state = 'failed'", ["c", "b"]),
        ("not state = 'running'", ["b", "a"]),
        ("experiment = 'x' and name = 'train' and user = 'ada'", ["b"]),
        ("submitted_at < 1970-01-01T00:00:03", ["b", "a"]),
        ("submitted_at > -7d", []),
        ("duration_s = 7", ["b"]),
    ],
)
def test_runs_that_meet_a_where_are_found(three: Folder, where: str, found: list[str]) -> None:
    assert ids(three, where=where) == found


def test_runs_are_sorted_as_asked_for_and_else_newest_first(three: Folder) -> None:
    assert ids(three, order_by="metrics.auc desc") == ["b", "a", "c"]
    assert ids(three, order_by="metrics.auc") == ["a", "b", "c"]
    assert ids(three, order_by="params.depth desc") == ["c", "b", "a"]
    assert ids(three, "default", "params.depth > 0", "submitted_at") == ["a", "c"]


def test_pages_are_cut_by_limit_and_offset(three: Folder) -> None:
    assert ids(three, limit=2) == ["c", "b"]
    assert ids(three, limit=2, offset=2) == ["a"]
    assert ids(three, offset=1) == ["b", "a"]
    assert ids(three, limit=0) == []
    for page in ({"limit": -1}, {"offset": -1}, {"limit": 1.5}):
        with pytest.raises(SpecError, match="is not a number of runs; give 0 or more"):
            ids(three, **page)


def test_years_old_runs_are_found_without_asking(store: Folder) -> None:
    write(store, "old", submitted_at=1.0)
    write(store, "new", submitted_at=time.time())
    assert ids(store) == ["new", "old"]


def test_sql_in_a_where_is_refused_and_changes_nothing(three: Folder) -> None:
    with pytest.raises(SpecError, match="has '; drop table runs', at character 4"):
        rayml.runs(where="1=1; drop table runs", store=three)
    assert len(rayml.runs(store=three)) == 3


# Tables


def test_a_comparison_shows_only_what_differs(store: Folder) -> None:
    same = {"seed": 1, "model": {"kind": "forest", "tree": {"depth": 4, "leaves": [1, 2]}}}
    other = {"seed": 1.0, "model": {"kind": "forest", "tree": {"depth": 8, "leaves": [1, 2]}}}
    write(store, "a", points("auc", [0], [0.5], run="a"), params=same, submitted_at=1.0)
    write(
        store, "b", points("auc", [0], [0.7], run="b"), params=other | {"x": 1}, submitted_at=2.0
    )
    frame = rayml.runs(order_by="submitted_at", store=store).compare()

    assert list(frame.columns) == ["a", "b"]
    assert list(frame.index) == ["params.model.tree.depth", "params.x", "metrics.auc"]
    assert frame.to_numpy().tolist() == [[4, 8], [None, 1], [0.5, 0.7]]


def test_equal_is_what_people_call_equal(store: Folder) -> None:
    for run, on, rate in (("a", True, "nan"), ("b", 1, "nan")):
        loss = points("loss", [0], ["nan"], run=run)
        write(store, run, loss, params={"on": on, "rate": rate, "empty": {}})
    assert list(rayml.runs(store=store).compare().index) == ["params.on"]


def test_one_run_differs_from_none(three: Folder) -> None:
    frame = rayml.runs(where="id = 'a'", store=three).compare()
    assert frame.empty
    assert list(frame.columns) == ["a"]
    assert rayml.runs("nothing", store=three).compare().empty


def test_a_table_has_labels_as_they_are_now(three: Folder) -> None:
    rayml.get_run("a", store=three).set_labels({"team": "blue", "tier": "gold"})
    frame = rayml.runs(store=three).to_pandas().set_index("id")
    assert frame.loc["a", "labels.team"] == "blue"
    assert frame.loc["a", "metrics.auc"] == 0.7
    assert frame.loc["c", "params.model"] == {"k": 1}


# Edits


def test_labels_are_set_and_taken_away_after_the_end(store: Folder) -> None:
    run = write(store, "a", labels={"team": "red", "x": "y"})
    run.set_labels({"team": "blue", "n": 4, "x": None})  # type: ignore[dict-item]

    assert run.labels == {"team": "blue", "n": "4"}
    assert rayml.get_run("a", store=store).labels == {"team": "blue", "n": "4"}
    assert ids(store, where="labels.team = 'blue' and labels.x is null") == ["a"]
    assert ids(store, where="labels.team = 'red'") == []


def test_notes_are_replaced_as_a_whole(store: Folder) -> None:
    run = write(store, "a")
    assert run.notes == ""
    run.set_notes("too slow\nsee b")
    run.set_notes("fine 🎈")
    assert rayml.get_run("a", store=store).notes == "fine 🎈"
    assert ids(store, where="notes like 'fine%'") == ["a"]
    run.set_notes("")
    assert run.notes == ""


def test_an_archived_run_is_only_listed_if_it_is_asked_for(three: Folder) -> None:
    run = rayml.get_run("a", store=three)
    run.archive()

    assert run.is_archived
    assert ids(three) == ["c", "b"]
    assert ids(three, where="params.depth = 2") == []
    assert ids(three, where="archived") == ["a"]
    assert ids(three, where="archived or not archived") == ["c", "b", "a"]
    assert rayml.get_run("a", store=three).metrics == {"auc": 0.7}
    run.unarchive()
    assert ids(three) == ["c", "b", "a"]


def test_a_deleted_run_tells_how_to_bring_it_back(three: Folder) -> None:
    run = rayml.get_run("a", store=three)
    run.delete()

    assert run.is_deleted
    assert ids(three) == ["c", "b"]
    assert ids(three, where="archived or not archived") == ["c", "b"]
    assert ids(three, where="deleted") == ["a"]
    way_out = r"run a was deleted at \S+ \S+ UTC; bring it back by `rayml undelete a` before"
    with pytest.raises(NotFound, match=way_out):
        rayml.get_run("a", store=three)
    rayml.runs(where="deleted", store=three)[0].undelete()
    assert rayml.get_run("a", store=three).params == {"depth": 2}
    assert not run.is_deleted


def test_the_latest_run_is_one_that_is_not_deleted(store: Folder) -> None:
    for n, run in enumerate("abc"):
        write(store, run, submitted_at=float(n))
    rayml.get_run("c", store=store).delete()
    assert rayml.get_run("latest", store=store).id == "b"
    for run in "ab":
        rayml.get_run(run, store=store).delete()
    with pytest.raises(NotFound):
        rayml.get_run("latest", store=store)


def test_a_run_that_goes_on_is_not_deleted(three: Folder) -> None:
    with pytest.raises(SpecError, match="run c is running; cancel it before you delete it"):
        rayml.get_run("c", store=three).delete()


def test_a_collected_run_is_gone_for_good(three: Folder) -> None:
    run = rayml.get_run("a", store=three)
    run.delete()
    open_catalog(three).append(lambda _: RunsCollected(runs=["a"]))

    assert ids(three, where="deleted") == []
    with pytest.raises(NotFound, match="its data has been collected; restore it from a copy"):
        run.undelete()
    with pytest.raises(NotFound, match="has been collected"):
        rayml.get_run("a", store=three)


def test_edits_outlive_this_process_s_memory(store: Folder, tmp_path: Path) -> None:
    write(store, "a").archive()
    store.root.rename(tmp_path / "moved")
    assert ids(Folder(tmp_path / "moved"), where="archived") == ["a"]


def test_experiments_are_counted(three: Folder) -> None:
    write(three, "d", submitted_at=0.5)
    rayml.get_run("d", store=three).delete()
    found = rayml.experiments(store=three)
    assert [(e.name, e.runs) for e in found] == [("default", 2), ("x", 1)]
    assert found[0].last == datetime.fromtimestamp(3, UTC)
    assert rayml.experiments(store=three.root / "empty") == []


# Parents and children


def test_a_run_knows_its_parent_and_its_children(store: Folder) -> None:
    with rayml.start_run("sweep", store=store) as sweep:
        for depth in (1, 2):
            with rayml.start_run("trial", parent=sweep.run_id, store=store) as trial:
                trial.log_param("depth", depth)
            assert rayml.context().run_id == sweep.run_id
    parent = rayml.get_run(sweep.run_id, store=store)
    children = parent.children()
    assert [run.params["depth"] for run in parent.trials()] == [1, 2]

    assert parent.parent is None
    assert sorted(run.params["depth"] for run in children) == [1, 2]  # type: ignore[type-var]
    assert [run.parent.id for run in children if run.parent] == [parent.id, parent.id]
    assert parent.params == {}
    assert len(ids(store, where=f"parent = '{parent.id}'")) == 2
    assert ids(store, where="parent is null") == [parent.id]


def test_a_parent_has_to_be_there(store: Folder) -> None:
    write(store, "a")
    with pytest.raises(NotFound, match="no run 'b'"), rayml.start_run(parent="b", store=store):
        pytest.fail("it began")
    assert ids(store) == ["a"]


def test_a_child_that_fails_leaves_its_parent_alone(store: Folder) -> None:
    with rayml.start_run("sweep", store=store) as sweep:
        with (
            pytest.raises(KeyError),
            rayml.start_run("trial", parent=sweep.run_id, store=store),
        ):
            raise KeyError("x")
        sweep.log_metric("after", 1)
    parent = rayml.get_run(sweep.run_id, store=store)
    assert parent.wait().metrics == {"after": 1}
    assert isinstance(parent.children()[0].error, JobFailed)


def test_a_job_that_is_submitted_inside_a_run_is_its_child(store: Folder) -> None:
    with rayml.start_run("outer", store=store) as outer:
        spec = rayml.submit(print, store=store, dry_run=True)
        assert not isinstance(spec, rayml.Run)
        assert spec.parent == outer.run_id
    spec = rayml.submit(print, store=store, dry_run=True)
    assert not isinstance(spec, rayml.Run)
    assert spec.parent is None
