"""The HTTP side: what a client sees. It runs beside the job's own thread and holds no model.

Rows go to the replicas as they came, so that whatever takes time is done there.
"""

from __future__ import annotations

import asyncio
import hmac
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import prometheus_client as prometheus
import uvicorn
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ._rows import Signature
from ._schema import describe, openapi

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterator

    from ray.serve.handle import DeploymentHandle

    from ._kept import Kept
    from ._replica import Served

_JSON = "application/json"
# Who sends too much is heard to the end, or would see a broken connection and no reason.
_DISCARDED_BYTES = 1024**3
_DISCARD_S = 60.0
_ANSWER_S = 60.0
_RELOAD_S = 300.0
_DRAIN_S = 5
_LATENCIES = 10_000
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Backend:
    """One version's replicas, and how many requests they have in hand."""

    def __init__(self, served: Served, app: str, handle: DeploymentHandle[Any]) -> None:
        self.served = served
        self.app = app
        self.signature = Signature(served.artifact.meta)
        self._handle = handle
        self.in_hand = 0

    async def ask(self, body: bytes, *, wanted: bool) -> tuple[int, bytes]:
        """Return a replica's answer: status and JSON."""
        self.in_hand += 1
        try:
            answer: tuple[int, bytes] = await self._handle.remote(body, wanted=wanted)
            return answer
        finally:
            self.in_hand -= 1


