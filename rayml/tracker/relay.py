"""Lets the children of a job's process log to its run, without Ray, through a socket."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from contextlib import suppress
from multiprocessing import AuthenticationError, Pipe
from multiprocessing.connection import Client, Listener, wait
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from rayml.tracker.client import Transport

VARIABLE = "RAYML_RELAY"
_CLOSE_S = 5.0


class Relay:
    """Passes batches from child processes on to the tracker, and tells them what run they are in.

    Only processes that inherit the environment variable `RAYML_RELAY` know its address and key.
    """

    def __init__(self, transport: Transport, job: bytes) -> None:
        """Listen on a new socket.

        Args:
            transport: Where batches go.
            job: What `RelayTransport.job` returns to a child.
        """
        self._transport = transport
        self._job = job
        self._key = os.urandom(16)
        self._name = f"rayml-{uuid.uuid4().hex}"
        self._listener = Listener(_path(self._name), "AF_UNIX", authkey=self._key)
        self._ended, self._end = Pipe(duplex=False)
        self._children: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept_all, name="rayml-relay", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """What a child needs to reach this relay."""
        return f"{self._key.hex()}@{self._name}"

    @property
    def has_children(self) -> bool:
        """Some child has logged, or may be about to."""
        return bool(self._children)

    def close(self) -> None:
        """Stop; children that log afterwards get an error."""
        self._end.close()
        # A thread that waits in accept() is woken by a last connection, not by the close. Nobody
        # may answer it, so it must not wait for a greeting.
        with socket.socket(socket.AF_UNIX) as last, suppress(OSError):
            last.settimeout(0)
            last.connect(_path(self._name))
        for thread in (self._thread, *self._children):
            thread.join(_CLOSE_S)
        self._listener.close()

    def _accept_all(self) -> None:
        while not self._end.closed:
            # A child may go away in the middle of its greeting, or have no key.
            with suppress(OSError, EOFError, AuthenticationError):
                connection = self._listener.accept()
                child = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._children.append(child)
                child.start()

    def _serve(self, connection: Connection) -> None:
        with connection, suppress(EOFError, OSError):
            while self._ended not in wait([connection, self._ended]):
                connection.send(self._answer(connection.recv_bytes()))

    def _answer(self, data: bytes) -> object:
        if not data:
            return self._job
        try:
            self._transport.append(data)
        except Exception as exc:  # noqa: BLE001 - the child raises it
            return exc
        return None


def _path(name: str) -> str:
    """Return an address that is no file, which a killed process would leave behind."""
    return f"\0{name}"


class RelayTransport:
    """The child's end of a relay."""

    def __init__(self, address: str) -> None:
        key, _, name = address.partition("@")
        self._address = address
        self._connection = Client(_path(name), "AF_UNIX", authkey=bytes.fromhex(key))
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[RelayTransport], tuple[str]]:
        return RelayTransport, (self._address,)

    def append(self, data: bytes) -> None:
        """Return once the batch is durable."""
        answer = self._ask(data)
        if isinstance(answer, Exception):
            raise answer

    def job(self) -> bytes:
        """Return what the parent wants its children to know."""
        return cast("bytes", self._ask(b""))

    def _ask(self, data: bytes) -> object:
        with self._lock:
            self._connection.send_bytes(data)
            return self._connection.recv()
