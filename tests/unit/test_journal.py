"""The journal: what one writer appended is read back whole, and damage is never taken for data."""

from __future__ import annotations

import random
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayml.errors import JournalCorrupt, JournalFenced, NotFound, StoreError, StoreUnreachable
from rayml.store.folder import Folder
from rayml.tracker.journal import Journal
from rayml.tracker.live import LiveMark, live_shards
from rayml.tracker.reader import Reader
from rayml.tracker.segments import Batch, Fence, decode_segment, encode_segment, segment_key
from rayml.tracker.shards import ShardReader
from tests.unit.journals import (
    OWNER,
    MemoryStore,
    Replayed,
    ScriptedFolder,
    encode,
    logged,
    logged_columns,
    points,
    read_run,
    submitted,
)

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


def open_journal(store: Store, shard: str = "s") -> tuple[Journal, list[Batch]]:
    journal, replayed = Journal(store, shard), Replayed()
    journal.open(OWNER, replayed)
    return journal, replayed.batches


def recovered(journal: Journal) -> list[Batch]:
    replayed = Replayed()
    journal.recover(replayed)
    return replayed.batches


def read_values(store: Store, shard: str = "s") -> list[object]:
    """The logged values in a shard, as a new reader sees them."""
    batches = [b for s in ShardReader(store, shard).read() for b in s.batches]
    return [msgspec.json.decode(b.records[0])["params"]["p"] for b in batches]


def tear(store: Folder, seq: int, keep: int = 40) -> None:
    path = store.root / segment_key("s", seq)
    path.write_bytes(path.read_bytes()[:keep])


SEGMENT = encode_segment("s", 7, 3, "nonce", [encode(logged("é🚀")), encode(logged(1), n=2)])


# Segments


@given(
    st.lists(
        st.builds(
            Batch,
            producer=st.text(st.characters(codec="utf-8"), max_size=5),
            n=st.integers(1, 2**62),
            run=st.text(st.characters(codec="utf-8"), max_size=5),
            attempt=st.integers(1, 9),
            records=st.lists(
                st.dictionaries(
                    st.text(st.characters(codec="utf-8"), max_size=5),
                    st.none() | st.floats(allow_nan=False, allow_infinity=False),
                    max_size=3,
                ).map(lambda value: msgspec.Raw(msgspec.json.encode(value))),
                max_size=3,
            ),
        ),
        max_size=4,
    )
)
def test_a_segment_gives_back_the_batches_that_it_was_made_of(batches: list[Batch]) -> None:
    lines = [msgspec.json.encode(batch) for batch in batches]

    segment = decode_segment("x", encode_segment("s", 7, 3, "nonce", lines))

    assert [msgspec.json.encode(batch) for batch in segment.batches] == lines
    assert (segment.seq, segment.epoch, segment.nonce) == (7, 3, "nonce")


@given(st.integers(0, len(SEGMENT) - 2), st.integers(1, 255))
def test_one_changed_byte_is_detected(position: int, difference: int) -> None:
    changed = bytearray(SEGMENT)
    changed[position] ^= difference

    with pytest.raises(JournalCorrupt, match="shards/x in the journal"):
        decode_segment("shards/x", bytes(changed))


def test_a_segment_that_was_cut_off_anywhere_is_detected() -> None:
    for kept in range(len(SEGMENT) - 1):
        with pytest.raises(JournalCorrupt):
            decode_segment("x", SEGMENT[:kept])


def test_a_missing_last_newline_loses_nothing() -> None:
    assert decode_segment("x", SEGMENT[:-1]) == decode_segment("x", SEGMENT)


# One writer


def test_what_was_appended_is_read_in_order(store: Folder) -> None:
    journal, _ = open_journal(store)
    journal.append([encode(logged(1)), encode(logged(2), n=2)])
    journal.append([encode(logged(3), n=3)])

    assert read_values(store) == [1, 2, 3]


def test_a_second_writer_replays_what_the_first_wrote(store: Folder) -> None:
    journal, _ = open_journal(store)
    journal.append([encode(logged(1))])

    second, replayed = open_journal(store)
    second.append([encode(logged(2), n=2)])

    assert [batch.n for batch in replayed] == [1]
    assert second.epoch == 2
    assert read_values(store) == [1, 2]


