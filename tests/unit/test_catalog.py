"""The catalog: many writers, one order, every change whole or not at all."""

from __future__ import annotations

import multiprocessing
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayml.artifacts.record import ArtifactRecord, FileRecord
from rayml.errors import JournalCorrupt, StoreError, StoreUnreachable
from rayml.store.folder import Folder
from rayml.tracker.catalog import STATE_EVERY, Catalog
from rayml.tracker.changes import (
    AliasMoved,
    CatalogState,
    Change,
    Entry,
    ModelTagged,
    RunEdited,
    RunsArchived,
    RunsCollected,
    RunsDeleted,
    VersionAdded,
)
from rayml.tracker.sealed import seal_line
from tests.unit.journals import MemoryStore, ScriptedFolder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rayml.store import Store

ARTIFACT = ArtifactRecord(
    name="model",
    kind="model",
    format="skops",
    files=[FileRecord(path="model.skops", digest="ab" * 32, size=3)],
    meta={},
    run="r1",
)


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


def note(run: str, text: str) -> RunEdited:
    return RunEdited(run=run, notes=text)


def always(change: Change) -> Callable[[CatalogState], Change]:
    return lambda _: change


def add_version(state: CatalogState) -> Change:
    """Decide as whoever registers a model does: the next number."""
    model = state.models.get("churn")
    number = max(model.versions, default=0) + 1 if model else 1
    return VersionAdded(model="churn", version=number, artifact=ARTIFACT)


def read(store: Store) -> CatalogState:
    """Read as another process would: with nothing remembered."""
    return Catalog(store).refresh()


def fill(store: Store, count: int) -> None:
    catalog = Catalog(store)
    for number in range(count):
        catalog.append(always(note(f"r{number % 7}", f"note {number}")))


# Several writers


def race(store: Folder, count: int) -> None:
    append_versions(Catalog(store), count)


def append_versions(catalog: Catalog, count: int) -> None:
    for _ in range(count):
        catalog.append(add_version)


