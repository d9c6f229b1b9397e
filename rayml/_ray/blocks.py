"""Tables in Ray's object store as Ray datasets, without a CPU to spare.

Ray Data starts its tasks outside of the placement group that it is called in, where a job that
holds all CPUs has none. What is used here starts none that asks for one.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import ray
import ray.data
from ray.data._internal import remote_fn
from ray.data._internal.util import get_table_block_metadata_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ray.data import Dataset


_COUNTS_AT_A_TIME = 2


def dataset_of(tables: Sequence[Any]) -> Dataset:
    """Return Arrow tables that are in the object store as a dataset; they stay where they are."""
    count_without_cpus()
    return ray.data.from_arrow_refs(list(tables))


def count_without_cpus() -> None:
    """Let Ray Data count the rows of a block without a CPU for it, in this process."""
    key = get_table_block_metadata_schema, hash(remote_fn._make_hashable({}))
    count = FewAtATime(get_table_block_metadata_schema, _COUNTS_AT_A_TIME)
    remote_fn.CACHED_FUNCTIONS[key] = count


class FewAtATime:
    """A function as a Ray task without a CPU, of which few are under way at a time.

    A call waits until few enough others are. Ray would start a process for each task that asks for
    nothing, however many there are, and each of them takes long to start.
    """

    def __init__(self, function: Callable[..., object], width: int) -> None:
        def call(*args: object) -> tuple[object, None]:
            return function(*args), None

        self._task: Any = ray.remote(num_cpus=0, num_returns=2, max_retries=-1)(call)
        self._width = width
        self._under_way: list[Any] = []  # their second results: the first ones are large

    def options(self, **options: object) -> FewAtATime:
        """Return the function with Ray's options; what is under way counts for both."""
        other = copy(self)
        other._task = self._task.options(**options)
        return other

    def remote(self, *args: object) -> Any:  # noqa: ANN401
        """Call it, and return the reference of what it will return."""
        if surplus := max(0, len(self._under_way) - self._width + 1):
            done, _ = ray.wait(self._under_way, num_returns=surplus, fetch_local=False)
            self._under_way[:] = [end for end in self._under_way if end not in done]
        value, end = self._task.remote(*args)
        self._under_way.append(end)
        return value
