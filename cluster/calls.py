"""One call of a kube-apiserver: sent, tried again while that may help, and answered."""

from __future__ import annotations

import json
import ssl
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import urllib3

from rayml.errors import ClusterUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.cluster.credentials import Credentials

_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 10.0
_PAUSES_S: Final = (0.1, 0.2, 0.4, 0.8, 1.6)
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_REPEATABLE: Final = frozenset({"GET", "PATCH", "DELETE"})


class Calls:
    """Sends requests to one kube-apiserver; safe to share among threads.

    Attributes:
        patience_s: For how long a request is tried again that gets no answer, or a busy one.
    """

    def __init__(self, credentials: Credentials, context: str, patience_s: float) -> None:
        self.patience_s = patience_s
        self._credentials = credentials
        self._context = context
        self._lock = threading.Lock()
        self._pool: urllib3.PoolManager | None = None
        self._pool_context: ssl.SSLContext | None = None

    def send(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Return an answer's code and body.

        Credentials that are refused are got anew once. What may have been done already is done
        again only if that changes nothing.

        Raises:
            ClusterUnreachable: No answer within the time, or credentials that are not taken.
        """
        may_refresh = True
        for is_last in self._tries():
            try:
                answer = self._request(method, path, body)
            except urllib3.exceptions.HTTPError as exc:
                if is_last or not _may_repeat(method, exc):
                    raise ClusterUnreachable(self._describe(exc)) from exc
                continue
            if answer.status == HTTPStatus.UNAUTHORIZED:
                if not may_refresh or is_last or not self._credentials.forget():
                    raise ClusterUnreachable(self._describe_refusal())
                may_refresh = False
                continue
            may_wait = method in _REPEATABLE or answer.status == HTTPStatus.TOO_MANY_REQUESTS
            if is_last or answer.status not in _BUSY or not may_wait:
                return answer.status, answer.data
        raise AssertionError("the last try returns or raises")

    def _request(self, method: str, path: str, body: object) -> urllib3.BaseHTTPResponse:
        headers = urllib3.HTTPHeaderDict({"Accept": "application/json", "User-Agent": "rayml"})
        for name, value in self._credentials.headers():
            headers.add(name, value)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = _content_type(method, body)
        url = self._credentials.server + path
        return self._open_pool().request(method, url, body=data, headers=headers, redirect=False)

    def _open_pool(self) -> urllib3.PoolManager:
        context = self._credentials.ssl_context()
        with self._lock:
            if self._pool is None or context is not self._pool_context:
                options = self._pool_options(context)
                proxy = self._credentials.proxy
                self._pool_context = context
                self._pool = (
                    urllib3.ProxyManager(proxy, **options)
                    if proxy
                    else urllib3.PoolManager(**options)
                )
            return self._pool

    def _pool_options(self, context: ssl.SSLContext | None) -> dict[str, Any]:
        timeout = urllib3.Timeout(connect=_CONNECT_S, read=_ANSWER_S)
        options: dict[str, Any] = {"retries": False, "timeout": timeout, "maxsize": 4}
        if context is None:
            return options
        options["ssl_context"] = context
        if context.verify_mode == ssl.CERT_NONE:
            options |= {"cert_reqs": "CERT_NONE", "assert_hostname": False}
        elif self._credentials.server_name:
            name = self._credentials.server_name
            options |= {"server_hostname": name, "assert_hostname": name}
        return options

    def _tries(self) -> Iterator[bool]:
        """Yield for each try whether it is the last one, and wait between them."""
        deadline = time.monotonic() + self.patience_s
        pauses = iter(_PAUSES_S)
        while True:
            pause = next(pauses, _PAUSES_S[-1])
            is_last = time.monotonic() + pause >= deadline
            yield is_last
            if is_last:
                return
            time.sleep(pause)

    def _describe(self, exc: Exception) -> str:
        server = f"the kube-apiserver at {self._credentials.server} of context {self._context!r}"
        reason = str(getattr(exc, "reason", None) or exc)
        if "CERTIFICATE_VERIFY_FAILED" in reason or "doesn't match" in reason:
            return (
                f"{server} shows a certificate that the kubeconfig does not trust; check its "
                "certificate-authority and server"
            )
        proxy = self._credentials.proxy
        through = f" through the proxy {proxy}" if proxy else ""
        what = reason.rpartition(": ")[2].rstrip(".")
        return f"{server} does not answer{through}: {what}; check the network, or the context"

    def _describe_refusal(self) -> str:
        return (
            f"the kube-apiserver at {self._credentials.server} refuses who we are by context "
            f"{self._context!r}: {self._credentials.explain_refusal()}"
        )


def _may_repeat(method: str, exc: Exception) -> bool:
    """Tell whether another try may help, and does no harm if this one was heard."""
    if isinstance(exc, urllib3.exceptions.SSLError):
        return False
    was_not_sent = isinstance(
        exc, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError
    )
    return was_not_sent or method in _REPEATABLE


def _content_type(method: str, body: object) -> str:
    if method != "PATCH":
        return "application/json"
    kind = "json-patch" if isinstance(body, list | tuple) else "merge-patch"
    return f"application/{kind}+json"
