"""A proxy in front of a real HTTP server, which fails as it is told to."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

# The connection's own headers are not passed on: each side of the proxy has its own.
_OWN = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with a request.

    Attributes:
        method: Only with requests of this method; none means all.
        match: Only with requests whose path and query hold this text.
        times: With how many requests, before the fault is over.
        forward: The server gets the request; what is lost is its answer.
        status: Answer with this status instead; 0 closes the connection without an answer.
        body: What such an answer says.
        half: Pass the server's answer on, but close in the middle of its body.
        delay_s: Seconds before the request is handled as if nothing were wrong.
        silent: Never answer, and keep the connection open.
    """

    method: str = ""
    match: str = ""
    times: int = 1
    forward: bool = False
    status: int = 0
    body: bytes = b""
    half: bool = False
    delay_s: float = 0
    silent: bool = False


class Faults:
    """The running proxy: `url` is where it listens; `requests` is what came, as METHOD path."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.url = ""
        self.requests: list[str] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._left: list[tuple[Fault, int]] = []

    def add(self, fault: Fault) -> None:
        """Let the next requests that it is about suffer this fault."""
        with self._lock:
            self._left.append((fault, fault.times))

    def clear(self) -> None:
        """Let everything pass again, and forget the requests seen."""
        with self._lock:
            self._left.clear()
            self.requests.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault of this request, and count it."""
        with self._lock:
            self.requests.append(f"{method} {path}")
            for index, (fault, left) in enumerate(self._left):
                if left and fault.method in ("", method) and fault.match in path:
                    self._left[index] = (fault, left - 1)
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: Faults

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        fault = self.faults.take(self.command, self.path) or Fault(delay_s=-1)
        if fault.silent:
            self.faults.closing.wait()
        elif fault.delay_s or fault.half:
            time.sleep(max(fault.delay_s, 0))
            self._answer(*self._forward(body), half=fault.half)
            return
        elif fault.forward:
            self._forward(body)
        if fault.status:
            self._answer(fault.status, [("content-type", "application/xml")], fault.body)
        else:
            self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle  # noqa: N815 - the base's names

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        server = HTTPConnection(self.faults.upstream, timeout=60)
        try:
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                server.putheader(name, value)
            server.endheaders(body or None)
            answer = server.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        except (OSError, HTTPException):
            return 502, [], b""
        finally:
            server.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, *, half: bool = False
    ) -> None:
        self.send_response_only(status)
        size = {name.lower(): value for name, value in headers}.get("content-length")
        for name, value in headers:
            if name.lower() not in _OWN:
                self.send_header(name, value)
        self.send_header(
            "content-length", (size or "0") if self.command == "HEAD" else str(len(body))
        )
        with suppress(BrokenPipeError, ConnectionResetError):
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if half else body)
        self.close_connection = self.close_connection or half


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what is tested."""


@contextmanager
def faults(upstream: str) -> Iterator[Faults]:
    """Run a proxy on a free loopback port before the server at the URL `upstream`."""
    proxy = Faults(upstream)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"faults": proxy}))
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
