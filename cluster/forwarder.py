"""HTTP and WebSockets from this machine's loopback to a Ray cluster's head, through Kubernetes."""

from __future__ import annotations

import asyncio
import hmac
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import web
from yarl import URL

from rayml.cluster.answers import Target, explain, read_status
from rayml.errors import ClusterUnreachable, RaymlError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from multidict import CIMultiDictProxy

    from rayml.cluster.address import ClusterName
    from rayml.cluster.client import KubeClient

KEY_HEADER: Final = "X-Rayml-Door"
_RAY_HEADER: Final = "X-Ray-Authorization"
_OWN_HEADERS: Final = frozenset(
    name.lower() for name in (KEY_HEADER, _RAY_HEADER, "Authorization", "Host", "Content-Length")
)
# They are about one connection and not about what is sent through it (RFC 9110, 7.6.1).
_HOP_HEADERS: Final = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
# A body up to this size is kept, so that it can be sent again; what is larger flows through.
_KEPT_BYTES: Final = 1024**2
_PATIENCE_S: Final = 10.0
_PAUSE_S: Final = 0.3
_CONNECT_S: Final = 5.0
_SILENCE_S: Final = 120.0
_HEARTBEAT_S: Final = 30.0
_START_S: Final = 10.0
_CLOSE_S: Final = 5.0


class Forwarder:
    """Takes requests on a free port of the loopback and passes them on, in a thread of its own.

    Credentials are added anew to each request. A request that certainly was not heard is sent
    again for ten seconds, one that may have been heard only if repeating it changes nothing. What
    the kube-apiserver itself refuses comes back as a 502 that says why in words; what Ray answers
    comes back as it is. Kubernetes drops the query of a WebSocket's URL on the way.

    Attributes:
        address: The URL, once started.
    """

    def __init__(
        self, client: KubeClient, name: ClusterName, word: str, token: str | None
    ) -> None:
        """Prepare it.

        Args:
            client: Of the kube-apiserver.
            name: Of the cluster.
            word: What a request must carry in `KEY_HEADER`.
            token: Ray's, if the cluster asks for one.
        """
        self.address = ""
        self._client = client
        self._name = name
        self._word = word
        self._token = token
        self._base = client.credentials.server + client.proxy_path(name)
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._ending: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name=f"door to {name}", daemon=True)

    def start(self) -> None:
        """Take requests from now on.

        Raises:
            ClusterUnreachable: No port of the loopback can be had.
        """
        self._thread.start()
        if not self._is_up.wait(_START_S) or not self.address:
            raise ClusterUnreachable(
                f"no door to {self._name} could be opened on 127.0.0.1; free some ports"
            )

    def close(self) -> None:
        """Take no more requests, drop those under way, and end the thread."""
        if self._thread.is_alive() and self._ending is not None:
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._is_up.set()
            self._loop.close()

    async def _serve(self) -> None:
        self._ending = asyncio.Event()
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, auto_decompress=False)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
        async with aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=timeout,
        ) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0]
            self.address = f"http://{host}:{port}"
            self._is_up.set()
            await self._ending.wait()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        word = request.headers.get(KEY_HEADER, "")
        if not hmac.compare_digest(word.encode(), self._word.encode()):
            return web.Response(status=403, text="this door is another process's own")
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._join_sockets(request)
            return await self._pass_on(request)
        except RaymlError as exc:
            return _refusal(str(exc))

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        length = request.content_length or 0
        is_kept = not request.body_exists or 0 < length <= _KEPT_BYTES
        body: Any = (await request.read() or None) if is_kept else request.content
        may_refresh = True
        for is_last in _tries():
            can_repeat = is_kept and not is_last
            try:
                answer = await self._send(request, body)
            except aiohttp.ClientError as exc:
                if can_repeat and _may_repeat(request.method, exc):
                    await asyncio.sleep(_PAUSE_S)
                    continue
                raise ClusterUnreachable(self._describe(exc)) from exc
            async with answer:
                if answer.status < HTTPStatus.BAD_REQUEST:
                    return await _stream_back(request, answer)
                error = await answer.read()
                if may_refresh and is_kept and await self._refresh(answer.status, error):
                    may_refresh = False
                    continue
                return self._pass_error(request.method, answer, error)
        raise AssertionError("the last try returns or raises")

    async def _send(self, request: web.Request, body: object) -> aiohttp.ClientResponse:
        headers = await self._headers(request.headers)
        if body is request.content and request.content_length is not None:
            headers.append(("Content-Length", str(request.content_length)))
        return await self._session.request(
            request.method,
            URL(self._base + request.raw_path, encoded=True),
            headers=headers,
            data=body,
            allow_redirects=False,
            **await self._connection(),
        )

    async def _headers(self, given: CIMultiDictProxy[str]) -> list[tuple[str, str]]:
        dropped = _OWN_HEADERS | _HOP_HEADERS
        passed = [
            (name, value)
            for name, value in given.items()
            if name.lower() not in dropped and not name.lower().startswith("sec-websocket-")
        ]
        # A plugin that gives credentials may take its time.
        passed += await asyncio.to_thread(self._client.credentials.headers)
        if self._token:
            passed.append((_RAY_HEADER, f"Bearer {self._token}"))
        return passed

    async def _connection(self) -> dict[str, Any]:
        credentials = self._client.credentials
        context = await asyncio.to_thread(credentials.ssl_context)
        options: dict[str, Any] = {"proxy": credentials.proxy}
        if context is not None:
            options |= {"ssl": context, "server_hostname": credentials.server_name}
        return options

    async def _refresh(self, code: int, error: bytes) -> bool:
        """Get anew what was refused, kubeconfig's credentials or Ray's token; tell if we could."""
        if read_status(error) is not None:
            return code == HTTPStatus.UNAUTHORIZED and self._client.credentials.forget()
        if code not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return False
        # A cluster that was made again under its old name has another token.
        with suppress(RaymlError):
            token = await asyncio.to_thread(self._client.ray_token, self._name)
            is_new, self._token = token != self._token, token
            return is_new
        return False

    def _pass_error(
        self, method: str, answer: aiohttp.ClientResponse, error: bytes
    ) -> web.Response:
        """Return Ray's error as it is, and the kube-apiserver's in words."""
        status = read_status(error)
        if status is None:
            return web.Response(status=answer.status, body=error, headers=_passing(answer))
        return _refusal(self._explain(answer.status, status, method))

    def _explain(self, code: int, status: Mapping[str, Any], method: str) -> str:
        message = str(status.get("message"))
        match code:
            case 401:
                problem = self._client.credentials.explain_refusal()
                return f"context {self._client.context!r} is not let in: {problem}"
            case 403:
                target = Target("services/proxy", self._name.namespace, self._name.head_service)
                return str(explain(code, status, method, target, self._client.context))
            case 404:
                return (
                    f"{self._name} has no head service; look whether rayml cluster status has it"
                )
        return f"the head of {self._name} does not answer: {message}; see rayml cluster status"

    def _describe(self, exc: Exception) -> str:
        server = self._client.credentials.server
        return f"the way to {self._name} through {server} broke: {exc}; check the network"

    async def _join_sockets(self, request: web.Request) -> web.StreamResponse:
        try:
            above = await self._session.ws_connect(
                URL(self._base + request.raw_path, encoded=True),
                headers=await self._headers(request.headers),
                heartbeat=_HEARTBEAT_S,
                max_msg_size=0,
                **await self._connection(),
            )
        except aiohttp.WSServerHandshakeError as exc:
            return web.Response(status=exc.status, text=f"{self._name} refuses: {exc.message}")
        except aiohttp.ClientError as exc:
            raise ClusterUnreachable(self._describe(exc)) from exc
        async with above:
            below = web.WebSocketResponse(max_msg_size=0)
            await below.prepare(request)
            await _pump_both(above, below, request)
        return below


