"""Compaction: whoever reads a shard finds the same before, during and after it."""

from __future__ import annotations

import asyncio
import gzip
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayml.errors import JournalCorrupt, JournalFenced, NotFound, StoreError
from rayml.store.folder import Folder
from rayml.tracker import compaction
from rayml.tracker.checkpoints import Span, find_checkpoint
from rayml.tracker.compaction import compact, mergeable
from rayml.tracker.journal import Journal
from rayml.tracker.reader import Reader
from rayml.tracker.records import Differed
from rayml.tracker.segments import FORMAT, segment_key
from rayml.tracker.tables import POINTS, RUNS, table_key
from rayml.tracker.tracker import Tracker
from tests.unit.journals import (
    OWNER,
    Dying,
    MemoryStore,
    Replayed,
    encode,
    ended,
    logged,
    make_batch,
    points,
    started,
    submitted,
)

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.store import Store
    from rayml.tracker.records import Record


class Writer:
    """Appends records to a shard, each with a segment of its own."""

    def __init__(self, store: Store, shard: str = "s") -> None:
        self._journal = Journal(store, shard)
        self._journal.open(OWNER, _Ignored())
        self._n = 0

    def write(self, *records: Record) -> None:
        for record in records:
            self._n += 1
            self._journal.append([encode(record, producer=f"{id(self)}", n=self._n)])


class _Ignored:
    def restart(self, checkpoint: object) -> None:
        pass

    def add(self, segment: object) -> None:
        pass


def read(store: Store) -> Reader:
    reader = Reader(store)
    reader.refresh()
    assert reader.problems == {}
    return reader


def told(reader: Reader) -> dict[str, object]:
    """All that a reader knows of each run, but for where its points lie."""
    return {
        name: (
            run.spec, run.state, run.reason, run.attempt, run.params, run.labels, run.artifacts,
            run.ranks, run.reductions, run.started_at, run.ended_at, run.problem, run.result,
            run.diff,
            {metric: repr((run.summary(metric), run.points(metric))) for metric in run.series},
        )
        for name, run in sorted(reader.runs.items())
    }  # fmt: skip


def odd_value(rng: random.Random) -> float | str:
    values: list[float | str] = [rng.random(), rng.random(), float(rng.randrange(3)), "nan", "inf"]
    return rng.choice(values)


def some_runs(rng: random.Random, names: list[str]) -> list[Record]:
    """What several runs log, mixed; some have ended, some went back and began again."""
    found: list[list[Record]] = []
    for name in names:
        way: list[Record] = [submitted(name), started(1, name), logged(rng.random(), 1, name)]
        for attempt in range(1, rng.randrange(2, 4)):
            for metric in ("loss", "auc 🚀"):
                steps = rng.sample(range(20), rng.randrange(1, 9))
                values = [odd_value(rng) for _ in steps]
                ranks = rng.sample(range(3), rng.randrange(1, 3))
                way += [points(metric, steps, values, attempt, name, rank) for rank in ranks]
        if rng.random() < 0.3:
            way += [started(attempt, name, rank=1), summed(name, attempt)]
        if rng.random() < 0.5:
            way.append(Differed(run=name, time=3.0, digest=f"{rng.random()}"))
        if rng.random() < 0.6:
            way.append(ended("succeeded", 2, name))
        found.append(way)
    mixed = []
    while found:
        way = rng.choice(found)
        mixed.append(way.pop(0))
        found = [way for way in found if way]
    return mixed


def summed(run: str, attempt: int) -> Record:
    return points("rows", [0], [2.0], attempt, run, rank=1, reductions={"rows": "sum"})


# What readers see


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_a_compacted_shard_tells_the_same(seed: int) -> None:
    rng = random.Random(seed)
    records = some_runs(rng, [f"r{n}" for n in range(6)])
    plain, compacted = MemoryStore(), MemoryStore()
    writers = Writer(plain), Writer(compacted)
    old = Reader(compacted)
    for record in records:
        for writer in writers:
            writer.write(record)
        if rng.random() < 0.2:
            compact(compacted, "s")
        if rng.random() < 0.2:
            old.refresh()
    old.refresh()

    assert told(read(compacted)) == told(read(plain))
    assert told(old) == told(read(plain))


def test_the_tables_can_be_read_by_anyone(tmp_path: Path) -> None:
    store = Folder(tmp_path / "store")
    Writer(store).write(submitted(), points("loss", [0, 1], [0.5, "inf"]), ended())
    assert compact(store, "s") == 1

    [table] = (tmp_path / "store" / "tables").rglob("points.parquet")
    same = {"run": "r1", "metric": "loss", "attempt": 1, "rank": 0, "time": 4.0}
    assert pq.read_table(table).to_pylist() == [
        same | {"step": 0, "value": 0.5},
        same | {"step": 1, "value": float("inf")},
    ]
    lines = gzip.decompress((table.parent / "runs.jsonl.gz").read_bytes()).splitlines()
    assert [msgspec.json.decode(line)["run"] for line in lines] == ["r1"]


