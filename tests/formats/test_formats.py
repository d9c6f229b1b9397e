"""What a release has written stays readable for ever, and can be gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import rayml
from rayml.store import open_store
from rayml.tracker.compaction import compact
from rayml.upkeep.verification import verify
from tests.formats.read import read_store
from tests.formats.write import write_store

STORES = sorted((Path(__file__).parent / "stores").iterdir())


@pytest.fixture(params=STORES, ids=lambda path: path.name)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what a release has written."""
    return Path(shutil.copytree(request.param, tmp_path / "copy"))


def test_a_store_of_an_earlier_release_reads_the_same(release: Path) -> None:
    expected = json.loads((release / "expected.json").read_text())
    assert json.loads(json.dumps(read_store(release / "store"))) == expected


def test_a_store_of_an_earlier_release_is_found_whole(release: Path) -> None:
    assert list(verify(open_store(release / "store"))) == []


def test_a_store_of_an_earlier_release_can_be_gone_on_with(release: Path) -> None:
    uri = release / "store"
    before = read_store(uri)
    with rayml.start_run("newer", store=uri) as run:
        run.log_metric("loss", 1)
    store = open_store(uri)
    for shard in store.folders("shards/"):
        compact(store, shard)
    rayml.get_run(run.run_id, store=uri).delete()

    after = read_store(uri)
    assert after["runs"].pop("newer")["state"] == "succeeded"  # type: ignore[attr-defined]
    assert after == before


def test_this_release_writes_a_store_as_those_are(tmp_path: Path) -> None:
    write_store(tmp_path / "new")
    expected = json.loads((tmp_path / "new" / "expected.json").read_text())
    assert set(expected["runs"]) == {
        "retried", "cancelled", "open", "unended", "unstarted", "logged",
    }  # fmt: skip