async def _pump_both(
    above: aiohttp.ClientWebSocketResponse, below: web.WebSocketResponse, request: web.Request
) -> None:
    """Carry messages both ways until one side ends, and end the other in the same way."""
    up = asyncio.create_task(_pump(below, above))
    down = asyncio.create_task(_pump(above, below))
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
    finally:
        up.cancel()
        down.cancel()
    if above.close_code in (None, aiohttp.WSCloseCode.ABNORMAL_CLOSURE) and not below.closed:
        # Whoever follows a log must see that it was cut, and did not end.
        _cut(request)
    elif not below.closed:
        await below.close(code=above.close_code or aiohttp.WSCloseCode.OK)
    await above.close()


async def _pump(
    source: aiohttp.ClientWebSocketResponse | web.WebSocketResponse,
    sink: aiohttp.ClientWebSocketResponse | web.WebSocketResponse,
) -> None:
    with suppress(aiohttp.ClientError, ConnectionError):
        async for message in source:
            if message.type == aiohttp.WSMsgType.TEXT:
                await sink.send_str(message.data)
            elif message.type == aiohttp.WSMsgType.BINARY:
                await sink.send_bytes(message.data)


async def _stream_back(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    back = web.StreamResponse(status=answer.status, reason=answer.reason, headers=_passing(answer))
    await back.prepare(request)
    try:
        async for chunk in answer.content.iter_any():
            await back.write(chunk)
    except aiohttp.ClientError:
        _cut(request)
        return back
    await back.write_eof()
    return back


def _passing(answer: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    return [(n, v) for n, v in answer.headers.items() if n.lower() not in _HOP_HEADERS]


def _cut(request: web.Request) -> None:
    """Break the connection off, as the one above was: what came is not all."""
    if isinstance(request.transport, asyncio.WriteTransport):
        request.transport.abort()


def _refusal(sentence: str) -> web.Response:
    """Return a 502; requests' own errors show nothing of it but the reason."""
    reason = sentence.encode("ascii", "replace").decode().replace("\n", " ")
    return web.Response(status=502, reason=reason, text=sentence)


def _tries() -> Iterator[bool]:
    """Yield for each try whether it is the last one."""
    deadline = time.monotonic() + _PATIENCE_S
    while (left := deadline - time.monotonic()) > 0:
        yield left <= _PAUSE_S


def _may_repeat(method: str, exc: Exception) -> bool:
    was_not_sent = isinstance(exc, aiohttp.ClientConnectorError)
    return was_not_sent or method in {"GET", "HEAD"}
