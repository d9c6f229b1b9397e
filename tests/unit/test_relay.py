"""The relay: a job's child processes log to its run, and nobody else does."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import threading
from multiprocessing import connection
from typing import TYPE_CHECKING

import cloudpickle
import pytest

import rayml
from rayml.errors import JournalFenced
from rayml.run_context import Context
from rayml.store.folder import Folder
from rayml.tracker.client import Client, LoopTransport, Producer
from rayml.tracker.relay import VARIABLE, Relay, RelayTransport
from rayml.tracker.tracker import Tracker
from tests.ray.eventually import eventually
from tests.unit.journals import OWNER, encode, ended, logged, read_run, submitted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JOB = cloudpickle.dumps("what children should know")


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


@pytest.fixture
def transport(store: Folder) -> Iterator[LoopTransport]:
    loop = LoopTransport(Tracker(store, "s", OWNER))
    loop.append(encode(submitted()))
    yield loop
    loop.close()


@pytest.fixture
def relay(transport: LoopTransport) -> Iterator[Relay]:
    opened = Relay(transport, JOB)
    yield opened
    opened.close()


def test_a_child_gets_its_job_and_its_batches_become_durable(relay: Relay, store: Folder) -> None:
    child = RelayTransport(relay.address)
    assert pickle.loads(child.job()) == "what children should know"
    child.append(encode(logged("from a child"), producer="child"))

    assert read_run(store).params == {"p": "from a child"}


def test_a_child_hears_the_tracker_s_own_errors(relay: Relay, transport: LoopTransport) -> None:
    transport.append(encode(ended(), n=2))
    child = RelayTransport(relay.address)
    for _ in range(2):
        with pytest.raises(JournalFenced, match="run r1 has ended"):
            child.append(encode(logged("late"), producer="child"))


def test_many_children_log_at_once(relay: Relay, store: Folder) -> None:
    def log(name: str) -> None:
        producer = Producer(RelayTransport(relay.address), "r1", 1)
        for n in range(20):
            producer.record(logged(n, name=name))

    threads = [threading.Thread(target=log, args=(f"child {n}",)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert read_run(store).params == {f"child {n}": 19 for n in range(5)}


def test_a_way_to_the_relay_can_be_pickled(relay: Relay) -> None:
    child = pickle.loads(pickle.dumps(RelayTransport(relay.address)))
    assert child.job() == JOB


def test_who_has_no_key_is_refused_and_harms_nobody(relay: Relay) -> None:
    path = relay.address.partition("@")[2]
    for _ in range(2):
        with pytest.raises((multiprocessing.AuthenticationError, EOFError, OSError)):
            RelayTransport(f"{os.urandom(16).hex()}@{path}").job()
    stranger = socket.socket(socket.AF_UNIX)
    stranger.connect(f"\0{path}")
    stranger.sendall(b"not a greeting")
    stranger.close()

    assert RelayTransport(relay.address).job() == JOB


def test_close_ends_its_threads_and_its_socket(transport: LoopTransport) -> None:
    before = set(threading.enumerate())
    relay = Relay(transport, JOB)
    address = relay.address
    children = [RelayTransport(relay.address) for _ in range(3)]
    assert [child.job() for child in children] == [JOB] * 3

    relay.close()
    assert set(threading.enumerate()) == before
    with pytest.raises(OSError, match="refused"):
        RelayTransport(address)


def test_relays_open_and_close_again_and_again(transport: LoopTransport) -> None:
    for n in range(50):
        relay = Relay(transport, JOB)
        if n % 2:
            assert RelayTransport(relay.address).job() == JOB
        relay.close()
    assert not [t for t in threading.enumerate() if t.name == "rayml-relay"]


def test_who_logs_after_the_close_gets_an_error(transport: LoopTransport, store: Folder) -> None:
    relay = Relay(transport, JOB)
    child = RelayTransport(relay.address)
    assert child.job() == JOB
    relay.close()

    with pytest.raises((EOFError, OSError)):
        child.append(encode(logged("late"), producer="child"))
    assert read_run(store).params == {}
    with pytest.raises(OSError, match="refused"):
        RelayTransport(relay.address)


def test_close_returns_though_a_refused_stranger_came_first(transport: LoopTransport) -> None:
    relay = Relay(transport, JOB)
    path = relay.address.partition("@")[2]
    with pytest.raises((multiprocessing.AuthenticationError, EOFError, OSError)):
        connection.Client(f"\0{path}", "AF_UNIX", authkey=b"wrong")

    closing = threading.Thread(target=relay.close, daemon=True)
    closing.start()
    assert eventually(lambda: not closing.is_alive(), 10)


# Whole processes


def log_from_a_process(n: int) -> None:
    context = rayml.context()
    context.log_metric(f"child {n}", n, step=1)
    context.log_param(f"run of {n}", context.run_id)
    context.log_param(f"params of {n}", context.params)


@pytest.fixture
def job(transport: LoopTransport, store: Folder) -> Iterator[Relay]:
    """A relay as the runner opens it: its children find it in their environment."""
    producer = Producer(transport, "r1", 1)
    context = Context(Client(producer), producer, store, {"depth": 4}, {})
    relay = Relay(transport, context.for_children())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, relay.address)
        yield relay
    relay.close()
    context.close(5)


def test_a_spawned_process_logs_to_its_parent_s_run(job: Relay, store: Folder) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=log_from_a_process, args=(n,)) for n in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()

    run = read_run(store)
    assert dict(run.last_values()) == {"child 0": 0.0, "child 1": 1.0}
    assert run.params["run of 0"] == "r1"
    assert run.params["params of 1"] == {"depth": 4}


def test_a_script_logs_to_the_run_that_started_it(job: Relay, store: Folder) -> None:
    code = (
        "import rayml\n"
        "with rayml.start_run('ignored inside a run') as context:\n"
        "    context.log_metrics({'loss 🚀': 0.5})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

    run = read_run(store)
    assert dict(run.last_values()) == {"loss 🚀": 0.5}
    assert run.state == "submitted"