class Figures:
    """What is counted: for Prometheus since the start, for the run in each of its windows."""

    def __init__(self) -> None:
        make_small: Any = prometheus.disable_created_metrics
        make_small()  # no series of when each began
        self.registry = prometheus.CollectorRegistry()
        named: dict[str, Any] = {"registry": self.registry}
        self._requests = prometheus.Counter(
            "rayml_serve_requests", "Requests to /predict", ["code"], **named
        )
        self._errors = prometheus.Counter(
            "rayml_serve_errors", "Requests to /predict answered by 4xx or 5xx", ["code"], **named
        )
        self._seconds = prometheus.Histogram(
            "rayml_serve_request_seconds", "Time to answer /predict", buckets=_BUCKETS, **named
        )
        self._rolls = prometheus.Counter(
            "rayml_serve_rolls", "New versions, by what came of them", ["outcome"], **named
        )
        self._version = prometheus.Gauge(
            "rayml_serve_version", "1 for the version that answers", ["model", "version"], **named
        )
        for outcome in ("served", "failed"):
            self._rolls.labels(outcome)
        self.codes: Counter[int] = Counter()
        self._window: Counter[int] = Counter()
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)

    def answered(self, code: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(code).inc()
        if code >= 400:
            self._errors.labels(code).inc()
        self._seconds.observe(seconds)
        self.codes[code] += 1
        self._window[code] += 1
        self._latencies.append(seconds)

    def rolled(self, outcome: str) -> None:
        """Count a new version that came up (`served`), or did not (`failed`)."""
        self._rolls.labels(outcome).inc()

    def serves(self, served: Served) -> None:
        """Tell which version answers."""
        self._version.clear()
        self._version.labels(served.name, served.version or "").set(1)

    def take(self) -> dict[str, float]:
        """Return the metrics of the requests since the last call; none if there were none."""
        codes, self._window = self._window, Counter()
        # Taken as a whole: the other thread goes on.
        taken, self._latencies = self._latencies, deque(maxlen=_LATENCIES)
        latencies = sorted(taken)
        if not latencies:
            return {}
        middle, late = (latencies[int(len(latencies) * share)] for share in (0.5, 0.95))
        return {
            "requests": codes.total(),
            "errors": failed(codes),
            "latency_ms/p50": 1000 * middle,
            "latency_ms/p95": 1000 * late,
        }


def failed(codes: Counter[int]) -> int:
    """Return how many requests were answered by an error."""
    return sum(count for code, count in codes.items() if code >= 400)


class Endpoint:
    """Answers HTTP requests from the replicas of one backend, which may be changed any time.

    Attributes:
        backend: What answers; a request that has begun ends with the one it began with.
        trouble: Why it is not healthy; empty if it is.
        reloads: Requests to look at the registry now, for the job's own thread: each takes what
            was found, as status and words.
    """

    def __init__(self, backend: Backend, kept: Kept, token: str | None, max_bytes: int) -> None:
        self.backend = backend
        self.trouble = ""
        self.figures = Figures()
        self.figures.serves(backend.served)
        self.reloads: deque[Future[tuple[int, dict[str, Any]]]] = deque()
        self.reload_asked = threading.Event()
        self._kept, self._token, self._max_bytes = kept, token, max_bytes

    def app(self) -> Starlette:
        """Return it as an ASGI application."""
        gets: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/": self._schema,
            "/schema": self._schema,
            "/openapi.json": self._openapi,
            "/metrics": self._metrics,
        }
        routes = [Route(path, self._guarded(get)) for path, get in gets.items()]
        routes += [
            Route("/health", self._health),
            Route("/predict", self._predict, methods=["POST"]),
            Route("/reload", self._guarded(self._reload), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _refuse})

    def _guarded(
        self, answer: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            return await answer(request) if self._may(request) else _stranger()

        return guarded

    def _may(self, request: Request) -> bool:
        if self._token is None:
            return True
        given = request.headers.get("authorization", "").encode()
        return hmac.compare_digest(given, f"Bearer {self._token}".encode())

    async def _predict(self, request: Request) -> Response:
        began = time.perf_counter()
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            response = _told(499, "the client has gone")  # nobody reads it
        self.figures.answered(response.status_code, time.perf_counter() - began)
        return response

    async def _answer(self, request: Request) -> Response:
        if not self._may(request):
            return _stranger()
        if request.headers.get("content-encoding", "identity") != "identity":
            return _told(415, "the body is compressed; send plain JSON")
        body = await self._body(request)
        if body is None:
            most = f"{self._max_bytes / 1024**2:g} MiB"
            return _told(413, f"the body is larger than {most}; send fewer rows at once")
        wanted = request.query_params.get("probabilities", "false").lower()
        if wanted not in ("true", "false", "1", "0"):
            return _told(422, "probabilities is true or false; write ?probabilities=true")
        signature = self.backend.signature
        answer = await self._ask(body, wanted=wanted in ("true", "1"))
        if isinstance(answer, Response):
            return answer
        status, told = answer
        if status == 200:
            self._kept.offer(signature, body, told)
        return Response(told, status, media_type=_JSON)

    async def _body(self, request: Request) -> bytes | None:
        """Return the body, or None if it is too large."""
        announced = request.headers.get("content-length", "")
        is_too_large = announced.isdecimal() and int(announced) > self._max_bytes
        if is_too_large and "100-continue" in request.headers.get("expect", "").lower():
            return None  # it has not begun to send
        body, size, deadline = bytearray(), 0, time.monotonic() + _DISCARD_S
        async for chunk in request.stream():
            size += len(chunk)
            if size <= self._max_bytes:
                body += chunk
            elif size > _DISCARDED_BYTES or time.monotonic() > deadline:
                break
        return bytes(body) if size <= self._max_bytes else None

    async def _ask(self, body: bytes, *, wanted: bool) -> tuple[int, bytes] | Response:
        """Return a replica's answer; one that died while it had the request is made up for."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                while True:
                    try:
                        return await self.backend.ask(body, wanted=wanted)
                    except RayActorError:
                        await asyncio.sleep(0.1)
        except TimeoutError:
            return _told(504, f"no replica has answered within {_ANSWER_S:g} s; try again later")
        except BackPressureError:
            busy = _told(503, "too many requests are waiting; try again in a second")
            busy.headers["retry-after"] = "1"
            return busy
        except (RayError, RayServeException) as exc:
            print(f"a request failed: {exc}")
            return _told(500, "a replica failed; the log of the run says why")

    async def _schema(self, _: Request) -> Response:
        return _json(describe(self.backend.served, self.backend.signature))

    async def _openapi(self, _: Request) -> Response:
        needs_token = self._token is not None
        return _json(openapi(self.backend.served, self.backend.signature, needs_token=needs_token))

    async def _metrics(self, _: Request) -> Response:
        text = prometheus.generate_latest(self.figures.registry)
        return Response(text, media_type=prometheus.CONTENT_TYPE_LATEST)

    async def _health(self, _: Request) -> Response:
        served = self.backend.served
        state = {"status": self.trouble or "ok", "model": served.name, "version": served.version}
        return _json(state, 503 if self.trouble else 200)

    async def _reload(self, _: Request) -> Response:
        asked: Future[tuple[int, dict[str, Any]]] = Future()
        self.reloads.append(asked)
        self.reload_asked.set()
        try:
            async with asyncio.timeout(_RELOAD_S):
                status, told = await asyncio.wrap_future(asked)
        except TimeoutError:
            return _told(504, "the new version is not up yet; GET /health tells when it is")
        return _json(told, status)


@contextmanager
def answering(endpoint: Endpoint, listener: socket.socket) -> Iterator[None]:
    """Answer requests during the block, and at its end those that have begun."""
    config = uvicorn.Config(
        endpoint.app(),
        log_level="error",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=_DRAIN_S,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="endpoint", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_DRAIN_S + 5)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type=_JSON)


def _told(status: int, reason: str) -> Response:
    return _json({"error": reason}, status)


def _stranger() -> Response:
    response = _told(401, "the token is missing or wrong; send it as Authorization: Bearer …")
    response.headers["www-authenticate"] = "Bearer"
    return response


async def _refuse(request: Request, exc: Exception) -> Response:
    """Answer a path or method that there is not."""
    if getattr(exc, "status_code", 404) == 405:
        response = _told(405, f"{request.url.path} does not take {request.method}; see GET /")
        response.headers.update(getattr(exc, "headers", None) or {})
        return response
    ways = "POST /predict, GET /schema, /openapi.json, /health or /metrics, and POST /reload"
    return _told(404, f"there is no {request.url.path[:100]}; use {ways}")
