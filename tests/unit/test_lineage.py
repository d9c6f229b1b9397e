"""What was made from what: from a dataset to a model in use, and back."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

import rayml
from rayml.artifacts.record import ArtifactRecord, FileRecord
from rayml.errors import NotFound, SpecError
from rayml.spec import InputRecord
from rayml.store.folder import Folder
from rayml.tracker.journal import Journal
from rayml.tracker.records import Logged, Submitted
from tests.unit.journals import OWNER, Replayed, encode, ended, make_spec

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.tracker.records import Record


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


def made(run: str, name: str, digest: str, kind: str = "model") -> Logged:
    files = [FileRecord(path=name, digest=digest * 64, size=3)]
    record = ArtifactRecord(name=name, kind=kind, format="f", files=files, meta={}, run=run)
    return Logged(run=run, time=3.0, attempt=1, artifact=record)


def taken(uri: str, digest: str | None = None, kind: str = "artifact") -> InputRecord:
    whole = None if digest is None else digest * 64
    return InputRecord(name="data", uri=uri, kind=kind, digest=whole)


def write(store: Folder, run: str, inputs: list[InputRecord], *logged: Logged) -> None:
    spec = make_spec(run, inputs={f"i{n}": given for n, given in enumerate(inputs)})
    first = Submitted(run=run, time=1.0, spec=spec)
    journal = Journal(store, f"shard-{run}")
    journal.open(OWNER, Replayed())
    records: list[Record] = [first, *logged, ended(run=run)]
    for n, record in enumerate(records, 1):
        journal.append([encode(record, producer=run, n=n)])


@pytest.fixture
def chain(store: Folder) -> Folder:
    """s3://raw → clean → rows → train → model (churn@1) → predict → table; other is apart."""
    raw, other = (taken(f"s3://raw/{name}.csv", kind="uri") for name in "xy")
    rows, model = taken("rayml://runs/clean/rows"), taken("rayml://runs/train/model")
    write(store, "clean", [raw], made("clean", "rows", "a", "dataset"))
    write(store, "train", [rows], made("train", "model", "b"))
    write(store, "predict", [model], made("predict", "out", "c", "table"))
    write(store, "other", [other], made("other", "model", "d"))
    rayml.register_model("rayml://runs/train/model", "churn", "production", store=store)
    return store


def uris(nodes: list[object]) -> list[str]:
    return [getattr(node, "uri", "") for node in nodes]


UP = ["rayml://runs/train", "rayml://runs/clean/rows", "rayml://runs/clean", "s3://raw/x.csv"]
DOWN = ["rayml://runs/predict", "rayml://runs/predict/out"]


@pytest.mark.parametrize(
    "name", ["rayml://runs/train/model", "rayml://models/churn@production", "rayml://models/churn"]
)
def test_a_model_is_followed_both_ways(chain: Folder, name: str) -> None:
    found = rayml.lineage(name, store=chain)
    assert found.node.uri == "rayml://runs/train/model"
    assert found.node.versions == ("churn@1 @production",)
    assert uris(list(found.upstream)) == UP
    assert uris(list(found.downstream)) == DOWN


@pytest.mark.parametrize("name", ["train", "tra", "rayml://runs/train"])
def test_a_run_is_followed_both_ways(chain: Folder, name: str) -> None:
    found = rayml.lineage(name, store=chain)
    assert uris(list(found.upstream)) == UP[1:]
    assert uris(list(found.downstream)) == ["rayml://runs/train/model", *DOWN]


def test_data_from_elsewhere_is_followed_to_all_that_came_of_it(chain: Folder) -> None:
    found = rayml.lineage("s3://raw/x.csv", store=chain)
    assert found.upstream == []
    assert [node.kind for node in found.downstream] == [
        "run", "dataset", "run", "model", "run", "table",
    ]  # fmt: skip


def test_the_tree_is_readable(chain: Folder) -> None:
    assert str(rayml.lineage("train", store=chain)) == (
        "run train (train, succeeded)\n"
        "from\n"
        "  dataset rayml://runs/clean/rows\n"
        "    run clean (train, succeeded)\n"
        "      uri s3://raw/x.csv\n"
        "to\n"
        "  model rayml://runs/train/model = churn@1 @production\n"
        "    run predict (train, succeeded)\n"
        "      table rayml://runs/predict/out"
    )