def test_a_reader_that_has_older_tables_finds_the_newer_ones() -> None:
    store = MemoryStore()
    writer = Writer(store)
    writer.write(submitted(), points("loss", [0], [0.0]))
    compact(store, "s")
    old = read(store)
    run = old.runs["r1"]
    for step in range(1, 40):
        writer.write(points("loss", [step], [float(step)]))
        compact(store, "s")

    assert [step for step, _, _ in run.points("loss")] == list(range(40))
    assert [step for step, _, _ in old.runs["r1"].points("loss")] == list(range(40))


# What the tracker sees


def append_all(tracker: Tracker, *batches: bytes) -> list[int]:
    async def run() -> list[int]:
        return [await tracker.append(batch) for batch in batches]

    return asyncio.run(run())


def test_a_tracker_goes_on_after_a_checkpoint_as_if_there_were_none() -> None:
    store = MemoryStore()
    batches = [encode(submitted()), encode(logged(1), n=2), encode(ended("failed"), n=3)]
    other = [
        encode(submitted("r2"), producer="b"),
        encode(points("x", [1], [1.0], run="r2"), producer="b", n=2),
    ]
    append_all(Tracker(store, "s", OWNER), *batches, *other)
    compact(store, "s")
    tracker = Tracker(store, "s", OWNER)

    assert append_all(tracker, *batches, *other) == [1, 2, 3, 1, 2]
    with pytest.raises(JournalFenced, match="r1 has ended"):
        append_all(tracker, encode(logged(2), n=4))
    with pytest.raises(Exception, match="r1 exists already"):
        append_all(tracker, encode(submitted(), producer="c"))
    append_all(tracker, encode(points("x", [2], [2.0], run="r2"), producer="b", n=3))
    assert [step for step, _, _ in read(store).runs["r2"].points("x")] == [1, 2]


def test_versions_rise_when_a_tracker_comes_back() -> None:
    store = MemoryStore()
    before = Tracker(store, "s", OWNER)
    append_all(before, encode(submitted()), *(encode(logged(n), n=n) for n in range(2, 9)))
    seen = asyncio.run(before.watch("r1", 0)).version
    compact(store, "s")

    async def hear() -> int:
        return (await asyncio.wait_for(Tracker(store, "s", OWNER).watch("r1", seen), 5)).version

    assert asyncio.run(hear()) > seen


def test_what_was_collected_is_no_place_for_a_writer_that_slept() -> None:
    """It has read up to a segment, sleeps, and finds the next number free again."""
    store = MemoryStore()
    writer = Writer(store)
    writer.write(submitted())
    sleeper = Journal(store, "s")
    create = store.create

    def slow(key: str, data: bytes) -> bool:
        store.create = create  # type: ignore[method-assign]
        for n in range(3):
            writer.write(logged(n), logged(n))
            compact(store, "s")
        assert store.size(key) is None
        return create(key, data)

    store.create = slow  # type: ignore[method-assign]
    sleeper.open(OWNER, _Ignored())

    sleeper.append([encode(logged("from the new one"), producer="new")])
    with pytest.raises(JournalFenced):
        writer.write(logged("from the old one"))
    assert read(store).runs["r1"].params == {"p": "from the new one"}


def test_fences_and_the_last_segment_stay() -> None:
    store = MemoryStore()
    stale = [Writer(store) for _ in range(3)]
    writer = Writer(store)
    writer.write(submitted())
    for n in range(5):
        writer.write(logged(n), logged(n))
        compact(store, "s")

    left = [int(key.rpartition("/")[2].partition(".")[0]) for key in store.list("shards/s/")]
    assert left[:4] == [1, 2, 3, 4]
    assert left[-1] == 4 + 1 + 10
    for old in stale:
        with pytest.raises(JournalFenced):
            old.write(logged("stale"))


# Interrupted, disturbed


def test_it_may_be_killed_at_any_moment() -> None:
    store, plain = MemoryStore(), MemoryStore()
    writers = Writer(store), Writer(plain)
    rng = random.Random(1)
    old = Reader(store)
    survived = 0
    for left in range(26):
        for record in some_runs(rng, [f"r{left}"]):
            for writer in writers:
                writer.write(record)
        try:
            compact(Dying(store.objects, left), "s")
            survived += 1
        except StoreError:
            assert told(read(store)) == told(read(plain))
        old.refresh()
        assert len(old.runs) == left + 1
    assert 0 < survived < 26
    compact(store, "s")
    assert told(read(store)) == told(old) == told(read(plain))


def test_several_at_once_do_no_harm() -> None:
    store, plain = MemoryStore(), MemoryStore()
    writers = Writer(store), Writer(plain)
    for record in some_runs(random.Random(2), [f"r{n}" for n in range(9)]):
        for writer in writers:
            writer.write(record)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: compact(store, "s"), range(4)))

    assert told(read(store)) == told(read(plain))


