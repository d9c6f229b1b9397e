"""Orders to the process kubelet, over the socket in the plane's folder."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CALL_S = 120.0


class KubeletError(Exception):
    """The kubelet could not do what it was told."""


class KubeletControl:
    """What the kubelet of a plane can be told beside what the apiserver tells it."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "kubelet.sock"

    def await_socket(self, timeout_s: float) -> None:
        """Wait until the kubelet listens.

        Raises:
            TimeoutError: it does not in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self._socket.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the kubelet does not listen after {timeout_s} s")
            time.sleep(0.01)

    def get(self, path: str, query: Mapping[str, str]) -> Any:
        """Ask for something."""
        return self._call("GET", path, query, None)

    def post(self, path: str, query: Mapping[str, str] | None = None, body: Any = None) -> Any:
        """Have something done.

        Raises:
            KubeletError: it cannot be done; it holds the kubelet's reason.
        """
        return self._call("POST", path, query or {}, body)

    def _call(self, method: str, path: str, query: Mapping[str, str], body: Any) -> Any:
        connection = http.client.HTTPConnection("kubelet", timeout=CALL_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(CALL_S)
            connection.sock.connect(str(self._socket))
            connection.request(method, f"/{path}?{urlencode(query)}", json.dumps(body))
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status != 200:
                raise KubeletError(text.strip())
            return json.loads(text)
        finally:
            connection.close()
