"""Serve a registered model over HTTP, by Ray Serve."""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray

import rayml

from . import _apps
from ._endpoint import Endpoint, answering, failed
from ._kept import Kept
from ._rolling import Rolling, find_alias, find_served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._replica import Served

_TICK_S = 1.0
_LOOK_S = 2.0
# The windows of a long run get longer, so that what it keeps stays small.
_WINDOW_S = 60.0
_WINDOWS = 100
_LOCAL = ("127.0.0.1", "::1", "localhost")


def serve(  # noqa: PLR0913 - an endpoint has many sides, all but the model optional
    context: rayml.Context,
    model: rayml.Input,
    *,
    follow: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    replicas: int = 1,
    batch_size: int = 32,
    max_mib: float = 16,
    token: str | None = None,
    keep_rows: int = 0,
    poll_s: float = 5,
    for_s: float | None = None,
    trusted: bool = False,
) -> dict[str, Any]:
    """Serve a model over HTTP, and go on with whatever version its alias names.

    `POST /predict` takes rows as JSON: `[{"age": 1}, …]`, one such record, columns
    `{"age": [1, …]}`, or nested lists for a model of arrays. They are checked against the model's
    signature; what is wrong is answered by 4xx with the reason. With `?probabilities=true` a
    classifier gives those too. `GET /schema` tells what the model takes, with an example,
    `GET /openapi.json` the same for tools, `GET /health` whether it answers, `GET /metrics`
    requests, errors and latency for Prometheus; `POST /reload` looks at the alias now.

    The run is `running` until it is cancelled or `for_s` is over; then requests that have begun
    are answered, and nothing of it stays on Ray. A new version comes up beside the old one, which
    goes on if the new one cannot be loaded or fails on its own example.

    It logs the labels `url` and `version`, the table `versions` of all that were tried, and for
    each minute with requests, later for longer times, the metrics `requests`, `errors` and
    `latency_ms/p50` and `p95`; with `keep_rows` also datasets `requests/000001` and so on, for
    `monitor`. It returns `url`, the last `version`, `requests_total` and `errors_total`.

    Args:
        context: What the run logs to.
        model: What to serve, as `rayml://models/churn@production` or `rayml://runs/RUN/model`.
            The record of the run has the artifact that this was when the run was submitted.
        follow: An alias of the model to follow, as `production` or `churn@production`: its
            version is served instead, now and whenever it moves. None stays with the input.
        host: The address to listen on; 127.0.0.1 is reached from this machine alone, 0.0.0.0
            from others.
        port: 0 takes a free one.
        replicas: Processes that hold the model. They share the CPUs of the job.
        batch_size: At most so many requests go into one call of the model. None waits for others.
        max_mib: The largest request, in MiB.
        token: The name of an environment variable with a token, one of the job's secrets.
            Requests have to send it as `Authorization: Bearer …`; only `/health` goes without.
        keep_rows: Rows of requests that are kept, with their predictions, of each minute: a
            sample. 0 keeps none.
        poll_s: Seconds between looks at the alias.
        for_s: Seconds to serve; None until it is cancelled.
        trusted: Run the code that a pickled model brings along.

    Raises:
        SpecError: The model cannot be served, the alias is none of it, or the port is taken.
    """
    _check(replicas=replicas, batch_size=batch_size, max_mib=max_mib, poll_s=poll_s, for_s=for_s)
    served, names = find_served(model, context.store)
    alias = None if follow is None else find_alias(follow, names, context.store)
    served = served if alias is None else alias.served()
    _check_trust(served, trusted=trusted)
    secret = None if token is None else _secret(token)
    owner = _apps.Owner(context.run_id, context.attempt, context.store)
    with _listener(host, port) as listener, _some_ray(), _apps.running(owner):
        rolling = Rolling(context, owner, replicas, batch_size, trusted, alias, _secrets(context))
        kept = Kept(keep_rows)
        endpoint = Endpoint(rolling.bring_up(served), kept, secret, int(max_mib * 1024**2))
        windows = _Windows(context, endpoint, kept)
        try:
            with answering(endpoint, listener):
                url = _announce(context, served, host, listener.getsockname()[1], secret)
                _attend(endpoint, rolling, windows, poll_s, for_s)
        finally:
            windows.end()
    codes = endpoint.figures.codes
    return {
        "url": url,
        "version": str(endpoint.backend.served),
        "requests_total": codes.total(),
        "errors_total": failed(codes),
    }


