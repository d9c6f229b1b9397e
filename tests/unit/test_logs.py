"""What a job prints: complete, in order, without secrets, whoever is killed in between."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayml.errors import StoreError, StoreUnreachable
from rayml.logs import Capture, LogReader, LogShipper, capture_path, follow, ship_rest
from rayml.redaction import Redactor
from rayml.store.folder import Folder
from tests.ray.eventually import eventually
from tests.unit.journals import MemoryStore, ScriptedMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rayml.store import Store

NOTHING = Redactor([])


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


@pytest.fixture
def run() -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    for path in capture_path(name, 1).parent.glob(f"{name}-*"):
        path.unlink()


def write(run: str, data: bytes, attempt: int = 1) -> None:
    with capture_path(run, attempt).open("ab") as file:
        file.write(data)


def stored(store: Store, run: str) -> bytes:
    return b"".join(store.get(key) for key in store.list(f"logs/{run}/"))


def capture(store: Store, run: str, code: Callable[[], object], *secrets: str) -> Capture:
    """Run code with its output captured."""
    path = capture_path(run, 1)
    caught = Capture(LogShipper(store, run, 1, Redactor(secrets)), path)
    caught.start()
    try:
        code()
    finally:
        caught.stop()
    return caught


# Shipping


def test_a_rank_that_goes_on_elsewhere_loses_nothing(store: Folder, run: str) -> None:
    write(run, b"here\n")
    assert LogShipper(store, run, 1, NOTHING).ship(is_last=True)
    for path in capture_path(run, 1).parent.glob(f"{run}-*"):
        path.unlink()  # as on another machine

    write(run, b"there\n")
    elsewhere = LogShipper(store, run, 1, NOTHING)
    assert elsewhere.ship(is_last=True)
    write(run, b"on\n")
    assert elsewhere.ship(is_last=True)
    assert stored(store, run) == b"here\nthere\non\n"


def test_output_is_stored_in_parts_as_it_comes(store: Folder, run: str) -> None:
    shipper, reader = LogShipper(store, run, 1, NOTHING), LogReader(store, run)
    texts = []
    for text in ("one\n", "", "two\n", "three"):
        write(run, text.encode())
        assert shipper.ship(is_last=False) is (text != "")
        texts.append(reader.read())

    assert texts == ["one\n", "", "two\n", "three"]
    assert LogReader(store, run).read() == "one\ntwo\nthree"


def test_each_line_says_which_of_several_ranks_has_printed_it(store: Folder, run: str) -> None:
    reader = LogReader(store, run, range(2))
    store.put(f"logs/{run}/00000/0001/00000000.log", b"one\ntw")
    store.put(f"logs/{run}/00001/0001/00000000.log", b"three\n")
    assert reader.read() == "[rank 0] one\n[rank 1] three\n"
    store.put(f"logs/{run}/00000/0001/00000001.log", b"o\nno end")
    assert reader.read() == "[rank 0] two\n"
    assert reader.read(is_last=True) == "[rank 0] no end\n"
    assert LogReader(store, run, [0]).read() == "one\ntwo\nno end"


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_character_that_was_cut_in_two_is_whole_when_read(
    store: Folder, run: str, cut: int
) -> None:
    data = "aé🚀".encode()
    reader, text = LogReader(store, run), ""
    shipper = LogShipper(store, run, 1, NOTHING)
    for piece in (data[:cut], data[cut:]):
        write(run, piece)
        shipper.ship(is_last=False)
        text += reader.read()

    assert text == "aé🚀"


def test_bytes_that_are_no_text_do_not_stop_the_reader(store: Folder, run: str) -> None:
    write(run, b"a\xff\xfeb\n")
    ship_rest(store, run, 1, NOTHING)
    assert LogReader(store, run).read() == "a\ufffd\ufffdb\n"


def test_a_run_that_printed_nothing_has_an_empty_log(store: Folder, run: str) -> None:
    ship_rest(store, run, 1, NOTHING)
    assert LogReader(store, run).read() == ""


def test_ten_megabytes_come_through_complete(store: Folder, run: str) -> None:
    data = random.Random(1).randbytes(10 * 2**20)
    write(run, data)
    ship_rest(store, run, 1, NOTHING)

    assert stored(store, run) == data
    assert not capture_path(run, 1).exists()


def test_attempts_follow_each_other(store: Folder, run: str) -> None:
    for attempt in (2, 10, 1):
        write(run, f"attempt {attempt}\n".encode(), attempt)
        ship_rest(store, run, attempt, NOTHING)
    assert LogReader(store, run).read() == "attempt 1\nattempt 2\nattempt 10\n"


@pytest.mark.parametrize("word", ["refused", "silent", "late"])
def test_a_store_that_fails_for_a_while_gets_everything_once(run: str, word: str) -> None:
    store = ScriptedMemory(word, word)
    shipper = LogShipper(store, run, 1, NOTHING)
    for text in ("one\n", "two\n"):
        write(run, text.encode())
        with pytest.raises(StoreUnreachable):
            shipper.ship(is_last=False)
    write(run, b"three\n")
    while shipper.ship(is_last=True):
        pass

    assert stored(store, run) == b"one\ntwo\nthree\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text("aé🚀\n", max_size=5),
            st.sampled_from(["ok", "refused", "silent", "late"]),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_a_shipper_that_is_killed_anywhere_is_followed_by_another(
    run: str, history: list[tuple[str, str, bool]]
) -> None:
    store = ScriptedMemory()
    shipper = LogShipper(store, run, 1, NOTHING)
    for text, word, is_killed in history:
        write(run, text.encode())
        store.script = [word]
        with suppress(StoreUnreachable):
            shipper.ship(is_last=False)
        if is_killed:
            shipper = LogShipper(store, run, 1, NOTHING)
    store.script = []
    ship_rest(store, run, 1, NOTHING)

    assert stored(store, run).decode() == "".join(text for text, _, _ in history)


def test_a_shipper_that_was_killed_before_it_stored_its_part_loses_nothing(run: str) -> None:
    store = ScriptedMemory("refused")
    write(run, b"one\n")
    with pytest.raises(StoreUnreachable):
        LogShipper(store, run, 1, NOTHING).ship(is_last=False)
    write(run, b"two\n")

    ship_rest(store, run, 1, NOTHING)
    assert stored(store, run) == b"one\ntwo\n"


def test_a_secret_is_hidden_across_parts(store: Folder, run: str) -> None:
    redactor = Redactor(["hunter2-hunter2"])
    shipper = LogShipper(store, run, 1, redactor)
    for piece in (b"pw: hunter2-", b"hunter2", b" and hunter", b"2-hunter2 end"):
        write(run, piece)
        shipper.ship(is_last=False)
    while shipper.ship(is_last=True):
        pass

    assert stored(store, run) == b"pw: *** and *** end"


def test_a_secret_across_two_full_parts_is_hidden(run: str) -> None:
    store = MemoryStore()
    filler = b"x" * (4 * 2**20 - 3)
    write(run, filler + b"hunter2" + filler)
    ship_rest(store, run, 1, Redactor(["hunter2"]))

    assert stored(store, run) == filler + b"***" + filler


def test_an_endless_row_of_secrets_does_not_stop_the_shipper(run: str) -> None:
    store = MemoryStore()
    write(run, b"a" * (5 * 2**20))
    shipper = LogShipper(store, run, 1, Redactor(["aaaa"]))
    assert shipper.ship(is_last=False)
    assert b"aaaa" not in stored(store, run)


# Capturing


def test_everything_that_a_process_prints_is_caught(store: Folder, run: str) -> None:
    def code() -> None:
        print("from python é🚀")
        sys.stderr.write("from stderr\n")
        os.write(1, b"from a library\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        print("no newline at the end", end="")

    capture(store, run, code).finish()

    lines = LogReader(store, run).read().splitlines()
    assert lines == [
        "from python é🚀",
        "from stderr",
        "from a library",
        "from a child",
        "no newline at the end",
    ]


def test_a_job_may_close_its_output_or_take_it_away(store: Folder, run: str) -> None:
    def code() -> None:
        print("before")
        sys.stdout.close()
        sys.stderr = None
        os.write(2, b"after\n")

    capture(store, run, code).finish()
    assert LogReader(store, run).read() == "before\nafter\n"
    assert not sys.stdout.closed


def test_output_goes_where_it_went_before_once_the_capture_stops(
    store: Folder, run: str, capfd: pytest.CaptureFixture[str]
) -> None:
    print("before")
    caught = capture(store, run, lambda: print("during"))
    print("after")
    caught.finish()

    assert capfd.readouterr().out == "before\nafter\n"
    assert LogReader(store, run).read() == "during\n"


def test_output_is_readable_while_the_job_runs(store: Folder, run: str) -> None:
    reader = LogReader(store, run)

    def code() -> None:
        print("first")
        assert eventually(reader.read, 10) == "first\n"
        print("second")

    capture(store, run, code).finish()
    assert reader.read() == "second\n"


def test_a_captured_secret_is_hidden(store: Folder, run: str) -> None:
    capture(store, run, lambda: print({"TOKEN": 'hun"ter\n2'}), 'hun"ter\n2').finish()
    assert LogReader(store, run).read() == "{'TOKEN': '***'}\n"


def test_a_store_that_refuses_is_named_at_the_end_and_the_output_kept(
    store: Folder, run: str
) -> None:
    store.put("x", b"")
    store.root.rename(store.root.with_name("aside"))
    store.root.write_text("a file in its place")
    caught = capture(store, run, lambda: print("precious"))
    with pytest.raises(StoreError, match="part of that path is a file"):
        caught.finish()
    assert capture_path(run, 1).read_bytes() == b"precious\n"

    store.root.unlink()
    ship_rest(store, run, 1, NOTHING)
    assert LogReader(store, run).read() == "precious\n"


# Following


def replay(*texts: str) -> list[str]:
    """Follow a run that prints these texts, one between two looks at it."""
    rest = list(texts)
    return list(follow(lambda _: rest.pop(0) if rest else "", lambda: not rest, 0))


def test_follow_yields_whole_lines() -> None:
    assert replay("a\nb", "c", "\n", "", "d\n") == ["a\n", "bc\n", "d\n"]
    assert replay("no end") == ["no end"]
    assert replay() == []


def test_follow_yields_a_progress_bar_as_it_moves() -> None:
    assert replay("1%\r2%\r", "3%\r\ndone\n") == ["1%\r", "2%\r", "3%\r\n", "done\n"]


@given(st.lists(st.text("ab\r\n\u2028é", max_size=4), max_size=8))
def test_follow_loses_and_adds_nothing(texts: list[str]) -> None:
    lines = replay(*texts)
    assert "".join(lines) == "".join(texts)
    assert "" not in lines