def test_a_reader_goes_on_where_it_was(store: Folder) -> None:
    journal, _ = open_journal(store)
    reader = ShardReader(store, "s")
    counts = []
    for n in range(3):
        journal.append([encode(logged(n), n=n + 1)])
        counts.append(sum(len(segment.batches) for segment in reader.read()))

    assert counts == [1, 1, 1]
    assert list(reader.read()) == []


def test_a_stale_writer_can_never_append_again(store: Folder) -> None:
    stale, _ = open_journal(store)
    newer, _ = open_journal(store)

    for value in range(3):
        with pytest.raises(JournalFenced, match="taken over"):
            stale.append([encode(logged("stale"))])
        newer.append([encode(logged(value), n=value + 1)])

    assert read_values(store) == [0, 1, 2]
    with pytest.raises(JournalFenced):
        recovered(stale)


def test_of_many_writers_that_open_at_once_the_last_one_writes(store: Folder) -> None:
    with ThreadPoolExecutor(8) as pool:
        journals = [j for j, _ in pool.map(lambda _: open_journal(store), range(8))]

    assert sorted(journal.epoch for journal in journals) == list(range(1, 9))
    for journal in sorted(journals, key=lambda journal: journal.epoch):
        if journal.epoch < 8:
            with pytest.raises(JournalFenced):
                journal.append([encode(logged("stale"))])
        else:
            journal.append([encode(logged("last"))])
    assert read_values(store) == ["last"]


# Lost answers


def test_a_write_whose_answer_was_lost_is_there_once(store: Folder) -> None:
    journal, _ = open_journal(faulty := ScriptedFolder(store.root))
    faulty.script = ["silent"]
    with pytest.raises(StoreUnreachable):
        journal.append([encode(logged(1))])

    assert [batch.n for batch in recovered(journal)] == [1]
    journal.append([encode(logged(2), n=2)])
    assert read_values(store) == [1, 2]


def test_a_write_that_did_not_arrive_is_not_there(store: Folder) -> None:
    journal, _ = open_journal(faulty := ScriptedFolder(store.root))
    faulty.script = ["refused"]
    with pytest.raises(StoreUnreachable):
        journal.append([encode(logged(1))])

    assert recovered(journal) == []
    journal.append([encode(logged(1))])
    assert read_values(store) == [1]


def test_a_write_that_arrives_late_is_no_other_writer(store: Folder) -> None:
    journal, _ = open_journal(faulty := ScriptedFolder(store.root))
    faulty.script = ["late"]
    with pytest.raises(StoreUnreachable):
        journal.append([encode(logged(1))])
    assert recovered(journal) == []

    with pytest.raises(StoreError, match="send the same again") as caught:
        journal.append([encode(logged(2), n=2)])

    assert not isinstance(caught.value, JournalFenced)
    assert [batch.n for batch in recovered(journal)] == [1]
    journal.append([encode(logged(2), n=2)])
    assert read_values(store) == [1, 2]


def test_a_claim_whose_answer_was_lost_fences_nobody_for_ever(store: Folder) -> None:
    faulty = ScriptedFolder(store.root)
    faulty.script = ["silent"]
    with pytest.raises(StoreUnreachable):
        open_journal(faulty)

    journal, _ = open_journal(faulty)
    journal.append([encode(logged(1))])
    assert journal.epoch == 2
    assert read_values(store) == [1]


def test_a_store_that_is_away_is_no_other_writer(store: Folder) -> None:
    journal, _ = open_journal(store)
    journal.append([encode(logged(1))])
    aside = store.root.rename(store.root.with_name("aside"))
    with pytest.raises(StoreError, match=r"ends at segment 0 and 2 were written") as caught:
        recovered(journal)
    assert not isinstance(caught.value, JournalFenced)

    aside.rename(store.root)
    assert [batch.n for batch in recovered(journal)] == [1]
    journal.append([encode(logged(2), n=2)])


# Damage


def test_a_torn_last_segment_is_passed_over(store: Folder) -> None:
    journal, _ = open_journal(store)
    for n in (1, 2):
        journal.append([encode(logged(n), n=n)])
    tear(store, 3)

    assert read_values(store) == [1]


