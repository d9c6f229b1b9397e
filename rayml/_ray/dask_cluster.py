"""Dask's own scheduler and workers, as actors on workers that a job holds already."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import dask
import ray
from distributed import Client, Scheduler, Worker
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rayml._ray.members import find_group
from rayml._ray.passing import make_passing_folder
from rayml._ray.progress import told
from rayml.ranks import RankFailed
from rayml.tracker.records import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rayml._ray.members import Actor
    from rayml.engines.led import Workers

_START_S = 60.0
_UNDONE = ("waiting", "queued", "processing", "no-worker")


@contextmanager
def open_client(
    workers: Workers, secrets: Mapping[str, str], tell: Callable[[str], None]
) -> Iterator[None]:
    """Start a scheduler and a worker in each bundle; a client of theirs is Dask's default.

    `distributed.Client()` finds them too.

    Args:
        workers: Where.
        secrets: Variables that tasks find in their environment, and Ray does not write down.
        tell: Is told now and then how many tasks are left, and nothing when none is.

    Raises:
        RankFailed: They have not started in time.
    """
    actors: list[Actor] = []
    # Put, because Ray's control service keeps the arguments of actors; and pickled here, because
    # Ray prints that a restart may not find an argument that was put. A pickled one stays.
    packed = ray.cloudpickle.dumps(ray.put(secrets))
    try:
        address = _start(workers, packed, actors)
        with (
            dask.config.set({"scheduler-address": address}),
            Client(address) as client,
            told(partial(_progress, client), tell),
        ):
            yield
    finally:
        for actor in actors:
            ray.kill(actor)


def _start(workers: Workers, secrets: bytes, actors: list[Actor]) -> str:
    """Start all actors, add them to a list as they come, and return the scheduler's address."""
    try:
        actors.append(_hire(_Scheduler, workers, 0))
        address: str = ray.get(actors[0].start.remote(), timeout=_START_S)
        actors += [
            _hire(_Worker, workers, bundle, address, workers, secrets)
            for bundle in range(workers.count)
        ]
        ray.get([actor.__ray_ready__.remote() for actor in actors], timeout=_START_S)
    except RayError as exc:
        what = f"within {_START_S:g} s" if isinstance(exc, GetTimeoutError) else f": {exc}"
        message = f"Dask's scheduler and workers did not start {what}"
        raise RankFailed(Problem(kind="engine", message=message)) from exc
    return address


def _hire(kind: type[object], workers: Workers, bundle: int, *args: object) -> Actor:
    """Start an actor on one of the workers; one that has died is started again.

    It takes nothing of the worker, which is the job's alone: so a run may borrow it.
    """
    place = PlacementGroupSchedulingStrategy(find_group(workers.group), bundle)
    options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": place}
    actor: Any = ray.remote(kind)
    return cast("Actor", actor.options(**options).remote(*args))


class _Scheduler:
    async def start(self) -> str:
        logging.getLogger("distributed").setLevel(logging.ERROR)
        self._scheduler: Any = await Scheduler(
            host=ray.util.get_node_ip_address(),
            port=0,
            dashboard=False,
            local_directory=make_passing_folder("rayml-dask-"),
        )
        return str(self._scheduler.address)


class _Worker:
    """One of Dask's workers, with as many threads as it has CPUs."""

    def __init__(self, scheduler: str, workers: Workers, secrets: bytes) -> None:
        os.environ.update(ray.get(ray.cloudpickle.loads(secrets)))
        logging.getLogger("distributed").setLevel(logging.WARNING)
        logging.getLogger("distributed.worker").addFilter(_is_no_task_s)
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="dask", daemon=True).start()
        started = _start_worker(
            scheduler,
            host=ray.util.get_node_ip_address(),
            nthreads=max(1, int(workers.share["CPU"])),
            memory_limit=workers.memory or "auto",
            local_directory=make_passing_folder("rayml-dask-"),
            dashboard=False,
        )
        self._worker = asyncio.run_coroutine_threadsafe(started, loop).result(_START_S)


def _is_no_task_s(record: logging.LogRecord) -> bool:
    """Tell whether what a worker says is not a task's error: that may hold a secret.

    Ray writes it down as it is; the function gets the error itself.
    """
    return not str(record.msg).startswith("Compute Failed")


async def _start_worker(scheduler: str, **options: object) -> Worker:
    return await Worker(scheduler, **options)


def _progress(client: Client) -> str:
    with suppress(OSError, ValueError):  # somebody has closed the client
        left = client.run_on_scheduler(_count_left)
        return f"dask: {left:,} tasks to do" if left else ""
    return ""


def _count_left(dask_scheduler: Scheduler) -> int:
    groups = dask_scheduler.task_groups.values()
    return sum(group.states[state] for group in groups for state in _UNDONE)
