"""A trainer of Ray Train that a job's code makes itself, on the workers that the job holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.train.v2._internal.callbacks.placement_group_callback import (
    PlacementGroupCleanerCallback,
)
from ray.train.v2._internal.execution.controller import TrainController

from rayml._ray.train import HeldWorkers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ray.train.v2._internal.execution.worker_group import Worker
    from ray.train.v2.api.callback import RayTrainCallback
    from ray.util.placement_group import PlacementGroup


class _Workers(HeldWorkers):
    def _create_workers(  # type: ignore[override]
        self,
        num_workers: int,
        placement_group: PlacementGroup,
        resources_per_worker: dict[str, float],
        placement_group_bundle_indices: list[int] | None = None,
        **rest: Any,  # noqa: ANN401 - Ray Train's own
    ) -> list[Worker]:
        bundles = placement_group_bundle_indices or seats(
            num_workers, resources_per_worker, placement_group.bundle_specs
        )
        return super()._create_workers(
            num_workers, placement_group, resources_per_worker, bundles, **rest
        )


class Controller(TrainController):
    """Ray Train's controller, which asks for no workers and leaves those that it has."""

    worker_group_cls = _Workers

    def __init__(self, callbacks: list[RayTrainCallback], **rest: Any) -> None:  # noqa: ANN401
        kept = [one for one in callbacks if not isinstance(one, PlacementGroupCleanerCallback)]
        super().__init__(callbacks=kept, **rest)


def seats(
    count: int, share: Mapping[str, float], workers: Sequence[Mapping[str, float]]
) -> list[int]:
    """Return which worker each rank is on, as many on each as it has room for.

    >>> seats(3, {"CPU": 2}, [{"CPU": 4}, {"CPU": 4}])
    [0, 0, 1]

    Raises:
        ValueError: They have not the room.
    """
    found = [index for index, worker in enumerate(workers) for _ in range(_room(worker, share))]
    if len(found) < count:
        raise ValueError(
            f"the job's workers have room for {len(found)} of {count} ranks with {dict(share)} "
            "each; give the job larger workers or more of them"
        )
    return found[:count]


def _room(worker: Mapping[str, float], share: Mapping[str, float]) -> int:
    wanted = {name: amount for name, amount in share.items() if amount > 0}
    return min((int(worker.get(name, 0) / n) for name, n in wanted.items()), default=1)
