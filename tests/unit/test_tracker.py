"""The tracker: what it acknowledged is in the journal, once, whatever fails in between."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from rayml.errors import JournalFenced, NotFound, SpecError, StoreError
from rayml.store.folder import Folder
from rayml.tracker.checkpoints import RECENT
from rayml.tracker.compaction import compact
from rayml.tracker.live import LiveMark
from rayml.tracker.records import CancelRequested, Retrying
from rayml.tracker.shards import ShardReader
from rayml.tracker.tracker import Tracker
from tests.unit.journals import (
    OWNER,
    Dying,
    ScriptedMemory,
    encode,
    ended,
    logged,
    points,
    read_run,
    started,
    submitted,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable
    from pathlib import Path

    from rayml.store import Store
    from rayml.tracker.records import Record


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


def open_tracker(store: Store) -> Tracker:
    return Tracker(store, "s", OWNER)


def append_all(tracker: Tracker, batches: Iterable[bytes], *, together: bool = False) -> list[int]:
    async def run() -> list[int]:
        if together:
            return await asyncio.gather(*map(tracker.append, batches))
        return [await tracker.append(batch) for batch in batches]

    return asyncio.run(run())


def recorded(store: Store) -> list[tuple[str, int]]:
    """Every point of the run, as (metric, step): compacted or not."""
    run = read_run(store)
    return [(metric, step) for metric in run.series for step, _, _ in run.points(metric)]


def written(store: Store) -> list[tuple[str, int]]:
    """Every batch in the shard, as (producer, number)."""
    segments = ShardReader(store, "s").read()
    return [(batch.producer, batch.n) for segment in segments for batch in segment.batches]


# What it writes


def test_an_acknowledged_batch_is_durable(store: Folder) -> None:
    tracker = open_tracker(store)
    assert append_all(tracker, [encode(submitted()), encode(logged(5), n=2)]) == [1, 2]

    assert read_run(store).params == {"p": 5}


def test_a_repeated_batch_is_acknowledged_again_and_not_written_again(store: Folder) -> None:
    tracker = open_tracker(store)
    batches = [encode(submitted()), encode(logged(5), n=2)]

    assert append_all(tracker, [*batches, batches[1], batches[0]]) == [1, 2, 2, 1]
    assert written(store) == [("a", 1), ("a", 2)]


def test_a_batch_that_is_sent_twice_at_once_is_written_once(store: Folder) -> None:
    tracker = open_tracker(store)
    assert append_all(tracker, [encode(submitted())] * 5, together=True) == [1] * 5
    assert written(store) == [("a", 1)]


def test_batches_that_come_at_once_share_segments(store: Folder) -> None:
    tracker = open_tracker(store)
    append_all(tracker, [encode(submitted())])
    before = len(store.list("shards/s/"))
    append_all(tracker, [encode(logged(i), producer=f"p{i}") for i in range(100)], together=True)

    assert len(written(store)) == 101
    assert len(store.list("shards/s/")) - before <= 3


def test_points_are_written_though_the_tracker_does_not_read_them(store: Folder) -> None:
    tracker = open_tracker(store)
    append_all(tracker, [encode(submitted()), encode(points("loss", [0, 1], [2.0, 1.0]), n=2)])

    assert dict(read_run(store).last_values()) == {"loss": 1.0}


def test_only_of_the_runs_that_ended_last_a_batch_may_be_repeated(store: Folder) -> None:
    tracker = open_tracker(store)
    runs = [f"r{number}" for number in range(2 * RECENT)]
    batches = [encode(submitted(run), ended(run=run), producer=run) for run in runs]
    append_all(tracker, batches, together=True)

    assert append_all(tracker, batches[-RECENT:], together=True) == [1] * RECENT
    with pytest.raises(SpecError, match="run r0 exists already"):
        append_all(tracker, batches[:1])


# What it refuses


def test_an_unknown_run_is_not_found(store: Folder) -> None:
    tracker = open_tracker(store)
    with pytest.raises(NotFound, match="no run 'r1'"):
        append_all(tracker, [encode(logged(1))])
    assert written(store) == []


def test_a_run_id_can_be_submitted_once(store: Folder) -> None:
    tracker = open_tracker(store)
    append_all(tracker, [encode(submitted())])

    with pytest.raises(SpecError, match="r1 exists already"):
        append_all(tracker, [encode(submitted(), producer="b")])
    with pytest.raises(SpecError, match="r1 exists already"):
        append_all(open_tracker(store), [encode(submitted(), producer="b")])


def test_a_late_attempt_may_not_write(store: Folder) -> None:
    tracker = open_tracker(store)
    append_all(tracker, [encode(submitted()), encode(started(2), n=2)])

    with pytest.raises(JournalFenced, match="attempt 1 of run r1 was given up"):
        append_all(tracker, [encode(logged("late", attempt=1), producer="old")])
    assert append_all(tracker, [encode(logged("new", attempt=2), producer="new")]) == [1]
    assert read_run(store).params == {"p": "new"}


def test_an_attempt_is_late_as_soon_as_a_retry_is_decided(store: Folder) -> None:
    from rayml.tracker.records import Problem

    tracker = open_tracker(store)
    problem = Problem(kind="oom", message="killed")
    retrying = Retrying(run="r1", time=3.0, attempt=1, delay_s=5, reason="again", problem=problem)
    append_all(tracker, [encode(submitted()), encode(started(), n=2), encode(retrying, n=3)])

    with pytest.raises(JournalFenced):
        append_all(tracker, [encode(logged("late", attempt=1), producer="old")])


def test_nothing_is_written_after_the_end(store: Folder) -> None:
    tracker = open_tracker(store)
    append_all(tracker, [encode(submitted()), encode(ended(), n=2)])

    for reopened in (tracker, open_tracker(store)):
        with pytest.raises(JournalFenced, match="has ended"):
            append_all(reopened, [encode(logged("late"), producer="b")])


def test_a_stale_tracker_cannot_write(store: Folder) -> None:
    stale = open_tracker(store)
    append_all(stale, [encode(submitted())])
    newer = open_tracker(store)

    for _ in range(2):
        with pytest.raises(JournalFenced):
            append_all(stale, [encode(logged("stale"), n=2)])
    assert append_all(newer, [encode(logged("newer"), n=2)]) == [2]
    assert read_run(store).params == {"p": "newer"}


def test_one_refused_batch_does_not_harm_those_beside_it(store: Folder) -> None:
    tracker = open_tracker(store)

    async def run() -> list[int | BaseException]:
        good, bad = encode(submitted()), encode(logged(1, run="none"), producer="b")
        sends = map(tracker.append, (good, bad))
        return await asyncio.gather(*sends, return_exceptions=True)

    answers = asyncio.run(run())
    assert answers[0] == 1
    assert isinstance(answers[1], NotFound)
    assert written(store) == [("a", 1)]


# What it knows again after it was killed


def test_a_new_tracker_knows_what_was_written(store: Folder) -> None:
    batches = [encode(submitted()), encode(logged(1), n=2)]
    append_all(open_tracker(store), batches)

    assert append_all(open_tracker(store), [batches[1], encode(logged(2), n=3)]) == [2, 3]
    assert written(store) == [("a", 1), ("a", 2), ("a", 3)]


def test_a_tracker_that_leaves_with_unended_runs_keeps_its_mark(store: Folder) -> None:
    tracker = open_tracker(store)
    append_all(tracker, [encode(submitted())])
    asyncio.run(tracker.close())
    assert LiveMark(store, "s").get() == OWNER

    append_all(tracker, [encode(ended(), n=2)])
    asyncio.run(tracker.close())
    assert LiveMark(store, "s").get() is None


# Watching


def test_watch_wakes_up_when_the_run_changes(store: Folder) -> None:
    tracker = open_tracker(store)

    async def run() -> list[str]:
        await tracker.append(encode(submitted()))
        first = await tracker.watch("r1", 0)
        waiting = asyncio.create_task(tracker.watch("r1", first.version))
        await tracker.append(encode(started(), n=2))
        second = await asyncio.wait_for(waiting, 5)
        waiting = asyncio.create_task(tracker.watch("r1", second.version))
        await tracker.append(encode(ended(), n=3))
        third = await asyncio.wait_for(waiting, 5)
        return [first.state, second.state, third.state]

    assert asyncio.run(run()) == ["submitted", "running", "ended"]


def test_watch_tells_of_a_wish_to_cancel(store: Folder) -> None:
    tracker = open_tracker(store)
    cancel = CancelRequested(run="r1", time=3.0, grace_s=5, by="ada")
    append_all(tracker, [encode(submitted()), encode(cancel, producer="cli")])

    assert asyncio.run(tracker.watch("r1", 0)).cancel == cancel


def test_watch_of_an_unknown_run_is_not_found(store: Folder) -> None:
    with pytest.raises(NotFound):
        asyncio.run(open_tracker(store).watch("r1", 0))


# A store that fails


@pytest.mark.parametrize("word", ["refused", "silent", "late"])
def test_a_batch_can_be_sent_again_after_a_failure_and_is_there_once(word: str) -> None:
    store = ScriptedMemory()
    tracker = open_tracker(store)
    append_all(tracker, [encode(submitted())])
    store.script = [word]
    batch = encode(logged(1), n=2)

    for _ in range(3):
        if attempt(tracker.append(batch)):
            break
    assert append_all(tracker, [batch]) == [2]
    assert written(store) == [("a", 1), ("a", 2)]


def test_all_who_wait_hear_of_a_failure() -> None:
    store = ScriptedMemory()
    tracker = open_tracker(store)
    append_all(tracker, [encode(submitted())])
    store.script = ["refused"] * 9
    batches = [encode(logged(i), producer=f"p{i}") for i in range(5)]

    async def run() -> list[int | BaseException]:
        return await asyncio.gather(*map(tracker.append, batches), return_exceptions=True)

    assert [type(answer).__mro__[1] for answer in asyncio.run(run())] == [StoreError] * 5
    store.script = []
    assert append_all(tracker, batches) == [1] * 5
    assert len(written(store)) == 6


def test_a_store_that_is_replaced_by_a_file_fails_and_works_again(tmp_path: Path) -> None:
    store = Folder(tmp_path / "store")
    tracker = open_tracker(store)
    append_all(tracker, [encode(submitted())])
    (tmp_path / "store").rename(tmp_path / "aside")
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError, match="part of that path is a file"):
        append_all(tracker, [encode(logged(1), n=2)])

    (tmp_path / "store").unlink()
    (tmp_path / "aside").rename(tmp_path / "store")
    assert append_all(tracker, [encode(logged(1), n=2)]) == [2]
    assert written(store) == [("a", 1), ("a", 2)]


# Random histories: trackers that are killed, twins that live on, writes that fail in every way.

FEW_SEEDS, SEEDS = 2_000, 10_000


def attempt(append: Awaitable[int]) -> bool:
    """Tell whether a batch was acknowledged."""

    async def run() -> int:
        return await append

    try:
        asyncio.run(run())
    except StoreError:
        return False
    return True


class History:
    """Producers that send each batch until it is acknowledged, through whichever tracker lives."""

    def __init__(self, seed: int, loop: asyncio.Runner) -> None:
        self.rng = random.Random(seed)
        self.loop = loop
        self.store = ScriptedMemory()
        self.trackers = [Tracker(self.store, "s", OWNER)]
        self.next = Counter({"a": 1})
        self.acknowledged: set[tuple[str, int]] = set()
        self.send_all(["a"])
        self.next |= Counter({"b": 1, "c": 1})

    def run(self) -> None:
        for _ in range(self.rng.randrange(2, 5)):
            words = ["ok", "ok", "refused", "silent", "late"]
            self.store.script = self.rng.choices(words, k=self.rng.randrange(4))
            if self.rng.random() < 0.3:
                self.restart()
            if self.rng.random() < 0.3:
                self.compact()
            self.send_all(self.rng.sample("abc", self.rng.randrange(1, 4)))

    def compact(self) -> None:
        """Compact, perhaps killed in the middle, perhaps while a write is on its way."""
        mortal = Dying(self.store.objects, self.rng.choice([1, 2, 3, 4, 5, 99]))
        with suppress(StoreError):
            compact(mortal, "s")

    def restart(self) -> None:
        try:
            tracker = Tracker(self.store, "s", OWNER)
        except StoreError:
            return  # Ray starts it again
        # The one before is killed, or lives on as a twin that has not noticed.
        self.trackers = [*self.trackers[-1:], tracker] if self.rng.random() < 0.5 else [tracker]

    def send_all(self, producers: Iterable[str]) -> None:
        async def send() -> list[int | BaseException]:
            sends = (self.rng.choice(self.trackers).append(self.batch(p)) for p in producers)
            return await asyncio.gather(*sends, return_exceptions=True)

        for producer, answer in zip(producers, self.loop.run(send()), strict=True):
            if isinstance(answer, int):
                self.acknowledged.add((producer, self.next[producer]))
                self.next[producer] += 1
            else:
                assert isinstance(answer, StoreError), answer

    def batch(self, producer: str) -> bytes:
        n = self.next[producer]
        records: list[Record] = [submitted()] if (producer, n) == ("a", 1) else []
        return encode(*records, points(producer, [n], [0.5]), producer=producer, n=n)

    def check(self) -> None:
        found = recorded(self.store)
        assert max(Counter(found).values()) == 1
        assert set(found) >= self.acknowledged
        # What is there beyond that is what a producer is still sending.
        assert set(found) - self.acknowledged <= set(self.next.items())


@pytest.mark.parametrize(
    "seeds",
    [range(FEW_SEEDS), pytest.param(range(FEW_SEEDS, SEEDS), marks=pytest.mark.thorough)],
)
def test_random_histories_lose_nothing_and_double_nothing(seeds: range) -> None:
    with asyncio.Runner() as loop:
        for seed in seeds:
            history = History(seed, loop)
            history.run()
            try:
                history.check()
            except AssertionError as exc:
                raise AssertionError(f"seed {seed}") from exc


def test_a_history_ends_well_once_the_store_works_again() -> None:
    with asyncio.Runner() as loop:
        for seed in range(200):
            history = History(seed, loop)
            history.run()
            history.store.script = []
            history.trackers = [Tracker(history.store, "s", OWNER)]
            history.send_all("abc")

            assert set(recorded(history.store)) == history.acknowledged, seed
