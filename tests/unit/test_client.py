"""The client: it never makes training wait, and what it flushed is durable, once and in order."""

from __future__ import annotations

import random
import tempfile
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING

import msgspec
import pytest

from rayml.errors import JournalFenced, SpecError, StoreError, StoreUnreachable
from rayml.redaction import Redactor
from rayml.store.folder import Folder
from rayml.tracker.client import Client, LoopTransport, Producer
from rayml.tracker.live import live_shards
from rayml.tracker.records import ReadPoints, decode_record
from rayml.tracker.segments import Batch
from rayml.tracker.spool import Spool
from rayml.tracker.tracker import Tracker
from tests.unit.journals import (
    OWNER,
    ScriptedMemory,
    encode,
    ended,
    logged,
    logged_columns,
    read_run,
    started,
    submitted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rayml.tracker.client import Transport


class Recording:
    """A transport that keeps what it was given, or raises what it was told to, in this order."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.batches: list[bytes] = []
        self.tries = 0

    def append(self, data: bytes) -> None:
        self.tries += 1
        if self.answers:
            raise self.answers.pop(0)
        self.batches.append(data)

    @property
    def numbers(self) -> list[int]:
        return [msgspec.json.decode(data, type=Batch).n for data in self.batches]


class Gate:
    """A way to a tracker that nobody answers until it is opened."""

    def __init__(self, transport: LoopTransport) -> None:
        self._transport = transport
        self.opened = threading.Event()

    def append(self, data: bytes) -> None:
        self.opened.wait()
        self._transport.append(data)


class Away:
    """A transport that nobody answers."""

    def append(self, data: bytes) -> None:
        raise StoreUnreachable("the tracker is away")


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


@pytest.fixture
def transport(store: Folder) -> Iterator[LoopTransport]:
    loop = LoopTransport(Tracker(store, "s", OWNER))
    loop.append(encode(submitted()))
    yield loop
    loop.close()


def open_client(transport: Transport, *secrets: str) -> Client:
    return Client(Producer(transport, "r1", 1, Redactor(secrets)))


# What arrives


def test_what_was_flushed_is_durable(store: Folder, transport: LoopTransport) -> None:
    client = open_client(transport)
    client.point("loss", 0.5, 3)
    client.add(logged("x"))
    client.flush()

    assert dict(read_run(store).last_values()) == {"loss": 0.5}
    assert read_run(store).params == {"p": "x"}
    client.close()


def test_what_was_logged_before_the_close_is_durable(
    store: Folder, transport: LoopTransport
) -> None:
    client = open_client(transport)
    for step in range(10):
        client.point("loss", step / 10, step)
    client.close()

    assert [value for _, _, value in read_run(store).points("loss")] == [n / 10 for n in range(10)]


def test_a_point_without_a_step_follows_the_last_one(
    store: Folder, transport: LoopTransport
) -> None:
    client = open_client(transport)
    for step in (None, None, 10, None, 3, None):
        client.point("loss", 0.0, step)
    client.flush()
    client.point("loss", 0.0, None)
    client.point("other", 0.0, None)
    client.close()

    run = read_run(store)
    assert list(logged_columns(run, "loss").step) == [0, 1, 10, 11, 3, 4, 5]
    assert list(logged_columns(run, "other").step) == [0]


def test_a_hundred_thousand_points_arrive_once_each(
    store: Folder, transport: LoopTransport
) -> None:
    client = open_client(transport)
    for n in range(100_000):
        client.point(f"metric {n % 10} 🚀", float(n), None)
    client.close()

    run = read_run(store)
    assert sorted(run.series) == [f"metric {n} 🚀" for n in range(10)]
    for first, name in enumerate(sorted(run.series)):
        columns = logged_columns(run, name)
        assert list(columns.step) == list(range(10_000))
        assert list(columns.value) == [float(n) for n in range(first, 100_000, 10)]


def test_points_of_several_threads_all_arrive(store: Folder, transport: LoopTransport) -> None:
    client = open_client(transport)

    def log(name: str) -> None:
        for n in range(2_000):
            client.point(name, float(n), None)
            client.point("shared", 1.0, None)

    threads = [threading.Thread(target=log, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()

    run = read_run(store)
    assert list(logged_columns(run, "shared").step) == list(range(8_000))
    assert dict(run.last_values()) == {"shared": 1.0} | {f"t{n}": 1999.0 for n in range(4)}


@pytest.mark.parametrize(
    "values",
    [[float("nan")], [float("inf"), float("-inf")], [1e308, 1e308], [1e308, 1e308, -1e308, 0.1]],
    ids=repr,
)
def test_any_float_can_be_logged(
    store: Folder, transport: LoopTransport, values: list[float]
) -> None:
    client = open_client(transport)
    for value in values:
        client.point("loss", value, None)
    client.close()

    assert repr([value for _, _, value in read_run(store).points("loss")]) == repr(values)


# What is refused at once


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1, 10**30])
def test_a_step_that_no_reader_could_hold_is_refused(
    store: Folder, transport: LoopTransport, step: int
) -> None:
    client = open_client(transport)
    with pytest.raises(SpecError, match="a step has at most 64 bits"):
        client.point("loss", 0.0, step)
    client.point("loss", 1.0, 2**63 - 1)
    client.close()

    assert dict(read_run(store).last_values()) == {"loss": 1.0}


def test_text_that_is_no_unicode_is_refused_where_it_is_logged(
    store: Folder, transport: LoopTransport
) -> None:
    client = open_client(transport)
    with pytest.raises(SpecError, match="not valid Unicode"):
        client.point("loss \udcff", 0.0, None)
    with pytest.raises(SpecError, match="not valid Unicode"):
        client.add(logged("\udcff"))
    client.point("loss", 1.0, None)
    client.close()

    assert dict(read_run(store).last_values()) == {"loss": 1.0}


# A way to the tracker that fails


def test_what_failed_is_sent_again_in_order_until_it_arrives() -> None:
    transport = Recording(StoreUnreachable("1"), OSError("2"))
    client = open_client(transport)
    for n in range(3):
        client.add(logged(n))
        client.flush()
    client.close()

    assert transport.numbers == [1, 2, 3]
    assert transport.tries == 5


@pytest.mark.parametrize("word", ["refused", "silent", "late"])
def test_a_store_that_fails_for_a_while_gets_everything_once(word: str) -> None:
    store = ScriptedMemory()
    loop = LoopTransport(Tracker(store, "s", OWNER))
    loop.append(encode(submitted()))
    store.script = [word, word]
    client = open_client(loop)
    for n in range(3):
        client.point("loss", float(n), None)
    client.close()
    loop.close()

    assert [value for _, _, value in read_run(store).points("loss")] == [0.0, 1.0, 2.0]


def test_a_client_that_was_fenced_stops_and_says_so() -> None:
    transport = Recording(JournalFenced("attempt 1 was given up; stop"))
    client = open_client(transport)
    client.point("loss", 0.0, None)
    for _ in range(2):
        with pytest.raises(JournalFenced, match="attempt 1 was given up"):
            client.flush()
    client.point("loss", 1.0, None)
    with pytest.raises(JournalFenced):
        client.close()

    assert (transport.tries, transport.batches) == (1, [])


def test_a_late_attempt_learns_that_another_has_taken_over(transport: LoopTransport) -> None:
    client = open_client(transport)
    Producer(transport, "r1", 2).record(started(2))
    client.point("loss", 0.0, None)
    with pytest.raises(JournalFenced, match="attempt 1 of run r1 was given up"):
        client.close()


def test_flush_says_what_is_not_durable_when_its_time_is_up() -> None:
    client = open_client(Away())
    client.point("a", 0.0, None)
    client.point("b", 0.0, None)
    with pytest.raises(StoreError, match=r"2 logged values were not durable after 0.2 s"):
        client.flush(0.2)
    with pytest.raises(StoreError):
        client.close(0.1)


def test_close_raises_in_time_when_nobody_answers() -> None:
    client = open_client(Away())
    client.point("a", 0.0, None)
    began = time.monotonic()
    with pytest.raises(StoreError):
        client.close(0.3)
    assert time.monotonic() - began < 5


def test_logging_does_not_wait_for_a_tracker_that_is_away() -> None:
    client = open_client(Away())
    began = time.monotonic()
    for n in range(20_000):
        client.point("loss", float(n), None)
    assert time.monotonic() - began < 1
    with pytest.raises(StoreError):
        client.close(0.1)


# More than memory should hold


def test_what_waits_for_a_tracker_goes_to_disk_and_arrives_once_and_in_order(
    store: Folder, transport: LoopTransport
) -> None:
    gate = Gate(transport)
    client = open_client(gate)
    tracemalloc.start()
    for n in range(1_000_000):
        client.point("loss", float(n), None)
    client.add(logged("after the points"))
    in_memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert in_memory < 80_000_000  # as lists, they take more than 100 bytes each

    gate.opened.set()
    client.close()
    run = read_run(store)
    assert [value for _, _, value in run.points("loss")] == list(map(float, range(1_000_000)))
    assert run.params == {"p": "after the points"}


def test_what_has_no_room_anywhere_is_reported(
    monkeypatch: pytest.MonkeyPatch, transport: LoopTransport
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/full")
    gate = Gate(transport)
    client = open_client(gate)
    for n in range(300_000):
        client.point("loss", float(n), None)
    with pytest.raises(StoreError, match="/proc/full has no room"):
        client.flush()
    gate.opened.set()
    with pytest.raises(StoreError, match="what came afterwards is lost"):
        client.close()


def test_a_spool_gives_back_what_it_was_given_within_its_limit() -> None:
    spool = Spool(limit_bytes=10)
    spool.add(b"12345", 2)
    spool.add(b"6789", 1)
    with pytest.raises(StoreError, match="has passed"):
        spool.add(b"ab", 1)
    assert [spool.pop(), spool.pop()] == [(b"12345", 2), (b"6789", 1)]
    assert len(spool) == 0
    spool.add(b"0123456789", 1)
    assert spool.pop() == (b"0123456789", 1)
    spool.close()


# Secrets


def test_no_secret_reaches_the_journal(store: Folder, transport: LoopTransport) -> None:
    client = open_client(transport, "hunter2")
    client.add(logged({"env": "PW=hunter2", "hunter2": [1]}))
    client.point("loss hunter2", 1.0, None)
    client.close()

    run = read_run(store)
    assert run.params == {"p": {"env": "PW=***", "***": [1]}}
    assert dict(run.last_values()) == {"loss ***": 1.0}
    assert all(b"hunter2" not in store.get(key) for key in store.list("shards/"))


def test_a_secret_that_looks_like_rayml_s_own_words_breaks_nothing(
    store: Folder, transport: LoopTransport
) -> None:
    client = open_client(transport, "1234", "prod", "para", 'e":0')
    client.add(logged("to prod", name="params"))
    client.point("loss", 0.1234, 1234)
    client.close()

    run = read_run(store)
    assert run.params == {"***ms": "to ***"}
    assert run.points("loss")[0][::2] == (1234, 0.1234)


# The tracker in this process


def test_the_shard_is_left_in_good_order(store: Folder) -> None:
    before = set(threading.enumerate())
    loop = LoopTransport(Tracker(store, "s", OWNER))
    producer = Producer(loop, "r1", 1)
    producer.record(submitted())
    assert live_shards(store) == ["s"]

    producer.record(ended())
    started = set(threading.enumerate()) - before
    (tracker,) = (thread for thread in started if thread.name == "rayml-tracker")

    loop.close()
    assert live_shards(store) == []
    assert not tracker.is_alive()


def test_random_values_come_back_bit_by_bit(store: Folder, transport: LoopTransport) -> None:
    rng = random.Random(3)
    values = [rng.uniform(-1, 1) * 10.0 ** rng.randrange(-300, 300) for _ in range(1_000)]
    client = open_client(transport)
    for value in values:
        client.point("loss", value, None)
    client.close()

    assert list(logged_columns(read_run(store), "loss").value) == values


def test_how_ranks_become_one_is_told_with_the_points_that_follow() -> None:
    """Whatever else is sent between the two."""
    transport = Recording()
    client = Client(Producer(transport, "r1", 1))
    client.reduce("rows", "sum")
    client.add(logged(1))
    client.flush()
    client.point("rows", 1.0, 0)
    client.close()

    *_, last = [msgspec.json.decode(data, type=Batch).records for data in transport.batches]
    [record] = map(decode_record, last)
    assert isinstance(record, ReadPoints)
    assert record.reductions == {"rows": "sum"}