def test_racing_threads_lose_no_change_and_number_without_holes(store: Folder) -> None:
    threads = [threading.Thread(target=race, args=(store, 10)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read(store).models["churn"].versions) == list(range(1, 41))


def test_threads_that_share_a_catalog_lose_no_change(store: Folder) -> None:
    catalog = Catalog(store)
    threads = [threading.Thread(target=append_versions, args=(catalog, 10)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(catalog.refresh().models["churn"].versions) == list(range(1, 41))


def test_racing_processes_lose_no_change(store: Folder) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=race, args=(store, 10)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(read(store).models["churn"].versions) == list(range(1, 31))


def test_a_change_is_decided_again_when_another_came_in_between(store: Folder) -> None:
    seen: list[int] = []

    def decide(state: CatalogState) -> Change:
        if not seen:
            Catalog(store).append(add_version)
        seen.append(state.seq)
        return add_version(state)

    Catalog(store).append(decide)
    assert seen == [0, 1]
    assert sorted(read(store).models["churn"].versions) == [1, 2]


def test_who_decides_for_nothing_writes_nothing(store: Folder) -> None:
    Catalog(store).append(lambda _: None)
    assert store.list("catalog/") == []


def test_an_error_while_deciding_changes_nothing(store: Folder) -> None:
    def refuse(_: CatalogState) -> Change:
        raise KeyError("no")

    with pytest.raises(KeyError):
        Catalog(store).append(refuse)
    assert store.list("catalog/") == []


def test_a_state_that_was_handed_out_never_changes(store: Folder) -> None:
    catalog = Catalog(store)
    catalog.append(always(RunEdited(run="r1", labels={"a": "1"})))
    catalog.append(add_version)
    before = catalog.refresh()
    kept = msgspec.json.encode(before)
    catalog.append(always(RunEdited(run="r1", labels={"a": "2"})))
    catalog.append(always(AliasMoved(model="churn", alias="production", version=1)))
    catalog.append(always(ModelTagged(model="churn", tags={"x": "y"}, version=1)))

    assert msgspec.json.encode(before) == kept
    assert catalog.refresh().runs["r1"].labels == {"a": "2"}


# Stores that fail


@pytest.mark.parametrize("word", ["silent", "late"])
def test_an_answer_that_was_lost_is_not_written_twice(tmp_path: Path, word: str) -> None:
    store = ScriptedFolder(tmp_path / "store", word)
    Catalog(store).append(add_version)
    assert sorted(read(store).models["churn"].versions) == [1]
    Catalog(store).append(add_version)
    assert sorted(read(store).models["churn"].versions) == [1, 2]


def test_a_store_that_stays_silent_is_an_error_and_may_be_tried_again(tmp_path: Path) -> None:
    store = ScriptedFolder(tmp_path / "store", "refused", "refused")
    catalog = Catalog(store)
    with pytest.raises(StoreUnreachable):
        catalog.append(add_version)
    catalog.append(add_version)
    assert sorted(read(store).models["churn"].versions) == [1]


def test_a_lost_shortcut_does_not_fail_the_change(tmp_path: Path) -> None:
    store = ScriptedFolder(tmp_path / "store", *["ok"] * STATE_EVERY, "refused")
    fill(store, STATE_EVERY)
    assert store.list("catalog_states/") == []
    assert read(store).seq == STATE_EVERY


# Damage


def entry_path(store: Folder, seq: int) -> Path:
    return store.root / f"catalog/{seq:012d}.json"


def test_a_missing_entry_is_named_and_nothing_changes(store: Folder) -> None:
    catalog = Catalog(store)
    catalog.append(add_version)
    before = catalog.refresh()
    fill(store, 3)
    entry_path(store, 3).unlink()

    with pytest.raises(JournalCorrupt, match=r"catalog/000000000003\.json is missing; restore it"):
        catalog.refresh()
    with pytest.raises(JournalCorrupt, match="000000000003"):
        catalog.append(add_version)
    with pytest.raises(JournalCorrupt, match="000000000003"):
        read(store)
    entry_path(store, 4).unlink()
    assert before.seq == 1
    assert catalog.refresh().seq == 2


@pytest.mark.parametrize("data", [b"", b"\0\xff", b"{}\n", b'{"seq":2}\n{"crc32":1}\n'])
def test_a_garbled_entry_is_named(store: Folder, data: bytes) -> None:
    fill(store, 3)
    entry_path(store, 2).write_bytes(data)
    with pytest.raises(JournalCorrupt, match=r"000000000002\.json is not what was written"):
        read(store)


def test_an_entry_in_another_one_s_place_is_named(store: Folder) -> None:
    fill(store, 3)
    entry_path(store, 2).write_bytes(entry_path(store, 3).read_bytes())
    with pytest.raises(JournalCorrupt, match=r"catalog/000000000002\.json is another one"):
        read(store)


def test_any_flipped_bit_is_found() -> None:
    store = MemoryStore()
    Catalog(store).append(always(RunEdited(run="r1", labels={"team": "red"})))
    (key,) = store.list("catalog/")
    whole = store.get(key)
    for position in range(len(whole) * 8):
        content = bytearray(whole)
        content[position // 8] ^= 1 << position % 8
        store.put(key, bytes(content))
        with pytest.raises(JournalCorrupt, match=key):
            read(store)


def test_other_files_in_the_folder_are_passed_over(store: Folder) -> None:
    fill(store, 2)
    (store.root / "catalog/.DS_Store").write_bytes(b"?")
    (store.root / "catalog/zzz.json").write_bytes(b"?")
    assert read(store).seq == 2


# Other versions of rayml


def write_newer(store: Folder, seq: int, **fields: object) -> None:
    """Write an entry as a newer rayml may."""
    catalog = Catalog(store)
    catalog.append(always(note("r1", "a placeholder")))
    path = entry_path(store, seq)
    entry = msgspec.json.decode(path.read_bytes().partition(b"\n")[0])
    path.write_bytes(seal_line(msgspec.json.encode(entry | fields)))


@pytest.mark.parametrize(
    "fields",
    [{"change": {"type": "starred", "run": "r1"}}, {"format": 2, "change": {"type": "edit"}}],
)
def test_what_only_a_newer_rayml_knows_is_skipped_and_kept(
    store: Folder, fields: dict[str, object]
) -> None:
    fill(store, 1)
    write_newer(store, 2, **fields)
    written = entry_path(store, 2).read_bytes()
    Catalog(store).append(always(note("r9", "later")))

    state = read(store)
    assert (state.seq, state.is_partial) == (3, True)
    assert state.runs["r9"].notes == "later"
    assert "r1" not in state.runs
    assert entry_path(store, 2).read_bytes() == written


def test_a_state_that_lacks_a_newer_change_is_not_stored(store: Folder) -> None:
    write_newer(store, 1, change={"type": "starred"})
    fill(store, STATE_EVERY)
    assert store.list("catalog_states/") == []


def test_an_entry_of_today_stays_readable(store: Folder) -> None:
    """The format is stored for ever: this text was written by rayml 0.1."""
    line = (
        '{"format":1,"seq":1,"nonce":"n","time":1.5,"by":"ada","change":{"type":"alias",'
        '"model":"churn","alias":"production","version":3}}'
    )
    entry_path(store, 1).parent.mkdir(parents=True)
    entry_path(store, 1).write_text(line + '\n{"crc32":1844018401}\n')
    assert read(store).models["churn"].aliases == {"production": 3}


# The shortcut


def test_a_new_reader_takes_the_shortcut(store: Folder) -> None:
    fill(store, STATE_EVERY + 5)
    whole = read(store)
    entry_path(store, 1).write_bytes(b"not even read")
    assert read(store) == whole
    assert whole.seq == STATE_EVERY + 5


@pytest.mark.parametrize("damage", ["flipped", "empty", "of another number", "of another format"])
def test_a_damaged_shortcut_is_passed_over(store: Folder, damage: str) -> None:
    fill(store, STATE_EVERY)
    whole = read(store)
    (key,) = store.list("catalog_states/")
    content = bytearray(store.get(key))
    if damage == "flipped":
        content[len(content) // 2] ^= 1
        store.put(key, bytes(content))
    elif damage == "empty":
        store.put(key, b"")
    elif damage == "of another number":
        store.put(f"catalog_states/{STATE_EVERY - 1:012d}.json", bytes(content))
        store.delete(key)
    else:
        store.put(key, bytes(content).replace(b'"format":1', b'"format":2'))
    assert read(store) == whole


names = st.sampled_from(["a", "b", "c"])
texts = st.text(max_size=5)
tags = st.dictionaries(names, st.none() | texts, max_size=3)
versions = st.integers(1, 4)
changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(
        VersionAdded,
        model=names,
        version=versions,
        artifact=st.just(ARTIFACT),
        alias=st.none() | names,
    ),
    st.builds(AliasMoved, model=names, alias=names, version=st.none() | versions),
    st.builds(ModelTagged, model=names, tags=tags, version=st.none() | versions),
    st.builds(RunEdited, run=names, labels=tags, notes=st.none() | texts),
    st.builds(RunsArchived, runs=st.lists(names), is_archived=st.booleans()),
    st.builds(RunsDeleted, runs=st.lists(names), is_deleted=st.booleans()),
    st.builds(RunsCollected, runs=st.lists(names)),
)


@given(st.lists(changes | st.none(), max_size=30), st.integers(0, 30))
def test_the_fold_of_all_is_the_fold_of_a_stored_state_and_the_rest(
    made: list[Change | None], cut: int
) -> None:
    entries = [
        Entry(seq=n, nonce="", time=float(n), by="ada", change=change)
        for n, change in enumerate(made, 1)
    ]
    whole, first = CatalogState(), CatalogState()
    for entry in entries:
        whole.add(entry)
    for entry in entries[:cut]:
        first.add(entry)
    stored = msgspec.json.decode(msgspec.json.encode(first), type=CatalogState)
    for entry in entries[cut:]:
        stored.add(entry)
    assert stored == whole


@given(st.lists(changes, max_size=20))
def test_an_aliases_history_ends_with_what_it_names(made: list[Change]) -> None:
    store = MemoryStore()
    catalog = Catalog(store)
    for change in made:
        catalog.append(always(change))
    for model in read(store).models.values():
        last = {move.alias: move.version for move in model.moves}
        assert {alias: n for alias, n in last.items() if n is not None} == model.aliases
    assert read(store) == catalog.refresh()


def test_a_store_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError):
        read(Folder(tmp_path / "store"))