def test_a_segment_that_was_seen_half_is_read_when_it_is_whole(store: Folder) -> None:
    journal, _ = open_journal(store)
    journal.append([encode(logged(1))])
    path = store.root / segment_key("s", 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    reader = ShardReader(store, "s")
    assert [len(segment.batches) for segment in reader.read()] == [0]

    path.write_bytes(whole)
    assert [len(segment.batches) for segment in reader.read()] == [1]


def test_a_new_writer_steps_over_a_torn_segment_for_all_later_readers(store: Folder) -> None:
    journal, _ = open_journal(store)
    for n in (1, 2):
        journal.append([encode(logged(n), n=n)])
    tear(store, 3)

    newer, replayed = open_journal(store)
    newer.append([encode(logged("after"), n=3)])

    assert [batch.n for batch in replayed] == [1]
    assert read_values(store) == [1, "after"]
    segments = list(ShardReader(store, "s").read())
    assert segments[2].fence == Fence(epoch=2, owner=OWNER, torn=[3])


def test_a_corrupt_segment_in_the_middle_is_named(store: Folder) -> None:
    journal, _ = open_journal(store)
    for n in (1, 2, 3):
        journal.append([encode(logged(n), n=n)])
    tear(store, 3)

    with pytest.raises(JournalCorrupt, match=segment_key("s", 3)):
        read_values(store)
    with pytest.raises(JournalCorrupt, match=segment_key("s", 3)):
        open_journal(store)


def test_a_corrupt_shard_leaves_the_others_readable(store: Folder) -> None:
    bad, _ = open_journal(store)
    for n in (1, 2, 3):
        bad.append([encode(submitted("lost") if n == 1 else logged(n, run="lost"), n=n)])
    whole = (store.root / segment_key("s", 3)).read_bytes()
    tear(store, 3)
    good, _ = open_journal(store, "t")
    good.append([encode(submitted("kept"), producer="b")])
    reader = Reader(store)
    reader.refresh()

    assert reader.find("kept").spec.run == "kept"
    with pytest.raises(NotFound, match=segment_key("s", 3)):
        reader.find("other")

    (store.root / segment_key("s", 3)).write_bytes(whole)
    reader.refresh()
    assert reader.problems == {}
    assert reader.find("lost").params == {"p": 3}


def test_a_newer_format_is_refused_and_not_stepped_over(store: Folder) -> None:
    journal, _ = open_journal(store)
    newer = SEGMENT.replace(b'{"format":1,', b'{"format":2,')
    head = newer[: newer.rindex(b'{"batches"')]
    trailer = msgspec.json.encode({"batches": 2, "crc32": zlib.crc32(head)})
    store.put(segment_key("s", 2), head + trailer)

    with pytest.raises(JournalCorrupt, match="format 2 and this rayml reads up to 1"):
        read_values(store)
    with pytest.raises(JournalCorrupt, match="format 2"):
        open_journal(store)
    with pytest.raises(JournalFenced):
        journal.append([encode(logged(1))])


def test_points_that_are_not_numbers_survive(store: Folder) -> None:
    journal, _ = open_journal(store)
    journal.append([encode(submitted(), points("loss 🚀", [1, 2], ["inf", "nan"]))])

    columns = logged_columns(read_run(store), "loss 🚀")
    assert columns.value[0] == float("inf")
    assert columns.value[1] != columns.value[1]


# The mark beside it


def test_the_mark_says_who_writes_a_shard(store: Folder) -> None:
    mark = LiveMark(store, "s")
    assert mark.get() is None
    mark.set(OWNER)
    assert (mark.get(), live_shards(store)) == (OWNER, ["s"])

    mark.clear()
    assert (mark.get(), live_shards(store)) == (None, [])


def test_a_mark_that_cannot_be_read_is_no_mark(store: Folder) -> None:
    store.put("live/s.json", b"{")
    assert LiveMark(store, "s").get() is None


# The store that other tests use


def test_the_store_in_memory_answers_as_a_folder_does(tmp_path: Path) -> None:
    rng = random.Random(1)
    both: tuple[Store, Store] = (Folder(tmp_path / "store"), MemoryStore())
    keys = [f"shards/{shard}/{n}" for shard in "ab" for n in range(3)]
    for step in range(150):
        key, data = rng.choice(keys), str(step).encode()
        action = rng.choice(["create", "put", "delete", "get", "size", "list"])
        answers = [act(store, action, key, data) for store in both]
        assert answers[0] == answers[1], (action, key)


def act(store: Store, action: str, key: str, data: bytes) -> object:
    if action in ("create", "put"):
        return getattr(store, action)(key, data)
    if action == "list":
        return store.list(key.rpartition("/")[0] + "/", after=key)
    try:
        return getattr(store, action)(key)
    except NotFound:
        return NotFound