def test_one_that_finds_its_tables_gone_goes_on_with_the_newer_ones() -> None:
    """Another merges, and merges on, while it is about to read what it would merge."""
    store, plain = MemoryStore(), MemoryStore()
    writers = Writer(store), Writer(plain)

    def write(name: str) -> None:
        for writer in writers:
            writer.write(submitted(name), points("loss", [0, 1], [0.5, 0.25], run=name))

    for n in range(7):
        write(f"r{n}")
        compact(store, "s")
    write("r7")
    get = store.get

    def overtaken(key: str) -> bytes:
        if key.startswith("tables/"):
            store.get = get  # type: ignore[method-assign]
            for n in range(3):
                compact(store, "s")
                write(f"after {n}")
            assert store.size(key) is None
        return get(key)

    store.get = overtaken  # type: ignore[method-assign]
    assert compact(store, "s") == 2

    assert told(read(store)) == told(read(plain))
    checkpoint = find_checkpoint(store, "s")
    assert checkpoint is not None
    left = {key.split("/")[2] for key in store.list("tables/s/")}
    assert {f"{s.first:012d}-{s.last:012d}-{s.nonce}" for s in checkpoint.header.spans} <= left


def test_tables_that_are_lost_are_missed() -> None:
    store = MemoryStore()
    writer = Writer(store)
    for n in range(7):
        writer.write(submitted(f"r{n}"), points("loss", [0], [0.5], run=f"r{n}"))
        compact(store, "s")
    for key in store.list("tables/s/"):
        store.delete(key)
    writer.write(submitted("r7"))
    with pytest.raises(NotFound):
        compact(store, "s")


def test_a_damaged_checkpoint_is_passed_over() -> None:
    store, plain = MemoryStore(), MemoryStore()
    writers = Writer(store), Writer(plain)
    for record in some_runs(random.Random(3), [f"r{n}" for n in range(9)]):
        for writer in writers:
            writer.write(record)
        compact(store, "s")
    newest = store.list("checkpoints/s/")[-1]
    data = bytearray(store.objects[newest])
    data[len(data) // 2] ^= 1
    store.objects[newest] = bytes(data)

    assert told(read(store)) == told(read(plain))
    store.objects[store.list("checkpoints/s/")[0]] = b"{}"
    with pytest.raises(JournalCorrupt, match="checkpoints/s/"):
        Journal(store, "s").open(OWNER, Replayed())


def test_a_damaged_table_is_named() -> None:
    store = MemoryStore()
    Writer(store).write(submitted(), points("loss", [0, 1], [0.5, 0.25]), ended())
    compact(store, "s")
    checkpoint = find_checkpoint(store, "s")
    assert checkpoint is not None
    [span] = checkpoint.header.spans
    run = read(store).runs["r1"]
    key = table_key("s", span, POINTS)
    store.objects[key] = store.objects[key][:-30]
    with pytest.raises(JournalCorrupt, match=key):
        run.points("loss")

    key = table_key("s", span, RUNS)
    store.objects[key] = store.objects[key][:-9]
    reader = Reader(store)
    reader.refresh()
    assert key in str(reader.problems["s"])


def test_records_of_a_newer_rayml_are_left_where_they_are() -> None:
    store = MemoryStore()
    writer = Writer(store)
    writer.write(submitted(), logged(1))
    unknown = msgspec.Raw(b'{"type":"dreamt","run":"r1"}')
    batch = msgspec.structs.replace(make_batch(logged(2), producer="n"), records=[unknown])
    Journal(store, "s").open(OWNER, _Ignored())
    journal = Journal(store, "s")
    journal.open(OWNER, _Ignored())
    journal.append([msgspec.json.encode(batch)])
    journal.append([encode(logged(3), producer="after")])
    assert compact(store, "s") == 1

    assert compact(store, "s") == 0
    assert segment_key("s", 6) in store.objects
    assert read(store).runs["r1"].params == {"p": 3}


def test_a_shard_with_nothing_new_gets_no_checkpoint() -> None:
    store = MemoryStore()
    assert compact(store, "s") == 0
    Writer(store)
    assert compact(store, "s") == 0
    Writer(store).write(submitted())
    assert compact(store, "s") == 1
    Writer(store)
    assert compact(store, "s") == 0
    assert FORMAT == 1


def test_a_long_stretch_becomes_several_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "_SPAN_BYTES", 1000)
    store = MemoryStore()
    writer = Writer(store)
    writer.write(submitted(), *(points("loss", [n], [1.0]) for n in range(30)))
    assert compact(store, "s") > 3

    assert len(read(store).runs["r1"].points("loss")) == 30


# Merging


def span(points: int, runs: int = 0) -> Span:
    return Span(first=1, last=1, nonce="", runs=runs, points=points, size=0, digests={})


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 100)), max_size=200))
def test_a_shard_has_few_spans_and_each_point_is_moved_seldom(
    sizes: list[tuple[int, int]],
) -> None:
    spans: list[Span] = []
    moved = total = 0
    for size, runs in sizes:
        spans.append(span(size, runs))
        total += size + 1000 * runs + 10_000
        while count := mergeable(spans):
            merged = span(
                sum(s.points for s in spans[-count:]), sum(s.runs for s in spans[-count:])
            )
            moved += merged.points + 1000 * merged.runs
            spans[-count:] = [merged]
    assert len(spans) <= 7 * 5 + sum(s.points for s in spans) // 400_000
    assert moved <= 5 * total
