"""Ray Train on workers that a job holds already, instead of on new ones."""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import RayError
from ray.train import get_context
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback, WorkingDirectorySetupCallback
from ray.train.v2._internal.callbacks.placement_group_callback import (
    PlacementGroupCleanerCallback,
)
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerHealthCheckFailedError,
)
from ray.train.v2._internal.execution.callback import WorkerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import create_failure_policy
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import (
    DefaultPlacementGroupHandle,
)
from ray.train.v2._internal.util import ObjectRefWrapper
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from rayml import processes
from rayml._ray.deaths import explain_death, rank_failure
from rayml._ray.members import SETTLE_S, held_group, problems_in_order
from rayml._ray.passing import make_passing_folder
from rayml._ray.tasks import this_node
from rayml.memory import oom_kills
from rayml.ranks import Rank, RankFailed
from rayml.tracker.records import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus

_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # what is printed is caught already
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",
}
# Ray Train would start ranks that cannot start, or whose node goes, again and again: the run's own
# `retry` tells what is tried again.
_FAILURES = FailureConfig(controller_failure_limit=1, max_preemption_failures=0)
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Group:
    """The process group that the ranks form.

    Attributes:
        backend: PyTorch's name of what connects them; None leaves that to their own code.
        timeout_s: For how long they wait for one that does not come.
    """

    backend: str | None
    timeout_s: float


class _Held(DefaultPlacementGroupHandle):
    """A placement group that is there before and stays."""

    def shutdown(self) -> None:
        """Leave it to the job that holds it."""


class HeldWorkers(WorkerGroup):
    """Ranks in the placement group that their controller is in."""

    def _create_placement_group(self, *_: object) -> _Held:
        return _Held(held_group())


class _Workers(HeldWorkers):
    def poll_status(self, timeout: float | None = None) -> WorkerGroupPollStatus:
        status = super().poll_status(timeout)
        if status.errors:
            time.sleep(SETTLE_S)
            status = super().poll_status(timeout)
        return status


class _Director(TrainController):
    """Ray Train's controller, which makes its own parts where PyTorch is loaded once."""

    worker_group_cls = _Workers

    def __init__(self) -> None:
        """Wait to be told what to run."""
        _be_quiet()

    async def fit(
        self, main: Callable[[Rank], bytes], world_size: int, share: dict[str, float], group: Group
    ) -> bytes | Problem:
        """See the ranks through to their end; return what the first one returned.

        Or why they did not start; told here, because an error's cause does not travel.
        """
        before = oom_kills()
        folder = make_passing_folder("rayml-train-")
        scaling = ScalingConfig(
            num_workers=world_size,
            use_gpu=bool(share.get("GPU")),
            resources_per_worker=share or {"CPU": 0},
        )
        trainer = DataParallelTrainer(
            lambda: main(this_rank()),
            backend_config=_backend(group),
            scaling_config=scaling,
            run_config=RunConfig(storage_path=folder),  # type: ignore[arg-type]
        )
        super().__init__(
            ObjectRefWrapper(trainer._get_train_func()),
            trainer.train_run_context,
            _Scaling(scaling),
            create_failure_policy(_FAILURES),
            [*_useful(trainer._create_default_callbacks()), _Listening()],
        )
        await self.run()  # type: ignore[no-untyped-call]
        result = self.get_result()
        if isinstance(result.error, ControllerError):
            return _not_started(result.error.controller_failure, before)
        if result.error is not None:
            raise result.error
        return cast("bytes", result.return_value)


def fit(
    main: Callable[[Rank], bytes], world_size: int, share: Mapping[str, float], group: Group
) -> bytes | dict[int, Problem]:
    """Call `main` on each rank, in the current placement group, one in each of its bundles.

    Returns what it returned on the first rank; or, once one has failed and all have ended, the
    problems of those that had failed by then, in the order in which they did.
    """
    before = oom_kills()
    director: Any = ray.remote(num_cpus=0, max_restarts=0)(_Director)
    actor = director.options(runtime_env={"env_vars": _SETTINGS}).remote()
    try:
        found = ray.get(actor.fit.remote(main, world_size, dict(share), group))
    except WorkerGroupError as exc:
        return _problems(exc.worker_failures, before)
    if isinstance(found, Problem):
        raise RankFailed(found)
    return cast("bytes", found)


class _Scaling(FixedScalingPolicy):
    """Asks nobody for workers: they are there."""

    def after_controller_start(self, train_run_context: object) -> None:
        """Ask for nothing."""

    def _maybe_send_resource_request(self) -> None:
        pass


class _Listening(WorkerCallback):
    """Lets a rank's process hear that it is to end; its first thread calls this."""

    def after_init_train_context(self) -> None:
        """Begin to listen."""
        _be_quiet()
        processes.listen()


def _be_quiet() -> None:
    """Say nothing that the run does not say: a terminal shows what Ray's processes print."""
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)


def _useful(callbacks: list[Any]) -> list[Any]:
    """Leave out what takes placement group or folder away, and an actor for no datasets."""
    others = (DatasetsCallback, PlacementGroupCleanerCallback, WorkingDirectorySetupCallback)
    return [callback for callback in callbacks if not isinstance(callback, others)]


def _backend(group: Group) -> BackendConfig:
    if group.backend is None:
        return _Addresses()
    from rayml._ray.train_torch import TorchGroup  # noqa: PLC0415 - loads PyTorch

    return TorchGroup(backend=group.backend, timeout_s=int(max(1, group.timeout_s)))


class _AddressBackend(Backend):
    """Tells scripts where to meet, as torchrun does, and lets each rank see its machine's GPUs."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: WorkerGroup, backend_config: BackendConfig) -> None:  # type: ignore[override]  # noqa: ARG002 - Ray's own are of two kinds
        address, port = worker_group.execute_single(0, get_address_and_port)
        worker_group.execute(_set_addresses, address, port)


class _Addresses(BackendConfig):
    @property
    def backend_cls(self) -> type[Backend]:
        return _AddressBackend


def _set_addresses(address: str, port: int) -> None:
    context = get_context()
    os.environ |= {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "RANK": str(context.get_world_rank()),
        "WORLD_SIZE": str(context.get_world_size()),
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
        "NODE_RANK": str(context.get_node_rank()),
    }


def this_rank() -> Rank:
    """Return which of Ray Train's ranks this process is."""
    context = get_context()
    return Rank(
        context.get_world_rank(), context.get_world_size(), context.get_local_rank(), this_node()
    )


def _not_started(exc: Exception, oom_kills_before: int) -> Problem:
    if isinstance(exc.__cause__, RayError):  # a rank's process has ended
        return explain_death(exc.__cause__, 0, oom_kills_before)
    text = _COLORS.sub("", str(exc)).strip()
    last = text.rpartition("\n")[2]
    return Problem(kind="engine", message=f"Ray Train could not start: {last}", traceback=text)


def _problems(failures: Mapping[int, Exception], oom_kills_before: int) -> dict[int, Problem]:
    found = {rank: _failure(exc, oom_kills_before) for rank, exc in failures.items()}
    return problems_in_order(found)


def _failure(exc: Exception, oom_kills_before: int) -> RankFailed:
    cause = exc._base_exc if isinstance(exc, UserExceptionWithTraceback) else exc
    if isinstance(cause, WorkerHealthCheckFailedError):
        cause = cause.health_check_failure
    return rank_failure(cause, oom_kills_before)
