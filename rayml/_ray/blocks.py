"""Tables in Ray's object store as Ray datasets, without a CPU to spare.

Ray Data starts its tasks outside of the placement group that it is called in, where a job that
holds all CPUs has none. What is used here starts none that asks for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray
import ray.data
from ray.data._internal import remote_fn
from ray.data._internal.util import get_table_block_metadata_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray.data import Dataset


_COUNTS_AT_A_TIME = 2


def dataset_of(tables: Sequence[Any]) -> Dataset:
    """Return Arrow tables that are in the object store as a dataset; they stay where they are."""
    count_without_cpus()
    return ray.data.from_arrow_refs(list(tables))


def count_without_cpus() -> None:
    """Let Ray Data count the rows of a block without a CPU for it, in this process."""
    task = ray.remote(num_cpus=0, max_retries=-1)(get_table_block_metadata_schema)
    key = get_table_block_metadata_schema, hash(remote_fn._make_hashable({}))
    remote_fn.CACHED_FUNCTIONS[key] = FewAtATime(task, _COUNTS_AT_A_TIME)


class FewAtATime:
    """A remote function, of which a call waits until few enough others are under way.

    Ray starts a process for each task that is ready: a task that asks for no CPU is, however many
    there are, and a process takes a second of a CPU to start.
    """

    def __init__(self, task: Any, width: int) -> None:  # noqa: ANN401
        self._task = task
        self._width = width
        self._under_way: list[Any] = []

    def options(self, **options: object) -> FewAtATime:
        """Return the function with Ray's options; what is under way counts for both."""
        other = FewAtATime(self._task.options(**options), self._width)
        other._under_way = self._under_way
        return other

    def remote(self, *args: object) -> Any:  # noqa: ANN401
        """Call it, and return the reference of what it will return."""
        if surplus := max(0, len(self._under_way) - self._width + 1):
            done, _ = ray.wait(self._under_way, num_returns=surplus, fetch_local=False)
            self._under_way[:] = [ref for ref in self._under_way if ref not in done]
        ref = self._task.remote(*args)
        self._under_way.append(ref)
        return ref