def test_the_steps_are_a_table(chain: Folder) -> None:
    frame = rayml.lineage("rayml://models/churn", store=chain).to_pandas()
    steps = set(zip(frame["direction"], frame["source"], frame["product"], strict=True))
    chained = [*reversed(UP), "rayml://runs/train/model", *DOWN]
    pairs = list(pairwise(chained))
    assert steps == {("upstream", *pair) for pair in pairs[:4]} | {
        ("downstream", *pair) for pair in pairs[4:]
    }
    assert set(frame.loc[frame["product"] == UP[0], "product_kind"]) == {"run"}


def test_an_input_with_the_bytes_of_an_artifact_is_that_artifact(chain: Folder) -> None:
    write(chain, "again", [taken("s3://copy/rows", "a", kind="uri")])
    assert uris(list(rayml.lineage("again", store=chain).upstream)) == UP[1:]
    assert "rayml://runs/again" in uris(list(rayml.lineage("clean", store=chain).downstream))


def test_objects_in_memory_are_not_the_same_for_being_of_one_type(store: Folder) -> None:
    for run in ("a", "b"):
        write(store, run, [taken("memory://pandas.DataFrame", kind="memory")])
    found = rayml.lineage("a", store=store)
    assert [node.text for node in found.upstream] == ["memory://pandas.DataFrame"]
    assert uris(list(found.upstream)) == ["memory://pandas.DataFrame#a/data"]


def test_a_run_that_logs_what_it_was_given_is_no_circle(store: Folder) -> None:
    write(store, "a", [taken("/data/x", "a", kind="path")], made("a", "x", "a", "dataset"))
    found = rayml.lineage("a", store=store)
    assert uris(list(found.upstream)) == ["/data/x"]
    assert uris(list(found.downstream)) == ["rayml://runs/a/x"]


def test_two_runs_that_pass_data_round_end(store: Folder) -> None:
    write(store, "a", [taken("rayml://runs/b/x")], made("a", "x", "a"))
    write(store, "b", [taken("rayml://runs/a/x")], made("b", "x", "b"))
    found = rayml.lineage("a", store=store)
    assert len(found.upstream) == len(found.downstream) == 3
    assert str(found).count("(see above)") == 2


def test_a_version_whose_run_has_logged_another_since_is_still_traced(store: Folder) -> None:
    with rayml.start_run("train", store=store) as context:
        first = context.log_model("model", "one", format="pickle")
        rayml.register_model(first, "churn")
        second = context.log_model("model", "two", format="pickle")
    old = InputRecord(name="m", uri=first.uri, kind="artifact", digest=first.digest)
    new = InputRecord(name="m", uri=second.uri, kind="artifact", digest=second.digest)
    write(store, "with-old", [old])
    write(store, "with-new", [new])

    found = rayml.lineage("rayml://models/churn", store=store)
    assert found.node.versions == ("churn@1",)
    assert uris(list(found.upstream)) == [f"rayml://runs/{context.run_id}"]
    assert uris(list(found.downstream)) == ["rayml://runs/with-old"]
    newest = rayml.lineage(second.uri, store=store)
    assert newest.node.versions == ()
    assert uris(list(newest.downstream)) == ["rayml://runs/with-new"]


def test_a_deleted_run_is_part_of_what_others_came_from(chain: Folder) -> None:
    rayml.get_run("clean", store=chain).delete()
    found = rayml.lineage("train", store=chain)
    assert "clean (train, succeeded, deleted)" in str(found)
    assert rayml.lineage("clean", store=chain).upstream


def test_what_nobody_knows_is_said_so(chain: Folder) -> None:
    for name, problem in {
        "s3://raw/z.csv": r"has the input 's3://raw/z.csv'; did you mean 's3://raw/\w.csv'\?",
        "nobody": "has no run 'nobody'",
        "rayml://runs/train/nothing": "has no artifact 'nothing'",
        "rayml://models/nothing": "has no model 'nothing'",
    }.items():
        with pytest.raises(NotFound, match=problem):
            rayml.lineage(name, store=chain)
    with pytest.raises(SpecError, match="is not text; give a run's id or a URI"):
        rayml.lineage(4, store=chain)  # type: ignore[arg-type]