def _attend(
    endpoint: Endpoint, rolling: Rolling, windows: _Windows, poll_s: float, for_s: float | None
) -> None:
    """Look after the endpoint until its time is over, or somebody interrupts."""
    began = time.monotonic()
    poll_at, health_at = began + poll_s, began + _LOOK_S
    while (now := time.monotonic()) < began + (for_s or float("inf")):
        if endpoint.reload_asked.wait(min(_TICK_S, poll_s, (for_s or _TICK_S))):
            endpoint.reload_asked.clear()
            while endpoint.reloads:
                endpoint.reloads.popleft().set_result(rolling.look(endpoint, asked=True))
        if rolling.alias is not None and now >= poll_at:
            rolling.look(endpoint)
            poll_at = time.monotonic() + poll_s
        if now >= health_at:
            is_up = _apps.replicas_of(endpoint.backend.app) > 0
            endpoint.trouble = "" if is_up else "no replica is up"
            health_at = now + _LOOK_S
        rolling.retire()
        windows.tick()


class _Windows:
    """What is logged of the requests, a window of time after the other."""

    def __init__(self, context: rayml.Context, endpoint: Endpoint, kept: Kept) -> None:
        self._context, self._endpoint, self._kept = context, endpoint, kept
        self._number = 0
        self._ends = time.monotonic() + _WINDOW_S

    def tick(self) -> None:
        """End the window if its time is over."""
        if time.monotonic() >= self._ends:
            self.end()

    def end(self) -> None:
        """Log what is new."""
        self._ends = time.monotonic() + _WINDOW_S * 2 ** (self._number // _WINDOWS)
        if not (values := self._endpoint.figures.take()):
            return
        self._number += 1
        self._context.log_metrics(values, step=self._number)
        if (rows := self._kept.take()) is not None:
            self._context.log_dataset(f"requests/{self._number:06d}", rows)


def _check(
    *, replicas: int, batch_size: int, max_mib: float, poll_s: float, for_s: float | None
) -> None:
    for name, count in (("replicas", replicas), ("batch_size", batch_size)):
        if count < 1:
            raise rayml.SpecError(f"{name}={count} is too few; give 1 or more")
    for name, amount in (("max_mib", max_mib), ("poll_s", poll_s), ("for_s", for_s)):
        if amount is not None and not 0 < amount < float("inf"):
            raise rayml.SpecError(f"{name}={amount} is no amount; give a number above 0")


def _check_trust(served: Served, *, trusted: bool) -> None:
    if served.artifact.needs_trust and not trusted:
        raise rayml.SpecError(
            f"model {served} brings code along ({served.artifact.format}), which would run here; "
            "say trusted=True if you trust whoever logged it"
        )


def _secret(variable: str) -> str:
    if not (token := os.environ.get(variable)):
        raise rayml.SpecError(
            f"token={variable!r} names no environment variable of the job; give it as one of the "
            f"job's secrets: secrets=[{variable!r}] or --secret {variable}"
        )
    return token


def _secrets(context: rayml.Context) -> dict[str, str]:
    """Return the job's secrets, which a model may need where it is read."""
    names = rayml.get_run(context.run_id, store=context.store).spec.secrets
    return {name: os.environ[name] for name in names if name in os.environ}


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as exc:
        raise rayml.SpecError(
            f"nothing can listen on {host}:{port}: {exc}; port=0 takes a free one, and "
            "host=0.0.0.0 all addresses of the machine"
        ) from exc


@contextmanager
def _some_ray() -> Iterator[None]:
    """Use the Ray that is there, or start one for the block."""
    if ray.is_initialized():
        yield
        return
    ray.init(include_dashboard=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _announce(
    context: rayml.Context, served: Served, host: str, port: int, token: str | None
) -> str:
    """Say where it is, and return that."""
    name = ray.util.get_node_ip_address() if host in ("0.0.0.0", "::", "") else host  # noqa: S104
    url = f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
    context.log_label("url", url)
    context.flush()
    print(f"serving {served} at {url}: POST {url}/predict, GET {url}/schema")
    if host not in _LOCAL and token is None:
        words = f"{url} answers whoever can reach it; token=VARIABLE asks for a token"
        print(f"warning: {words}")
        context.log_table("warnings", [{"warning": words}])
    return url
