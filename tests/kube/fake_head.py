"""An image whose `ray start --head` is a small web server, for what goes on before Ray.

Run as a program, this file is that server: it wants the token of its environment, as Ray does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

if TYPE_CHECKING:
    from tests.kube.plane import Plane

IMAGE = "test/head:1"
RAY = "2.60.0"
PORT = 8265
HEALTH_PORT = 52365

# All nodes but the head just stay. The shell around the head passes no signal on: `ray stop` does.
_RAY = """#!/bin/sh
case "$*" in
  *--head*) echo $$ > /tmp/head.pid; exec "{python}" "{server}" ;;
  start*) exec sleep 100000 ;;
  stop*) kill "$(cat /tmp/head.pid)" ;;
esac
"""
_BIG = 20_000_000


def add_fake_head(plane: Plane, folder: Path, name: str = IMAGE, python: str = "3.7.17") -> None:
    """Let containers use such an image, whose head claims to have this Python."""
    script = folder / "ray"
    script.write_text(_RAY.format(python=sys.executable, server=Path(__file__).resolve()))
    script.chmod(0o755)
    plane.add_image(name, folder, env={"FAKE_PYTHON": python})


@web.middleware
async def _want_token(request: web.Request, handler: Any) -> web.StreamResponse:
    token = os.environ.get("RAY_AUTH_TOKEN")
    given = request.headers.get("Authorization") or request.headers.get("X-Ray-Authorization")
    if given != f"Bearer {token}":
        return web.Response(status=401 if given is None else 403, text="no, says Ray")
    response: web.StreamResponse = await handler(request)
    return response


async def _echo(request: web.Request) -> web.Response:
    body = await request.read()
    headers = {name.lower(): value for name, value in request.headers.items()}
    about = {"path": request.raw_path, "method": request.method, "bytes": len(body)}
    return web.json_response({**about, "headers": headers})


async def _big(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    for _ in range(200):
        await answer.write(b"x" * (_BIG // 200))
    if "cut" in request.query and request.transport is not None:
        request.transport.close()
        return answer
    await answer.write_eof()
    return answer


async def _talk(request: web.Request) -> web.StreamResponse:
    """Send two lines and end as asked, or echo."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str("line 1")
    await socket.send_str("line 2")
    how = request.match_info["how"]
    if how == "cut" and request.transport is not None:
        request.transport.abort()
    elif how == "echo":
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await socket.send_str(f"heard {len(message.data)}")
            else:
                await socket.send_bytes(message.data[::-1])
    else:
        await socket.close(code=1000)
    return socket


async def _version(_: web.Request) -> web.Response:
    return web.json_response({"version": "4", "ray_version": RAY})


async def _metadata(_: web.Request) -> web.Response:
    data = {"rayVersion": RAY, "pythonVersion": os.environ["FAKE_PYTHON"]}
    return web.json_response({"result": True, "msg": "", "data": data})


async def _submit(request: web.Request) -> web.Response:
    """Take a job, which then runs for ever."""
    job = {**await request.json(), "status": "RUNNING"}
    request.app["jobs"].append(job)
    return web.json_response(job)


async def _jobs(request: web.Request) -> web.Response:
    return web.json_response(request.app["jobs"])


async def _health(_: web.Request) -> web.Response:
    return web.Response(text="success")


async def _listen(app: web.Application, port: int) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - in a pod of its own


async def _serve() -> None:
    app = web.Application(client_max_size=0, middlewares=[_want_token])
    app.router.add_route("*", "/echo", _echo)
    app.router.add_get("/big", _big)
    app.router.add_get("/talk/{how}", _talk)
    app.router.add_get("/api/version", _version)
    app.router.add_get("/api/v0/cluster_metadata", _metadata)
    app.router.add_post("/api/jobs/", _submit)
    app.router.add_get("/api/jobs/", _jobs)
    app["jobs"] = []
    health = web.Application()
    health.router.add_get("/api/healthz", _health)
    await _listen(app, PORT)
    await _listen(health, HEALTH_PORT)
    # It may be its container's first process, which no signal ends that it does not take.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
